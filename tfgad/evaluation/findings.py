"""What the figures of an evaluation mean, in numbers and in words.

The terminal, `metrics.json` and the report have the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgad.data.anomaly_data import IMAGE, AnomalyData
from tfgad.evaluation import best_baseline, false_alarms
from tfgad.evaluation.advice import what_to_try
from tfgad.evaluation.by_kind import by_kind
from tfgad.evaluation.by_product import by_product, recognised
from tfgad.evaluation.metrics import by_image
from tfgad.evaluation.predictions import TestPredictions
from tfgad.evaluation.units import Units
from tfgad.files import summarize
from tfgad.training import Run


def findings_of(
    run: Run,
    images: AnomalyData,
    predictions: TestPredictions,
    units: Mapping[str, Units],
    scores: Mapping[str, np.ndarray],
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what the figures of an evaluation mean.

    Args:
        run: the run.
        images: the data set.
        predictions: of its test images.
        units: of `units_of`.
        scores: trivial detector -> its scores of the test images.
        figures: of `figures_of`, and those of the trivial detectors, `baselines`.

    Returns:
        `best_baseline`, see `beside_the_best`; `false_alarms` of images and of tiles, see
        `false_alarms.rate_found`; `false_positive_rate_asked`, the rate that the threshold was set
        for, and `threshold_per`, what it is a share of; the figures `by_kind`; and `findings`, all
        that in words, a line each. Where pixels are ignored also `ignored`: their `share`, and the
        names of the defective images that are `left_out`, as no defect of theirs is outside. Of
        several products also `products_recognised`, how many test elements there are and how many
        are recognised, and the figures `by_product`.
    """
    counted, calibration = units[images.counted_unit], run.calibration
    scores = {
        name: by_image(predictions.labels, each, predictions.images_of)[1]
        for name, each in scores.items()
    }
    best = best_baseline.beside_the_best(counted, scores)
    findings = []
    if best:
        findings.append(best_baseline.sentence(best, counted.name))
    if best and best["difference"] <= 0:
        masks = predictions.masks if images.has_masks else None
        advice = what_to_try(run, images, figures["baselines"], best["name"], masks)
        findings.append(advice)
    asked, per = calibration["false_positive_rate"], calibration["per"]
    found = {name: _false_alarms(each, calibration) for name, each in units.items()}
    shown = per if per in units else IMAGE
    findings.append(false_alarms.sentence(found, asked, shown))
    if found[shown]["verdict"] == false_alarms.MORE:
        findings.append(_rests_on(calibration))
    for label, reasons in figures["reasons"].items():
        if reasons:
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            findings.append(f"of the {label} {images.unit}s, unlike any good one: {counts}")
    if images.hidden:
        findings.append(_left_out(images.hidden))
    of_products: dict[str, Any] = {}
    if images.products and predictions.products:
        right = recognised(images, predictions)
        of_products["products_recognised"] = right
        of_products["by_product"] = by_product(
            images, predictions, counted, calibration["threshold"]
        )
        findings.append(
            f"{right['right']} of {right['of']} {images.unit}s: product recognised. "
            "The verdicts above are by the true product."
        )
    # The labels of tiles are known if they are counted.
    tables = {each.name: each for each in (units[IMAGE], counted)}
    return {
        "best_baseline": best,
        "false_positive_rate_asked": asked,
        "threshold_per": per,
        "false_alarms": found,
        "by_kind": by_kind(tables.values(), calibration["threshold"]),
        **of_products,
        "findings": findings,
        **({} if images.ignored is None else {"ignored": _ignored(images)}),
    }


def _ignored(images: AnomalyData) -> dict[str, Any]:
    """Returns the share of ignored pixels, and the images that are left out for them."""
    share = 0.0 if images.ignored is None else float(images.ignored.mean())
    return {"share": share, "left_out": list(images.hidden)}


def _left_out(hidden: Sequence[str]) -> str:
    """Returns which images are left out, as one line."""
    names = summarize(sorted(hidden))
    return f"left out, as their defects lie wholly inside the ignored region: {names}"


def _false_alarms(units: Units, calibration: Mapping[str, Any]) -> dict[str, Any]:
    good, asked = ~units.labels, calibration["false_positive_rate"]
    of_good = units.scores[good], units.outside[good], units.groups[good]
    return false_alarms.rate_found(*of_good, calibration["threshold"], asked)


def _rests_on(calibration: Mapping[str, Any]) -> str:
    """Returns how many images set the threshold, and what to do where it does not hold."""
    unit, groups = calibration.get("unit", IMAGE), calibration.get("groups")
    of_groups = f" in {groups} groups" if groups and groups < calibration["images"] else ""
    return (
        f"the threshold rests on {calibration['images']} good {unit}s{of_groups}; try `tfgad "
        "calibrate` with further good images, that vary as those of the test do"
    )
