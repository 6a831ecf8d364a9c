"""Thresholds of anomaly scores, from the scores of held-out normal images alone.

The threshold is an order statistic of these scores, as in split conformal prediction. If there are
too few scores for the false-positive rate, it is extrapolated by a generalised Pareto distribution
(peaks over threshold).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from tfgad.errors import UsageError
from tfgad.scores.rate_interval import RateInterval

logger = logging.getLogger(__name__)

# The tail is the highest tenth of the scores, at least 20 of them, but no more than half of all:
# the shape of the tail cannot be estimated from fewer.
TAIL_SHARE, TAIL_LEAST = 0.1, 20

# Range of the shape parameter. With a shape below 0 the tail ends at a largest possible score;
# above 0.5 its variance is infinite. In samples of 98 to 900 normal, Gumbel, log-normal (1),
# chi-squared (3) and Student (4) scores, at rates from 1 / (n + 1) down to half of it, the mean
# false-positive rate is 0.26 to 1.5 times the target with this range, and 0.84 to 2.2 times with
# shapes down to -0.5. At a tenth of 1 / (n + 1) it is up to 3.1 times the target.
TAIL_SHAPES = (0.0, 0.5)

# The false-positive rates whose thresholds a model stores beside the one it was calibrated at:
# from 0.0001 to 0.2 in steps of about a quarter, the preferred numbers R10 of ISO 3.
RATES = tuple(
    float(f"{step}e{decade}")
    for decade in (-4, -3, -2, -1)
    for step in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
    if (decade, step) <= (-1, 2)
)


# Of a false-positive rate, from 0 and from 1. No number of images that anyone has shows less.
LEAST_RATE = 1e-9

# The method of a threshold of 0, of scores that each product's own threshold has standardised.
BY_PRODUCT = "standardised by product"


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A threshold computed from the scores of normal images.

    Attributes:
        value: scores strictly above it are anomalous.
        method: `"empirical quantile"` or `"generalised Pareto tail"`; of the scores of several
            products together `BY_PRODUCT`.
        n: number of scores.
        interval: of its false-positive rate on images of new groups; None if not computed.
        of_products: of a model of several products, the threshold of each one's raw scores.
    """

    value: float
    method: str
    n: int
    interval: RateInterval | None = None
    of_products: Mapping[str, Threshold] | None = None


def threshold_from_normals(
    scores: np.ndarray, false_positive_rate: float, of: str = ""
) -> Threshold:
    """Returns the threshold that a share `false_positive_rate` of normal images exceeds.

    With n >= 1 / rate - 1 scores it is the `ceil((n + 1) (1 - rate))`-th smallest score. A new
    normal image, exchangeable with the others, exceeds it with a probability of at most the rate
    (split conformal prediction; Vovk, Gammerman, Shafer 2005).

    With fewer scores no order statistic has this property. The threshold is then extrapolated from
    the largest scores by a generalised Pareto distribution (peaks over threshold; Pickands 1975),
    and a warning is logged. It is at least the largest score, the threshold at a rate of
    1 / (n + 1): a smaller rate never has a lower threshold.

    Args:
        scores: float `[n]`, of normal images that the detector was not trained on.
        false_positive_rate: in (0, 1).
        of: what the images are of, for the warning.

    Raises:
        UsageError: a rate outside (0, 1) or nearer to its ends than `LEAST_RATE`, fewer than two
            scores, or scores that are not finite.
    """
    scores = _checked(scores, false_positive_rate)
    n, above = scores.size, _count_above(scores, false_positive_rate)
    if above >= 1:
        return Threshold(float(scores[n - above]), "empirical quantile", n)
    logger.warning(
        "%d normal scores%s are too few for a false-positive rate of %g (%d are needed): "
        "the threshold is extrapolated by a generalised Pareto distribution of their tail",
        n,
        of,
        false_positive_rate,
        math.ceil(1 / false_positive_rate - 1e-9) - 1,
    )
    return Threshold(_tail(scores)(false_positive_rate), "generalised Pareto tail", n)


def thresholds_from_normals(scores: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """Returns the `value` of `threshold_from_normals` for each rate, without warnings.

    Args:
        scores: float `[n]`, of normal images that the detector was not trained on.
        rates: each in (0, 1).

    Returns:
        float64 `[len(rates)]`.

    Raises:
        UsageError: as for `threshold_from_normals`.
    """
    for rate in rates:
        checked = _checked(scores, rate)
    above = [_count_above(checked, rate) for rate in rates]
    tail = functools.cache(lambda: _tail(checked))  # fitted once, and only if needed
    return np.array(
        [
            checked[checked.size - count] if count else tail()(rate)
            for rate, count in zip(rates, above, strict=True)
        ]
    )


def _checked(scores: np.ndarray, false_positive_rate: float) -> np.ndarray:
    """Returns the scores sorted, as float64 `[n]`."""
    if not 0 < false_positive_rate < 1:
        hint = "give a share of the good images, such as 0.01"
        raise UsageError("false-positive rate", false_positive_rate, "is not between 0 and 1", hint)
    if not LEAST_RATE <= false_positive_rate <= 1 - LEAST_RATE:
        problem = f"is nearer to 0 or 1 than {LEAST_RATE:g}"
        raise UsageError(
            "false-positive rate", false_positive_rate, problem, "give a share such as 0.01"
        )
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


def _count_above(scores: np.ndarray, false_positive_rate: float) -> int:
    """Returns how many of n + 1 exchangeable scores may lie above the threshold."""
    return math.floor((scores.size + 1) * false_positive_rate + 1e-9)  # 100 * 0.07 is not quite 7


def _tail(scores: np.ndarray) -> Callable[[float], float]:
    """Fits the tail of the sorted scores; returns the function from false-positive rate to score.

    The rate is below 1 / (n + 1).

    The tail holds the m largest scores. The next smaller one is exceeded with probability
    (m + 1) / (n + 1).
    """
    n = scores.size
    m = min(max(TAIL_LEAST, math.ceil(TAIL_SHARE * n)), n // 2)
    start = scores[n - m - 1]
    excesses = scores[n - m :] - start
    unit = excesses.mean()  # excesses of mean 1 suit the optimiser's starting point
    if unit == 0:
        return lambda rate: float(start)
    shape, scale = _fit_tail(excesses / unit)

    def score_at(rate: float) -> float:
        share_of_tail = rate * (n + 1) / (m + 1)
        score = start + unit * stats.genpareto.isf(share_of_tail, shape, scale=scale)
        return float(max(score, scores[-1]))

    return score_at


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
