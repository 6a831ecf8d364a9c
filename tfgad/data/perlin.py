"""Perlin noise (Perlin 2002), and textures of the package's weaves: DRAEM's synthetic defects."""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf

from tfgad.data.datasets.weave.weave import WEAVES, render
from tfgad.data.random_numbers import Random
from tfgad.data.warping import turned

MOST_DOUBLINGS = 5  # cells per side: 2^0 to 2^5 (the authors' code)
THRESHOLD = 0.5  # of the noise
TILES_OF_A_WEAVE, TEXTURE_SIDE = 4, 256


def perlin_noise(random: Random, size: tf.Tensor) -> tf.Tensor:
    """Returns gradient noise of another cell size for each image and axis.

    Args:
        random: of the batch.
        size: `(H, W)`.

    Returns:
        float32 `[B, H, W, 1]`, 0 on average, between about -1 and 1.
    """
    most = 2**MOST_DOUBLINGS
    cells = [tf.pow(2.0, tf.floor(random.uniform(0.0, MOST_DOUBLINGS + 1))) for _ in "yx"]
    angle = 2 * math.pi * random.uniform_grid(most + 1, most + 1)
    gradients = tf.stack([tf.sin(angle), tf.cos(angle)], axis=-1)
    flat = tf.reshape(gradients, [-1, (most + 1) ** 2, 2])

    places = []
    for axis in (0, 1):
        line = tf.range(size[axis], dtype=tf.float32) / tf.cast(size[axis], tf.float32)
        places.append(line[None] * cells[axis][:, 0, 0])
    y, x = places[0][:, :, None], places[1][:, None]
    top, left = tf.floor(y), tf.floor(x)

    def corner(down: float, right: float) -> tf.Tensor:
        index = tf.cast((top + down) * (most + 1) + left + right, tf.int32)
        own = tf.gather(flat, index, axis=1, batch_dims=1)
        return own[..., 0] * (y - top - down) + own[..., 1] * (x - left - right)

    def fade(t: tf.Tensor) -> tf.Tensor:
        return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)

    v, u = fade(y - top), fade(x - left)
    upper = (1.0 - u) * corner(0.0, 0.0) + u * corner(0.0, 1.0)
    lower = (1.0 - u) * corner(1.0, 0.0) + u * corner(1.0, 1.0)
    return math.sqrt(2.0) * ((1.0 - v) * upper + v * lower)[..., None]


@functools.cache
def weave_textures(channels: int) -> np.ndarray:
    """Returns good tiles of all weaves, float32 `[N, 256, 256, channels]` in [-1, 1].

    They stand in for the Describable Textures of the paper, which are offered for research and are
    not passed on here. On `weave:NAME` one texture in eight is of the same weave, changed in tone
    and contrast alone.
    """
    tiles = [
        render(name, seed=0, index=index, size=TEXTURE_SIDE, channels=channels)[0]
        for name in WEAVES
        for index in range(TILES_OF_A_WEAVE)
    ]
    return np.stack(tiles).astype("float32") / np.float32(127.5) - 1


def random_textures(random: Random, size: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns a random piece of a weave for each image, lighter or darker, `[B, H, W, channels]`.

    Args:
        random: of the batch.
        size: `(H, W)`; textures are repeated beyond 256 pixels.
        channels: 1 or 3.
    """
    textures = tf.constant(weave_textures(channels))
    number = random.choice([1.0] * len(weave_textures(channels)))
    tiles = tf.gather(textures, number)
    rows = tf.range(size[0])[None] + tf.cast(
        TEXTURE_SIDE * random.uniform(0, 1)[..., 0, 0], "int32"
    )
    columns = tf.range(size[1])[None]
    columns += tf.cast(TEXTURE_SIDE * random.uniform(0, 1)[..., 0, 0], "int32")
    tiles = tf.gather(tiles, rows % TEXTURE_SIDE, axis=1, batch_dims=1)
    tiles = tf.gather(tiles, columns % TEXTURE_SIDE, axis=2, batch_dims=1)
    mean = tf.reduce_mean(tiles, axis=[1, 2], keepdims=True)
    contrast = random.log_uniform(0.5, 2.0)
    return tf.clip_by_value(random.uniform(-0.8, 0.8) + contrast * (tiles - mean), -1.0, 1.0)


def with_perlin_defects(
    images: tf.Tensor, seed: tf.Tensor, share: float | tf.Tensor = 0.5
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts foreign textures into some images of a batch, where Perlin noise is above a threshold.

    The defect is (1 - β) A + β I on the mask, with a texture A and β uniform in [0, 0.8]
    as in the authors' code; in eq. 4 of the paper (Zavrtanik et al. 2021) β is the weight of A,
    from 0.1 to 1.

    Args:
        images: I, float32 `[B, H, W, C]` in [-1, 1], of good parts or fabric.
        seed: two whole numbers, int64; the same numbers give the same defects.
        share: of the images that get a defect, each with this probability; one for all, or one for
            each, `[B, 1, 1, 1]`.

    Returns:
        The images float32 `[B, H, W, C]` in [-1, 1], and the masks float32 `[B, H, W, 1]`.
    """
    random = Random(seed, tf.shape(images)[0])
    size = tf.shape(images)[1:3]
    # Turned by up to a quarter, as in the authors' code.
    ones = tf.ones_like(images[:, :1, :1, :1])
    noise = turned(perlin_noise(random, size), random.uniform(-math.pi / 2, math.pi / 2), ones)
    has_defect = tf.cast(random.uniform(0.0, 1.0) < share, tf.float32)
    mask = tf.cast(noise > THRESHOLD, tf.float32) * has_defect
    textures = random_textures(random, size, images.shape[-1])
    beta = random.uniform(0.0, 0.8)
    mixed = (1.0 - beta) * textures + beta * images
    return images + mask * (mixed - images), mask
