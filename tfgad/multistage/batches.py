"""Arrays to endless training batches, the same in every run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfgad.multistage.patches import GAIN, SHADE


def endless(
    arrays: Mapping[str, np.ndarray], batch_size: int, seed: int, start: int
) -> tf.data.Dataset:
    """Returns endless shuffled batches of rows.

    Args:
        arrays: of as many rows each.
        batch_size: rows per batch.
        seed: of the order.
        start: number of the first batch.
    """
    count = len(next(iter(arrays.values())))
    stream = tf.data.Dataset.from_tensor_slices(dict(arrays)).shuffle(count, seed=seed).repeat()
    stream = stream.skip(start * batch_size).batch(batch_size, drop_remainder=True)
    return stream.prefetch(tf.data.AUTOTUNE)


def segmentation_batches(
    defective: np.ndarray,
    masks: np.ndarray,
    good: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
) -> tf.data.Dataset:
    """Returns endless batches for a segmenter: images and masks, half of them of good fabric.

    They are augmented by turns, mirroring, contrast and brightness, which depend on the seed and
    the number of the batch.

    Args:
        defective: float32 `[N, H, W, C]` in [-1, 1], H = W.
        masks: uint8 `[N, H, W, 1]`.
        good: float32 `[M, H, W, C]`.
        batch_size: images per batch.
        seed: of order and augmentation.
        start: number of the first batch.
    """
    half = batch_size // 2
    of_defects = endless({"image": defective, "mask": masks}, half, seed, start)
    of_good = endless({"image": good}, batch_size - half, seed + 1, start)

    def joined(
        number: tf.Tensor, rows: tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with_defect, without = rows
        images = tf.concat([with_defect["image"], without["image"]], axis=0)
        empty = tf.zeros([batch_size - half, *masks.shape[1:]], tf.uint8)
        both = tf.concat([with_defect["mask"], empty], axis=0)
        return augmented(images, both, [tf.cast(seed, tf.int64), number])

    stream = tf.data.Dataset.zip(of_defects, of_good).enumerate(start)
    return stream.map(joined, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def augmented(
    images: tf.Tensor, masks: tf.Tensor, seed: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Turns and mirrors a batch with its masks, and changes contrast and brightness per image."""
    chance = tf.random.stateless_uniform([2], seed)
    both = tf.concat([images, tf.cast(masks, tf.float32)], axis=-1)
    both = tf.image.rot90(both, tf.cast(chance[0] * 4, tf.int32))
    both = tf.cond(chance[1] < 0.5, lambda: both, lambda: both[:, :, ::-1])
    tone = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 2], seed)
    gain = GAIN[0] + (GAIN[1] - GAIN[0]) * tone[..., :1]
    shade = SHADE * (2.0 * tone[..., 1:] - 1.0)
    toned = tf.clip_by_value(both[..., :-1] * gain + shade, -1.0, 1.0)
    changed_masks = tf.cast(both[..., -1:], tf.uint8)
    return tf.ensure_shape(toned, images.shape), tf.ensure_shape(changed_masks, masks.shape)
