"""The small DCGAN of many tutorials: two strided convolutions, 5x5 (after Radford et al. 2016).

Made for digits of 28x28, whose quarter is 7x7; it takes images of any size.
"""

import math

import keras
from keras import layers

from tfgad.networks.convolutional import SLOPE, check_image
from tfgad.networks.layers import BatchNormalization, Dropout

KERNEL = 5
GENERATOR_DEPTH = 4  # times the width: 256 channels at the start for a width of 64
HALVINGS = 2


def generator(image_shape, latent_dim: int, width: int, name: str = "generator") -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1].

    A start of `4·width` channels at a quarter of the size (rounded up), then transposed
    convolutions to `2·width` (stride 1), `width` (stride 2) and C (stride 2). Where a side is no
    multiple of 4, what is too much is cut off at the end of it.

    Raises:
        UsageError: the image is too small, or neither grey nor colour.
    """
    check_image(image_shape)
    height, breadth, channels = image_shape
    cell = 2**HALVINGS
    start = (-(-height // cell), -(-breadth // cell), GENERATOR_DEPTH * width)

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(math.prod(start), use_bias=False)(latent)
    x = layers.LeakyReLU(SLOPE)(BatchNormalization()(layers.Reshape(start)(x)))
    for filters, stride in ((2 * width, 1), (width, 2)):
        x = layers.Conv2DTranspose(filters, KERNEL, stride, "same", use_bias=False)(x)
        x = layers.LeakyReLU(SLOPE)(BatchNormalization()(x))
    x = layers.Conv2DTranspose(channels, KERNEL, 2, "same")(x)
    excess = (-height % cell, -breadth % cell)
    if any(excess):
        x = layers.Cropping2D([(0, side) for side in excess])(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape, width: int, dropout: float = 0.0, seed: int = 0, name: str = "critic"
) -> keras.Model:
    """Images `[B, H, W, C]` in [-1, 1] to logits `[B]`, unbounded.

    Convolutions to `width` and `2·width` channels, each with a stride of 2, leaky rectifier and
    dropout, whose seed is `seed`.
    """
    x = images = keras.Input(image_shape, name="images")
    for level in range(HALVINGS):
        x = layers.Conv2D(width * 2**level, KERNEL, 2, "same")(x)
        x = Dropout(dropout, seed=seed + level)(layers.LeakyReLU(SLOPE)(x))
    logit = layers.Dense(1, dtype="float32")(layers.Flatten()(x))
    return keras.Model(images, layers.Reshape((), dtype="float32", name="logit")(logit), name=name)
