"""Reproducible batches of training images."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.augmentation import random_affine
from tfgad.data.kept import KeptImages
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
    would have seen. Each call decodes the images once; see `tfgad.data.kept`.

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
        UsageError: `labelled` is true, and the data set has no classes; `KeptImages` cannot hold
            the images.
    """
    is_whole = tuple(data.image_shape) == tuple(window)

    def cropped(number: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        place = [tf.cast(seed, tf.int64), number]
        return tf.image.stateless_random_crop(kept.read(row), window, place), row

    def finished(number: tf.Tensor, images: tf.Tensor, rows: tf.Tensor) -> Any:
        images = kept.values(images)
        if jitter:
            images = random_affine(images, jitter, [tf.cast(seed, tf.int64), number])
        return (images, tf.gather(data.train_labels, rows)) if labelled else images

    if labelled:
        count_classes(data)
    kept = KeptImages(data.train, data.train_size)
    # Each iterator starts the same shuffled order: a distributed `fit` draws one batch from a first
    # iterator to inspect it, and trains with a second one.
    rows = tf.data.Dataset.range(data.train_size)
    stream = tf.data.Dataset.from_tensors(0).flat_map(
        lambda _: rows.shuffle(data.train_size, seed=seed).repeat()
    )
    stream = stream.enumerate().skip(start * batch_size)
    if is_whole:
        stream = stream.batch(batch_size, drop_remainder=True)
        stream = stream.map(lambda _, rows: (kept.read(rows), rows))
    else:
        stream = stream.map(cropped, num_parallel_calls=tf.data.AUTOTUNE)
        stream = stream.batch(batch_size, drop_remainder=True)
    stream = stream.enumerate(start).map(
        lambda number, batch: finished(number, *batch), num_parallel_calls=tf.data.AUTOTUNE
    )
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
