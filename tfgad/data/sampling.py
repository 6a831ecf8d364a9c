"""Subsets and batches of images that are scored or learnt from one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

BATCH_PIXELS = 16 * 128 * 128  # of images scored at once: about 1 GB at 32x32 windows


def spread(images: tf.data.Dataset, size: int, count: int) -> tf.data.Dataset:
    """Takes `count` of `size` images, evenly, or all if they are fewer.

    Neighbours may be pieces of one picture.
    """
    return _taken(images, size, np.arange(count) * size // count if count < size else None)


def drawn(images: tf.data.Dataset, size: int, count: int, seed: int) -> tf.data.Dataset:
    """Draws `count` of `size` images at random, none twice, or takes all if they are fewer.

    They come in their own order, the same ones for the same seed.
    """
    rng = np.random.default_rng(seed)
    return _taken(images, size, rng.choice(size, count, replace=False) if count < size else None)


def _taken(images: tf.data.Dataset, size: int, places: np.ndarray | None) -> tf.data.Dataset:
    """Takes the images at the given places of `size`; all of them for None."""
    if places is None:
        return images
    is_taken = np.zeros(size, bool)
    is_taken[places] = True
    wanted = tf.constant(is_taken)
    return images.enumerate().filter(lambda i, _: tf.gather(wanted, i)).map(lambda _, x: x)


def batch_size(image_shape: Sequence[int]) -> int:
    """Returns how many images to score at once."""
    return max(1, BATCH_PIXELS // (image_shape[0] * image_shape[1]))


def batched(images: tf.data.Dataset) -> tf.data.Dataset:
    """Batches images `[H, W, C]`, or dicts with an `image`, for scoring."""
    element = images.element_spec
    image = element["image"] if isinstance(element, dict) else element
    return images.batch(batch_size(image.shape)).prefetch(2)
