"""Subsets of image streams, and batches for scoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

BATCH_PIXELS = 16 * 128 * 128  # scored at once: about 1 GB with windows of 32x32


def spread(images: tf.data.Dataset, size: int, count: int) -> tf.data.Dataset:
    """Takes `count` of `size` images at even distances, or all if there are fewer.

    Neighbours in a stream may be tiles of the same image.
    """
    return _taken(images, size, spread_positions(size, count) if count < size else None)


def spread_positions(size: int, count: int) -> np.ndarray:
    """Returns the positions that `spread` takes, ascending: int `[min(count, size)]`."""
    count = min(count, size)
    return np.arange(count) * size // max(count, 1)


def drawn(images: tf.data.Dataset, size: int, count: int, seed: int) -> tf.data.Dataset:
    """Draws `count` of `size` images at random without replacement, or all if there are fewer.

    The order of the stream is kept. The same seed draws the same images.
    """
    rng = np.random.default_rng(seed)
    return _taken(images, size, rng.choice(size, count, replace=False) if count < size else None)


def _taken(images: tf.data.Dataset, size: int, positions: np.ndarray | None) -> tf.data.Dataset:
    """Takes the images at the given positions of `size`; None takes all."""
    if positions is None:
        return images
    is_taken = np.zeros(size, bool)
    is_taken[positions] = True
    wanted = tf.constant(is_taken)
    return images.enumerate().filter(lambda i, _: tf.gather(wanted, i)).map(lambda _, x: x)


def batch_size(image_shape: Sequence[int]) -> int:
    """Returns the number of images to score at once."""
    return max(1, BATCH_PIXELS // (image_shape[0] * image_shape[1]))


def batched(images: tf.data.Dataset) -> tf.data.Dataset:
    """Batches a stream of images `[H, W, C]`, or of dicts with an `image`, for scoring."""
    element = images.element_spec
    image = element["image"] if isinstance(element, dict) else element
    return images.batch(batch_size(image.shape)).prefetch(2)
