"""`scores.csv`: the score and the verdict of each test image or tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfgad.data.anomaly_data import TILE, AnomalyData
from tfgad.evaluation.predictions import TestPredictions
from tfgad.files import csv_text
from tfgad.scores.map_regions import find_regions
from tfgad.scores.verdicts import GOOD, verdict_name

PLACE = ("x", "y", "width", "height")  # of a tile within its image, in pixels
COLUMNS = ("kind", "label", "score", "verdict", "reason")
# The number of regions of the map above the threshold, and the box of the largest.
REGIONS = ("regions", "region_x", "region_y", "region_width", "region_height")


def scores_table(
    predictions: TestPredictions,
    images: AnomalyData,
    threshold: float,
    map_threshold: float | None,
) -> str:
    """Returns one row per test image or tile, as CSV.

    Of a tile there is the name of its image and its place; its regions are in its own pixels. The
    label of a tile is that of its mask, or where there is none that of its image.

    Args:
        predictions: of the data set's test images.
        images: the data set.
        threshold: the calibrated score.
        map_threshold: that of pixels; None where the score is no maximum of the map, so that its
            regions are unknown.
    """
    columns = ("image", *(PLACE if images.unit == TILE else ()), *COLUMNS, *REGIONS)
    rows = _rows(predictions, images, threshold, map_threshold)
    return csv_text((dict(zip(columns, row, strict=True)) for row in rows), columns)


def _rows(
    predictions: TestPredictions,
    images: AnomalyData,
    threshold: float,
    map_threshold: float | None,
) -> Iterator[tuple[object, ...]]:
    labels, scores = predictions.labels.tolist(), predictions.scores.astype(np.float64)
    columns = zip(
        predictions.names, labels, scores, predictions.reasons, predictions.maps, strict=True
    )
    for name, label, score, reason, anomaly_map in columns:
        alarm = score > threshold or reason != ""
        yield (
            images.image_of(name),
            *(_place(name, images) if images.unit == TILE else ()),
            images.kind_of(name) if label else GOOD,
            verdict_name(label),
            f"{score:.6g}",
            verdict_name(alarm),
            reason,
            *_regions(anomaly_map, map_threshold),
        )


def _regions(anomaly_map: np.ndarray, map_threshold: float | None) -> tuple[object, ...]:
    """Returns `REGIONS` of a map."""
    if map_threshold is None:
        return ("",) * len(REGIONS)
    found = find_regions(anomaly_map, map_threshold)
    return len(found), *(found[0][:4] if found else ("",) * 4)


def _place(name: str, images: AnomalyData) -> tuple[object, ...]:
    """Returns `PLACE` of a tile: its name ends with `/x128_y0`."""
    x, _, y = name.rpartition("/")[2].partition("_")
    height, width, _ = images.image_shape
    return x.removeprefix("x"), y.removeprefix("y"), width, height
