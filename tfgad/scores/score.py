"""Interface of scores: from the error maps of windows to a score and an anomaly map per image.

A score has two stages. `window_errors` selects or computes the error maps of each window. They are
then blended over the image, and `__call__` turns the blended maps into the anomaly map and the
score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from tfgad.data import tiling
from tfgad.data.warping import gaussian_blur

CUES, DENSITY = "cues", "density"  # names of scores that methods have beside their paper's
# Of methods with a network that marks synthetic defects; see `joint.py` and `feature_regions.py`.
JOINT, MARKS = "joint", "marks"
PLACES = "places"  # of methods that reconstruct, on parts that lie alike; see `places.py`
JOINT_PLACES = "joint_places"  # of those with such a network, too; see `joint.py`
BY_PLACE = (PLACES, JOINT_PLACES)  # a model with one of them has the statistics of both
REGIONS = "regions"  # of pretrained features; see `regions.py`
DRAEM = "draem"  # the score of DRAEM's paper
DEFECT = "defect"  # the score of a segmenter
# The largest value of the map on images of every size.
PEAKS = (CUES, PLACES, JOINT, JOINT_PLACES, MARKS, REGIONS, DRAEM, DEFECT)
# Computed tile by tile, of most methods.
BY_TILE = (CUES, PLACES, JOINT, JOINT_PLACES, MARKS)

MAP_SIGMA = 4.0  # pixels; the usual smoothing of anomaly maps (Roth et al. 2022)
BLUR_RADIUS = math.ceil(3 * MAP_SIGMA)


class Score(Protocol):
    """Protocol of a score. Higher scores and map values are more anomalous.

    Attributes:
        is_peak: whether the score of an image of one window is the largest value of its map. On
            larger images it always is.
    """

    is_peak: bool

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the error maps that the score uses, `[N, h, w, K]`.

        Args:
            windows: float32 `[N, h, w, C]` in [-1, 1].
            errors: what the method's `errors` returns for them.
        """

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `score` `[B]` and `map` `[B, H, W]`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            errors: `window_errors` blended over the images, `[B, H, W, K]`.
        """


class MeanErrorScore:
    """The score of most papers: the mean over the window of the sum of some errors.

    For images larger than the window the score is the largest value of the blurred error map.

    Args:
        names: of the errors that are added.
        window: `(h, w)`.
    """

    is_peak = False

    def __init__(self, names: Sequence[str], window: Sequence[int]):
        self.names, self.window = tuple(names), tuple(window)

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the named errors, `[N, h, w, K]`."""
        return tf.stack([errors[name] for name in self.names], axis=-1)

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the score, and the blurred sum of the errors as the map."""
        error = tf.reduce_sum(errors, axis=-1)
        anomaly_map = gaussian_blur(error[..., None], MAP_SIGMA)[..., 0]
        is_window = tf.reduce_all(tf.shape(images)[1:3] == self.window)
        mean = tf.reduce_mean(error, axis=[1, 2])
        largest = tf.reduce_max(anomaly_map, axis=[1, 2])
        return {"score": tf.where(is_window, mean, largest), "map": anomaly_map}


class LargestErrorScore:
    """The largest value of the sum of some errors, which is the map.

    Args:
        names: of the errors that are added.
    """

    is_peak = True

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the named errors, `[N, h, w, K]`."""
        return tf.stack([errors[name] for name in self.names], axis=-1)

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the sum of the errors as the map, and its largest value as the score."""
        anomaly_map = tf.reduce_sum(errors, axis=-1)
        return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}


def is_largest_of_map(score: str, size: Sequence[int], window: Sequence[int]) -> bool:
    """Returns whether the score of an image is the largest value of its map.

    The threshold of the scores then is one of pixels, too.

    Args:
        score: its name.
        size: `(height, width)` or more of the image that is scored.
        window: the same of the detector.
    """
    return score in PEAKS or tuple(size[:2]) != tuple(window[:2])


def margins_of(
    window: Sequence[int], tile: Sequence[int], stride: int, score: str | None
) -> tuple[tiling.Margin, tiling.Margin]:
    """Returns the margins of a detector's map, along rows and columns.

    Args:
        window: `(h, w)` or `(h, w, C)` of the detector.
        tile: `(height, width)` of the detector.
        stride: of the detector's windows, in pixels.
        score: name of the score; None for the reconstruction instead of a map.
    """
    if score in BY_TILE:
        second = [(side, tiling.half_stride(side)) for side in tile]
    else:  # the map is blurred, a reconstruction is not
        second = 2 * [(1 if score is None else BLUR_RADIUS + 1, 1)]
    strides = tiling.strides_of(window[:2], stride)
    rows, columns = (
        tiling.two_stage_margin(side, step, *of_second)
        for side, step, of_second in zip(window[:2], strides, second, strict=True)
    )
    return rows, columns
