"""Drift: whether recent images still come from the distribution of the calibration images.

A threshold holds for images like those that set it. A dimmed lamp, a lens out of focus or a new
material moves all scores, often long before a good image is called defective, or a defective one
good. Scores that level the light do not move with it, so the brightness of images is tested, too.
`compare` tests some images once. `DriftTest` watches a stream.

The test is that of Mann and Whitney (1947): the mean rank of the recent values among those of
calibration, 0.5 if both are alike. No other property of the distribution enters it. Up to a share
`DEFECTIVE` of the images may have any higher score, and any brightness, since defective images
arrive too (the contamination model of Huber 1964). The number of such images is binomial, and in
the worst case all their values are beyond those of calibration. The null distribution is normal for
each such number; its tails are a little longer than the exact ones.

A stream is tested many times: at every fifth of a window, for windows of each size in `WINDOWS`.
The level of each test is its part of `FALSE_DRIFT` per image. By the inequality of Bonferroni, the
expected number of alarms in N images without drift is at most N times `FALSE_DRIFT`, however the
tests depend on each other: they overlap, and share the calibration images.

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
LEVEL = 0.0005  # of a single comparison; there are two, of the scores and of the brightness
UNTESTED = (
    "no drift test: the model was calibrated before tfgad kept the scores; calibrate it again"
)
UNTESTED_BRIGHTNESS = (
    "no drift test of the brightness: the model keeps none of its calibration images; calibrate it "
    "again, unless it is of several products"
)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is compared with calibration.

    Attributes:
        name: in messages, and of the model's output.
        tolerance: relative change that is no drift.
        defects_lower: whether defective images may have any lower value, beside any higher one.
        changes: what a lower and a higher value is called.
    """

    name: str
    tolerance: float
    defects_lower: bool
    changes: tuple[str, str]


SCORE = Quantity("score", 0.0, defects_lower=False, changes=("lower", "higher"))
# A lamp at 0.95 has at most 0.5 % of good tiles called defective (`examples/benchmarks/drift.py`).
BRIGHTNESS = Quantity("brightness", 0.05, defects_lower=True, changes=("darker", "brighter"))
QUANTITIES = (SCORE, BRIGHTNESS)


@dataclasses.dataclass(frozen=True)
class CalibrationScores:
    """What a model stores of its calibration images.

    Attributes:
        quantiles: of their scores, float `[101]`, at `LEVELS`.
        images: number of scores.
        groups: number of independent groups of images, if it is known.
        brightness: quantiles of their mean grey levels, from 0 to 255, float `[101]`; None of a
            model of several products, which differ in it, or that was calibrated before tfgad kept
            them.
    """

    quantiles: np.ndarray
    images: int
    groups: int | None = None
    brightness: np.ndarray | None = None

    @classmethod
    def of(
        cls, scores: np.ndarray, groups: int | None = None, brightness: np.ndarray | None = None
    ) -> CalibrationScores:
        """Returns the quantiles of scores `[n]` and of mean grey levels `[n]`, and their number."""
        scores = np.asarray(scores, np.float64)
        levels = None if brightness is None else np.quantile(brightness, LEVELS)
        return cls(np.quantile(scores, LEVELS), scores.size, groups, levels)

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, Any]) -> CalibrationScores | None:
        """Returns them from `as_numbers`; None for a model that does not store them."""
        quantiles = np.asarray(numbers.get("quantiles", ()), np.float64)
        images = float(numbers.get("calibration_images", 0))
        groups = float(numbers.get("calibration_groups", 0))
        if not _is_known(quantiles) or images < 2:
            return None
        brightness = np.asarray(numbers.get("brightness_quantiles", ()), np.float64)
        known = brightness if _is_known(brightness) else None
        return cls(quantiles, int(images), int(groups) or None, known)

    def as_numbers(self) -> dict[str, Any]:
        """Returns the attributes by their names in an exported model.

        Unknown groups are 0, an unknown brightness is NaN.
        """
        unknown = np.full(LEVELS.shape, np.nan)
        return {
            "quantiles": self.quantiles,
            "brightness_quantiles": unknown if self.brightness is None else self.brightness,
            "calibration_images": self.images,
            "calibration_groups": self.groups or 0,
        }

    @property
    def independent(self) -> int:
        """The number of independent scores: that of the groups, if it is known."""
        return min(self.images, self.groups or self.images)

    def tested(self) -> tuple[Quantity, ...]:
        """Returns the quantities whose quantiles are known."""
        return QUANTITIES[: 1 if self.brightness is None else 2]

    def ranks(self, values: np.ndarray, quantity: Quantity = SCORE) -> np.ndarray:
        """Returns the share of the calibration images below each of some values.

        Args:
            values: float `[N]`, no NaN.
            quantity: that they are values of, one of `tested`.

        Returns:
            float64 `[N]` in [0, 1], interpolated between the quantiles. Of equal values one half
            counts as below.

        Raises:
            ValueError: the quantity is none of `tested`.
        """
        quantiles = self.quantiles if quantity is SCORE else self.brightness
        if quantiles is None:
            raise ValueError(f"quantity={quantity.name!r}: no calibration image has one")
        own_values, equal = np.unique(quantiles, return_inverse=True)
        levels = np.bincount(equal, LEVELS) / np.bincount(equal)
        # Of n scores the j-th smallest is the quantile (j - 1) / (n - 1), and has the rank
        # (j - 1/2) / n.
        ranks = (levels * (self.images - 1) + 0.5) / self.images
        return np.interp(values, own_values, ranks, left=0, right=1)

    def tolerant_ranks(self, values: np.ndarray, quantity: Quantity) -> np.ndarray:
        """Returns the ranks of values `[N]` made larger and smaller by the tolerance: `[N, 2]`.

        A value is low if the first is low, and high if the second is high.
        """
        factor = 1 + quantity.tolerance
        return np.stack(
            [self.ranks(values * factor, quantity), self.ranks(values / factor, quantity)], 1
        )


def _is_known(quantiles: np.ndarray) -> bool:
    return quantiles.shape == LEVELS.shape and bool(np.isfinite(quantiles).all())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Some images compared with those of calibration.

    Attributes:
        quantity: that was compared.
        images: number of the images.
        rank: the mean rank of their values among those of calibration, from 0 to 1; 0.5 if both are
            alike.
        p: probability of so different a rank without drift, two-sided.
    """

    quantity: Quantity
    images: int
    rank: float
    p: float

    def difference(self, which: str = "these", what: str = "images") -> str:
        """Returns the difference in words.

        Args:
            which: images they are, such as `"the last"`.
            what: was compared, such as `"groups of images"`.
        """
        p = f"p < {LEVEL:g}" if self.p < LEVEL else f"p = {self.p:.3f}"
        change = self.quantity.changes[self.rank > 0.5]
        subject = "the scores of " if self.quantity is SCORE else ""
        return f"{subject}{which} {self.images} {what} are {change} than in calibration ({p})"


def advice(comparisons: Sequence[Comparison], which: str = "these", what: str = "images") -> str:
    """Returns the differences in words, and what to do; empty without any.

    Args:
        comparisons: that show drift.
        which: see `Comparison.difference`.
        what: see there.
    """
    if not comparisons:
        return ""
    differences = ", and ".join(each.difference(which, what) for each in comparisons)
    may_be_defects = all(each.quantity.defects_lower or each.rank > 0.5 for each in comparisons)
    unless = f"unless more than {DEFECTIVE:.0%} are defective, " if may_be_defects else ""
    return f"{differences}: {unless}check light, focus and exposure, then calibrate again"


def compare(
    calibration: CalibrationScores,
    values: np.ndarray,
    groups: np.ndarray | None = None,
    quantity: Quantity = SCORE,
) -> Comparison | None:
    """Compares images with those of calibration, once.

    Args:
        calibration: what the model stores.
        values: scores or mean grey levels, float `[N]`; NaN is left out.
        groups: `[N]`, the group of each, such as the image that it is a tile of. Each counts once,
            by its mean rank, which varies no more than a single one. If not given, all count.
        quantity: that they are values of, one of `calibration.tested()`.

    Returns:
        The comparison, drift if its `p` is below `LEVEL`; None for fewer than `LEAST` values, or
        groups of them.
    """
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    ranks = calibration.tolerant_ranks(values[known], quantity)
    if groups is not None:
        _, members = np.unique(np.asarray(groups)[known], return_inverse=True)
        of_groups = [np.bincount(members, column) for column in ranks.T]
        ranks = np.stack(of_groups, 1) / np.bincount(members)[:, None]
    if len(ranks) < LEAST:
        return None
    return _comparison(ranks, calibration.independent, quantity)


def too_few(calibration: CalibrationScores, images: int | None = None) -> str:
    """Returns a line that says that no scores could show drift; empty if some could.

    Args:
        calibration: what the model stores.
        images: number of images that `compare` reads; None for the stream of `DriftTest`.
    """
    levels = {images: LEVEL} if images else {window: level_of(window) for window in WINDOWS}

    def suffice(independent: int) -> bool:
        def least_p(number: int) -> float:
            return _comparison(np.zeros((number, 2)), independent, SCORE).p

        least = {number: least_p(number) for number in levels}
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


def notice(
    calibration: CalibrationScores, scores: Sequence[float], brightness: Sequence[float] = ()
) -> str:
    """Returns a line that says that some images show drift, or cannot; empty if they show none.

    Args:
        calibration: what the model stores.
        scores: of the images; fewer than `LEAST` show nothing.
        brightness: mean grey levels of the images, as far as they are known.
    """
    comparison = compare(calibration, np.asarray(scores))
    if comparison is None:
        return ""
    found = [comparison]
    if BRIGHTNESS in calibration.tested():
        of_brightness = compare(calibration, np.asarray(brightness), None, BRIGHTNESS)
        found += [of_brightness] if of_brightness else []
    drifts = [each for each in found if each.p < LEVEL]
    return advice(drifts) or too_few(calibration, comparison.images)


def _comparison(ranks: np.ndarray, independent: int, quantity: Quantity) -> Comparison:
    """Compares images, given their ranks and the number of independent ones of calibration.

    Args:
        ranks: `[m, 2]`, of `CalibrationScores.tolerant_ranks`.
        independent: number of the images of calibration, or of groups of them.
        quantity: whose ranks they are.
    """
    low, high = ranks.T
    higher = _probability_of_higher(high, independent, DEFECTIVE)
    lower = _probability_of_higher(1 - low, independent, DEFECTIVE * quantity.defects_lower)
    return Comparison(quantity, len(ranks), float(ranks.mean()), min(1.0, 2 * min(higher, lower)))


def _probability_of_higher(ranks: np.ndarray, independent: int, defective: float) -> float:
    """Returns the probability of ranks `[m]` as high as these, or higher, without drift.

    Args:
        ranks: of the images.
        independent: see `_comparison`.
        defective: share of the images that may have any higher rank.
    """
    numbers, probability = _defective(ranks.size, defective)
    good = ranks.size - numbers
    deviation = np.sqrt(good * (good + independent + 1) / (12 * independent))
    z = (ranks.sum() - numbers - good / 2) / np.maximum(deviation, 1e-12)
    return float(probability @ special.ndtr(-z))


@functools.cache
def _defective(images: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of defective images that are possible, and their probabilities."""
    numbers = np.arange(images + 1)
    return numbers, stats.binom.pmf(numbers, images, share)


class DriftTest:
    """The drift test of a stream of images. It is not thread-safe.

    Args:
        calibration: what the model stores.
        quantity: that is compared, one of `calibration.tested()`.
    """

    def __init__(self, calibration: CalibrationScores, quantity: Quantity = SCORE):
        self._calibration, self._quantity = calibration, quantity
        self._ranks: collections.deque[np.ndarray] = collections.deque(maxlen=max(WINDOWS))
        self._count = 0
        self._drifts: dict[int, Comparison] = {}  # by window, if its last test shows drift

    @property
    def drift(self) -> Comparison | None:
        """What shows drift at present: the smallest window that does; None if none does."""
        return self._drifts[min(self._drifts)] if self._drifts else None

    @property
    def rank(self) -> float | None:
        """The mean rank of the values in the smallest window; None before it is full."""
        return float(self._last(WINDOWS[0]).mean()) if self._count >= WINDOWS[0] else None

    def add(self, values: Iterable[float]) -> None:
        """Reads further scores or mean grey levels, in the order of the images.

        NaN is left out.
        """
        values = np.asarray(values, np.float64)
        for ranks in self._calibration.tolerant_ranks(values[~np.isnan(values)], self._quantity):
            self._ranks.append(ranks)
            self._count += 1
            for window in WINDOWS:
                if self._count >= window and self._count % (window // STEPS) == 0:
                    self._test(window)

    def _test(self, window: int) -> None:
        comparison = _comparison(self._last(window), self._calibration.independent, self._quantity)
        self._drifts.pop(window, None)
        if comparison.p < level_of(window):
            self._drifts[window] = comparison

    def _last(self, window: int) -> np.ndarray:
        return np.array(self._ranks)[-window:]


def level_of(window: int) -> float:
    """Returns the level of each test of a window: its part of `FALSE_DRIFT` per image."""
    return FALSE_DRIFT / len(QUANTITIES) / len(WINDOWS) * window / STEPS
