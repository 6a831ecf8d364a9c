"""Arrays to endless training batches, the same in every run."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfgad.multistage.patches import GAIN, SHADE


def endless(arrays: dict[str, np.ndarray], batch_size: int, seed: int, start: int):
    """Shuffled batches of rows, from batch number `start`; each array has as many rows."""
    count = len(next(iter(arrays.values())))
    stream = tf.data.Dataset.from_tensor_slices(arrays).shuffle(count, seed=seed).repeat()
    stream = stream.skip(start * batch_size).batch(batch_size, drop_remainder=True)
    return stream.prefetch(tf.data.AUTOTUNE)


def segmentation_batches(defective, masks, good, *, batch_size: int, seed: int, start: int = 0):
    """Batches for a segmenter: pairs of images and masks, half of them of good fabric.

    Each is turned, mirrored and toned by chance, by its number in the stream.

    Args:
        defective: float32 `[N, H, W, C]` in [-1, 1], H = W.
        masks: uint8 `[N, H, W, 1]`.
        good: float32 `[M, H, W, C]`.
        batch_size: even.
        seed: of order and changes.
        start: the number of the first batch.
    """
    half = batch_size // 2
    of_defects = endless({"image": defective, "mask": masks}, half, seed, start)
    of_good = endless({"image": good}, batch_size - half, seed + 1, start)

    def joined(number, both):
        defects, sound = both
        images = tf.concat([defects["image"], sound["image"]], axis=0)
        none = tf.zeros([batch_size - half, *masks.shape[1:]], tf.uint8)
        marked = tf.concat([defects["mask"], none], axis=0)
        return changed(images, marked, [tf.cast(seed, tf.int64), number])

    stream = tf.data.Dataset.zip(of_defects, of_good).enumerate(start)
    return stream.map(joined, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def changed(images, masks, seed):
    """Turns and mirrors a batch and its masks, and gives each image its own contrast and shade."""
    chance = tf.random.stateless_uniform([2], seed)
    both = tf.concat([images, tf.cast(masks, tf.float32)], axis=-1)
    both = tf.image.rot90(both, tf.cast(chance[0] * 4, tf.int32))
    both = tf.cond(chance[1] < 0.5, lambda: both, lambda: both[:, :, ::-1])
    tone = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 2], seed)
    gain = GAIN[0] + (GAIN[1] - GAIN[0]) * tone[..., :1]
    shade = SHADE * (2.0 * tone[..., 1:] - 1.0)
    toned = tf.clip_by_value(both[..., :-1] * gain + shade, -1.0, 1.0)
    image_shape, mask_shape = images.shape, masks.shape
    return tf.ensure_shape(toned, image_shape), tf.ensure_shape(
        tf.cast(both[..., -1:], tf.uint8), mask_shape
    )
