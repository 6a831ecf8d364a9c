"""Fully connected generator and critic, for small images (Goodfellow et al. 2014).

They see an image as one long row of pixels, so they know nothing of neighbourhood.
"""

import math

import keras
from keras import layers

from tfgad.networks.convolutional import SLOPE, check_image
from tfgad.networks.layers import BatchNormalization, Dropout

GENERATOR_UNITS = (256, 256)
CRITIC_UNITS = (128, 128)


def generator(
    image_shape: tuple[int, int, int], latent_dim: int, name: str = "generator"
) -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1]: 100-256-256-784.

    Raises:
        UsageError: the image is too small, or neither grey nor colour.
    """
    check_image(image_shape)
    x = latent = keras.Input((latent_dim,), name="latent")
    for units in GENERATOR_UNITS:
        x = layers.Dense(units, use_bias=False)(x)
        x = layers.LeakyReLU(SLOPE)(BatchNormalization()(x))
    x = layers.Dense(math.prod(image_shape), activation="tanh", dtype="float32")(x)
    images = layers.Reshape(image_shape, dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape: tuple[int, int, int], dropout: float = 0.0, seed: int = 0, name: str = "critic"
) -> keras.Model:
    """Images `[B, H, W, C]` in [-1, 1] to logits `[B]`, unbounded: 784-128-128-1.

    `seed` is that of the dropout.
    """
    images = keras.Input(image_shape, name="images")
    x = layers.Flatten()(images)
    for level, units in enumerate(CRITIC_UNITS):
        x = layers.LeakyReLU(SLOPE)(layers.Dense(units)(x))
        x = Dropout(dropout, seed=seed + level)(x)
    logit = layers.Dense(1, dtype="float32")(x)
    return keras.Model(images, layers.Reshape((), dtype="float32", name="logit")(logit), name=name)
