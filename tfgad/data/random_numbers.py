"""Random numbers and smooth random noise for the images of a batch, as TensorFlow operations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.data.replicas import own_part

# Standard deviation of unit white noise that is interpolated bicubically: the mean over places of
# the sum of squared weights along one axis (Keys 1981, a = -0.5), 0.81.
INTERPOLATED_DEVIATION = 0.8


class Random:
    """Random numbers for the images of a batch: the n-th draw is that of `seed` and n.

    Under `tf.distribute` they are drawn for the whole batch, of which each replica takes its part.

    Args:
        seed: two whole numbers, int64.
        count: how many images the batch has, or this replica's part of it.
    """

    def __init__(self, seed: tf.Tensor, count: tf.Tensor):
        self.seed, self.count, self.drawn = tf.cast(seed, tf.int64), count, 0

    def _own(self, draw: Callable[..., tf.Tensor], shape: Sequence[Any]) -> tf.Tensor:
        """Returns this replica's rows of what is drawn: `[B, *shape]`."""
        self.drawn += 1
        seed = self.seed + tf.constant([0, self.drawn << 40], tf.int64)
        return own_part(draw, [self.count, *shape], seed)

    def uniform(self, low: float, high: float) -> tf.Tensor:
        """Returns one number in [low, high) per image, `[B, 1, 1, 1]`."""
        return low + (high - low) * self._own(tf.random.stateless_uniform, [1, 1, 1])

    def uniform_grid(self, rows: int, columns: int) -> tf.Tensor:
        """Returns numbers in [0, 1), `[B, rows, columns]`."""
        return self._own(tf.random.stateless_uniform, [rows, columns])

    def log_uniform(self, low: float, high: float) -> tf.Tensor:
        """Returns one number per image whose logarithm is uniform, `[B, 1, 1, 1]`."""
        return tf.exp(self.uniform(math.log(low), math.log(high)))

    def sign(self) -> tf.Tensor:
        """Returns -1 or 1 per image, `[B, 1, 1, 1]`."""
        return tf.where(self.uniform(0.0, 1.0) < 0.5, -1.0, 1.0)

    def choice(self, shares: Sequence[float]) -> tf.Tensor:
        """Returns an index per image, `[B]`, as often as the shares say."""
        upper = tf.constant(np.cumsum(shares) / np.sum(shares), tf.float32)
        number = self.uniform(0.0, 1.0)[:, 0, 0, 0]
        return tf.searchsorted(upper[:-1], number, side="right")

    def whole_numbers(self) -> tf.Tensor:
        """Returns a number in [0, 2^31 - 1) per image, int32 `[B]`."""
        draw = functools.partial(
            tf.random.stateless_uniform, minval=0, maxval=2**31 - 1, dtype=tf.int32
        )
        return self._own(draw, [])

    def noise_grid(self, cells: int, size: tf.Tensor, channels: int = 1) -> tf.Tensor:
        """Returns white noise that `smooth` interpolates, one number per cell and channel.

        Args:
            cells: along the height; three more are drawn.
            size: `(H, W)` of the images.
            channels: C, independent of each other.
        """
        across = tf.maximum(1, cells * size[1] // size[0])
        return self._own(tf.random.stateless_normal, [cells + 3, across + 3, channels])

    def noise(self, cells: int, size: tf.Tensor, channels: int = 1) -> tf.Tensor:
        """Returns noise of about unit variance that is smooth over `1 / cells` of the height.

        Args:
            cells: along the height.
            size: `(H, W)`.
            channels: C, independent of each other.

        Returns:
            float32 `[B, H, W, C]`.
        """
        # Not by `smooth`, whose product differs in the last bit: trainings would be others.
        return _interpolated(self.noise_grid(cells, size, channels), size) / INTERPOLATED_DEVIATION


def smooth(grid: tf.Tensor, size: tf.Tensor, deviation: float | tf.Tensor = 1.0) -> tf.Tensor:
    """Returns smooth noise of a standard deviation from a grid of `Random.noise_grid`.

    Args:
        grid: `[B, rows, columns, C]`.
        size: `(H, W)`.
        deviation: one for all images, or one for each, `[B, 1, 1, 1]`.

    Returns:
        float32 `[B, H, W, C]`.
    """
    return (deviation * (1.0 / INTERPOLATED_DEVIATION)) * _interpolated(grid, size)


def _interpolated(grid: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Interpolates a grid of `Random.noise_grid` bicubically, `[B, H, W, C]`."""
    cells = tf.shape(grid)[1:3]
    step = tf.maximum(2, size // (cells - 3) + 1)
    field = tf.image.resize(grid, cells * step, "bicubic")
    # The image begins one cell from the edge: there, bicubic interpolation is not smooth.
    return field[:, step[0] : step[0] + size[0], step[1] : step[1] + size[1]]
