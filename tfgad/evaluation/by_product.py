"""Figures of each product of a test set, and how many images a model recognises rightly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfgad.data.anomaly_data import IMAGE, AnomalyData
from tfgad.evaluation.metrics import image_metrics
from tfgad.evaluation.predictions import TestPredictions
from tfgad.evaluation.units import Units

# Figure of a product -> its name in tables.
PRODUCT_FIGURES = {
    "good": "good",
    "defective": "defective",
    "image_auroc": "AUROC",
    "image_ap": "AP",
    "recall": "found",
    "false_alarm_rate": "false alarms",
    "recognised": "recognised",
}


def by_product(
    images: AnomalyData, predictions: TestPredictions, units: Units, threshold: float
) -> dict[str, dict[str, Any]]:
    """Returns the figures of each product.

    Args:
        images: the data set, of several products.
        predictions: of its test images.
        units: what is counted, of `units_of`.
        threshold: a score.

    Returns:
        Product -> `good` and `defective`, their numbers; `image_auroc` and
        `image_ap` within the product; `recall` and `false_alarm_rate`, the shares of
        defective and good ones that are called anomalous; `recognised`, the share of its test
        elements whose product the model recognises. What cannot be computed is None.
    """
    truth = np.array([images.product_of(name) for name in predictions.names], str)
    found = np.array(predictions.products, str)
    names = predictions.names
    if units.name == IMAGE and images.unit != IMAGE:
        names = sorted({images.image_of(name) for name in names})  # the order of `units_of`
    of_units = np.array([images.product_of(name) for name in names], str)
    alarms = units.alarms(threshold)
    figures = {}
    for product in images.products:
        own = of_units == product
        labels, alarm = units.labels[own], alarms[own]
        of_scores = image_metrics(labels, units.scores[own])
        figures[product] = {
            "good": int((~labels).sum()),
            "defective": int(labels.sum()),
            **{name: of_scores[name] for name in ("image_auroc", "image_ap")},
            "recall": _share(alarm[labels]),
            "false_alarm_rate": _share(alarm[~labels]),
            "recognised": _share(found[truth == product] == product) if found.size else None,
        }
    return figures


def recognised(images: AnomalyData, predictions: TestPredictions) -> dict[str, int]:
    """Returns how many test elements there are, `of`, and of how many the product is `right`."""
    truth = [images.product_of(name) for name in predictions.names]
    right = sum(a == b for a, b in zip(truth, predictions.products, strict=True))
    return {"right": right, "of": len(truth)}


def _share(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
