"""A gallery of the worst mistakes: false alarms with high scores, misses with low ones."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tfgad.data.anomaly_data import IMAGE, AnomalyData
from tfgad.evaluation.predictions import TestPredictions, heat_maps
from tfgad.evaluation.units import Units

EACH = 8  # false alarms, and misses


def gallery(
    predictions: TestPredictions, images: AnomalyData, units: Units, threshold: float
) -> Figure | None:
    """Plots the worst mistakes with their true masks and heat maps; None if there are none.

    Args:
        predictions: of the data set's test images.
        images: the data set.
        units: the images or tiles that are counted.
        threshold: the calibrated score.
    """
    alarms, miss = worst(predictions, images, units, threshold)
    places = np.concatenate([alarms, miss])
    if not places.size:
        return None
    labels = np.repeat([0, 1], [len(alarms), len(miss)])
    title = "The worst false alarms and misses"
    return heat_maps(predictions, images, places, threshold, labels, title)


def worst(
    predictions: TestPredictions, images: AnomalyData, units: Units, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the worst false alarms and of the worst misses, worst first.

    Of an image that is counted as a whole, that is its tile with the highest score. An image that
    is unlike any good one is no mistake of the score, and left out.
    """
    place = np.arange(len(predictions.scores))
    if units.name == IMAGE != images.unit:
        names = [images.image_of(name) for name in predictions.names]
        number = np.unique(names, return_inverse=True)[1]
        order = np.lexsort((predictions.scores, number))
        place = order[np.append(np.diff(number[order]) != 0, True)]
    above, scored = units.scores > threshold, ~units.outside
    alarms = np.flatnonzero(~units.labels & above & scored)
    miss = np.flatnonzero(units.labels & ~above & scored)
    alarms = alarms[np.argsort(-units.scores[alarms], kind="stable")][:EACH]
    miss = miss[np.argsort(units.scores[miss], kind="stable")][:EACH]
    return place[alarms], place[miss]
