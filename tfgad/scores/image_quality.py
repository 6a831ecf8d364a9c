"""Image quality: limits of simple statistics, and the reason why an image is outside of them.

A score that compares an image with itself, such as `cues`, finds nothing in a black image: no place
is worse than the rest. So a detector also estimates limits of absolute statistics from good images.
An image outside of them is anomalous whatever its score. The statistics are:

- brightness, of the image and of its darkest and brightest window;
- contrast, likewise;
- sharpness and spectrum: the shares of three octaves in the contrast;
- orientation of the texture, fine and coarse;
- skewness of the grey levels, whose sign changes in a negative;
- colour, if images have three channels.

The check is coarse. It finds tiles with less than half or more than twice the light, contrast or
sharpness of good ones, and textures turned by a right angle. It may miss slight blur or noise, dead
pixels, and another weave of the same scale: those are left to the score.

Statistics are computed per tile. The limits of each lie around its median over good images. On
either side their distance from the median is the largest of three:

1. `MARGIN` times the largest distance of a good image.
2. The prediction interval of a normal distribution (Student; Hahn 1969). All statistics together
   may reject `RATE_SHARE` of the good images that the false-positive rate allows. This matters if
   there are few good images.
3. The tolerance in `STATISTICS`. Images of two rolls or two lamps differ more than images of one,
   and an image of a blind camera differs still more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from tfgad.data import tiling
from tfgad.scores.statistics_layer import StatisticsLayer
from tfgad.scores.tile_statistics import (
    FLAT,
    FLAT_DEVIATION,
    GREY_LEVEL,
    LOWEST_CONTRAST,
    OF_COLOUR,
    REASONS,
    STATISTICS,
    statistics_of,
)

# Share of the allowed false alarms that image quality may cause, if the statistics are normal.
RATE_SHARE = 0.1
# The largest distance of 500 Gaussian values is 3.0 deviations; one value in ten million exceeds
# 1.75 times that. Of 100 test tiles each of twill and satin none exceeded 1.2 times the largest
# distance.
MARGIN = 1.75


@keras.saving.register_keras_serializable("tfgad")
class ImageQuality(StatisticsLayer):
    """Layer that returns the reason why an image is outside the limits of good images.

    The limits are weights. They are infinite until `calibrate` sets them, and in models saved
    without this layer.

    Args:
        tile: `(h, w)` of the tiles whose statistics are computed.
        window: `(h, w)` of the windows within a tile whose brightness and contrast are computed.
        channels: 1 or 3.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        tile: Sequence[int],
        window: Sequence[int],
        channels: int,
        name: str = "image_quality",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        self.tile, self.window, self.channels = _pair(tile), _pair(window), channels
        self.statistics = STATISTICS + (OF_COLOUR if channels == 3 else ())
        sides = [(each.below, each.above) for each in self.statistics]
        self.reasons = np.array([[REASONS.index(reason) for reason in side] for side in sides])
        count = len(self.statistics)
        self.median = self._statistic("median", (count,), "zeros")
        self.deviation = self._statistic("deviation", (count,), "zeros")
        self.seen = self._statistic("seen", (2, count), "zeros")  # least and greatest value
        self.tiles = self._statistic("tiles", (), "zeros")  # number of tiles in `adapt`
        infinite = keras.initializers.Constant(np.inf)
        self.limits = self._statistic("limits", (2, count), infinite)  # distances below and above
        self.built = True

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the weights. Models saved without this layer have none and get no limits."""
        if len(store.keys()):
            super().load_own_variables(store)

    @property
    def is_adapted(self) -> bool:
        """Whether the limits are set."""
        return bool(np.isfinite(self.limits.numpy()).all())

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the reason why each image is outside the limits, or `""`: string `[B]`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
        """
        return tf.gather(tf.constant(REASONS), self.reason_index(images))

    def reason_index(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the index of each image's reason in `REASONS`, int32 `[B]`.

        Rows of tiles are computed one after another, so a large image needs the memory of one row.
        """
        if images.shape[1:3] == self.tile:  # in a graph for one size there is no loop, then
            return self._reason_index(self.tile_statistics(images))
        images = tiling.pad_to_grid(images, self.tile, 1)
        starts = tiling.starts_of(tf.shape(images)[1], self.tile[0])
        none = tf.fill([tf.shape(images)[0]], len(REASONS) - 1)

        def add_row(row: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            top = starts[row]
            values = self.tile_statistics(images[:, top : top + self.tile[0]])
            of_tiles = tf.reshape(self._reason_index(values), [tf.shape(none)[0], -1])
            return row + 1, tf.minimum(first, tf.reduce_min(of_tiles, axis=1))

        rows = tf.shape(starts)[0]
        _, first = tf.while_loop(
            lambda row, first: row < rows, add_row, [0, none], parallel_iterations=1
        )
        return first

    def _reason_index(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the index of the first reason for statistics `[N, K]`: int32 `[N]`."""
        distance = values - self.median
        outside = tf.stack([-distance > self.limits[0], distance > self.limits[1]], axis=2)
        none = len(REASONS) - 1
        first = tf.reduce_min(tf.where(outside, self.reasons, none), axis=[1, 2])
        is_flat = values[:, LOWEST_CONTRAST] < math.log(FLAT_DEVIATION + GREY_LEVEL)
        is_flat &= outside[:, LOWEST_CONTRAST, 0]
        return tf.cast(tf.where(is_flat, tf.minimum(first, REASONS.index(FLAT)), first), tf.int32)

    def adapt(self, values: np.ndarray) -> None:
        """Estimates median, deviation and range from the statistics `[N, K]` of good tiles."""
        self.median.assign(np.median(values, axis=0))
        self.deviation.assign(np.std(values, axis=0, ddof=1) if len(values) > 1 else values[0] * 0)
        self.seen.assign([values.min(axis=0), values.max(axis=0)])
        self.tiles.assign(len(values))

    def calibrate(self, values: np.ndarray, false_positive_rate: float) -> None:
        """Sets the limits, from the estimates of `adapt` and from held-out good images.

        Args:
            values: statistics `[N, K]` of the tiles of held-out good images.
            false_positive_rate: of the detector; see `RATE_SHARE`.
        """
        if not self.tiles.numpy():
            self.adapt(values)
        median, deviation, seen = (
            weight.numpy() for weight in (self.median, self.deviation, self.seen)
        )
        count, tolerance = float(self.tiles), [each.tolerance for each in self.statistics]
        below = np.maximum(median - seen[0], median - values.min(axis=0))
        above = np.maximum(seen[1] - median, values.max(axis=0) - median)
        rate_per_side = RATE_SHARE * false_positive_rate / (2 * len(tolerance))
        student = stats.t.isf(rate_per_side, max(count - 1, 1)) * math.sqrt(1 + 1 / count)
        least = np.maximum(student * deviation, tolerance)
        self.limits.assign([np.maximum(MARGIN * below, least), np.maximum(MARGIN * above, least)])

    def tile_statistics(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the statistics of the tiles of images `[B, H, W, C]`: `[B * tiles, K]`.

        Tiles lie side by side. The last tile of a row or column ends at the edge of the image and
        may overlap the one before it.
        """
        tiles = tiling.cut_to_edge(tiling.pad_to_grid(images, self.tile, 1), self.tile)
        tiles = tf.reshape(tiles, [-1, *self.tile, self.channels])
        return statistics_of(tiles, self.window)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"tile": self.tile, "window": self.window, "channels": self.channels}
        return {**super().get_config(), **own}


def first_reason(reasons: Iterable[str]) -> str:
    """Returns the reason of an image from those of its parts: the first by priority."""
    return min(reasons, key=REASONS.index)


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return height, width
