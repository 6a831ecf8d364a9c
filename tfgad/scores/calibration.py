"""From scores to verdicts: a threshold and a probability from normal images alone."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import special, stats

from tfgad.errors import UsageError

logger = logging.getLogger(__name__)

# The tail is the top tenth of the scores, but 20 of them if half of all are as many: fewer leave
# the shape of the tail to chance.
TAIL_SHARE, TAIL_LEAST = 0.1, 20

# Shapes below 0 end the tail at a largest possible score, above 0.5 its variance is infinite. Over
# samples of 98 to 900 normal, Gumbel, log-normal, chi-squared and Student (4) scores the mean
# false-positive rate comes to 0.3 to 1.8 of the target so; with shapes down to -0.5, to 1.2 to 2.4.
TAIL_SHAPES = (0.0, 0.5)

# The false-positive rates that a model knows its threshold for, whichever it was calibrated at:
# from 0.0001 to 0.2 in steps of about a quarter, which are the preferred numbers R10 of ISO 3.
RATES = tuple(
    float(f"{step}e{decade}")
    for decade in (-4, -3, -2, -1)
    for step in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
    if (decade, step) <= (-1, 2)
)


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold set from normal scores.

    Attributes:
        value: scores strictly above it are called anomalous.
        method: `"empirical quantile"` or `"generalised Pareto tail"`.
        n: how many normal scores it was set from.
    """

    value: float
    method: str
    n: int


def threshold_from_normals(scores: np.ndarray, false_positive_rate: float) -> Threshold:
    """Returns the threshold that a share `false_positive_rate` of normal images exceeds.

    With n >= 1 / rate - 1 scores it is the `ceil((n + 1) (1 - rate))`-th smallest: a new normal
    image, exchangeable with them, exceeds it with a probability of at most the rate (split
    conformal prediction; Vovk, Gammerman, Shafer 2005). Fewer scores hold no such value. The
    threshold then extrapolates the largest of them by a generalised Pareto distribution (peaks
    over threshold; Pickands 1975), and a warning is logged.

    Args:
        scores: float `[n]`, of normal images that the detector was not trained on.
        false_positive_rate: in (0, 1).

    Raises:
        UsageError: a rate outside (0, 1), fewer than two scores, or scores that are not finite.
    """
    scores = _checked(scores, false_positive_rate)
    n, above = scores.size, _how_many_above(scores, false_positive_rate)
    if above >= 1:
        return Threshold(float(scores[n - above]), "empirical quantile", n)
    logger.warning(
        "%d normal scores are too few for a false-positive rate of %g (%d would do): "
        "the threshold extrapolates their tail by a generalised Pareto distribution",
        n,
        false_positive_rate,
        math.ceil(1 / false_positive_rate - 1e-9) - 1,
    )
    return Threshold(_tail(scores)(false_positive_rate), "generalised Pareto tail", n)


def thresholds_from_normals(scores: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """Returns the `value` of `threshold_from_normals` for each rate, without its warnings.

    Args:
        scores: float `[n]`, of normal images that the detector was not trained on.
        rates: each in (0, 1).

    Returns:
        float64 `[len(rates)]`.

    Raises:
        UsageError: what `threshold_from_normals` refuses.
    """
    for rate in rates:
        checked = _checked(scores, rate)
    above = [_how_many_above(checked, rate) for rate in rates]
    tail = None if all(above) else _tail(checked)  # fitted once, and only if one rate asks for it
    return np.array(
        [
            checked[checked.size - count] if count else tail(rate)
            for rate, count in zip(rates, above, strict=True)
        ]
    )


def logistic_scale(scores: np.ndarray) -> float:
    """Returns the scale of the logistic distribution as wide as the normal scores.

    As wide: with the same interquartile range, which is 2 ln 3 scales. For Gaussian scores and a
    false-positive rate of 0.01 the median normal image gets a probability of 0.02.

    Args:
        scores: float `[n]`, of normal images.

    Returns:
        The scale, above 0; the standard deviation if half of the scores are alike, 1 if all are.
    """
    low, high = np.quantile(scores, [0.25, 0.75])
    return float((high - low) / (2 * math.log(3)) or np.std(scores) or 1.0)


def probability(scores: np.ndarray, threshold: float, scale: float) -> np.ndarray:
    """Returns the probability shown to people: 0.5 at the threshold, rising with the score.

    A reading of the score on a scale from 0 to 1, not the share of defects among such images: no
    defect was seen when it was set.

    Args:
        scores: float `[N]`.
        threshold: the calibrated score.
        scale: above 0; `logistic_scale` of the normal scores.

    Returns:
        `[N]` in [0, 1].
    """
    return special.expit((np.asarray(scores) - threshold) / scale)


def decide(scores: Any, is_outside: Any, threshold: Any, scale: Any) -> dict[str, Any]:
    """Returns `probability` and `is_anomalous` of scores; the only place where this is decided.

    An image outside of what good images looked like is anomalous with a probability of 1, whatever
    its score. Arguments may be tensors, in a graph or eager, or arrays.

    Args:
        scores: float32 `[B]`.
        is_outside: bool `[B]`, whether the image quality gives a reason.
        threshold: float32; scores strictly above it are anomalous.
        scale: float32, above 0; see `probability`.

    Returns:
        `probability` float32 `[B]` and `is_anomalous` bool `[B]`.
    """
    return {
        "probability": ops.where(is_outside, 1.0, ops.sigmoid((scores - threshold) / scale)),
        "is_anomalous": (scores > threshold) | is_outside,
    }


@keras.saving.register_keras_serializable("tfgad")
class Calibration(keras.layers.Layer):
    """The calibration as weights, so that it is saved and exported inside the model.

    Scores `[B]` go in; out come `probability` float32 `[B]` and `is_anomalous` bool `[B]`. The
    weights are float32 whatever the precision of the model. Until `fit` sets them the outputs mean
    nothing: whoever exports or judges calls `require_calibrated` first.

    What the threshold would be at each of `RATES` is kept beside it, for whoever asks what another
    false-positive rate would change.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.threshold = self._add("threshold", "zeros")
        self.scale = self._add("scale", "ones")
        self.false_positive_rate = self._add("false_positive_rate", "zeros")
        self.calibrated = self._add("calibrated", "zeros")  # 0 or 1
        # The last, for `load_own_variables`.
        unknown = keras.initializers.Constant(math.nan)
        self.thresholds = self._add("thresholds", unknown, shape=(len(RATES),))
        self.built = True  # or Keras would build the model it belongs to, by calling it

    def _add(self, name: str, initializer, shape: tuple[int, ...] = ()) -> keras.Variable:
        return self.add_weight(
            shape, name=name, initializer=initializer, trainable=False, dtype="float32"
        )

    def load_own_variables(self, store) -> None:
        """Loads the weights; of a model saved before it kept `thresholds` they stay unknown."""
        earlier = self.weights[:-1]
        if len(store.keys()) != len(earlier):
            super().load_own_variables(store)
            return
        for index, weight in enumerate(earlier):
            weight.assign(store[str(index)])

    def fit(self, scores: np.ndarray, false_positive_rate: float) -> Threshold:
        """Sets the weights from normal scores; see `threshold_from_normals`."""
        threshold = threshold_from_normals(scores, false_positive_rate)
        self.threshold.assign(threshold.value)
        self.scale.assign(logistic_scale(scores))
        self.false_positive_rate.assign(false_positive_rate)
        self.calibrated.assign(1.0)
        self.thresholds.assign(thresholds_from_normals(scores))
        return threshold

    @property
    def known_thresholds(self) -> dict[float, float]:
        """The threshold at each of `RATES`; empty for a model saved before it kept them."""
        values = ops.convert_to_numpy(self.thresholds)
        if not np.isfinite(values).all():
            return {}
        return dict(zip(RATES, map(float, values), strict=True))

    @property
    def is_calibrated(self) -> bool:
        """Whether `fit` has set the weights, here or before the model was saved."""
        return bool(ops.convert_to_numpy(self.calibrated))

    def require_calibrated(self) -> None:
        """Raises UsageError if the weights were never set."""
        if not self.is_calibrated:
            problem = "has no threshold yet"
            raise UsageError(
                "model", "not calibrated", problem, "run `tfgad calibrate` on it first"
            )

    def call(self, scores):
        """Returns `probability` and `is_anomalous` of scores `[B]`, each `[B]`."""
        return {
            "probability": ops.sigmoid((scores - self.threshold) / self.scale),
            "is_anomalous": scores > self.threshold,
        }

    def with_reason(self, scores, reasons):
        """Returns what `call` does and `reason`; an image with one is anomalous for certain.

        Args:
            scores: float32 `[B]`.
            reasons: string `[B]`, empty where an image looks as good images do.
        """
        return {**self.decide(scores, reasons != ""), "reason": reasons}

    def decide(self, scores: Any, is_outside: Any) -> dict[str, Any]:
        """Returns what the function `decide` does, by the threshold and scale of this layer."""
        return decide(scores, is_outside, self.threshold, self.scale)


def _checked(scores: np.ndarray, false_positive_rate: float) -> np.ndarray:
    """Returns the scores sorted, as float64 `[n]`."""
    if not 0 < false_positive_rate < 1:
        hint = "give a share of the good images, such as 0.01"
        raise UsageError("false-positive rate", false_positive_rate, "is not between 0 and 1", hint)
    scores = np.sort(np.asarray(scores, np.float64).ravel())
    if scores.size < 2:
        hint = "hold out at least 2 good images, better 100"
        raise UsageError("calibration scores", scores.size, "are too few for a threshold", hint)
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        raise UsageError(
            "calibration scores",
            f"{bad} of {scores.size}",
            "are NaN or infinite",
            "train the model again with a smaller learning rate, or look for broken images",
        )
    return scores


def _how_many_above(scores: np.ndarray, false_positive_rate: float) -> int:
    """Returns how many of n + 1 exchangeable scores may lie above the threshold."""
    return math.floor((scores.size + 1) * false_positive_rate + 1e-9)  # 100 * 0.07 is not quite 7


def _tail(scores: np.ndarray) -> Callable[[float], float]:
    """Returns false-positive rate -> score, beyond the largest of the sorted scores.

    The order statistic below the tail of m scores is exceeded with probability (m + 1) / (n + 1).
    """
    n = scores.size
    m = min(max(TAIL_LEAST, math.ceil(TAIL_SHARE * n)), n // 2)
    start = scores[n - m - 1]
    excesses = scores[n - m :] - start
    unit = excesses.mean()  # the optimiser starts near 1, whatever the scores' unit
    if unit == 0:
        return lambda rate: float(start)
    shape, scale = _fit_tail(excesses / unit)

    def exceeded(rate: float) -> float:
        further = rate * (n + 1) / (m + 1)
        return float(start + unit * stats.genpareto.isf(further, shape, scale=scale))

    return exceeded


def _fit_tail(excesses: np.ndarray) -> tuple[float, float]:
    """Returns shape and scale of the generalised Pareto distribution of excesses with mean 1."""
    lowest, highest = TAIL_SHAPES
    if excesses.size < TAIL_LEAST:
        return lowest, 1.0
    shape, _, scale = stats.genpareto.fit(excesses, floc=0)
    if shape <= lowest:
        return lowest, 1.0  # the exponential distribution; its scale is the mean
    if shape > highest:
        _, _, scale = stats.genpareto.fit(excesses, f0=highest, floc=0)
        return highest, scale
    return shape, scale
