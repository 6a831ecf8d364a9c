"""Residual generator, critic and encoder of WGAN-GP's authors for images of 64x64 pixels.

The networks of Gulrajani et al. 2017 as their public code has them (`gan_64x64.py`, GoodGenerator
and GoodDiscriminator), to which Schlegl et al. 2019 add the encoder, the critic's mirror. For 64
pixels and a width of d:

    critic, encoder     3x3 convolution to d; blocks to 2d, 4d, 8d, 8d, each halving; linear
    generator           linear to 4x4 of 8d; blocks to 8d, 4d, 2d, d, each doubling; normalisation,
                        ReLU, 3x3 convolution to C; tanh

A block is pre-activated: normalisation, ReLU, 3x3 convolution without biases, twice over, the
second convolution with biases, and beside them a shortcut, a 1x1 convolution with biases. It is
halved by the mean of 2x2 pixels and doubled by repeating each. The critic normalises each image
over its height, width and channels, with a scale and an offset per channel; generator and encoder
normalise the batch.

Images of other sizes have as many blocks as halvings bring the shorter side to 4 to 7 pixels: three
for 32. No block is wider than 8d.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
from keras import layers

from tfgad.networks.convolutional import halvings
from tfgad.networks.layers import BatchNormalization

KERNEL = 3
WIDEST = 8  # times the width
LAYER_NORM_EPSILON = 1e-5  # tflib/ops/layernorm.py of both codes
BATCH_NORM_EPSILON = 1e-3  # TensorFlow's default, which Schlegl's code has; Gulrajani's has 1e-5
BATCH_NORM_MOMENTUM = 0.99  # TensorFlow's default; Gulrajani's code keeps no averages

Normalization = Callable[[], keras.Layer]


def encoder(
    image_shape: tuple[int, int, int], latent_dim: int, width: int, name: str = "encoder"
) -> keras.Model:
    """Images `[B, H, W, C]` in [-1, 1] to latent codes `[B, latent_dim]`, unbounded.

    Raises:
        UsageError: the image is too small, or its sides cannot be halved often enough.
    """
    images = keras.Input(image_shape, name="images")
    x = layers.Flatten()(_halving_blocks(images, width, _batch_normalization)[-1])
    latent = layers.Dense(latent_dim, dtype="float32", name="latent")(x)
    return keras.Model(images, latent, name=name)


def generator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    width: int,
    name: str = "generator",
    epsilon: float = BATCH_NORM_EPSILON,
) -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1].

    `epsilon` is that of the batch normalisation.

    Raises:
        UsageError: as `encoder`.
    """
    count = halvings(image_shape)
    height, breadth, channels = image_shape
    blocks = [width * multiple for multiple in reversed(_multiples(count))]
    start = (height >> count, breadth >> count, blocks[0])

    def normalization() -> keras.Layer:
        return _batch_normalization(epsilon)

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Reshape(start)(layers.Dense(math.prod(start))(latent))
    for filters in blocks[1:]:
        x = _doubling_block(x, filters, normalization)
    x = layers.ReLU()(normalization()(x))
    x = _convolution(channels)(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(image_shape: tuple[int, int, int], width: int, name: str = "critic") -> keras.Model:
    """Images `[B, H, W, C]` to a dict: `logit` `[B]`, unbounded, and `features`.

    `features` is a list of what each block returns, `[B, h, w, c]`, fine to coarse. The last is
    f(x) of Schlegl et al. 2019.

    Raises:
        UsageError: as `encoder`.
    """
    images = keras.Input(image_shape, name="images")
    blocks = _halving_blocks(images, width, _layer_normalization)
    features = [layers.Activation("linear", dtype="float32")(block) for block in blocks]
    logit = layers.Dense(1, dtype="float32")(layers.Flatten()(features[-1]))
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    return keras.Model(images, {"logit": logit, "features": features}, name=name)


def _multiples(count: int) -> list[int]:
    """Returns the channels before the first and after each of some blocks, in widths."""
    return [min(2**level, WIDEST) for level in range(count + 1)]


def _halving_blocks(
    images: keras.KerasTensor, width: int, normalization: Normalization
) -> list[keras.KerasTensor]:
    """Returns the outputs of all blocks of a critic or an encoder."""
    first, *rest = _multiples(halvings(images.shape[1:]))
    x = _convolution(width * first, gain=1.0)(images)
    blocks = []
    for multiple in rest:
        x = _halving_block(x, width * multiple, normalization)
        blocks.append(x)
    return blocks


def _halving_block(
    x: keras.KerasTensor, filters: int, normalization: Normalization
) -> keras.KerasTensor:
    short = layers.Conv2D(filters, 1)(layers.AveragePooling2D(2)(x))
    y = layers.ReLU()(normalization()(x))
    y = _convolution(x.shape[-1], use_bias=False)(y)
    y = layers.ReLU()(normalization()(y))
    y = layers.AveragePooling2D(2)(_convolution(filters)(y))
    return layers.Add()([short, y])


def _doubling_block(
    x: keras.KerasTensor, filters: int, normalization: Normalization
) -> keras.KerasTensor:
    """The code's shortcut doubles before its 1x1 convolution; the result is the same."""
    short = layers.UpSampling2D(2)(layers.Conv2D(filters, 1)(x))
    y = layers.UpSampling2D(2)(layers.ReLU()(normalization()(x)))
    y = _convolution(filters, use_bias=False)(y)
    y = layers.ReLU()(normalization()(y))
    y = _convolution(filters)(y)
    return layers.Add()([short, y])


def _convolution(filters: int, use_bias: bool = True, gain: float = 2.0) -> keras.Layer:
    """A 3x3 convolution: uniform weights of variance `2 · gain / (fan_in + fan_out)`.

    A gain of 2 is `he_init` of the authors' code, 1 that of Glorot and Bengio 2010, which the first
    layer, the shortcuts and the linear layers have.
    """
    initializer = keras.initializers.VarianceScaling(gain, "fan_avg", "uniform")
    return layers.Conv2D(
        filters, KERNEL, padding="same", use_bias=use_bias, kernel_initializer=initializer
    )


def _batch_normalization(epsilon: float = BATCH_NORM_EPSILON) -> keras.Layer:
    return BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=epsilon)


def _layer_normalization() -> keras.Layer:
    """One group of all channels: mean and variance over height, width and channels."""
    return layers.GroupNormalization(1, epsilon=LAYER_NORM_EPSILON)
