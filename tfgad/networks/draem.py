"""DRAEM's two networks (Zavrtanik et al. 2021; the authors' code).

Blocks are two convolutions of 3x3, each with batch normalisation and a rectifier; between them
the resolution is halved by max pooling, or doubled by bilinear interpolation and a convolution.
Initial weights are N(0, 0.02), those of batch normalisation N(1, 0.02). Keras interpolates between
pixel centres, the authors' code between the corners of the image.
"""

from __future__ import annotations

import keras
from keras import layers

from tfgad.networks.layers import BatchNormalization

# Channels of the blocks in units of the width, which is 128 and 64 in the authors' code.
RECONSTRUCTIVE = (1, 2, 4, 8, 8)
DISCRIMINATIVE = (1, 2, 4, 8, 8, 8)
DISCRIMINATIVE_DECODER = (1, 1, 2, 4, 8)
GRID = 2 ** (len(DISCRIMINATIVE) - 1)  # pixels; sides of images are multiples of it


def reconstructive(image_shape: tuple[int | None, int | None, int], width: int) -> keras.Model:
    """The autoencoder: images `[B, H, W, C]` to reconstructions `[B, H, W, C]`, unbounded."""
    x = images = keras.Input(image_shape, name="images")
    for level, factor in enumerate(RECONSTRUCTIVE):
        x = layers.MaxPooling2D()(x) if level else x
        x = _block(x, width * factor)
    for level in reversed(range(len(RECONSTRUCTIVE) - 1)):
        x = _doubled(x, width * RECONSTRUCTIVE[level])
        x = _block(x, width * RECONSTRUCTIVE[max(level - 1, 0)], width * RECONSTRUCTIVE[level])
    outputs = _linear(x, image_shape[2])
    return keras.Model(images, outputs, name="reconstructive")


def discriminative(image_shape: tuple[int | None, int | None, int], width: int) -> keras.Model:
    """The U-Net: images beside their reconstructions `[B, H, W, 2 C]` to logits `[B, H, W, 1]`.

    The paper's has two outputs under a softmax; their difference is the one logit here.
    """
    height, breadth, channels = image_shape
    x = pairs = keras.Input((height, breadth, 2 * channels), name="pairs")
    skips = []
    for level, factor in enumerate(DISCRIMINATIVE):
        x = layers.MaxPooling2D()(x) if level else x
        x = _block(x, width * factor)
        skips.append(x)
    for level in reversed(range(len(DISCRIMINATIVE) - 1)):
        x = _doubled(x, width * DISCRIMINATIVE_DECODER[level])
        x = layers.Concatenate()([x, skips[level]])
        x = _block(x, width * DISCRIMINATIVE_DECODER[level])
    logits = _linear(x, 1)
    return keras.Model(pairs, logits, name="discriminative")


def _block(x: keras.KerasTensor, channels: int, first: int | None = None) -> keras.KerasTensor:
    return _convolution(_convolution(x, first or channels), channels)


def _doubled(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    return _convolution(layers.UpSampling2D(interpolation="bilinear")(x), channels)


def _convolution(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    x = layers.Conv2D(channels, 3, padding="same", kernel_initializer=_near(0.0))(x)
    x = BatchNormalization(epsilon=1e-5, momentum=0.9, gamma_initializer=_near(1.0))(x)
    return layers.ReLU()(x)


def _linear(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    own = {"kernel_initializer": _near(0.0), "dtype": "float32"}
    return layers.Conv2D(channels, 3, padding="same", **own)(x)


def _near(mean: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(mean, 0.02)
