"""Convolutional encoder, generator and critic, shared by the methods.

All follow the DCGAN pattern (Radford et al. 2016): strided convolutions instead of pooling. Each
halving of the image doubles the channels, until the shorter side has 4 to 7 pixels.
"""

from __future__ import annotations

import math

import keras
from keras import layers

from tfgad.errors import UsageError
from tfgad.networks.layers import BatchNormalization

# Pixels on a side that the widest blur of a score needs, three times `TONE_SIGMA` of `scores/cues`.
# The networks would take less, and scores of a critic alone 12: one minimum holds for all methods.
SMALLEST_IMAGE = 24
SMALLEST_SIDE = 4  # first of DCGAN's generator and last of GANomaly's encoder
KERNEL = 4  # as in GANomaly; a multiple of the stride avoids checkerboard artefacts
SLOPE = 0.2  # of the leaky rectifiers (Radford et al. 2016)


def check_image(image_shape: tuple[int, int, int]) -> None:
    """Raises UsageError unless images `(height, width, channels)` can be scored."""
    channels = image_shape[2]
    if channels not in (1, 3):
        raise UsageError("image channels", channels, "are neither grey nor colour", "give 1 or 3")
    _check_size(image_shape)


def _check_size(image_shape: tuple[int, int, int]) -> None:
    height, width, _ = image_shape
    if min(height, width) < SMALLEST_IMAGE:
        hint = f"give at least {SMALLEST_IMAGE}x{SMALLEST_IMAGE}"
        problem = "is too small for the blur of anomaly maps"
        raise UsageError("image size", f"{height}x{width}", problem, hint)


def halvings(image_shape: tuple[int, int, int]) -> int:
    """Returns the number of halvings until the shorter side of an image has 4 to 7 pixels.

    Args:
        image_shape: `(height, width, channels)`.

    Raises:
        UsageError: the image is too small, or its sides are not divisible that often.
    """
    _check_size(image_shape)
    height, width, _ = image_shape
    count = int(math.log2(min(height, width) / SMALLEST_SIDE))
    if height % 2**count or width % 2**count:
        hint = f"give sides that are multiples of {2**count}"
        raise UsageError("image size", f"{height}x{width}", "cannot be halved evenly", hint)
    return count


def encoder(
    image_shape: tuple[int, int, int], latent_dim: int, width: int, name: str = "encoder"
) -> keras.Model:
    """Encoder: images `[B, H, W, C]` in [-1, 1] to latent codes `[B, latent_dim]`, unbounded."""
    x = images = keras.Input(image_shape, name="images")
    for level in range(halvings(image_shape)):
        x = _halve(x, width * 2**level, normalise=level > 0)
    x = layers.Flatten()(x)
    latent = layers.Dense(latent_dim, dtype="float32", name="latent")(x)
    return keras.Model(images, latent, name=name)


def generator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    width: int,
    name: str = "generator",
    epsilon: float = 1e-3,
) -> keras.Model:
    """Generator: latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1].

    Its layers mirror those of `encoder`. `epsilon` is that of the batch normalisation.
    """
    count = halvings(image_shape)
    height, breadth, channels = image_shape
    filters = width * 2 ** (count - 1)
    start = (height >> count, breadth >> count, filters)

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(math.prod(start), use_bias=False)(latent)
    x = layers.Reshape(start)(x)
    x = layers.ReLU()(BatchNormalization(epsilon=epsilon)(x))
    for level in reversed(range(count - 1)):
        x = layers.Conv2DTranspose(width * 2**level, KERNEL, 2, "same", use_bias=False)(x)
        x = layers.ReLU()(BatchNormalization(epsilon=epsilon)(x))
    x = layers.Conv2DTranspose(channels, KERNEL, 2, "same")(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape: tuple[int, int, int], width: int, normalise: bool = False, name: str = "critic"
) -> keras.Model:
    """Critic: images `[B, H, W, C]` to a dict of `logit` `[B]`, unbounded, and `features`.

    `features` lists the hidden layers, `[B, h, w, c]` each, fine to coarse. The last is f(x) of
    AnoGAN, f-AnoGAN and GANomaly. Batch normalisation makes the images of a batch depend on each
    other, so it must not be combined with the gradient penalty, which is per image (Gulrajani et
    al. 2017, section 4): `normalise` is for the other methods.
    """
    x = images = keras.Input(image_shape, name="images")
    features = []
    for level in range(halvings(image_shape)):
        x = _halve(x, width * 2**level, normalise and level > 0)
        features.append(layers.Activation("linear", dtype="float32")(x))
    logit = layers.Dense(1, dtype="float32")(layers.Flatten()(features[-1]))
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    return keras.Model(images, {"logit": logit, "features": features}, name=name)


def _halve(x: keras.KerasTensor, filters: int, normalise: bool) -> keras.KerasTensor:
    x = layers.Conv2D(filters, KERNEL, 2, "same", use_bias=not normalise)(x)
    if normalise:
        x = BatchNormalization()(x)
    return layers.LeakyReLU(SLOPE)(x)
