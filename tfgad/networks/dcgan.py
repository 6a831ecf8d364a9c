"""The small DCGAN of many tutorials: two strided convolutions, 5x5 (after Radford et al. 2016).

Made for digits of 28x28, whose quarter is 7x7; it takes images of any size. With `tutorial` the
networks are those of TensorFlow's tutorial (tensorflow.org/tutorials/generative/dcgan). The others
differ from it in the slope of the rectifiers (0.2 as Radford et al., not Keras's 0.3 of then), in
the statistics of the generator's first normalisation (of each channel, not of each unit) and in the
bias of its last layer.
"""

import math

import keras
from keras import layers

from tfgad.networks.convolutional import SLOPE, check_image
from tfgad.networks.layers import BatchNormalization, Dropout

KERNEL = 5
GENERATOR_DEPTH = 4  # times the width: 256 channels at the start for a width of 64
HALVINGS = 2
TUTORIAL_SLOPE = 0.3  # the default of Keras's LeakyReLU


def generator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    width: int,
    tutorial: bool = False,
    name: str = "generator",
) -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1].

    A start of `4·width` channels at a quarter of the size (rounded up), then transposed
    convolutions to `2·width` (stride 1), `width` (stride 2) and C (stride 2). Where a side is no
    multiple of 4, the surplus is cropped at its end.

    Raises:
        UsageError: the image is too small, or neither grey nor colour.
    """
    check_image(image_shape)
    height, breadth, channels = image_shape
    cell = 2**HALVINGS
    start = (-(-height // cell), -(-breadth // cell), GENERATOR_DEPTH * width)
    slope = TUTORIAL_SLOPE if tutorial else SLOPE

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(math.prod(start), use_bias=False)(latent)
    if tutorial:
        x = layers.Reshape(start)(layers.LeakyReLU(slope)(BatchNormalization()(x)))
    else:
        x = layers.LeakyReLU(slope)(BatchNormalization()(layers.Reshape(start)(x)))
    for filters, stride in ((2 * width, 1), (width, 2)):
        x = layers.Conv2DTranspose(filters, KERNEL, stride, "same", use_bias=False)(x)
        x = layers.LeakyReLU(slope)(BatchNormalization()(x))
    x = layers.Conv2DTranspose(channels, KERNEL, 2, "same", use_bias=not tutorial)(x)
    excess = (-height % cell, -breadth % cell)
    if any(excess):
        x = layers.Cropping2D([(0, side) for side in excess])(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape: tuple[int, int, int],
    width: int,
    dropout: float = 0.0,
    seed: int = 0,
    tutorial: bool = False,
    name: str = "critic",
) -> keras.Model:
    """Images `[B, H, W, C]` in [-1, 1] to logits `[B]`, unbounded.

    Convolutions to `width` and `2·width` channels, each with a stride of 2, leaky rectifier and
    dropout, whose seed is `seed`.
    """
    slope = TUTORIAL_SLOPE if tutorial else SLOPE
    x = images = keras.Input(image_shape, name="images")
    for level in range(HALVINGS):
        x = layers.Conv2D(width * 2**level, KERNEL, 2, "same")(x)
        x = Dropout(dropout, seed=seed + level)(layers.LeakyReLU(slope)(x))
    logit = layers.Dense(1, dtype="float32")(layers.Flatten()(x))
    return keras.Model(images, layers.Reshape((), dtype="float32", name="logit")(logit), name=name)
