"""Trains every method alone and on two replicas, and prints as JSON how far they came apart.

Alone it is trained step by step, without a graph: that traces none, and is one more comparison.
Batch normalisation is frozen: replicas normalise by their own part of a batch, and differ by that.
A script of its own, because a CPU is made two before TensorFlow has touched it.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from tfgad import methods
from tfgad.training.distribution import Cluster

SMALL = {"width": 8, "latent_dim": 8, "stride": 16, "d_steps": 1, "classes": 2}
SMALL |= {"weights": "random", "maps": 1}
BATCH = 8


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    clusters = Cluster(), Cluster(tf.distribute.MirroredStrategy())
    print(json.dumps({method: compared(method, *clusters) for method in methods.METHODS}))


def compared(method, alone, both):
    """Returns how far weights and logs differ, relative to how far the weights moved."""
    (start, of_one, logs), (_, of_two, logs_of_two) = (trained(method, c) for c in (alone, both))
    moved = max(np.abs(now - old).max() for now, old in zip(of_one, start, strict=True))
    apart = max(np.abs(one - two).max() for one, two in zip(of_one, of_two, strict=True))
    wrong = {
        name: abs(logs[name] - value) / (abs(value) + 1e-3) for name, value in logs_of_two.items()
    }
    return {"moved": float(moved), "apart": float(apart / moved), "logs": max(wrong.values())}


def trained(method, cluster):
    """Returns the weights before and after two plain steps of each stage, and the last logs."""
    known = methods.settings_of(method)
    settings = {name: value for name, value in SMALL.items() if name in known}
    with cluster.strategy.scope():
        model = methods.build(method, (32, 32, 1), 0, **settings)
        alone = cluster.strategy.num_replicas_in_sync == 1
        optimizers = {role: keras.optimizers.SGD(1e-3) for role in model.roles}
        model.compile(optimizers, run_eagerly=alone)
    for layer in model._flatten_layers():
        layer.trainable &= not isinstance(layer, keras.layers.BatchNormalization)
    start = [weight.numpy() for weight in model.trainable_weights]
    for stage in model.stages:
        model.begin(stage)
        logs = model.fit(batches(model), steps_per_epoch=2, shuffle=False, verbose=0).history
    return (
        start,
        [w.numpy() for w in model.trainable_weights],
        {name: v[-1] for name, v in logs.items()},
    )


def batches(model):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (BATCH, 32, 32, 1)).astype("float32")
    rows = (images, np.arange(BATCH, dtype="int32") % 2) if model.labelled else images
    stream = tf.data.Dataset.from_tensor_slices(rows).repeat()
    return stream.batch(BATCH, drop_remainder=True)


if __name__ == "__main__":
    main()
