"""Drift: whether recent scores still come from the distribution of the calibration scores.

A threshold holds for images like those that set it. A dimmed lamp, a lens out of focus or a new
material moves all scores, often long before a good image is called defective, or a defective one
good. `compare` tests some scores once. `DriftTest` watches a stream.

The test is that of Mann and Whitney (1947): the mean rank of the recent scores among those of
calibration, 0.5 if both are alike. No other property of the distribution enters it. Up to a share
`DEFECTIVE` of the images may have any higher score, since defective images arrive too (the
contamination model of Huber 1964). The number of such images is binomial, and in the worst case all
their scores are higher than those of calibration. The null distribution is normal for each such
number; its tails are a little longer than the exact ones.

A stream is tested many times: at every fifth of a window, for windows of each size in `WINDOWS`.
The level of each test is its part of `FALSE_DRIFT` per image. By the inequality of Bonferroni, the
expected number of alarms in N images without drift is at most N times `FALSE_DRIFT`, however the
tests depend on each other: they overlap, and share the calibration scores.

The bounds hold for recent images that are exchangeable with those of calibration. They do not hold
for the images of one roll or batch, if rolls differ: a roll whose scores lie unlike those of the
calibration images is drift by this definition. If the number of independent groups of calibration
images is known, that number counts instead of the number of images. With few of them no scores
whatever would show drift, and `too_few` says so.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

LEVELS = np.linspace(0, 1, 101)  # of the quantiles that a model stores
DEFECTIVE = 0.05  # share of images that may have any higher score without being drift
WINDOWS = (25, 50, 100, 200, 400)  # images; a small shift needs many, a large one few
STEPS = 5  # tests while a window moves by its length
FALSE_DRIFT = 2e-6  # alarms per image: in 5,000 good images one has a probability of 0.01 at most
LEAST = WINDOWS[0]  # images that are compared at all
LEVEL = 0.001  # of a single comparison
UNTESTED = (
    "no drift test: the model was calibrated before tfgad kept the scores; calibrate it again"
)


@dataclasses.dataclass(frozen=True)
class CalibrationScores:
    """What a model stores of its calibration scores.

    Attributes:
        quantiles: float `[101]`, at `LEVELS`.
        images: number of scores.
        groups: number of independent groups of images, if it is known.
    """

    quantiles: np.ndarray
    images: int
    groups: int | None = None

    @classmethod
    def of(cls, scores: np.ndarray, groups: int | None = None) -> CalibrationScores:
        """Returns the quantiles of scores `[n]`, and their number."""
        scores = np.asarray(scores, np.float64)
        return cls(np.quantile(scores, LEVELS), scores.size, groups)

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> CalibrationScores | None:
        """Returns them from `as_numbers`; None for a model that does not store them."""
        quantiles = np.asarray(numbers.get("quantiles", ()), np.float64)
        images = float(numbers.get("calibration_images", 0))
        groups = float(numbers.get("calibration_groups", 0))
        if quantiles.shape != LEVELS.shape or not np.isfinite(quantiles).all() or images < 2:
            return None
        return cls(quantiles, int(images), int(groups) or None)

    def as_numbers(self) -> dict[str, Any]:
        """Returns the attributes by their names in an exported model; 0 for unknown groups."""
        return {
            "quantiles": self.quantiles,
            "calibration_images": self.images,
            "calibration_groups": self.groups or 0,
        }

    @property
    def independent(self) -> int:
        """The number of independent scores: that of the groups, if it is known."""
        return min(self.images, self.groups or self.images)

    def ranks(self, scores: np.ndarray) -> np.ndarray:
        """Returns the share of the calibration scores below each of some scores.

        Args:
            scores: float `[N]`, no NaN.

        Returns:
            float64 `[N]` in [0, 1], interpolated between the quantiles. Of equal scores one half
            counts as below.
        """
        values, equal = np.unique(self.quantiles, return_inverse=True)
        levels = np.bincount(equal, LEVELS) / np.bincount(equal)
        # Of n scores the j-th smallest is the quantile (j - 1) / (n - 1), and has the rank
        # (j - 1/2) / n.
        ranks = (levels * (self.images - 1) + 0.5) / self.images
        return np.interp(scores, values, ranks, left=0, right=1)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Some scores compared with those of calibration.

    Attributes:
        images: number of the scores.
        rank: their mean rank among the calibration scores, from 0 to 1; 0.5 if both are alike.
        p: probability of so different a rank without drift, two-sided.
    """

    images: int
    rank: float
    p: float

    def advice(self, which: str = "these", what: str = "images") -> str:
        """Returns the difference in words, and what to do.

        Args:
            which: images they are, such as `"the last"`.
            what: was compared, such as `"groups of images"`.
        """
        p = f"p < {LEVEL:g}" if self.p < LEVEL else f"p = {self.p:.3f}"
        is_higher = self.rank > 0.5
        unless = f"unless more than {DEFECTIVE:.0%} are defective, " if is_higher else ""
        return (
            f"the scores of {which} {self.images} {what} are "
            f"{'higher' if is_higher else 'lower'} than in calibration ({p}): "
            f"{unless}check light, focus and exposure, then calibrate again"
        )


def compare(
    calibration: CalibrationScores, scores: np.ndarray, groups: np.ndarray | None = None
) -> Comparison | None:
    """Compares scores with those of calibration, once.

    Args:
        calibration: what the model stores.
        scores: float `[N]`; NaN is left out.
        groups: `[N]`, the group of each, such as the image that it is a tile of. Each counts once,
            by its mean rank, which varies no more than a single one. If not given, all count.

    Returns:
        The comparison, drift if its `p` is below `LEVEL`; None for fewer than `LEAST` scores, or
        groups of them.
    """
    scores = np.asarray(scores, np.float64)
    known = ~np.isnan(scores)
    ranks = calibration.ranks(scores[known])
    if groups is not None:
        _, members = np.unique(np.asarray(groups)[known], return_inverse=True)
        ranks = np.bincount(members, ranks) / np.bincount(members)
    if ranks.size < LEAST:
        return None
    return _comparison(ranks, calibration.independent)


def too_few(calibration: CalibrationScores, images: int | None = None) -> str:
    """Returns a line that says that no scores could show drift; empty if some could.

    Args:
        calibration: what the model stores.
        images: number of scores that `compare` reads; None for the stream of `DriftTest`.
    """
    levels = {images: LEVEL} if images else {window: level_of(window) for window in WINDOWS}

    def suffice(independent: int) -> bool:
        least = {number: _comparison(np.zeros(number), independent).p for number in levels}
        return any(least[number] < level for number, level in levels.items())

    if suffice(calibration.independent):
        return ""
    needed = next(number for number in itertools.count(calibration.independent) if suffice(number))
    what = "groups of images" if calibration.groups else "images"
    of = f"{images} scores" if images else "a stream of scores"
    return (
        f"no drift test: the threshold was set on {calibration.independent} {what}; "
        f"a test of {of} needs at least {needed}"
    )


def notice(calibration: CalibrationScores, scores: Sequence[float]) -> str:
    """Returns a line that says that some scores show drift, or cannot; empty if they show none.

    Args:
        calibration: what the model stores.
        scores: of the images; fewer than `LEAST` show nothing.
    """
    comparison = compare(calibration, np.asarray(scores))
    if comparison is None:
        return ""
    if comparison.p < LEVEL:
        return comparison.advice()
    return too_few(calibration, comparison.images)


def _comparison(ranks: np.ndarray, independent: int) -> Comparison:
    """Compares scores, given their ranks `[m]` and the number of independent calibration scores."""
    m, total = ranks.size, float(ranks.sum())
    defective, probability = _defective(m)
    good = m - defective
    deviation = np.sqrt(good * (good + independent + 1) / (12 * independent))
    z = (total - defective - good / 2) / np.maximum(deviation, 1e-12)
    higher = float(probability @ special.ndtr(-z))
    lower = float(special.ndtr(z[0]))  # without defective images, which would raise the scores
    return Comparison(m, total / m, min(1.0, 2 * min(higher, lower)))


@functools.cache
def _defective(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of defective images that are possible, and their probabilities."""
    numbers = np.arange(images + 1)
    return numbers, stats.binom.pmf(numbers, images, DEFECTIVE)


class DriftTest:
    """The drift test of a stream of scores. It is not thread-safe.

    Args:
        calibration: what the model stores.
    """

    def __init__(self, calibration: CalibrationScores):
        self._calibration = calibration
        self._ranks: collections.deque[float] = collections.deque(maxlen=max(WINDOWS))
        self._count = 0
        self._drifts: dict[int, Comparison] = {}  # by window, if its last test shows drift

    @property
    def drift(self) -> Comparison | None:
        """What shows drift at present: the smallest window that does; None if none does."""
        return self._drifts[min(self._drifts)] if self._drifts else None

    @property
    def rank(self) -> float | None:
        """The mean rank of the scores in the smallest window; None before it is full."""
        return float(np.mean(self._last(WINDOWS[0]))) if self._count >= WINDOWS[0] else None

    def add(self, scores: Iterable[float]) -> None:
        """Reads further scores, in the order of the images; NaN is left out."""
        scores = np.asarray(scores, np.float64)
        for rank in self._calibration.ranks(scores[~np.isnan(scores)]):
            self._ranks.append(float(rank))
            self._count += 1
            for window in WINDOWS:
                if self._count >= window and self._count % (window // STEPS) == 0:
                    self._test(window)

    def _test(self, window: int) -> None:
        comparison = _comparison(self._last(window), self._calibration.independent)
        self._drifts.pop(window, None)
        if comparison.p < level_of(window):
            self._drifts[window] = comparison

    def _last(self, window: int) -> np.ndarray:
        return np.array(self._ranks)[-window:]


def level_of(window: int) -> float:
    """Returns the level of each test of a window: its part of `FALSE_DRIFT` per image."""
    return FALSE_DRIFT / len(WINDOWS) * window / STEPS
