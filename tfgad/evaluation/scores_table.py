"""`scores.csv`: the score and the verdict of each test image or tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfgad.data.anomaly_data import TILE, AnomalyData
from tfgad.evaluation.predictions import TestPredictions
from tfgad.files import csv_text
from tfgad.scores.verdicts import GOOD, verdict_name

PLACE = ("x", "y", "width", "height")  # of a tile within its image, in pixels
COLUMNS = ("kind", "label", "score", "verdict", "reason")


def scores_table(predictions: TestPredictions, images: AnomalyData, threshold: float) -> str:
    """Returns one row per test image or tile, as CSV.

    Of a tile there is the name of its image and its place. The label of a tile is that of its mask,
    or where there is none that of its image.

    Args:
        predictions: of the data set's test images.
        images: the data set.
        threshold: the calibrated score.
    """
    columns = ("image", *(PLACE if images.unit == TILE else ()), *COLUMNS)
    rows = _rows(predictions, images, threshold)
    return csv_text((dict(zip(columns, row, strict=True)) for row in rows), columns)


def _rows(
    predictions: TestPredictions, images: AnomalyData, threshold: float
) -> Iterator[tuple[object, ...]]:
    labels, scores = predictions.labels.tolist(), predictions.scores.astype(np.float64)
    columns = zip(predictions.names, labels, scores, predictions.reasons, strict=True)
    for name, label, score, reason in columns:
        alarm = score > threshold or reason != ""
        yield (
            images.image_of(name),
            *(_place(name, images) if images.unit == TILE else ()),
            images.kind_of(name) if label else GOOD,
            verdict_name(label),
            f"{score:.6g}",
            verdict_name(alarm),
            reason,
        )


def _place(name: str, images: AnomalyData) -> tuple[object, ...]:
    """Returns `PLACE` of a tile: its name ends with `/x128_y0`."""
    x, _, y = name.rpartition("/")[2].partition("_")
    height, width, _ = images.image_shape
    return x.removeprefix("x"), y.removeprefix("y"), width, height
