"""Reproducible batches of training images."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.augmentation import random_affine
from tfgad.errors import UsageError


def training_batches(
    data: AnomalyData,
    window: tuple[int, int, int],
    *,
    batch_size: int = 64,
    seed: int = 0,
    start: int = 0,
    labelled: bool = False,
    jitter: float = 0.0,
) -> tf.data.Dataset:
    """Returns an endless stream of batches of random windows of the training images.

    The content of a batch depends only on its number, the seed and TensorFlow's global seed, which
    `tfgad.build` sets. A resumed run therefore continues with the images that an uninterrupted run
    would have seen. The images are cached in memory as float32.

    Args:
        data: the data set whose training images are used.
        window: `(h, w, C)`; larger images are cropped at a random position.
        batch_size: images per batch.
        seed: seed of the order and of the positions.
        start: number of the first batch.
        labelled: whether to return pairs of images and labels. The images are the same.
        jitter: strength of `tfgad.data.augmentation.random_affine`; 0 turns it off.

    Returns:
        Images float32 `[batch_size, h, w, C]` in [-1, 1]; if `labelled`, pairs with labels int32
        `[batch_size]`, indices of `data.classes`.

    Raises:
        UsageError: `labelled` is true, and the data set has no classes.
    """
    is_whole = tuple(data.image_shape) == tuple(window)

    def cropped(number: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        if is_whole:
            return image
        return tf.image.stateless_random_crop(image, window, [tf.cast(seed, tf.int64), number])

    def cropped_with_label(number: tf.Tensor, pair: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return cropped(number, pair[0]), pair[1]

    def augmented(number: tf.Tensor, batch: Any) -> Any:
        images, *labels = batch if labelled else (batch,)
        images = random_affine(images, jitter, [tf.cast(seed, tf.int64), number])
        return (images, *labels) if labelled else images

    stream = data.train.cache()
    if labelled:
        count_classes(data)
        stream = tf.data.Dataset.zip(stream, tf.data.Dataset.from_tensor_slices(data.train_labels))
    # Each iterator starts the same shuffled order: a distributed `fit` draws one batch from a first
    # iterator to inspect it, and trains with a second one.
    rows = stream
    stream = tf.data.Dataset.from_tensors(0).flat_map(
        lambda _: rows.shuffle(data.train_size, seed=seed).repeat()
    )
    stream = stream.enumerate().skip(start * batch_size)
    crop = cropped_with_label if labelled else cropped
    stream = stream.map(crop, num_parallel_calls=None if is_whole else tf.data.AUTOTUNE)
    stream = stream.batch(batch_size, drop_remainder=True)
    if jitter:
        stream = stream.enumerate(start).map(augmented, num_parallel_calls=tf.data.AUTOTUNE)
    return stream.prefetch(tf.data.AUTOTUNE)


def count_classes(data: AnomalyData, given: int = 0) -> int:
    """Returns the number of classes of the normal images.

    Raises:
        UsageError: the data set has no classes, or not as many as `given`, if that is not 0.
    """
    count = len(data.classes)
    if not count:
        hint = "give a data set with classes, such as mnist:!2"
        raise UsageError("data", data.spec, "has no classes", hint)
    if given not in (0, count):
        raise UsageError("classes", given, f"but {data.spec} has {count}", "leave it out")
    return count
