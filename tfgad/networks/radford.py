"""The DCGAN of Radford et al. (ICLR 2016), and two networks that later authors derived from it.

    generator   z - 4x4x(8 width) - 8x8x(4 width) - 16x16x(2 width) - 32x32x(width) - 64x64xC
    critic      64x64xC - 32x32x(width) - 16x16x(2 width) - ... - 4x4x(8 width) - logit

Each arrow is one convolution with a stride of 2, transposed in the generator, where rectifiers
follow the normalisation; the critic's rectifiers are leaky. Kernels are drawn from N(0, 0.02²), the
scales γ of batch normalisation from N(1, 0.02²). Images of another size are halved until their
shorter side is 4 to 7 pixels.

`same` padding is TensorFlow's: with a kernel of 5 it lies one pixel beside that of the authors of
`RADFORD`. With a kernel of 4 both agree.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import layers

from tfgad.networks.convolutional import halvings
from tfgad.networks.layers import BatchNormalization

DEVIATION = 0.02  # of all weights and of γ (Radford et al. 2016, section 4, and their code)
# Of batch normalisation, as PyTorch has them, and so the authors of `ARJOVSKY` and `WALKTHROUGH`.
# Radford's code has no averages, it scores with the statistics of a batch, and an ε of 1e-8, which
# TensorFlow's fused operation would raise to 1e-5.
MOMENTUM, EPSILON = 0.9, 1e-5


@dataclasses.dataclass(frozen=True)
class Design:
    """How one author writes the DCGAN.

    Attributes:
        kernel: side of the kernels.
        slope: of the critic's leaky rectifiers.
        bias: whether convolutions have one.
        normalised_units: whether the generator's first normalisation has statistics of each unit
            instead of each channel.
        normalised_first: whether the critic's first block is normalised, too.
    """

    kernel: int
    slope: float
    bias: bool
    normalised_units: bool
    normalised_first: bool


# github.com/Newmu/dcgan_code, faces/train_uncond_dcgan.py: a width of 128 in both networks.
RADFORD = Design(5, 0.2, bias=False, normalised_units=True, normalised_first=False)
# github.com/martinarjovsky/WassersteinGAN, models/dcgan.py: a width of 64.
ARJOVSKY = Design(4, 0.2, bias=False, normalised_units=False, normalised_first=False)
# The AnoGAN walk-through on 400 digits 7 and 8: a width of 64.
WALKTHROUGH = Design(4, 0.1, bias=True, normalised_units=False, normalised_first=True)


def generator(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    width: int,
    design: Design = RADFORD,
    name: str = "generator",
) -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1].

    Raises:
        UsageError: the image is too small, or its sides cannot be halved evenly.
    """
    count = halvings(image_shape)
    height, breadth, channels = image_shape
    side, filters = (height >> count, breadth >> count), width * 2 ** (count - 1)

    latent = keras.Input((latent_dim,), name="latent")
    if design.normalised_units:
        units = math.prod(side) * filters
        x = layers.Dense(units, use_bias=design.bias, kernel_initializer=_normal())(latent)
        x = layers.Reshape((*side, filters))(layers.ReLU()(_normalised(x)))
    else:
        x = layers.Reshape((1, 1, latent_dim))(latent)
        x = layers.ReLU()(_normalised(_transposed(x, filters, side, 1, "valid", design)))
    for level in reversed(range(count - 1)):
        filters = width * 2**level
        x = _transposed(x, filters, design.kernel, 2, "same", design)
        x = layers.ReLU()(_normalised(x))
    x = _transposed(x, channels, design.kernel, 2, "same", design)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape: tuple[int, int, int],
    width: int,
    design: Design = RADFORD,
    with_features: bool = False,
    name: str = "critic",
) -> keras.Model:
    """Images `[B, H, W, C]` to logits `[B]`, unbounded, of which a sigmoid is D(x).

    With features the network returns a dict instead: `logit`, and `features`, a list of the hidden
    layers, `[B, h, w, c]` each, fine to coarse. The last is AnoGAN's f(x). The logit is written as
    a dense layer; a convolution whose kernel is as large as its input is the same.

    Raises:
        UsageError: the image is too small, or its sides cannot be halved evenly.
    """
    x = images = keras.Input(image_shape, name="images")
    features = []
    for level in range(halvings(image_shape)):
        x = layers.Conv2D(
            width * 2**level,
            design.kernel,
            2,
            "same",
            use_bias=design.bias,
            kernel_initializer=_normal(),
        )(x)
        if level or design.normalised_first:
            x = _normalised(x)
        x = layers.LeakyReLU(design.slope)(x)
        features.append(layers.Activation("linear", dtype="float32")(x))
    last = layers.Dense(1, use_bias=design.bias, kernel_initializer=_normal(), dtype="float32")
    logit = last(layers.Flatten()(features[-1]))
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    outputs = {"logit": logit, "features": features} if with_features else logit
    return keras.Model(images, outputs, name=name)


def _transposed(x: Any, filters: int, kernel: Any, stride: int, pad: str, design: Design) -> Any:
    return layers.Conv2DTranspose(
        filters, kernel, stride, pad, use_bias=design.bias, kernel_initializer=_normal()
    )(x)


def _normalised(x: Any) -> Any:
    gamma = keras.initializers.RandomNormal(1.0, DEVIATION)
    return BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, gamma_initializer=gamma)(x)


def _normal() -> keras.Initializer:
    """A new initializer for each layer: one that is used again gives the same numbers again."""
    return keras.initializers.RandomNormal(0.0, DEVIATION)
