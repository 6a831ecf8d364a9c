"""Letterboxing in a graph: `tfgad.data.pixels.resize` and `without_padding` for batches."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def letterboxed(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Resizes images `[B, H, W, C]` with their aspect ratio, and pads them by their mirror image.

    Args:
        images: of one size.
        size: `(height, width)` of what is returned.

    Returns:
        float32 `[B, height, width, C]`.
    """
    inner = _fitted_size(tf.shape(images)[1:3], size)
    images = tf.image.resize(images, inner, antialias=True)
    for axis, length in enumerate(size):
        images = tf.gather(images, _mirrored_places(inner[axis], length), axis=axis + 1)
    return tf.ensure_shape(images, [None, *size, None])


def without_padding(padded: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns the part `[B, h, w, C]` of letterboxed `[B, height, width, C]` that is not padding.

    Args:
        padded: images or maps.
        shape: int32 `[2]`, `(height, width)` of the images before they were letterboxed.
    """
    size = tf.shape(padded)[1:3]
    height, width = tf.unstack(_fitted_size(shape, tf.unstack(size)))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return padded[:, top : top + height, left : left + width]


def _fitted_size(shape: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Returns int32 `[2]`: `tfgad.data.pixels.fitted_size`."""
    high, wide = tf.unstack(tf.cast(shape, tf.int64))  # products of sides may exceed 32 bits
    height, width = (tf.cast(side, tf.int64) for side in size)
    one = tf.constant(1, tf.int64)
    by_height = [height, tf.maximum(one, (2 * wide * height + high) // (2 * high))]
    by_width = [tf.maximum(one, (2 * high * width + wide) // (2 * wide)), width]
    return tf.cast(tf.where(wide * height <= high * width, by_height, by_width), tf.int32)


def _mirrored_places(count: tf.Tensor, length: int) -> tf.Tensor:
    """Returns int32 `[length]`: which of `count` rows comes where, with mirror images around."""
    places = tf.math.floormod(tf.range(length) - (length - count) // 2, 2 * count)
    return tf.minimum(places, 2 * count - 1 - places)
