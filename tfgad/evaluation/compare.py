"""Two runs on the same test images: differences of their figures, and verdicts that differ.

Both runs see the same images, so that most of what makes a figure uncertain is common to both: it
falls out of the difference. Each bootstrap draw takes the same groups of images for both runs, and
the interval is that of the difference (paired bootstrap; Efron and Tibshirani, An Introduction to
the Bootstrap, 1993, chapter 8). An interval without 0 is a difference that the images support.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgad.data.anomaly_data import IMAGE, AnomalyData
from tfgad.data.ignored import as_config, ignoring
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.evaluation.evaluate_run import check_untrained
from tfgad.evaluation.intervals import (
    draw_images,
    drawn_alarms,
    drawn_pixels,
    drawn_ranking,
    interval,
)
from tfgad.evaluation.predictions import TestPredictions, predict_test_set
from tfgad.files import summarize
from tfgad.scores.verdicts import verdict_name
from tfgad.training import Run, held_out
from tfgad.training.run import check_shape

log = logging.getLogger(__name__)

RANKING = ("image_auroc", "image_ap")  # the figures of scores that are compared
# Name of a figure -> the figure of a run, and that of each draw, float `[draws]`.
Figures = Mapping[str, tuple[float | None, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What one run finds in N test images or tiles.

    Attributes:
        names: N of them, sorted.
        labels: bool `[N]`, whether each is anomalous.
        scores: float `[N]`.
        alarms: bool `[N]`, whether the run calls each anomalous.
        threshold: of the scores.
        shown: int `[N]`, the place in `predictions` of the tile with the highest score.
        predictions: of all tiles.
    """

    names: list[str]
    labels: np.ndarray
    scores: np.ndarray
    alarms: np.ndarray
    threshold: float
    shown: np.ndarray
    predictions: TestPredictions


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two runs on the same N test images or tiles.

    Attributes:
        figures: name -> `first` and `second`, the figure of each run; `difference`, second minus
            first; `interval`, the 95 % interval of that, None where a draw does not define it.
        runs: what each finds.
        differing: int `[K]`, the places where their verdicts differ, good images last.
        unit: what is counted, `"image"` or `"tile"`.
        groups: number of groups that are drawn.
    """

    figures: dict[str, dict[str, Any]]
    runs: tuple[Verdicts, Verdicts]
    differing: np.ndarray
    unit: str
    groups: int

    def summary(self) -> dict[str, Any]:
        """Returns the comparison as JSON types."""
        first, second = self.runs
        right = [run.alarms == run.labels for run in self.runs]
        return {
            "unit": self.unit,
            "compared": len(first.names),
            "groups": self.groups,
            "thresholds": [first.threshold, second.threshold],
            "figures": self.figures,
            "verdicts": {
                "both_right": int(np.sum(right[0] & right[1])),
                "both_wrong": int(np.sum(~right[0] & ~right[1])),
                "first_alone_right": int(np.sum(right[0] & ~right[1])),
                "second_alone_right": int(np.sum(~right[0] & right[1])),
            },
            "differing": self.rows(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Returns one row for each image on which the verdicts differ."""
        first, second = self.runs
        return [
            {
                "image": first.names[i],
                "truth": verdict_name(first.labels[i]),
                "right": "first" if first.alarms[i] == first.labels[i] else "second",
                "first_verdict": verdict_name(first.alarms[i]),
                "first_score": float(first.scores[i]),
                "second_verdict": verdict_name(second.alarms[i]),
                "second_score": float(second.scores[i]),
            }
            for i in self.differing
        ]


def compare(
    runs: Sequence[Run], data: Sequence[AnomalyData], *, bootstrap: int = 1000, seed: int = 0
) -> Comparison:
    """Compares two runs on the test images of one data set.

    Args:
        runs: two of them.
        data: the data set as each run takes it: the sizes may differ. If they do, if one cuts tiles
            and the other does not, or if they fit images to their shape in another way, whole
            images are compared, without the figures of pixels; an image has the highest score of
            its tiles.
        bootstrap: number of draws.
        seed: of the draws.

    Raises:
        UsageError: images that a run does not take, or was trained on; no image that both can be
            tested on; or a data set that calls an image good for one run and defective for the
            other.
    """
    tested = []
    for run, images in zip(runs, data, strict=True):
        check_shape(run, images)
        check_untrained(run, images.spec)
        tested.append(ignoring(held_out.for_test(run, images), run.model.ignored))
    predictions = [
        predict_test_set(run.model, images) for run, images in zip(runs, tested, strict=True)
    ]
    alike = _are_alike(tested, predictions)
    first, second = (
        _verdicts(run, images, found, by_image=not alike)
        for run, images, found in zip(runs, tested, predictions, strict=True)
    )
    first, second = _in_common(first, second)
    if (first.labels != second.labels).any():
        odd = [n for n, d in zip(first.names, first.labels != second.labels, strict=True) if d]
        problem = f"calls images good for one run and defective for the other: {summarize(odd)}"
        raise UsageError("data", tested[0].spec, problem, "load it alike for both")
    groups = np.unique(tested[0].groups_of(_tile_names(first)), return_inverse=True)[1]
    draws = draw_images(first.labels, bootstrap, np.random.default_rng(seed), groups)
    figures = _figures(first, second, draws)
    if alike and tested[0].has_masks and tested[1].has_masks:
        figures |= _pixel_figures(first, second, draws, tested[0].ignored)
    differing = np.flatnonzero(first.alarms != second.alarms)
    differing = differing[np.argsort(~first.labels[differing], kind="stable")]
    unit = tested[0].unit if alike else IMAGE
    return Comparison(figures, (first, second), differing, unit, int(groups.max()) + 1)


def _are_alike(tested: Sequence[AnomalyData], predictions: Sequence[TestPredictions]) -> bool:
    """Returns whether both runs see the same pixels at the same places."""
    first, second = tested
    return (
        all(images.counted_unit == images.unit for images in tested)
        and first.image_shape[:2] == second.image_shape[:2]
        and first.fit == second.fit
        and as_config(first.ignored) == as_config(second.ignored)
        and sorted(predictions[0].names) == sorted(predictions[1].names)
    )


def _verdicts(run: Run, images: AnomalyData, found: TestPredictions, by_image: bool) -> Verdicts:
    """Returns what a run finds in the elements of a test set, or in their images."""
    threshold = float(run.model.calibration.threshold)
    names = [images.image_of(name) for name in found.names] if by_image else found.names
    unique, number = np.unique(names, return_inverse=True)
    alarms = (found.scores > threshold) | (np.array(found.reasons) != "")
    _, scores = metrics.by_image(found.labels, found.scores, number)
    labels, alarms = metrics.by_image(found.labels, alarms, number)
    order = np.lexsort((found.scores, number))  # of each number, the highest score comes last
    last = np.flatnonzero(np.diff(number[order], append=len(unique)))
    return Verdicts(
        unique.tolist(), labels.astype(bool), scores, alarms, threshold, order[last], found
    )


def _in_common(first: Verdicts, second: Verdicts) -> tuple[Verdicts, Verdicts]:
    """Returns both for the names that they share; logs how many others there are.

    Raises:
        UsageError: they share none.
    """
    shared = set(first.names) & set(second.names)
    if not shared:
        problem = "have no test image that both can be tested on"
        raise UsageError("runs", len(shared), problem, "give --data with images new to both")
    if others := sorted(set(first.names) ^ set(second.names)):
        log.warning(
            "not compared, as one run was trained on them or ignores their defects: %s",
            summarize(others),
        )
    return _some(first, shared), _some(second, shared)


def _some(verdicts: Verdicts, names: set[str]) -> Verdicts:
    kept = [i for i, name in enumerate(verdicts.names) if name in names]
    return dataclasses.replace(
        verdicts,
        names=[verdicts.names[i] for i in kept],
        labels=verdicts.labels[kept],
        scores=verdicts.scores[kept],
        alarms=verdicts.alarms[kept],
        shown=verdicts.shown[kept],
    )


def _tile_names(verdicts: Verdicts) -> list[str]:
    return [verdicts.predictions.names[i] for i in verdicts.shown]


def _figures(first: Verdicts, second: Verdicts, draws: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns the figures of scores and verdicts, as `Comparison` has them."""

    def of(run: Verdicts) -> Figures:
        exact = metrics.image_metrics(run.labels, run.scores)
        ranking = drawn_ranking(run.labels, run.scores, draws)
        found = {name: (exact[name], ranking[name]) for name in RANKING if name in ranking}
        rates = drawn_alarms(run.labels, run.alarms, draws)
        for name, members in (("false_positive_rate", ~run.labels), ("recall", run.labels)):
            if name in rates:
                found[name] = float(run.alarms[members].mean()), rates[name]
        return found

    return _differences(of(first), of(second))


def _pixel_figures(
    first: Verdicts, second: Verdicts, draws: np.ndarray, ignored: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Returns the figures of maps, of the images whose mask is known."""

    def of(run: Verdicts) -> Figures:
        known = run.predictions.masked
        kept = np.ones(len(run.shown), bool) if known is None else known[run.shown]
        masks = run.predictions.masks[run.shown[kept]][..., 0] > 0
        maps = run.predictions.maps[run.shown[kept]]
        exact = {
            "pixel_auroc": metrics.pixel_auroc(masks, maps, ignored),
            "pixel_aupro": metrics.pixel_aupro(masks, maps, ignored=ignored),
        }
        drawn = drawn_pixels(masks, maps, draws[:, kept], ignored)
        return {name: (exact[name], each) for name, each in drawn.items()}

    return _differences(of(first), of(second))


def _differences(first: Figures, second: Figures) -> dict[str, dict[str, Any]]:
    """Returns figures with their differences, from each run's figure and those of the draws."""
    found = {}
    for name, (one, of_draws) in first.items():
        other, others = second.get(name, (None, of_draws))
        if one is None or other is None:
            continue
        values = {"first": float(one), "second": float(other), "difference": float(other - one)}
        found[name] = {**values, "interval": interval(others - of_draws)}
    return found
