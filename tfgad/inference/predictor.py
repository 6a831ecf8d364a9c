"""Predictors: a run or an exported SavedModel, ready to score images of any size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from PIL import Image

from tfgad.core.detector import Detector
from tfgad.data.ignored_files import at_size
from tfgad.data.pixels import LETTERBOX, STRETCH, check_fit, resize, without_padding
from tfgad.data.tiling import fill_by_block
from tfgad.export.saved_model import metadata_of_run
from tfgad.inference import saved_model
from tfgad.inference.metadata import saved_model_metadata
from tfgad.inference.product_of_blocks import ProductOfBlocks
from tfgad.inference.saved_model import (
    UNCHECKED,
    SavedModelPredictor,
    by_image,
    saved_model_folder,
)
from tfgad.scores.drift import CalibrationScores
from tfgad.scores.image_quality import first_reason
from tfgad.scores.score import is_largest_of_map, margins_of
from tfgad.training import Run, load_run

log = logging.getLogger(__name__)


class Predictor(Protocol):
    """A fitted model that scores images.

    Attributes:
        image_shape: `(height, width, channels)` of the training images.
        resized: whether it resizes images to that; if not, it scores them at native resolution.
        window: `(height, width, channels)` of the smallest image that it scores at native
            resolution.
        score: name of the anomaly score.
        threshold: scores above it are anomalous.
        scale: of the calibration; see `tfgad.scores.calibration.probability`.
        depth: bits of files of 16 bits; 8 or None if unknown, see `tfgad.data.pixels.scaled`.
        calibration_scores: what the model stores of its calibration images, for the drift test;
            None if it was calibrated by an earlier tfgad.
        ignored: bool `[height, width]` of `image_shape`, the pixels that the model ignores on every
            image; None if there are none.
        fit: how it resizes images; see `tfgad.data.pixels.resize`.
        products: names of the products of a model of several.
    """

    image_shape: tuple[int, int, int]
    resized: bool
    window: tuple[int, int, int]
    score: str
    threshold: float
    scale: float
    depth: int | None
    calibration_scores: CalibrationScores | None
    ignored: np.ndarray | None
    fit: str
    products: tuple[str, ...]

    def predict_images(
        self, images: np.ndarray, products: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the prediction of each image: the values of a `scoring.Verdict`, by name.

        These are `score`, `probability`, `is_anomalous`, `map`, and `reason` and `brightness`,
        which SavedModels of an earlier tfgad do not give; of a model of several products also the
        `product`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1]: a batch of no more than
                `tfgad.inference.scoring.pixels_of` allows, or one image.
            products: the name of each image's product; None for that which the predictor was given
                for all, or to recognise it.

        Raises:
            UsageError: a product that the model does not know.
        """

    def decide(self, score: float, reason: str) -> dict[str, Any]:
        """Returns `probability` and `is_anomalous` of a score, and of why an image is unlike any.

        Args:
            score: of an image.
            reason: as in a prediction; empty for none.
        """


class RunPredictor:
    """Predicts with a run's model; see `Predictor`."""

    def __init__(self, run: Run, product: str | None = None):
        self.model, self.product = run.model, product
        run.model.product_indices(product, 1)  # refuses one that it does not know
        self.products = run.model.product_names
        height, width, channels = run.model.window
        self.window, self.score = (height, width, channels), run.model.score
        height, width, channels = run.config["image_shape"]
        self.image_shape, self.resized = (height, width, channels), run.config["resized"]
        self.threshold = float(run.model.calibration.threshold)
        self.scale = float(run.model.calibration.scale)
        self.depth, self.fit = run.config.get("depth"), run.config.get("fit", STRETCH)
        check_fit("fit in config.json", self.fit)
        self.calibration_scores = run.model.calibration.seen
        self.ignored = run.model.ignored
        if not run.model.image_quality.is_adapted:
            log.warning(UNCHECKED, run.folder, "calibrate it again: tfgad calibrate RUN")

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Predicts one image; see `Predictor`."""
        return self.predict_images(image[None])[0]

    def predict_images(
        self, images: np.ndarray, products: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Predicts images of one size; see `Predictor`."""
        prepared = images
        if self.resized:
            prepared = np.stack([resize(image, self.image_shape[:2], self.fit) for image in images])
        scored = predict_any_size(
            self.model, prepared, self.product if products is None else products
        )
        maps = list(scored["map"])
        if self.resized and self.fit == LETTERBOX:
            maps = [without_padding(each, images.shape[1:3]) for each in maps]
        if self.resized:
            maps = [resize_map(each, *images.shape[1:3]) for each in maps]
        reasons = tf.constant(scored["reason"])
        prediction = self.model.calibration.with_reason(scored["score"], reasons)
        return by_image({**scored, "map": maps, **prediction})

    def decide(self, score: float, reason: str) -> dict[str, Any]:
        """Decides by another score than the model gave; see `Predictor`."""
        decision = self.model.calibration.decide(np.float32(score), bool(reason))
        return {name: np.asarray(value)[()] for name, value in decision.items()}


def predict_any_size(
    model: Detector, images: np.ndarray, product: str | Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Scores a batch of images or large ones as `Detector.anomaly` does, with bounded memory.

    A large image is scored block by block. One that is unlike good ones in a block is so as a
    whole, and its product, if it is recognised, is that of most of its blocks.

    Args:
        model: a fitted detector.
        images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.
        product: as for `Detector.anomaly`.

    Returns:
        `score` `[B]`, `map` `[B, H, W]`, and `reason` and `brightness` `[B]`, those of `Detector`;
        of a model of several products also `product` `[B]`, bytes.
    """
    if model.ignored is not None or images[0, ..., 0].size <= saved_model.AT_ONCE:
        scored = model.anomaly(images, product=product)
        seen = tf.constant(images)
        scored |= {"reason": model.reasons(seen, product), "brightness": model.brightness(seen)}
        return {name: value.numpy() for name, value in scored.items()}
    names = [product] * len(images) if product is None or isinstance(product, str) else product
    each = [_of_large(model, *pair) for pair in zip(images, names, strict=True)]
    return {name: np.array([found[name] for found in each]) for name in each[0]}


def _of_large(model: Detector, image: np.ndarray, product: str | None) -> dict[str, Any]:
    """Returns what `predict_any_size` does, of one large image."""
    anomaly_map, reasons = np.empty(image.shape[:2], np.float32), []
    numbers = {} if model.products is None else model.products.numbers()
    numbers = {name: value.numpy() for name, value in numbers.items()}
    of_blocks = ProductOfBlocks(model.product_names, numbers)

    def map_of(block: np.ndarray) -> np.ndarray:
        images = tf.constant(block[None])
        found = model.anomaly(images, product=product)
        reasons.append(model.reasons(images, product).numpy()[0].decode())
        return of_blocks.raw({name: value.numpy()[0] for name, value in found.items()})

    margins = margins_of(model.window, model.tile, model.stride, model.score)
    fill_by_block(anomaly_map, image, margins, model.tile, saved_model.AT_ONCE, map_of)
    recognised = {name: each.encode() for name, each in of_blocks.standardise(anomaly_map).items()}
    reason = first_reason(reasons).encode()
    found = {"score": anomaly_map.max(), "map": anomaly_map, "reason": reason}
    brightness = 127.5 * (1 + np.mean(image, dtype=np.float64))
    return {**found, "brightness": brightness, **recognised}


def resize_map(anomaly_map: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes float32 `[h, w]` bilinearly, with antialiasing, to `[height, width]`."""
    return np.asarray(
        Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)
    )


def region_at(ignored: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns where a model ignores pixels of an image, for pictures: bool `[H, W]`, or None.

    Args:
        ignored: of the `Predictor`.
        shape: of the image.
    """
    return None if ignored is None else at_size(ignored, shape)


def load_predictor(path: Path, product: str | None = None) -> Predictor:
    """Loads a run or a SavedModel; of a folder of versions, it loads the last.

    Args:
        path: of the folder.
        product: of all images; None where the model has one, or is to recognise it.

    Raises:
        UsageError: the path is none of these, or cannot be read; or a product that it does not
            know.
    """
    folder = saved_model_folder(path)
    if folder:
        return SavedModelPredictor(folder, product=product)
    return RunPredictor(load_run(path), product)


def metadata_of(path: Path) -> dict[str, Any]:
    """Returns the metadata of a finished run or a SavedModel.

    Raises:
        UsageError: the path is neither.
    """
    folder = saved_model_folder(path)
    if folder:
        return saved_model_metadata(folder)
    run = load_run(path)  # with its model: the threshold is there
    return {**run.config, **metadata_of_run(run)}


def map_threshold(predictor: Predictor, shape: tuple[int, ...]) -> float | None:
    """Returns the threshold on the values of an image's map; see `scoring.Verdict`.

    Args:
        predictor: the model.
        shape: of the image.
    """
    scored_shape = predictor.image_shape if predictor.resized else shape
    known = is_largest_of_map(predictor.score, scored_shape, predictor.window)
    return predictor.threshold if known else None
