"""The interval of the false-positive rate of a threshold, which counts groups and not images.

Good images come in groups that share a cause of their scores: the tiles of a strip, the images of
a roll, a camera or a day. Ten tiles of a strip tell less of the next strip than ten strips. So N
images in groups count as fewer independent ones, their effective sample size

    n = N / (1 + (m - 1) * rho),        m = sum of squared group sizes / N,

with rho the correlation, within a group, of whether an image's score exceeds the threshold (Kish,
Survey Sampling, 1965). The interval is Clopper's and Pearson's (Biometrika 26, 1934) for n images,
after Korn and Graubard (Survey Methodology 24, 1998), without their correction for the degrees of
freedom: the upper limit of rho below is there instead.

So few scores exceed a threshold that rho cannot be seen in them. Here it is the larger of that seen
and of what the scores imply. For these, the upper 95 % limit of the intraclass correlation of their
normal scores is taken, by the F test of one-way analysis of variance (Searle, Linear Models, 1971),
and the correlation of exceedances that two Gaussian variables with it have. With few groups the
limit is near 1, and each group counts as little more than one image. If all images have groups of
their own, n is N.

What it cannot know: a kind of group of which none was seen. So there is also the upper end for
rho = 1, where N / m images count: one for each group if they are of one size. No correlation makes
it larger. Rare kinds of groups are within it. `examples/benchmarks/false_alarms.py` measures how
often each holds the rate.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from scipy import integrate, stats

CONFIDENCE = 0.95  # of the interval, and of the limit of the correlation
FEW_IMAGES = 20  # with fewer independent good images `largest_probability` is below 1
PROMISE = 2  # how often the asked rate the upper end may be with `RateInterval.groups_needed`


def largest_probability(effective: float) -> float:
    """Returns the largest probability that a calibration on few good images can support.

    A score above all of n independent good images is that of a good one with a probability of
    1 / (n + 2), by Laplace's rule of succession. So no probability lies outside of 1 / (n + 2) and
    (n + 1) / (n + 2).

    Args:
        effective: the number of independent images; see `RateInterval`.

    Returns:
        In [0.5, 1]; 1, no limit, from `FEW_IMAGES` up.
    """
    return 1.0 if effective >= FEW_IMAGES else (effective + 1) / (effective + 2)


@dataclasses.dataclass(frozen=True)
class RateInterval:
    """What the scores that set a threshold tell of its false-positive rate on new groups.

    Attributes:
        low, high: the 95 % interval of the rate.
        at_most: its upper end for a correlation of 1 within groups.
        images: number of scores.
        groups: number of groups that they come from.
        effective: the number of independent images that tell as much, at most `images`.
        groups_needed: number of groups like these with which `high` would be at most `PROMISE`
            times the asked rate. It is an upper limit while groups are few.
    """

    low: float
    high: float
    at_most: float
    images: int
    groups: int
    effective: float
    groups_needed: int


def rate_interval(
    scores: np.ndarray, groups: np.ndarray | None, threshold: float, false_positive_rate: float
) -> RateInterval:
    """Returns the interval of the false-positive rate of a threshold.

    Args:
        scores: float `[N]`, of the normal images that set the threshold.
        groups: `[N]`, the group of each, numbers or strings; None if each has its own.
        threshold: scores strictly above it are anomalous.
        false_positive_rate: the rate that was asked for, in (0, 1).

    Raises:
        ValueError: another number of groups than of scores.
    """
    scores = np.asarray(scores, np.float64).ravel()
    members = np.arange(scores.size) if groups is None else np.asarray(groups).ravel()
    if members.size != scores.size:
        raise ValueError(f"{scores.size} scores but {members.size} groups")
    members = np.unique(members, return_inverse=True)[1]
    above, count = scores > threshold, int(members.max()) + 1
    share = float(above.mean())
    effective = effective_size(scores, members, threshold, false_positive_rate)
    low, high = clopper_pearson(share * effective, effective)
    least = scores.size / mean_size(members)
    needed = images_needed(false_positive_rate, PROMISE * false_positive_rate)
    return RateInterval(
        low,
        high,
        at_most=max(high, clopper_pearson(share * least, least)[1]),
        images=scores.size,
        groups=count,
        effective=effective,
        groups_needed=math.ceil(needed * count / effective),
    )


def clopper_pearson(positives: float, count: float) -> tuple[float, float]:
    """Returns the 95 % interval of a rate by Clopper and Pearson.

    Args:
        positives: from 0 to `count`; need not be whole.
        count: number of independent trials, above 0; need not be whole.
    """
    tail = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(tail, positives, count - positives + 1) if positives > 0 else 0.0
    high = stats.beta.isf(tail, positives + 1, count - positives) if positives < count else 1.0
    return float(low), float(high)


@functools.lru_cache(maxsize=64)
def images_needed(rate: float, limit: float) -> int:
    """Returns the least number of independent images with which the upper end is below a limit.

    Args:
        rate: the share of them that exceeds the threshold.
        limit: above `rate`; from 1 up, one image is enough.
    """
    least, most = 0, 1
    while clopper_pearson(rate * most, most)[1] > limit:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        if clopper_pearson(rate * middle, middle)[1] > limit:
            least = middle
        else:
            most = middle
    return most


def effective_size(
    scores: np.ndarray, groups: np.ndarray, threshold: float, false_positive_rate: float
) -> float:
    """Returns how many independent images tell as much of the rate as these in groups.

    Args:
        scores: float `[N]`.
        groups: int `[N]`, from 0 up, none left out.
        threshold: a score.
        false_positive_rate: the rate that was asked for, in (0, 1).

    Returns:
        From 1 to N.
    """
    size = mean_size(groups)
    if size == 1:
        return float(scores.size)
    above = (scores > threshold).astype(np.float64)
    seen = intraclass_correlation(above, groups) if 0 < above.sum() < above.size else 0.0
    ranks = stats.norm.ppf(stats.rankdata(scores) / (scores.size + 1))
    limit = intraclass_correlation(ranks, groups, CONFIDENCE)
    implied = correlation_of_exceedances(limit, max(false_positive_rate, float(above.mean())))
    return max(1.0, scores.size / (1 + (size - 1) * max(seen, implied)))


def mean_size(groups: np.ndarray) -> float:
    """Returns the mean size of the groups of int `[N]`, each weighted by its size."""
    return float((np.bincount(groups).astype(np.float64) ** 2).sum()) / groups.size


def intraclass_correlation(
    values: np.ndarray, groups: np.ndarray, confidence: float | None = None
) -> float:
    """Returns the correlation of two values of a group, by one-way analysis of variance.

    Args:
        values: float `[N]`.
        groups: int `[N]`, from 0 up, none left out.
        confidence: if given, the one-sided upper limit of this confidence is returned, which is
            exact for Gaussian values in groups of one size.

    Returns:
        In [0, 1]; 1 if nothing is known: with a single group, without a group of two, or if all
        values are equal.
    """
    sizes, sums = np.bincount(groups), np.bincount(groups, values)
    count, number = values.size, len(sizes)
    if number < 2 or number == count:
        return 1.0
    means = sums / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (number - 1)
    within = float(((values - means[groups]) ** 2).sum()) / (count - number)
    if within <= 0:
        return 1.0
    ratio = between / within
    if confidence is not None:
        ratio *= float(stats.f.ppf(confidence, count - number, number - 1))
    size = (count - float((sizes.astype(np.float64) ** 2).sum()) / count) / (number - 1)
    return min(max((ratio - 1) / (ratio + size - 1), 0.0), 1.0)


def correlation_of_exceedances(correlation: float, rate: float) -> float:
    """Returns the correlation of whether each of two Gaussian variables exceeds a level.

    Args:
        correlation: of the variables, in [0, 1].
        rate: the probability that one of them exceeds the level, in (0, 1).

    Returns:
        In [0, 1].
    """
    if rate >= 1 or correlation >= 1:
        return 1.0
    level = float(stats.norm.isf(rate))
    # Plackett's identity: the derivative of the joint probability by the correlation, sin(angle).
    joint, _ = integrate.quad(
        lambda angle: math.exp(-(level**2) / (1 + math.sin(angle))) / (2 * math.pi),
        0,
        math.asin(correlation),
    )
    return min(max(joint / (rate * (1 - rate)), 0.0), 1.0)
