"""Lays defects of all sources on a batch, alone and on two replicas, and compares the two.

A script of its own, because a CPU is made two before TensorFlow has touched it.
"""

import numpy as np
import tensorflow as tf

from tfgad.data.defect_sources import sources_of, with_defects_of


class Square:
    """A painter of squares, whose place comes from the seed of the image alone."""

    def paint_each(self, images, seeds):
        images, masks = images.copy(), np.zeros((*images.shape[:-1], 1), np.uint8)
        for image, mask, number in zip(images, masks, seeds, strict=True):
            row = number % 56
            tone = tf.tanh(tf.constant(0.4)).numpy()  # as a painter does, by TensorFlow
            image[row : row + 8, 8:16], mask[row : row + 8, 8:16] = tone, 1
        return images, masks


@tf.function(autograph=False)
def laid(images):
    seeds = [tf.constant([5, number], tf.int64) for number in (1, 2)]
    return with_defects_of(sources_of("mix", Square()), images, *seeds, 0.7)


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    images = tf.random.stateless_uniform([24, 64, 64, 1], [1, 2], -0.5, 0.5)
    strategy = tf.distribute.MirroredStrategy()
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: images[12 * context.replica_id_in_sync_group :][:12]
    )
    both = strategy.run(laid, [parts])
    for alone, replicas in zip(laid(images), both, strict=True):
        joined = tf.concat(strategy.experimental_local_results(replicas), axis=0)
        np.testing.assert_allclose(joined, alone, atol=1e-5)


if __name__ == "__main__":
    main()
