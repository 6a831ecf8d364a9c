"""Fully connected networks as published: a GAN's, a VAE's, and those of a GAN walk-through.

They are of Goodfellow et al. 2014 and of Kingma and Welling 2014. All of them work on pixels in
[0, 1]. Here images are in [-1, 1]: a network's first layer maps them by (x + 1) / 2, and an image
that sigmoids have made is mapped back by 2p - 1.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from tfgad.networks.convolutional import check_image
from tfgad.networks.layers import BatchNormalization, Dropout

Shape = tuple[int, int, int]

# Goodfellow et al. 2014, github.com/goodfeli/adversarial, mnist.yaml: units, the pieces of maxout,
# the range of the first weights, and the share of its inputs that each layer of D drops.
GENERATOR_UNITS, MAXOUT_UNITS, PIECES = 1200, 240, 5
GENERATOR_RANGE, CRITIC_RANGE = 0.05, 0.005
PIXEL_DROPOUT, HIDDEN_DROPOUT = 0.2, 0.5
# Kingma and Welling 2014, section 5: all weights and biases ~ N(0, 0.01), read as the deviation.
DEVIATION = 0.01
WALKTHROUGH_GENERATOR, WALKTHROUGH_CRITIC = (256, 256), (128, 128)


def goodfellow_generator(image_shape: Shape, latent_dim: int) -> keras.Model:
    """Latent codes to images in [-1, 1]: 1200-1200 rectified units, and a sigmoid for each pixel.

    The authors' first biases of the sigmoids are the logits of the mean training image; here 0.
    """
    check_image(image_shape)
    x = latent = keras.Input((latent_dim,), name="latent")
    for _ in range(2):
        x = layers.Dense(
            GENERATOR_UNITS, "relu", kernel_initializer=_uniform(GENERATOR_RANGE)
        )(x)  # fmt: skip
    images = _pixels(x, image_shape, _uniform(GENERATOR_RANGE))
    return keras.Model(latent, images, name="generator")


def goodfellow_critic(image_shape: Shape, seed: int) -> keras.Model:
    """Images to logits `[B]`: two layers of 240 maxout units, each the largest of 5 sums.

    Pixels are dropped at a rate of 0.2 and hidden units at 0.5, by the given seed.
    """
    images = keras.Input(image_shape, name="images")
    x = Dropout(PIXEL_DROPOUT, seed=seed)(_unit_range(images))
    for level in (1, 2):
        x = layers.Dense(
            MAXOUT_UNITS * PIECES, kernel_initializer=_uniform(CRITIC_RANGE)
        )(x)  # fmt: skip
        x = keras.ops.max(layers.Reshape((MAXOUT_UNITS, PIECES))(x), axis=-1)
        x = Dropout(HIDDEN_DROPOUT, seed=seed + level)(x)
    return keras.Model(images, _logit(x, _uniform(CRITIC_RANGE)), name="critic")


def walkthrough_generator(image_shape: Shape, latent_dim: int) -> keras.Model:
    """Latent codes to images in [-1, 1]: 256-BN-256-BN rectified units, then a sigmoid."""
    check_image(image_shape)
    x = latent = keras.Input((latent_dim,), name="latent")
    for units in WALKTHROUGH_GENERATOR:
        x = BatchNormalization()(layers.Dense(units, "relu")(x))
    return keras.Model(latent, _pixels(x, image_shape), name="generator")


def walkthrough_critic(image_shape: Shape, dropout: float, seed: int) -> keras.Model:
    """Images to logits `[B]`: 128-dropout-128-dropout rectified units."""
    images = keras.Input(image_shape, name="images")
    x = _unit_range(images)
    for level, units in enumerate(WALKTHROUGH_CRITIC):
        x = Dropout(dropout, seed=seed + level)(layers.Dense(units, "relu")(x))
    return keras.Model(images, _logit(x), name="critic")


def kingma_encoder(image_shape: Shape, outputs: int, units: int) -> keras.Model:
    """Images to `[B, outputs]`, unbounded: one layer of hidden units, tanh (appendix C.2)."""
    images = keras.Input(image_shape, name="images")
    x = layers.Dense(units, "tanh", kernel_initializer=_normal(), bias_initializer=_normal())(
        _unit_range(images)
    )
    latent = layers.Dense(
        outputs,
        kernel_initializer=_normal(),
        bias_initializer=_normal(),
        dtype="float32",
        name="latent",
    )(x)
    return keras.Model(images, latent, name="encoder")


def kingma_decoder(image_shape: Shape, latent_dim: int, units: int) -> keras.Model:
    """Latent codes to images in [-1, 1]: hidden units of tanh, then sigmoids (appendix C.1)."""
    check_image(image_shape)
    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(units, "tanh", kernel_initializer=_normal(), bias_initializer=_normal())(
        latent
    )
    images = _pixels(x, image_shape, _normal(), _normal())
    return keras.Model(latent, images, name="decoder")


def _unit_range(images: Any) -> Any:
    """Images `[B, H, W, C]` in [-1, 1] as rows in [0, 1]."""
    return layers.Flatten()(layers.Rescaling(0.5, 0.5)(images))


def _pixels(x: Any, image_shape: Shape, kernel: Any = "glorot_uniform", bias: Any = "zeros") -> Any:
    """A sigmoid for each pixel, as images in [-1, 1]."""
    x = layers.Dense(
        math.prod(image_shape),
        "sigmoid",
        kernel_initializer=kernel,
        bias_initializer=bias,
        dtype="float32",
    )(x)
    x = layers.Rescaling(2.0, -1.0, dtype="float32")(x)
    return layers.Reshape(image_shape, dtype="float32", name="images")(x)


def _logit(x: Any, kernel: Any = "glorot_uniform") -> Any:
    logit = layers.Dense(1, kernel_initializer=kernel, dtype="float32")(x)
    return layers.Reshape((), dtype="float32", name="logit")(logit)


def _uniform(limit: float) -> keras.Initializer:
    return keras.initializers.RandomUniform(-limit, limit)


def _normal() -> keras.Initializer:
    return keras.initializers.RandomNormal(0.0, DEVIATION)
