"""Image files scored one after another, with a verdict or the reason why there is none."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.data.images import read_levels
from tfgad.data.pixels import doubtful_depth, scaled
from tfgad.data.sampling import BATCH_PIXELS
from tfgad.inference.own_masks import predict_ignoring, read_own
from tfgad.inference.predictor import Predictor, map_threshold, region_at
from tfgad.scores import drift
from tfgad.scores.drift import CalibrationScores
from tfgad.scores.map_regions import Region, find_regions

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The prediction of a model for one image.

    Attributes:
        path: the file.
        image: float32 `[H, W, C]` in [-1, 1], in the model's channels, at the file's size.
        score: higher is more anomalous.
        probability: from 0 to 1, 0.5 at the threshold.
        is_anomalous: whether the score is above the threshold, or there is a reason.
        map: float32 `[H, W]`.
        map_threshold: the map exceeds it where the score is above the threshold; None where the
            score is no maximum of the map, so that the map has a scale of its own.
        scale: of the model's calibration; see `tfgad.scores.calibration.probability`.
        reason: why the image is outside of what good images looked like, such as `"too dark"`;
            empty where it is not.
        ignored: bool `[H, W]`, the pixels that were ignored; None if there are none.
        product: of a model of several products; else empty.
        brightness: mean grey level as the model sees the image, from 0 to 255; None of a SavedModel
            of an earlier tfgad.
    """

    path: Path
    image: np.ndarray
    score: float
    probability: float
    is_anomalous: bool
    map: np.ndarray
    map_threshold: float | None
    scale: float
    reason: str = ""
    ignored: np.ndarray | None = None
    product: str = ""
    brightness: float | None = None


class InputSize(Protocol):
    """What must be known of a model before files are read for it; see `Predictor`."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the training images."""

    @property
    def resized(self) -> bool:
        """Whether images are resized to that."""

    @property
    def window(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of the smallest image, if they are not."""


def score_files(
    predictor: Predictor,
    paths: Iterable[Path],
    *,
    depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
    masks: Mapping[Path, Sequence[Path]] = MappingProxyType({}),
) -> Iterator[Verdict | ImageError]:
    """Scores one file after another; one that cannot be scored does not stop the others.

    Consecutive files of one size are scored together, as many as make a batch: so many images are
    in memory at a time, and of large ones, one.

    Args:
        predictor: the model.
        paths: the files.
        depth: bits of files of 16 bits, if they differ from the model's.
        max_pixels: of an image; a larger one is not scored.
        masks: path of an image -> mask files, which are white where pixels of it are ignored.
    """
    alike: list[_Read] = []
    depth = depth or predictor.depth
    doubtful: list[tuple[Path, int]] = []
    for path in paths:
        try:
            levels = read_levels(path, predictor.image_shape[2], max_pixels=max_pixels)
            check_size(predictor, path, levels.shape)
            image = scaled(path, levels, depth)
            if fitting := doubtful_depth(levels, depth):
                doubtful.append((path, fitting))
            del levels  # or a large image would be in memory twice
            own = masks.get(path)
            ignored = read_own(predictor, path, own, image.shape) if own else None
        except ImageError as error:
            yield from _verdicts(predictor, alike)
            alike = []
            yield error
            continue
        read = _Read(path, image, ignored)
        if alike and read.form != alike[0].form:
            yield from _verdicts(predictor, alike)
            alike = []
        alike.append(read)
        if (len(alike) + 1) * pixels_of(predictor, image.shape) > BATCH_PIXELS:
            yield from _verdicts(predictor, alike)
            alike = []
    yield from _verdicts(predictor, alike)
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


def pixels_of(model: InputSize, shape: tuple[int, ...]) -> int:
    """Returns how many pixels of a batch an image `(H, W, C)` takes up.

    A large image is a batch by itself, and never more.
    """
    least = model.image_shape[0] * model.image_shape[1] if model.resized else 0
    return min(max(shape[0] * shape[1], least), BATCH_PIXELS)


def check_size(model: InputSize, path: str | Path, shape: tuple[int, ...]) -> None:
    """Raises ImageError for an image that is too small for the model."""
    if model.resized:
        return
    height, width, _ = model.window
    if shape[0] < height or shape[1] < width:
        raise ImageError(path, f"is smaller than {height}x{width} pixels")


def calibrated_size(model: InputSize) -> tuple[int, int] | None:
    """Returns height and width of the images that the drift test holds for; None for any.

    The score of an image at native resolution is that of its worst place, so that larger images
    have higher scores.
    """
    return None if model.resized else (model.image_shape[0], model.image_shape[1])


def drift_notice(
    calibration: CalibrationScores | None,
    size: tuple[int, int] | None,
    scored: Sequence[tuple[tuple[int, ...], float, float | None]],
) -> str:
    """Returns a line about images: that they show drift, or are not tested.

    It is empty if they show none, and for few images.

    Args:
        calibration: what the model stores of its calibration images.
        size: what `calibrated_size` returns.
        scored: shape, score and brightness of each image.
    """
    if calibration is None:
        return drift.UNTESTED if len(scored) >= drift.LEAST else ""
    alike = [each for each in scored if size in (None, tuple(each[0][:2]))]
    if len(alike) < drift.LEAST <= len(scored) and size:
        what = f"fewer than {drift.LEAST} images have {size[0]} x {size[1]} pixels"
        return f"no drift test: {what}, as those of calibration had"
    _, scores, brightness = zip(*alike, strict=True) if alike else ((), (), ())
    return drift.notice(calibration, scores, [each for each in brightness if each is not None])


class _Read(NamedTuple):
    """An image that was read, and what is ignored of it alone."""

    path: Path
    image: np.ndarray
    ignored: np.ndarray | None

    @property
    def form(self) -> tuple[Any, ...]:
        """What images of one batch have in common."""
        return self.image.shape, self.ignored is None


def _verdicts(predictor: Predictor, alike: Sequence[_Read]) -> Iterator[Verdict]:
    if not alike:
        return
    # A large image comes alone, and is not copied.
    images = [each.image for each in alike]
    batch = np.stack(images) if len(images) > 1 else images[0][None]
    region = region_at(predictor.ignored, batch.shape[1:])
    own = [each.ignored for each in alike if each.ignored is not None]
    predictions = (
        predict_ignoring(predictor, batch, np.stack(own))
        if own
        else predictor.predict_images(batch)
    )
    threshold = map_threshold(predictor, batch.shape[1:])
    for each, prediction in zip(alike, predictions, strict=True):
        both = [area for area in (region, each.ignored) if area is not None]
        ignored = np.logical_or.reduce(both) if both else None
        prediction = {**prediction, "ignored": ignored}
        yield verdict_of(each.path, each.image, prediction, threshold, predictor.scale)


def regions_of(verdict: Verdict) -> list[Region] | None:
    """Returns the connected regions of an image's map above the threshold, the largest first.

    None where the score is no maximum of the map, so that its threshold says nothing of pixels.
    """
    if verdict.map_threshold is None:
        return None
    return find_regions(verdict.map, verdict.map_threshold)


def verdict_of(
    path: Path,
    image: np.ndarray,
    prediction: dict[str, Any],
    map_threshold: float | None,
    scale: float,
) -> Verdict:
    """Returns a prediction of `Predictor.predict_images`, with `ignored` or not, as a `Verdict`."""
    return Verdict(
        path=path,
        image=image,
        score=float(prediction["score"]),
        probability=float(prediction["probability"]),
        is_anomalous=bool(prediction["is_anomalous"]),
        map=prediction["map"],
        map_threshold=map_threshold,
        scale=scale,
        reason=prediction.get("reason", ""),  # SavedModels of earlier versions give none
        ignored=prediction.get("ignored"),
        product=prediction.get("product", ""),
        brightness=prediction.get("brightness"),
    )
