"""Encoder, generator and critic: the three convolutional networks that every method is made of.

All follow the DCGAN pattern (Radford et al. 2016): no pooling, strided convolutions, each halving
of the image doubling the channels, until the shorter side is 4 to 7 pixels.
"""

import math

import keras
from keras import layers

from tfgad.errors import UsageError
from tfgad.networks.layers import BatchNormalization

SMALLEST_IMAGE = 24  # what the blur of the anomaly maps spans on one side
SMALLEST_SIDE = 4  # where DCGAN starts its generator and GANomaly ends its encoder
KERNEL = 4  # GANomaly; a multiple of the stride, so transposed convolutions leave no checkerboard
SLOPE = 0.2  # of the leaky rectifiers (Radford et al. 2016)


def check_image(image_shape: tuple[int, int, int]) -> None:
    """Raises UsageError unless images `(height, width, channels)` are some that can be judged."""
    channels = image_shape[2]
    if channels not in (1, 3):
        raise UsageError("image channels", channels, "neither grey nor colour", "give 1 or 3")
    _check_size(image_shape)


def _check_size(image_shape) -> None:
    height, width, _ = image_shape
    if min(height, width) < SMALLEST_IMAGE:
        hint = f"give at least {SMALLEST_IMAGE}x{SMALLEST_IMAGE}"
        raise UsageError("image size", f"{height}x{width}", "is too small", hint)


def halvings(image_shape: tuple[int, int, int]) -> int:
    """Returns how often `(height, width, channels)` is halved until its shorter side is 4 to 7.

    Raises:
        UsageError: the image is too small, or its sides cannot be halved that often.
    """
    _check_size(image_shape)
    height, width, _ = image_shape
    count = int(math.log2(min(height, width) / SMALLEST_SIDE))
    if height % 2**count or width % 2**count:
        hint = f"give sides that are multiples of {2**count}"
        raise UsageError("image size", f"{height}x{width}", "cannot be halved evenly", hint)
    return count


def encoder(image_shape, latent_dim: int, width: int, name: str = "encoder") -> keras.Model:
    """Images `[B, H, W, C]` in [-1, 1] to latent codes `[B, latent_dim]`, unbounded."""
    x = images = keras.Input(image_shape, name="images")
    for level in range(halvings(image_shape)):
        x = _halve(x, width * 2**level, normalise=level > 0)
    x = layers.Flatten()(x)
    latent = layers.Dense(latent_dim, dtype="float32", name="latent")(x)
    return keras.Model(images, latent, name=name)


def generator(image_shape, latent_dim: int, width: int, name: str = "generator") -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1]: the encoder's mirror."""
    count = halvings(image_shape)
    height, breadth, channels = image_shape
    filters = width * 2 ** (count - 1)
    start = (height >> count, breadth >> count, filters)

    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Dense(math.prod(start), use_bias=False)(latent)
    x = layers.Reshape(start)(x)
    x = layers.ReLU()(BatchNormalization()(x))
    for level in reversed(range(count - 1)):
        x = layers.Conv2DTranspose(width * 2**level, KERNEL, 2, "same", use_bias=False)(x)
        x = layers.ReLU()(BatchNormalization()(x))
    x = layers.Conv2DTranspose(channels, KERNEL, 2, "same")(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(image_shape, width: int, normalise: bool = False, name: str = "critic") -> keras.Model:
    """Images `[B, H, W, C]` to a dict: `logit` `[B]`, unbounded, and `features`.

    `features` is a list of the hidden layers, `[B, h, w, c]` each, fine to coarse. The last is the
    papers' f(x), by which AnoGAN, f-AnoGAN and GANomaly compare images. Batch normalisation couples
    the images of a batch, which the per-image gradient penalty forbids (Gulrajani et al. 2017,
    section 4): `normalise` is for the others.
    """
    x = images = keras.Input(image_shape, name="images")
    features = []
    for level in range(halvings(image_shape)):
        x = _halve(x, width * 2**level, normalise and level > 0)
        features.append(layers.Activation("linear", dtype="float32")(x))
    logit = layers.Dense(1, dtype="float32")(layers.Flatten()(features[-1]))
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    return keras.Model(images, {"logit": logit, "features": features}, name=name)


def _halve(x, filters: int, normalise: bool):
    x = layers.Conv2D(filters, KERNEL, 2, "same", use_bias=not normalise)(x)
    if normalise:
        x = BatchNormalization()(x)
    return layers.LeakyReLU(SLOPE)(x)
