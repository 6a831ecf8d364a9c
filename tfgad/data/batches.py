"""Normal images to training batches, the same in every run."""

import tensorflow as tf


def training_batches(
    images: tf.data.Dataset,
    size: int,
    *,
    window: tuple[int, int, int],
    batch_size: int,
    seed: int,
    start: int = 0,
) -> tf.data.Dataset:
    """Returns endless batches of random windows.

    What a batch holds depends on the seed and its number alone, so that a resumed run goes on with
    the very images that an uninterrupted one would have seen.

    Args:
        images: float32 `[H, W, C]` in [-1, 1], one at a time, as many as fit in memory.
        size: how many they are.
        window: `(h, w, C)`; a place is drawn at random where images are larger.
        batch_size: of the batches `[batch_size, h, w, C]`.
        seed: of the order and the places.
        start: the number of the first batch.
    """

    def crop(number, image):
        return tf.image.stateless_random_crop(image, window, [tf.cast(seed, tf.int64), number])

    stream = images.cache().shuffle(size, seed=seed).repeat().enumerate()
    stream = stream.skip(start * batch_size)
    if tuple(images.element_spec.shape) == tuple(window):
        stream = stream.map(lambda _, image: image)
    else:
        stream = stream.map(crop, num_parallel_calls=tf.data.AUTOTUNE)
    return stream.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
