"""Normal images to training batches, the same in every run."""

import tensorflow as tf

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.augmentation import jittered
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
    """Returns endless batches of random windows of the training images.

    What a batch holds depends on its number, the seed and TensorFlow's global seed (which
    `tfgad.build` sets) alone, so that a resumed run goes on with the very images that an
    uninterrupted one would have seen. The images are kept in memory, as float32.

    Args:
        data: its training images are used.
        window: `(h, w, C)`; a place is drawn at random where images are larger.
        batch_size: of the batches, float32 `[batch_size, h, w, C]` in [-1, 1].
        seed: of the order and the places.
        start: the number of the first batch.
        labelled: give pairs instead, of such a batch and the images' classes, int32
            `[batch_size]`: places in `data.classes`. The images stay the same.
        jitter: strength of `tfgad.data.augmentation.jittered`; 0 leaves the images as they are.

    Raises:
        UsageError: labels are wanted of data that name no classes.
    """
    is_whole = tuple(data.image_shape) == tuple(window)

    def cropped(number, image):
        if is_whole:
            return image
        return tf.image.stateless_random_crop(image, window, [tf.cast(seed, tf.int64), number])

    def cropped_with_label(number, pair):
        return cropped(number, pair[0]), pair[1]

    def moved(number, batch):
        images, *labels = batch if labelled else (batch,)
        images = jittered(images, jitter, [tf.cast(seed, tf.int64), number])
        return (images, *labels) if labelled else images

    stream = data.train.cache()
    if labelled:
        count_classes(data)
        stream = tf.data.Dataset.zip(stream, tf.data.Dataset.from_tensor_slices(data.train_labels))
    # The shuffled order is made anew for each iterator: a distributed `fit` draws a batch from one
    # to look at it, and trains by another, which must not find the order moved on.
    rows = stream
    stream = tf.data.Dataset.from_tensors(0).flat_map(
        lambda _: rows.shuffle(data.train_size, seed=seed).repeat()
    )
    stream = stream.enumerate().skip(start * batch_size)
    form = cropped_with_label if labelled else cropped
    stream = stream.map(form, num_parallel_calls=None if is_whole else tf.data.AUTOTUNE)
    stream = stream.batch(batch_size, drop_remainder=True)
    if jitter:
        stream = stream.enumerate(start).map(moved, num_parallel_calls=tf.data.AUTOTUNE)
    return stream.prefetch(tf.data.AUTOTUNE)


def count_classes(data: AnomalyData, given: int = 0) -> int:
    """Returns how many classes the normal images are of.

    Raises:
        UsageError: the data name no classes, or another number than `given`, if that is not 0.
    """
    count = len(data.classes)
    if not count:
        hint = "give a labelled set, such as mnist:!2"
        raise UsageError("data", data.spec, "names no classes", hint)
    if given not in (0, count):
        raise UsageError("classes", given, f"but {data.spec} has {count}", "leave it out")
    return count
