"""Normal images to training batches, the same in every run."""

import tensorflow as tf

from tfgad.data.anomaly_data import AnomalyData


def training_batches(
    data: AnomalyData,
    window: tuple[int, int, int],
    *,
    batch_size: int = 64,
    seed: int = 0,
    start: int = 0,
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
    """

    def crop(number, image):
        return tf.image.stateless_random_crop(image, window, [tf.cast(seed, tf.int64), number])

    stream = data.train.cache().shuffle(data.train_size, seed=seed).repeat().enumerate()
    stream = stream.skip(start * batch_size)
    if tuple(data.image_shape) == tuple(window):
        stream = stream.map(lambda _, image: image)
    else:
        stream = stream.map(crop, num_parallel_calls=tf.data.AUTOTUNE)
    return stream.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
