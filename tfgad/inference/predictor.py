"""Judging image files of any size, by a run or by an exported SavedModel."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from PIL import Image

from tfgad import files
from tfgad.core.detector import Detector
from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.data.images import read_levels
from tfgad.data.pixels import doubtful_depth, from_uint8, resize, scaled, to_uint8
from tfgad.data.sampling import BATCH_PIXELS
from tfgad.data.tiling import fill_by_block
from tfgad.errors import UsageError
from tfgad.export.saved_model import METADATA, metadata_of_model
from tfgad.scores.calibration import probability
from tfgad.scores.image_quality import first_reason
from tfgad.scores.score import PEAKS, rims
from tfgad.training.runs import Run, first_line, load_run, read_config

# Pixels that a model is given at once; a larger image is given in blocks. The model itself computes
# by smaller blocks (`tfgad.data.tiling.blocks.BLOCK`). The image and its maps take memory too.
AT_ONCE = 4096**2
# A SavedModel from before it did so takes 0.7 GB for these.
AT_ONCE_EARLIER = 1024**2
# Of a model from before there were limits: a blind camera may pass as good.
UNCHECKED = "%s does not check the quality of images, so that a black one may pass as good: %s"
# What `SavedModelPredictor` needs to know of the model.
REQUIRED_KEYS = {
    "image_shape",
    "resized",
    "window",
    "stride",
    "tile",
    "score",
    "threshold",
    "scale",
}

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a model says of one image.

    Attributes:
        path: the file.
        image: float32 `[H, W, C]` in [-1, 1], in the model's channels, at the file's size.
        score: higher is more anomalous.
        probability: from 0 to 1, 0.5 at the threshold.
        is_anomalous: whether the score is above the threshold, or there is a reason.
        map: float32 `[H, W]`.
        map_threshold: what the map exceeds where the score is above the threshold; None where the
            score is no maximum of the map, so that the map has a scale of its own.
        reason: why the image is outside of what good images looked like, such as `"too dark"`;
            empty where it is not.
    """

    path: Path
    image: np.ndarray
    score: float
    probability: float
    is_anomalous: bool
    map: np.ndarray
    map_threshold: float | None
    reason: str = ""


class Predictor(Protocol):
    """A model that is ready to judge.

    Attributes:
        image_shape: `(height, width, channels)` of what it was trained to judge.
        resized: whether it resizes images to that; if not, it judges them as they are.
        window: `(height, width, channels)` of the smallest image that it takes as it is.
        score: what it scores by.
        threshold: scores above it are anomalous.
        depth: bits of files of 16 bits; 8 or None where it knows none, see
            `tfgad.data.pixels.scaled`.
    """

    image_shape: tuple[int, int, int]
    resized: bool
    window: tuple[int, int, int]
    score: str
    threshold: float
    depth: int | None

    def predict_images(self, images: np.ndarray) -> list[dict[str, Any]]:
        """Returns `score`, `probability`, `is_anomalous` and `map` `[H, W]` of each image.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], a batch of as many as `pixels_of` lets be
                together, or one.
        """


class RunPredictor:
    """Judges by a run's model."""

    def __init__(self, run: Run):
        self.model = run.model
        self.image_shape, self.resized = tuple(run.config["image_shape"]), run.config["resized"]
        self.window, self.score = run.model.window, run.model.score
        self.threshold = float(run.model.calibration.threshold)
        self.depth = run.config.get("depth")
        if not run.model.image_quality.is_adapted:
            log.warning(UNCHECKED, run.folder, "calibrate it again: tfgad calibrate RUN")

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Judges one image; see `Predictor`."""
        return self.predict_images(image[None])[0]

    def predict_images(self, images: np.ndarray) -> list[dict[str, Any]]:
        """Judges images of one size; see `Predictor`."""
        prepared = images
        if self.resized:
            prepared = np.stack([resize(image, self.image_shape[0]) for image in images])
        judged = predict_any_size(self.model, prepared)
        maps = judged["map"]
        if self.resized:
            maps = [_resize_map(each, images.shape[1:3]) for each in maps]
        reasons = tf.constant(judged["reason"])
        prediction = self.model.calibration.with_reason(judged["score"], reasons)
        return _by_image({"score": judged["score"], "map": maps, **prediction})


class SavedModelPredictor:
    """Judges by a SavedModel, which resizes and calibrates by itself.

    A large image that is judged as it is, is sent in overlapping blocks, one at a time; see
    `tfgad.data.tiling.fill_by_block`.

    Args:
        folder: of the version.
        model: what to call the signatures of, if it is loaded already.

    Attributes:
        metadata: what `tfgad.export.saved_model` says of the model.
    """

    def __init__(self, folder: Path, model: Any = None):
        self.metadata = metadata = saved_model_metadata(folder)
        self.image_shape, self.resized = tuple(metadata["image_shape"]), metadata["resized"]
        self.window, self.score = tuple(metadata["window"]), metadata["score"]
        self.threshold, self.depth = metadata["threshold"], metadata.get("depth")
        # it owns what the signature uses
        self._model = _load_saved_model(folder) if model is None else model
        self._serve = self._model.signatures["serving_default"]
        if "reason" not in self._serve.structured_outputs:
            log.warning(UNCHECKED, folder, "calibrate and export its run again")

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Judges one image; see `Predictor`. It sees 8 bits of each pixel."""
        return self.predict_images(image[None])[0]

    def predict_images(self, images: np.ndarray) -> list[dict[str, Any]]:
        """Judges images of one size; see `Predictor`. It sees 8 bits of each pixel."""
        if len(images) > 1:
            return self.predict_batch(to_uint8(images))
        return [self._judged_any_size(images[0], to_uint8)]

    def predict_pixels(self, pixels: np.ndarray) -> dict[str, Any]:
        """Judges one image uint8 `[H, W, C]`; see `Predictor`."""
        return self._judged_any_size(pixels, lambda block: block)

    def _judged_any_size(self, image: np.ndarray, as_pixels: Callable) -> dict[str, Any]:
        """Judges an image of which `as_pixels` makes uint8: of a large one block by block."""
        if self._fits(image):
            return self._judged(as_pixels(image))
        anomaly_map, reasons = np.empty(image.shape[:2], np.float32), []

        def map_of(block):
            judged = self._judged(as_pixels(block))
            reasons.append(judged.get("reason", ""))
            return judged["map"]

        fill_by_block(
            anomaly_map, image, self._rims(self.score), self.metadata["tile"], self._at_once, map_of
        )
        score = anomaly_map.max()  # as the model scores whatever is larger than its window
        reason = first_reason(reasons)
        return {
            "score": score,
            "probability": 1.0
            if reason
            else probability(score, self.threshold, self.metadata["scale"]),
            "is_anomalous": score > self.threshold or bool(reason),
            "map": anomaly_map,
            "reason": reason,
        }

    @property
    def reconstructs(self) -> bool:
        """Whether the model can say what it makes of an image."""
        return "reconstruct" in self._model.signatures

    def reconstruct(self, image: np.ndarray) -> np.ndarray:
        """Returns what the model makes of an image, in blocks as it is judged.

        Args:
            image: float32 `[H, W, C]` in [-1, 1], of a size that it judges.

        Returns:
            float32 `[H, W, C]` in [-1, 1], in steps of 8 bits.

        Raises:
            UsageError: the method reconstructs nothing.
        """
        if not self.reconstructs:
            hint = "use a method that does, such as ganomaly"
            raise UsageError("model", self.metadata.get("method"), "reconstructs nothing", hint)
        pixels = to_uint8(image)
        if self._fits(pixels):
            rebuilt = self._rebuilt(pixels)
        else:
            rebuilt = np.empty_like(pixels)
            fill_by_block(
                rebuilt,
                pixels,
                self._rims(None),
                self.metadata["tile"],
                self._at_once,
                self._rebuilt,
            )
        return from_uint8(rebuilt)

    def predict_batch(self, pixels: np.ndarray) -> list[dict[str, Any]]:
        """Judges images of one size, uint8 `[B, H, W, C]`, in one piece."""
        judged = self._serve(images=tf.constant(pixels))
        return _by_image({key: value.numpy() for key, value in judged.items()})

    def _judged(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        return self.predict_batch(pixels[None])[0]

    def _rebuilt(self, pixels: np.ndarray) -> np.ndarray:
        answer = self._model.signatures["reconstruct"](images=tf.constant(pixels[None]))
        return answer["reconstruction"][0].numpy()

    def _fits(self, pixels: np.ndarray) -> bool:
        """Returns whether an image is sent in one piece."""
        return self.resized or pixels.shape[0] * pixels.shape[1] <= self._at_once

    @property
    def _at_once(self) -> int:
        """How many pixels of an image are sent in one piece."""
        return AT_ONCE if self.metadata.get("by_block") else AT_ONCE_EARLIER

    def _rims(self, score: str | None):
        return rims(self.window, self.metadata["tile"], self.metadata["stride"], score)


def load_predictor(path: Path) -> Predictor:
    """Loads a run, or a SavedModel: its folder, or that of its versions, of which the last counts.

    Raises:
        UsageError: the path is none of these, or cannot be read.
    """
    folder = saved_model_folder(path)
    return SavedModelPredictor(folder) if folder else RunPredictor(load_run(path))


def saved_model_folder(path: Path) -> Path | None:
    """Returns the folder of the SavedModel, or None for a run.

    Raises:
        UsageError: neither.
    """
    if read_config(path) is not None:
        return None
    versions = [each for each in path.glob("*") if each.name.isdecimal()]
    for folder in (path, *sorted(versions, key=lambda each: int(each.name), reverse=True)):
        if (folder / "saved_model.pb").is_file():
            return folder
    problem = "is neither a run nor a SavedModel" if path.exists() else "is not there"
    raise UsageError("model", path, problem, "give the folder of a run or of an exported model")


def metadata_of(path: Path) -> dict[str, Any]:
    """Returns what there is to know of a finished run or a SavedModel.

    Raises:
        UsageError: the path is neither.
    """
    folder = saved_model_folder(path)
    if folder:
        return saved_model_metadata(folder)
    run = load_run(path)  # its model: the threshold is there
    shape, resized = run.config["image_shape"], run.config["resized"]
    return {**run.config, **metadata_of_model(run.model, shape, resized, run.config.get("depth"))}


def saved_model_metadata(folder: Path) -> dict[str, Any]:
    """Returns what `tfgad.export.saved_model` says of a SavedModel.

    Raises:
        UsageError: another program exported it.
    """
    metadata = files.read_object(folder / METADATA)
    if metadata is None or not metadata.keys() >= REQUIRED_KEYS:
        problem = f"has no {METADATA} that can be read"
        raise UsageError("model", folder, problem, "give one that `tfgad export` wrote")
    return metadata


def _load_saved_model(folder: Path):
    """Loads a SavedModel with the signature that judges.

    Raises:
        UsageError: its files are damaged.
    """
    try:
        model = tf.saved_model.load(str(folder))
        model.signatures["serving_default"]
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        problem = f"cannot be read ({first_line(error)})"
        raise UsageError("model", folder, problem, "export it again") from error
    return model


def score_files(
    judge: Predictor,
    paths: Iterable[Path],
    *,
    depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Verdict | ImageError]:
    """Judges one file after another; one that cannot be judged does not stop the others.

    Files of one size that follow one another are judged together, as many as make a batch: so many
    images are in memory at a time, and of large ones, one.

    Args:
        judge: the model.
        paths: the files.
        depth: bits of files of 16 bits, if not those that the model knows.
        max_pixels: of an image; a larger one is not judged.
    """
    alike: list[tuple[Path, np.ndarray]] = []
    depth = depth or judge.depth
    doubtful: list[tuple[Path, int]] = []
    for path in paths:
        try:
            levels = read_levels(path, judge.image_shape[2], max_pixels=max_pixels)
            check_size(judge, path, levels.shape)
            image = scaled(path, levels, depth)
            if fitting := doubtful_depth(levels, depth):
                doubtful.append((path, fitting))
            del levels  # a large image is not to be in memory twice
        except ImageError as error:
            yield from _verdicts(judge, alike)
            alike = []
            yield error
            continue
        if alike and image.shape != alike[0][1].shape:
            yield from _verdicts(judge, alike)
            alike = []
        alike.append((path, image))
        if (len(alike) + 1) * pixels_of(judge, image.shape) > BATCH_PIXELS:
            yield from _verdicts(judge, alike)
            alike = []
    yield from _verdicts(judge, alike)
    if doubtful:
        path, fitting = doubtful[0]
        others = f" and {len(doubtful) - 1} other images" if len(doubtful) > 1 else ""
        log.warning(doubt(f"{path}{others}", fitting))


def doubt(what: str, depth: int) -> str:
    """Returns the warning that images of 16 bits may have fewer: they look dark then."""
    return (
        f"{what}: read as 16 bits, though all values fit {depth}; the model was trained on no such "
        f"files, so if the camera has {depth} bits, give --depth {depth}"
    )


def pixels_of(judge: Predictor, shape: tuple[int, ...]) -> int:
    """What an image `(H, W, C)` counts of a batch: a large one is a batch by itself, never more."""
    least = judge.image_shape[0] * judge.image_shape[1] if judge.resized else 0
    return min(max(shape[0] * shape[1], least), BATCH_PIXELS)


def _verdicts(judge: Predictor, alike: list[tuple[Path, np.ndarray]]) -> Iterator[Verdict]:
    if alike:
        images = [image for _, image in alike]
        # A large image comes alone, and is not copied.
        judged = judge.predict_images(np.stack(images) if len(images) > 1 else images[0][None])
        for (path, image), of_image in zip(alike, judged, strict=True):
            yield verdict_of(judge, path, image, of_image)


def _by_image(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns of arrays by name, each with the batch as first axis, a dict for each image.

    Strings, which are bytes in a tensor, become text.
    """
    if "reason" in columns:
        texts = [reason.decode() for reason in np.asarray(columns["reason"])]
        columns = {**columns, "reason": texts}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def verdict_of(judge: Predictor, path: Path, image: np.ndarray, judged: dict[str, Any]) -> Verdict:
    """Returns as a `Verdict` what a judge has said of an image."""
    return Verdict(
        path=path,
        image=image,
        score=float(judged["score"]),
        probability=float(judged["probability"]),
        is_anomalous=bool(judged["is_anomalous"]),
        map=judged["map"],
        map_threshold=judge.threshold if _is_peak(judge, image.shape) else None,
        reason=judged.get("reason", ""),  # exports of earlier versions give none
    )


def predict_any_size(model: Detector, images: np.ndarray) -> dict[str, np.ndarray]:
    """Judges a batch of images or a large one as `Detector.anomaly` does, with bounded memory.

    Args:
        model: a fitted detector.
        images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.

    Returns:
        `score` `[B]`, `map` `[B, H, W]` and `reason` `[B]`, that of `Detector.image_quality`.
    """
    if images[0, ..., 0].size <= AT_ONCE:
        judged = {**model.anomaly(images), "reason": model.image_quality(tf.constant(images))}
        return {name: value.numpy() for name, value in judged.items()}
    maps, reasons = np.empty(images.shape[:3], np.float32), []
    of_map = rims(model.window, model.tile, model.stride, model.score)
    for image, anomaly_map in zip(images, maps, strict=True):
        of_blocks = []

        def map_of(block, of_blocks=of_blocks):
            block = tf.constant(block[None])
            of_blocks.append(model.image_quality(block).numpy()[0].decode())
            return model.anomaly(block)["map"][0].numpy()

        fill_by_block(anomaly_map, image, of_map, model.tile, AT_ONCE, map_of)
        reasons.append(first_reason(of_blocks).encode())
    return {"score": maps.max(axis=(1, 2)), "map": maps, "reason": np.array(reasons)}


def _is_peak(judge: Predictor, shape: tuple[int, ...]) -> bool:
    """Returns whether the score is the largest value of the map; see `Detector`."""
    judged_at = judge.image_shape if judge.resized else shape
    return judge.score in PEAKS or tuple(judged_at[:2]) != judge.window[:2]


def check_size(judge: Predictor, path: Path, shape: tuple[int, ...]) -> None:
    """Raises ImageError for an image that the judge cannot take."""
    if judge.resized:
        return
    height, width, _ = judge.window
    if shape[0] < height or shape[1] < width:
        raise ImageError(path, f"is smaller than {height}x{width} pixels")


def _resize_map(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes float32 `[h, w]` bilinearly, with antialiasing, to `[H, W]`."""
    return np.asarray(Image.fromarray(anomaly_map).resize(size[::-1], Image.Resampling.BILINEAR))
