"""Calibration: a threshold and a probability for anomaly scores, as a layer of the model.

`thresholds.py` computes the threshold from the scores of normal images. `Calibration` keeps it as
weights, and maps scores to a probability and to normal or anomalous.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from scipy import special

from tfgad.data.origins import IMAGE, TILE, Origins, check_count
from tfgad.errors import UsageError
from tfgad.scores.drift import LEVELS, CalibrationScores
from tfgad.scores.rate_interval import largest_probability, rate_interval
from tfgad.scores.thresholds import (
    BY_PRODUCT,
    RATES,
    Threshold,
    threshold_from_normals,
    thresholds_from_normals,
)

FIRST_WEIGHTS = 4  # of `Calibration` in the first files
LARGEST_PROBABILITY = "largest_probability"  # in metadata, which lack it where it is 1


def logistic_scale(scores: np.ndarray) -> float:
    """Returns the scale of the logistic distribution with the interquartile range of the scores.

    The interquartile range of a logistic distribution is 2 ln 3 times its scale. For Gaussian
    scores and a false-positive rate of 0.01 the median normal image gets a probability of 0.02.

    Args:
        scores: float `[n]`, of normal images.

    Returns:
        The scale, above 0. If the interquartile range is 0 it is the standard deviation, and 1 if
        that is 0 too.
    """
    low, high = np.quantile(scores, [0.25, 0.75])
    return float((high - low) / (2 * math.log(3)) or np.std(scores) or 1.0)


def probability(scores: np.ndarray, threshold: float, scale: float) -> np.ndarray:
    """Returns the scores mapped to [0, 1] by a logistic function, 0.5 at the threshold.

    It is not the share of defects among images with such a score: the calibration has seen normal
    images only.

    Args:
        scores: float `[N]`.
        threshold: the score that is mapped to 0.5.
        scale: above 0; `logistic_scale` of the normal scores.

    Returns:
        `[N]` in [0, 1].
    """
    return special.expit((np.asarray(scores) - threshold) / scale)


def decide(
    scores: Any, is_outside: Any, threshold: Any, scale: Any, largest: Any = 1.0
) -> dict[str, Any]:
    """Returns `probability` and `is_anomalous` of scores; the only place where this is decided.

    An image outside of what good images looked like is anomalous with a probability of 1, whatever
    its score. Arguments may be tensors, in a graph or eager, or arrays.

    Args:
        scores: float32 `[B]`.
        is_outside: bool `[B]`, whether the image quality gives a reason.
        threshold: float32; scores strictly above it are anomalous.
        scale: float32, above 0; see `probability`.
        largest: of the probabilities of scores, and the smallest is 1 less it; see
            `rate_interval.largest_probability`.

    Returns:
        `probability` float32 `[B]` and `is_anomalous` bool `[B]`.
    """
    shown = ops.clip(ops.sigmoid((scores - threshold) / scale), 1.0 - largest, largest)
    return {
        "probability": ops.where(is_outside, 1.0, shown),
        "is_anomalous": (scores > threshold) | is_outside,
    }


def largest_of_images(scores: np.ndarray, origins: Origins) -> tuple[np.ndarray, Origins]:
    """Returns the largest score of each image's tiles, and the origins of the images.

    Args:
        scores: float `[N]`, of tiles.
        origins: of the tiles.

    Returns:
        float `[M]` for M images, and their groups.
    """
    if origins.images is None:
        return scores, origins
    _, first, image = np.unique(origins.images, return_index=True, return_inverse=True)
    largest = np.full(len(first), -np.inf)
    np.maximum.at(largest, image.ravel(), scores)
    return largest, dataclasses.replace(origins.at(first), images=None)


def check_units(scores: np.ndarray, origins: Origins | None, per: str) -> None:
    """Raises UsageError for another `per` than tile or image, or other numbers of origins."""
    if per not in (TILE, IMAGE):
        raise UsageError("per", per, "is neither tile nor image", "give one of them")
    if origins is not None:
        check_count(origins, scores.size)


@keras.saving.register_keras_serializable("tfgad")
class Calibration(keras.layers.Layer):
    """The calibration as a layer: its weights are saved and exported with the model.

    It maps scores `[B]` to `probability` float32 `[B]` and `is_anomalous` bool `[B]`. The weights
    are float32 for every precision of the model. The outputs are meaningless until `fit` has set
    the weights: call `require_calibrated` before an export or a prediction.

    The thresholds at all `RATES` are stored too, to show the effect of another false-positive rate,
    and quantiles of the scores and of the brightness of the calibration images, to notice drift.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.threshold = self._add("threshold", "zeros")
        self.scale = self._add("scale", "ones")
        self.false_positive_rate = self._add("false_positive_rate", "zeros")
        self.calibrated = self._add("calibrated", "zeros")  # 0 or 1
        # Files of earlier versions end after any of these; see `load_own_variables`.
        unknown = keras.initializers.Constant(math.nan)
        self.thresholds = self._add("thresholds", unknown, shape=(len(RATES),))
        self.per_image = self._add("per_image", "zeros")  # 0 or 1
        self.quantiles = self._add("quantiles", unknown, shape=LEVELS.shape)
        self.images = self._add("images", "zeros")  # number of calibration scores
        self.groups = self._add("groups", "zeros")  # of independent groups; 0 if unknown
        self.largest_probability = self._add(LARGEST_PROBABILITY, "ones")
        self.brightness = self._add("brightness", unknown, shape=LEVELS.shape)  # quantiles
        self.built = True  # otherwise Keras would call the model to build it

    def _add(
        self, name: str, initializer: str | keras.Initializer, shape: tuple[int, ...] = ()
    ) -> keras.Variable:
        return self.add_weight(
            shape, name=name, initializer=initializer, trainable=False, dtype="float32"
        )

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the weights. Those that are newer than the file keep their initial values."""
        stored = len(store.keys())
        if not FIRST_WEIGHTS <= stored < len(self.weights):
            super().load_own_variables(store)
            return
        for index, weight in enumerate(self.weights[:stored]):
            weight.assign(store[str(index)])

    def fit(
        self,
        scores: np.ndarray,
        false_positive_rate: float,
        origins: Origins | None = None,
        per: str = TILE,
        thresholds: np.ndarray | None = None,
        effective: float | None = None,
        brightness: np.ndarray | None = None,
    ) -> Threshold:
        """Sets the weights from normal scores; see `threshold_from_normals`.

        Args:
            scores: float `[N]`, of normal images or tiles.
            false_positive_rate: the share of them that may be called anomalous, in (0, 1).
            origins: where they come from; None if they have nothing to do with each other.
            per: `"tile"`: the rate is a share of the scores. `"image"`: it is a share of the whole
                images, each with the largest score of its tiles.
            thresholds: float `[len(RATES)]`, those at `RATES` of scores that are standardised by
                product (`product_calibration.py`): the threshold is then 0, and the scale 1.
            effective: the number of independent images that limits the probability; that of the
                rate's interval, if not given.
            brightness: float `[N]`, the mean grey levels of the images, from 0 to 255; without
                them no test notices a change of the light by itself.

        Returns:
            The threshold, with the interval of its rate.

        Raises:
            UsageError: as `threshold_from_normals`; another `per`; or other numbers of origins.
        """
        scores = np.asarray(scores, np.float64).ravel()
        check_units(scores, origins, per)
        units, of_units = scores, origins
        if origins is not None and per == IMAGE:
            units, of_units = largest_of_images(scores, origins)
        if thresholds is None:
            threshold = threshold_from_normals(units, false_positive_rate)
        else:
            threshold = Threshold(0.0, BY_PRODUCT, units.size)
        groups = None if of_units is None else of_units.groups
        interval = rate_interval(units, groups, threshold.value, false_positive_rate)
        self.threshold.assign(threshold.value)
        self.scale.assign(logistic_scale(units) if thresholds is None else 1.0)
        self.false_positive_rate.assign(false_positive_rate)
        self.calibrated.assign(1.0)
        known = thresholds_from_normals(units) if thresholds is None else thresholds
        self.thresholds.assign(known)
        self.per_image.assign(float(per == IMAGE))
        count = None if origins is None or origins.groups is None else len(set(origins.groups))
        seen = CalibrationScores.of(scores, count, brightness)
        numbers = seen.as_numbers()
        self.quantiles.assign(numbers["quantiles"])
        self.brightness.assign(numbers["brightness_quantiles"])
        self.images.assign(seen.images)
        self.groups.assign(count or 0)
        independent = interval.effective if effective is None else effective
        self.largest_probability.assign(largest_probability(independent))
        return dataclasses.replace(threshold, interval=interval)

    @property
    def per(self) -> str:
        """What the false-positive rate is a share of: `"tile"`, each by itself, or `"image"`."""
        return IMAGE if float(self.per_image) else TILE

    @property
    def seen(self) -> CalibrationScores | None:
        """What is stored of the calibration images; None for models saved without it."""
        return CalibrationScores.from_numbers(
            {
                "quantiles": ops.convert_to_numpy(self.quantiles),
                "brightness_quantiles": ops.convert_to_numpy(self.brightness),
                "calibration_images": float(self.images),
                "calibration_groups": float(self.groups),
            }
        )

    @property
    def known_thresholds(self) -> dict[float, float]:
        """The threshold at each of `RATES`; empty for models saved without them."""
        values = ops.convert_to_numpy(self.thresholds)
        if not np.isfinite(values).all():
            return {}
        return dict(zip(RATES, map(float, values), strict=True))

    @property
    def is_calibrated(self) -> bool:
        """Whether `fit` has set the weights, also before the model was saved."""
        return bool(ops.convert_to_numpy(self.calibrated))

    def require_calibrated(self) -> None:
        """Raises UsageError if `fit` has not set the weights."""
        if not self.is_calibrated:
            problem = "has no threshold yet"
            raise UsageError(
                "model", "not calibrated", problem, "run `tfgad calibrate` on it first"
            )

    def call(self, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `probability` and `is_anomalous` of scores `[B]`, each `[B]`."""
        return self.decide(scores, False)

    def with_reason(self, scores: tf.Tensor, reasons: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what `call` returns, and `reason`. An image with a reason has probability 1.

        Args:
            scores: float32 `[B]`.
            reasons: string `[B]` from `ImageQuality`, empty where an image is within its limits.
        """
        return {**self.decide(scores, reasons != ""), "reason": reasons}

    def decide(self, scores: Any, is_outside: Any) -> dict[str, Any]:
        """Returns what the function `decide` does, by the threshold and scale of this layer."""
        return decide(
            scores, is_outside, self.threshold, self.scale, self.largest_probability.value
        )
