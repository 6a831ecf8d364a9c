"""Random affine augmentation, for objects of varying position and angle such as digits."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfgad.data.warping import affine

# Largest amounts, to either side, at strength 1. Selected on the digit 8 of MNIST (anomalies: other
# digits of the training split): the AUROC of a VAE by `density` rises from 0.967 to 0.971.
ROTATION = 0.15  # radians
SCALE = 0.07  # natural logarithm of the factor
SHEAR = 0.1
SHIFT = 0.03  # part of the side: one pixel of 32


def random_affine(images: tf.Tensor, strength: float, seed: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Rotates, scales, shears and shifts each image by random amounts of its own.

    Pixels beyond the edge repeat the edge.

    Args:
        images: float32 `[B, H, W, C]`.
        strength: factor of the largest amounts, the constants of this module; 0 changes nothing.
        seed: two whole numbers; the same numbers give the same transforms.

    Returns:
        float32 `[B, H, W, C]`.
    """
    shape = tf.shape(images)
    amounts = tf.random.stateless_uniform([shape[0], 5], seed, -strength, strength)
    rotation, scale = ROTATION * amounts[:, 0], tf.exp(SCALE * amounts[:, 1])
    shear = SHEAR * amounts[:, 2]
    cos, sin = tf.cos(rotation) / scale, tf.sin(rotation) / scale
    # M = rotation · shear / scale.
    matrix = [[cos, cos * shear - sin], [sin, sin * shear + cos]]
    side = tf.cast(shape[1:3], tf.float32)
    shifts = [SHIFT * amounts[:, 3] * side[1], SHIFT * amounts[:, 4] * side[0]]
    return affine(images, matrix, shifts, "NEAREST")
