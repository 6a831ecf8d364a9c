"""How an error varies over good images at each place of a part."""

from __future__ import annotations

from typing import Literal

import numpy as np

# Of the median deviation over the places: a place that hardly varies on the good images there are
# may vary a little more on others.
LEAST_SHARE = 0.5
LEAST_SPREAD = 1e-3  # of logarithms: good images that are nearly copies of each other


class PlaceStatistics:
    """Mean and deviation of e_R at each place.

    Args:
        errors: e_R of N images, `[N, places, places]`.
        per_place: if False, places are alike that mirroring and turns map onto each other.
        one: what all places have in common. If the mean, the deviation of a place is the root mean
            square of how far e_R is from it there; if the deviation, it is the root of their mean
            variance.
        square: whether the part is. If not, its short and its long sides differ: places are alike
            by half turns, not by quarter turns.
    """

    def __init__(
        self,
        errors: np.ndarray,
        per_place: bool,
        one: Literal["mean", "deviation"],
        square: bool = True,
    ):
        self.errors, self.per_place, self.one, self.is_square = errors, per_place, one, square
        moments = errors.mean(0, dtype="float64"), np.square(errors.astype("float64")).mean(0)
        self.moments = moments
        self.least = 0.0
        self.least = max(LEAST_SHARE * np.median(self._statistics(*moments)[1]), LEAST_SPREAD)
        self.mean, self.deviation = self._statistics(*moments)

    def _statistics(self, mean: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and deviation, `[places, places]` each, of the first two moments."""
        if not self.per_place:
            mean, square = (symmetric(each, self.is_square) for each in (mean, square))
        if self.one == "mean":
            of_all = np.full_like(mean, mean.mean())
            variance, mean = square - 2 * mean * of_all + np.square(of_all), of_all
        else:
            variance = np.full_like(mean, np.mean(square - np.square(mean)))
        variance = np.maximum(variance, 0.0)
        return mean, np.maximum(np.sqrt(variance), self.least)

    def left_one_out(self) -> np.ndarray:
        """Returns the e_R of each image, standardised by those of the others, in the same shape."""
        count, standardised = len(self.errors), np.empty_like(self.errors)
        for i, own in enumerate(self.errors.astype("float64")):
            powers = own, np.square(own)
            others = [
                (count * moment - power) / (count - 1)
                for moment, power in zip(self.moments, powers, strict=True)
            ]
            mean, deviation = self._statistics(*others)
            standardised[i] = (own - mean) / deviation
        return standardised


def symmetric(values: np.ndarray, square: bool) -> np.ndarray:
    """Returns the mean of `[places, places, ...]` over its mirror images and its turns.

    Quarter turns are turns of what is square, half turns of anything.
    """
    turned = [np.rot90(values, turns) for turns in (range(4) if square else (0, 2))]
    return np.mean([*turned, *(each[:, ::-1] for each in turned)], axis=0)
