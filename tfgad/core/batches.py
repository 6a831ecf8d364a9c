"""Parts of a batch, and images drawn from a generator."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import checks
from tfgad.data.sampling import batched, drawn
from tfgad.networks import precision

MEAN_IMAGES = 32_000  # at most, for the mean logit; Schlegl et al. 2019 take 32,000


def part(batch: tf.Tensor, index: int, count: int) -> tf.Tensor:
    """Returns the `index`-th of `count` equal parts of a batch, in order.

    What is left over is not used. A batch of fewer than `count` rows gives one row, each in turn.

    Args:
        batch: `[N, ...]`.
        index: from 0.
        count: how many parts there are.
    """
    if count == 1:
        return batch
    rows = batch.shape[0] or tf.shape(batch)[0]
    size = tf.maximum(1, rows // count) if batch.shape[0] is None else max(1, rows // count)
    start = (index * size) % rows
    return batch[start : start + size]


@precision.scoring()
def sample(generator: keras.Model, latent_dim: int, count: int, seed: int = 0) -> tf.Tensor:
    """Returns images of random codes, `[count, h, w, C]` in [-1, 1], in inference mode."""
    z = tf.random.stateless_normal([count, latent_dim], [seed, 0])
    return generator(z, training=False)


def mean_logit(critic: Any, normals: Any, size: int | None, seed: int) -> float:
    """Returns the mean of a critic over normal images, drawn at random if they are many.

    Args:
        critic: a function of images `[B, H, W, C]` to maps of logits `[B, H, W, K]`.
        normals: images float32 `[N, H, W, C]`, or a dataset of them, one at a time.
        size: how many they are, of a dataset that does not know it.
        seed: of the draw.
    """
    normals = checks.normal_images(normals)
    size = checks.size_of(normals, size)
    logits = [
        tf.reduce_mean(critic(images), axis=[1, 2, 3]).numpy()
        for images in batched(drawn(normals, size, MEAN_IMAGES, seed))
    ]
    return float(np.concatenate(logits).mean(dtype="float64"))
