"""What an evaluation counts: whole images, and the tiles that they were cut into."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfgad.data.anomaly_data import IMAGE, TILE, AnomalyData
from tfgad.evaluation.metrics import by_image
from tfgad.evaluation.predictions import TestPredictions
from tfgad.scores.verdicts import GOOD


@dataclasses.dataclass(frozen=True)
class Units:
    """M images or tiles of a test set.

    Attributes:
        name: what they are, `"image"` or `"tile"`.
        labels: bool `[M]`, whether each is anomalous.
        scores: float64 `[M]`.
        outside: bool `[M]`, whether each is called anomalous whatever its score.
        groups: int `[M]`, from 0 up, the group of each.
        kinds: `[M]` of strings, the kind of each anomaly, and `GOOD` of normal images.
    """

    name: str
    labels: np.ndarray
    scores: np.ndarray
    outside: np.ndarray
    groups: np.ndarray
    kinds: np.ndarray

    def alarms(self, threshold: float) -> np.ndarray:
        """Returns which are called anomalous, bool `[M]`."""
        return (self.scores > threshold) | self.outside


def units_of(predictions: TestPredictions, images: AnomalyData) -> dict[str, Units]:
    """Returns what can be counted of a test set, by name: tiles if there are any, and images.

    An image is as anomalous as its worst tile. Where the labels of its tiles are unknown, they have
    its own.

    Args:
        predictions: of the data set's test images.
        images: the data set.
    """
    labels, scores = predictions.labels.astype(bool), predictions.scores.astype(np.float64)
    outside = np.array(predictions.reasons, str) != ""
    groups = images.groups_of(predictions.names)
    kinds = np.array([images.kind_of(name) for name in predictions.names])
    of_tiles = Units(images.unit, labels, scores, outside, groups, np.where(labels, kinds, GOOD))
    if images.unit == IMAGE:
        return {IMAGE: of_tiles}
    names = [images.image_of(name) for name in predictions.names]
    _, first, image = np.unique(names, return_index=True, return_inverse=True)
    of_images, largest = by_image(labels, scores, image)
    return {
        TILE: of_tiles,
        IMAGE: Units(
            IMAGE,
            of_images,
            largest,
            by_image(labels, outside, image)[1],
            np.unique(groups[first], return_inverse=True)[1],
            np.where(of_images, kinds[first], GOOD),
        ),
    }
