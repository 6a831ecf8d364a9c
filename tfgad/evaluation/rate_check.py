"""Whether a threshold still holds its false-positive rate, on good images that are new to it.

The check fails if more good images than that are called anomalous, if scores or brightness have
drifted, or if images are unlike any good one.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfgad.data.anomaly_data import IMAGE, TILE, AnomalyData
from tfgad.data.sampling import batched
from tfgad.evaluation import false_alarms
from tfgad.evaluation.metrics import by_image
from tfgad.evaluation.pixel_metrics import refuse_not_finite
from tfgad.evaluation.predictions import Progress, no_progress
from tfgad.scores import drift
from tfgad.scores.drift import BRIGHTNESS, QUANTITIES, SCORE, CalibrationScores
from tfgad.scores.image_quality import first_reason

ALARMS, DRIFT, QUALITY = "false alarms", "drift", "image quality"  # what may fail

# Images float32 `[B, H, W, C]` in [-1, 1], and the name of each one's product, None where the data
# are of one -> the score, the reason and the brightness of each; brightness is NaN if unknown.
Score = Callable[[np.ndarray, list[str] | None], tuple[np.ndarray, list[str], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class GoodScores:
    """Scores of N good images or tiles.

    Attributes:
        scores: float `[N]`.
        reasons: `[N]` of strings, why each is unlike any good one; empty where it is not.
        images: `[N]` of strings, the image that each is, or is a tile of.
        groups: `[N]` of strings, the group of each.
        brightness: float `[N]`, the mean grey level of each; NaN if it is unknown.
        unit: what they are, `"image"` or `"tile"`.
        defective: number of defective images that were left out.
    """

    scores: np.ndarray
    reasons: np.ndarray
    images: np.ndarray
    groups: np.ndarray
    brightness: np.ndarray
    unit: str
    defective: int = 0


def score_good_images(
    score: Score, images: AnomalyData, progress: Progress = no_progress
) -> GoodScores:
    """Scores the calibration images of a data set, and the good ones of its test.

    The tiles of a test image with a defect are left out.

    Args:
        score: scores a batch.
        images: the data set.
        progress: called after each batch.
    """
    total, done = images.calibration_size + images.test_size, 0
    rows: list[tuple[Any, ...]] = []
    defective: set[str] = set()
    for batch, labels, names, groups, products in _batches(images):
        good = labels == 0
        if good.any():
            columns = np.array(names)[good], np.array(groups)[good]
            of_good = np.array(products)[good].tolist() if images.products else None
            rows.extend(zip(*score(batch[good], of_good), *columns, strict=True))
        defective.update(np.array(names)[~good])
        done += len(batch)
        progress("scoring good images", done, total)
    left = [row for row in rows if row[3] not in defective]

    def column(number: int, kind: type) -> np.ndarray:
        return np.array([row[number] for row in left], kind)

    return GoodScores(
        scores=column(0, float),
        reasons=column(1, str),
        brightness=column(2, float),
        images=column(3, str),
        groups=column(4, str),
        unit=images.unit,
        defective=len(defective),
    )


def _batches(
    images: AnomalyData,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str], list[str], list[str]]]:
    """Yields images, labels, names of images, groups and products.

    They are those of the calibration, then those of the test.
    """
    origins, done = images.calibration_origins, 0
    for batch in batched(images.calibration).as_numpy_iterator():
        names = groups = [f"calibration/{done + i}" for i in range(len(batch))]
        if origins is not None:
            own = origins.at(slice(done, done + len(batch)))
            groups = [str(each) for each in own.groups]
            names = names if own.images is None else [str(each) for each in own.images]
        products = [""] * len(batch)
        if images.products and images.calibration_products is not None:
            own_products = images.calibration_products[done : done + len(batch)]
            products = [images.products[number] for number in own_products]
        done += len(batch)
        yield batch, np.zeros(len(batch), int), names, groups, products
    for batch in batched(images.test).as_numpy_iterator():
        names = [images.image_of(name.decode()) for name in batch["name"]]
        groups = [images.test_groups.get(name, name) for name in names]
        products = [images.product_of(name.decode()) for name in batch["name"]]
        yield batch["image"], batch["label"], names, groups, products


def check_rate(
    found: GoodScores,
    threshold: float,
    asked: float,
    per: str,
    calibration: CalibrationScores | None,
) -> dict[str, Any]:
    """Returns what the check finds, ready for JSON.

    Args:
        found: scores of good images that the model has not seen.
        threshold: the model's.
        asked: the false-positive rate that it was set for.
        per: what that is a share of, `"image"` or `"tile"`.
        calibration: what the model stores of its calibration images; None if it does not.

    Returns:
        The number of `images`; `false_alarms`, see `false_alarms.rate_found`, with the rate `asked`
        and `per`; `drift`, with the number of independent images that were `compared`, and of
        `score` and `brightness` the `mean_rank` and `p`, None if it was not tested; `reasons`, how
        many images are unlike any good one, by reason; `failed`, the names of what does not hold,
        such as `"drift"`; and `findings`, a line each.

    Raises:
        ValueError: scores that are not finite.
    """
    refuse_not_finite("scores", found.scores)
    names, first, image = np.unique(found.images, return_index=True, return_inverse=True)
    reasons = _reasons(found, names)
    unit = per if found.unit == TILE else IMAGE
    scores, outside, groups = found.scores, found.reasons != "", found.groups
    if unit != found.unit:
        _, scores = by_image(outside, scores, image)
        outside, groups = reasons != "", groups[first]
    rate = false_alarms.rate_found(scores, outside, groups, threshold, asked)
    drifted, drift_line = _drift(found, calibration)
    unlike = collections.Counter(reasons[reasons != ""].tolist())
    failed = [
        name
        for name, has_failed in {
            ALARMS: rate["verdict"] == false_alarms.MORE,
            DRIFT: any(_has_drifted(drifted[each.name]["p"]) for each in QUANTITIES),
            QUALITY: bool(unlike),
        }.items()
        if has_failed
    ]
    counts = ", ".join(f"{count} {reason}" for reason, count in unlike.most_common())
    quality = f"{sum(unlike.values())} of {len(first)} images are unlike any good one: {counts}"
    return {
        "images": len(first),
        "false_alarms": {"asked": asked, "per": unit, **rate},
        "drift": drifted,
        "reasons": dict(unlike),
        "failed": failed,
        "findings": [
            false_alarms.sentence({unit: rate}, asked, unit),
            drift_line,
            f"image quality: {quality if unlike else 'all images are like good ones'}",
        ],
    }


def _reasons(found: GoodScores, images: np.ndarray) -> np.ndarray:
    """Returns the reason of each image, the first by priority of its tiles; `""` without one."""
    of_images: dict[str, list[str]] = {image: [""] for image in images.tolist()}
    for image, reason in zip(found.images.tolist(), found.reasons.tolist(), strict=True):
        of_images[image].append(reason)
    return np.array([first_reason(of_tiles) for of_tiles in of_images.values()], str)


def _drift(found: GoodScores, calibration: CalibrationScores | None) -> tuple[dict[str, Any], str]:
    """Returns the comparisons with the calibration images, in numbers and as one line."""
    groups = len(set(found.groups))
    untested = {each.name: {"mean_rank": None, "p": None} for each in QUANTITIES}
    numbers: dict[str, Any] = {"compared": groups, **untested}
    if calibration is None:
        return numbers, drift.UNTESTED
    what = "images" if groups == len(found.scores) else "groups of images"
    if groups < drift.LEAST:
        return numbers, f"no drift test: there are {groups} {what}, and it needs {drift.LEAST}"
    if few := drift.too_few(calibration, groups):
        return numbers, few
    comparisons = []
    for quantity in calibration.tested():
        values = found.scores if quantity is SCORE else found.brightness
        comparison = drift.compare(calibration, values, found.groups, quantity)
        if comparison is not None:  # the brightness may be unknown
            comparisons.append(comparison)
            numbers[quantity.name] = {"mean_rank": comparison.rank, "p": comparison.p}
    drifts = [each for each in comparisons if _has_drifted(each.p)]
    if drifts:
        return numbers, f"drift: {drift.advice(drifts, what=what)}"
    ranks = " and ".join(f"{each.rank:.2f} by {each.quantity.name}" for each in comparisons)
    least = min(each.p for each in comparisons)
    line = f"drift: none seen in {groups} {what} (mean rank {ranks}"
    line = f"{line}, 0.5 if they are as in calibration; p = {least:.2g})"
    tests_brightness = BRIGHTNESS in calibration.tested()
    return numbers, line if tests_brightness else f"{line}; {drift.UNTESTED_BRIGHTNESS}"


def _has_drifted(p: float | None) -> bool:
    return p is not None and p < drift.LEVEL
