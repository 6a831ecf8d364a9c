"""Predictions of an exported SavedModel, for images of any size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.data.ignored import of_config
from tfgad.data.pixels import STRETCH, from_uint8, to_uint8
from tfgad.data.tiling import fill_by_block
from tfgad.errors import UsageError, first_line
from tfgad.export.saved_model import CALIBRATION, SCORE_PRODUCT
from tfgad.inference.metadata import saved_model_metadata
from tfgad.inference.product_of_blocks import ProductOfBlocks, known_product
from tfgad.scores.calibration import LARGEST_PROBABILITY, decide
from tfgad.scores.drift import CalibrationScores
from tfgad.scores.image_quality import first_reason
from tfgad.scores.score import margins_of
from tfgad.training.run_folder import RunFolder

# Pixels that a model is given at once; a larger image is given in blocks. The model itself computes
# by smaller blocks (`tfgad.data.tiling.blocks.BLOCK`). The image and its maps take memory too.
AT_ONCE = 4096**2
ROWS = 256  # of an image whose mean is taken
# Of an earlier SavedModel, which computes the whole image at once: these pixels take 0.7 GB.
AT_ONCE_EARLIER = 1024**2
# Of a model from before there were limits: a blind camera may pass as good.
UNCHECKED = "%s does not check the quality of images, so that a black one may pass as good: %s"

log = logging.getLogger(__name__)


class SavedModelPredictor:
    """Predicts with a SavedModel, which resizes and calibrates by itself.

    A large image that is scored at native resolution is sent in overlapping blocks, one at a time;
    see `tfgad.data.tiling.fill_by_block`. The attributes are those of
    `tfgad.inference.predictor.Predictor`, and `metadata`.

    Args:
        folder: of the version.
        model: the loaded SavedModel; by default it is loaded from the folder.
        signatures: functions to call by name of signature; by default those of the model.
        max_pixels: pixels of an image that are sent in one piece; by default as many as the
            model's memory is bounded for.
        product: of all images; None where the model has one, or is to recognise it.

    Attributes:
        metadata: of the file `tfgad.export.saved_model.METADATA`, with the numbers of the
            calibration that the model itself holds.
        calibration_scores: what the model stores of its calibration images.
    """

    def __init__(
        self,
        folder: Path,
        model: Any = None,
        *,
        signatures: Mapping[str, Any] | None = None,
        max_pixels: int | None = None,
        product: str | None = None,
    ):
        metadata = saved_model_metadata(folder)
        # it owns what the signatures use
        self._model = _load_saved_model(folder) if model is None else model
        numbers = _calibration_numbers(self._model)
        self.metadata = metadata = metadata | _calibration_of(numbers)
        self.calibration_scores = CalibrationScores.from_numbers(numbers)
        self.image_shape, self.resized = tuple(metadata["image_shape"]), metadata["resized"]
        self.window, self.score = tuple(metadata["window"]), metadata["score"]
        self.threshold, self.scale = metadata["threshold"], metadata["scale"]
        self.depth, self.fit = metadata.get("depth"), metadata.get("fit", STRETCH)
        self.ignored = of_config(metadata)
        self._signatures = signatures or self._model.signatures
        self._serve = self._signatures["serving_default"]
        self._max_pixels = max_pixels
        self.products = tuple(metadata.get("products", ()))
        self._product = known_product(product, self.products)
        self._numbers = numbers
        if signatures is None and "reason" not in self._serve.structured_outputs:
            log.warning(UNCHECKED, folder, "calibrate and export its run again")

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Predicts one image; see `Predictor`. It sees 8 bits of each pixel."""
        return self.predict_images(image[None])[0]

    def predict_images(
        self, images: np.ndarray, products: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Predicts images of one size; see `Predictor`. It sees 8 bits of each pixel."""
        given = [known_product(each, self.products) or "" for each in products or ()]
        if len(images) > 1:
            return self.predict_batch(to_uint8(images), given)
        return [self._predict_any_size(images[0], to_uint8, given)]

    def predict_pixels(
        self, pixels: np.ndarray, as_levels: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Predicts one image uint8 `[H, W, C]`; see `Predictor`.

        Args:
            pixels: of the image, in the form that the signatures take.
            as_levels: makes levels from 0 to 255 of some of its rows, as the model sees them; if
                not given, the pixels are such levels.
        """
        return self._predict_any_size(pixels, lambda block: block, as_levels=as_levels)

    def predict_batch(
        self, pixels: np.ndarray, products: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Predicts images of one size, uint8 `[B, H, W, C]`, in one piece.

        Args:
            pixels: of the images.
            products: of each image, empty to recognise it; without any, that of the predictor.
        """
        given = products or ([self._product] * len(pixels) if self._product else ())
        if given:
            serve = self._signatures[SCORE_PRODUCT]
            predictions = serve(images=tf.constant(pixels), product=tf.constant(given))
        else:
            predictions = self._serve(images=tf.constant(pixels))
        return by_image({key: value.numpy() for key, value in predictions.items()})

    def _predict_any_size(
        self,
        image: np.ndarray,
        as_pixels: Callable[[np.ndarray], np.ndarray],
        products: Sequence[str] = (),
        as_levels: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """Predicts an image, of which `as_pixels` makes uint8: of a large one block by block.

        `as_levels` is that of `predict_pixels`; if not given, `as_pixels` makes the levels, too.
        """
        if self._fits(image):
            return self._predict_block(as_pixels(image), products)
        anomaly_map = np.empty(image.shape[:2], np.float32)
        reasons: list[str] = []
        gives_brightness: list[bool] = []
        of_blocks = ProductOfBlocks(self.products, self._numbers)

        def map_of(block: np.ndarray) -> np.ndarray:
            prediction = self._predict_block(as_pixels(block), products)
            reasons.append(prediction.get("reason", ""))
            gives_brightness.append("brightness" in prediction)
            return of_blocks.raw(prediction)

        self._fill_by_block(anomaly_map, image, self.score, map_of)
        product = of_blocks.standardise(anomaly_map)
        score = anomaly_map.max()  # as the model scores every image larger than its window
        reason = first_reason(reasons)
        found = {"score": score, "map": anomaly_map, "reason": reason}
        if all(gives_brightness):  # blocks overlap, so theirs do not add up to that of the image
            found["brightness"] = _mean_by_rows(image, as_levels or as_pixels)
        return {**found, **self.decide(score, reason), **product}

    def decide(self, score: float, reason: str) -> dict[str, Any]:
        """Decides by another score than the model gave; see `Predictor`."""
        largest = self.metadata.get(LARGEST_PROBABILITY, 1.0)
        decision = decide(np.float32(score), bool(reason), self.threshold, self.scale, largest)
        return {name: np.asarray(value)[()] for name, value in decision.items()}

    def _predict_block(self, pixels: np.ndarray, products: Sequence[str] = ()) -> dict[str, Any]:
        return self.predict_batch(pixels[None], products)[0]

    @property
    def reconstructs(self) -> bool:
        """Whether the model reconstructs images."""
        return "reconstruct" in self._model.signatures

    def reconstruct(self, image: np.ndarray) -> np.ndarray:
        """Returns the reconstruction of an image, computed in the same blocks as its score.

        Args:
            image: float32 `[H, W, C]` in [-1, 1], of a size that the model scores.

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
            return from_uint8(self._reconstruct_block(pixels))
        reconstruction = np.empty_like(pixels)
        self._fill_by_block(reconstruction, pixels, None, self._reconstruct_block)
        return from_uint8(reconstruction)

    def _reconstruct_block(self, pixels: np.ndarray) -> np.ndarray:
        answer = self._signatures["reconstruct"](images=tf.constant(pixels[None]))
        return answer["reconstruction"][0].numpy()

    def _fits(self, pixels: np.ndarray) -> bool:
        """Returns whether an image is sent in one piece."""
        return self.resized or pixels.shape[0] * pixels.shape[1] <= self._at_once

    @property
    def _at_once(self) -> int:
        """How many pixels of an image are sent in one piece."""
        if self._max_pixels is not None:
            return self._max_pixels
        return AT_ONCE if self.metadata.get("by_block") else AT_ONCE_EARLIER

    def _fill_by_block(
        self,
        result: np.ndarray,
        image: np.ndarray,
        score: str | None,
        function: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        """Fills the map of a score, or with None the reconstruction, block by block."""
        tile = self.metadata["tile"]
        margins = margins_of(self.window, tile, self.metadata["stride"], score)
        fill_by_block(result, image, margins, tile, self._at_once, function)


def _mean_by_rows(image: np.ndarray, converted: Callable[[np.ndarray], np.ndarray]) -> float:
    """Returns the mean of a converted image `[H, W, C]`; a few rows at a time are converted."""
    parts = (converted(image[row : row + ROWS]) for row in range(0, len(image), ROWS))
    sums = [(part.sum(dtype=np.float64), part.size) for part in parts]
    return sum(total for total, _ in sums) / sum(size for _, size in sums)


def by_image(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns arrays by name, each with the batch as first axis, into a dict for each image.

    Strings, which are bytes in a tensor, become text.
    """
    for name in columns.keys() & {"reason", "product"}:
        columns = {**columns, name: [text.decode() for text in np.asarray(columns[name])]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def saved_model_folder(path: Path) -> Path | None:
    """Returns the folder of the SavedModel, the last version's if there are several.

    None for the folder of a run.

    Raises:
        UsageError: neither.
    """
    if RunFolder(path).read_config() is not None:
        return None
    versions = [each for each in path.glob("*") if each.name.isdecimal()]
    for folder in (path, *sorted(versions, key=lambda each: int(each.name), reverse=True)):
        if (folder / "saved_model.pb").is_file():
            return folder
    problem = "is neither a run nor a SavedModel" if path.exists() else "is not there"
    raise UsageError("model", path, problem, "give the folder of a run or of an exported model")


def _load_saved_model(folder: Path) -> Any:
    """Loads a SavedModel that has the signature for scoring.

    Raises:
        UsageError: its files are damaged.
    """
    try:
        model = tf.saved_model.load(str(folder))
        model.signatures["serving_default"]
    except Exception as error:  # TensorFlow raises any, an IndexError where weights are cut off
        problem = f"cannot be read ({first_line(error)})"
        raise UsageError("model", folder, problem, "export it again") from error
    return model


def _calibration_numbers(model: Any) -> dict[str, Any]:
    """Returns the outputs of a model's signature `CALIBRATION`.

    Empty for a SavedModel of an earlier tfgad, which does not give them out.
    """
    if CALIBRATION not in model.signatures:
        return {}
    return {name: value.numpy() for name, value in model.signatures[CALIBRATION]().items()}


def _calibration_of(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the numbers of the calibration inside a model, by their names in the metadata.

    Empty if there are none: then the numbers in the metadata count, which were copied from the
    model when it was exported.
    """
    if not numbers:
        return {}
    # Six digits, since 0.01 as float32 is 0.009999999776.
    rates = [round(float(rate), 6) for rate in numbers["rates"]]
    known = np.isfinite(numbers["thresholds"]).all()
    largest = float(numbers.get(LARGEST_PROBABILITY, 1.0))  # an earlier tfgad had no limit
    thresholds = zip(rates, map(float, numbers["thresholds"]), strict=True)
    return {
        "threshold": float(numbers["threshold"]),
        "scale": float(numbers["scale"]),
        "false_positive_rate": round(float(numbers["false_positive_rate"]), 6),
        "thresholds": [list(pair) for pair in thresholds] if known else [],
        **({LARGEST_PROBABILITY: largest} if largest < 1 else {}),
    }
