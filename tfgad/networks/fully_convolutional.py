"""Encoder, generator and critic of GANomaly's authors: convolutions alone, without biases.

The networks of Akcay et al. 2018 as their public code has them (`lib/networks.py`), after DCGAN
(Radford et al. 2016). For 32 pixels and a width of d:

    encoder     4x4 convolutions of stride 2 to d, 2d, 4d; one of the size of what is left, 4x4, to
                the code
    critic      the same to one logit: the discriminator
    generator   a transposed 4x4 convolution of the code to 4d, then of stride 2 to 2d, d, C; tanh:
                the decoder

Leaky rectifiers of slope 0.2 follow the convolutions, ReLU the transposed ones, after batch
normalisation in all layers but the encoder's first and the last. Weights are N(0, 0.02) at first,
scales N(1, 0.02), offsets 0.

The authors' images have sides that are powers of two, and are halved to 4x4. Here what is left may
be larger: the last convolution is of that size.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfgad.errors import UsageError
from tfgad.networks.convolutional import KERNEL, SLOPE, SMALLEST_SIDE, check_image
from tfgad.networks.layers import BatchNormalization

DEVIATION = 0.02  # of the initial weights and scales (`weights_init` of the authors' code)
MOMENTUM = 0.9  # PyTorch's default, there 0.1 of the new batch
EPSILON = 1e-5  # PyTorch's default
DIVISOR = 16  # of the sides, in the authors' code


def halvings(image_shape: tuple[int, int, int]) -> int:
    """Returns how often `(height, width, channels)` is halved: the shorter side stays at least 4.

    Raises:
        UsageError: the image is too small; or its sides are no multiples of 16, and halving them
            evenly leaves a shorter side of more than 7.
    """
    check_image(image_shape)
    height, width, _ = image_shape
    common, count = math.gcd(height, width), 0
    while common % 2 ** (count + 1) == 0 and min(height, width) >> count >= 2 * SMALLEST_SIDE:
        count += 1
    if common % DIVISOR and min(height, width) >> count >= 2 * SMALLEST_SIDE:
        hint = f"give sides that are multiples of {DIVISOR}"
        raise UsageError("image size", f"{height}x{width}", "cannot be halved evenly", hint)
    return count


def encoder(
    image_shape: tuple[int, int, int], latent_dim: int, width: int, name: str = "encoder"
) -> keras.Model:
    """Images `[B, H, W, C]` in [-1, 1] to latent codes `[B, latent_dim]`, unbounded.

    Raises:
        UsageError: see `halvings`.
    """
    images = keras.Input(image_shape, name="images")
    x = _pyramid(images, width)[-1]
    x = _convolution(latent_dim, x.shape[1:3])(x)
    latent = layers.Reshape((latent_dim,), dtype="float32", name="latent")(x)
    return keras.Model(images, latent, name=name)


def generator(
    image_shape: tuple[int, int, int], latent_dim: int, width: int, name: str = "generator"
) -> keras.Model:
    """Latent codes `[B, latent_dim]` to images `[B, H, W, C]` in [-1, 1].

    Raises:
        UsageError: see `halvings`.
    """
    count = halvings(image_shape)
    height, breadth, channels = image_shape
    latent = keras.Input((latent_dim,), name="latent")
    x = layers.Reshape((1, 1, latent_dim))(latent)
    x = _transposed(width * 2 ** (count - 1), (height >> count, breadth >> count))(x)
    x = layers.ReLU()(_normalization()(x))
    for level in reversed(range(count - 1)):
        x = _transposed(width * 2**level, KERNEL, 2, "same")(x)
        x = layers.ReLU()(_normalization()(x))
    x = _transposed(channels, KERNEL, 2, "same")(x)
    images = layers.Activation("tanh", dtype="float32", name="images")(x)
    return keras.Model(latent, images, name=name)


def critic(
    image_shape: tuple[int, int, int], width: int, normalise: bool = True, name: str = "critic"
) -> keras.Model:
    """Images `[B, H, W, C]` to a dict: `logit` `[B]`, of the discriminator, and `features`.

    `features` is a list of the hidden layers, `[B, h, w, c]` each, fine to coarse. The last is f(x)
    of Akcay et al. 2018. `normalise=False` leaves batch normalisation out, for penalties per image.

    Raises:
        UsageError: see `halvings`.
    """
    images = keras.Input(image_shape, name="images")
    hidden = _pyramid(images, width, normalise)
    features = [layers.Activation("linear", dtype="float32")(x) for x in hidden]
    logit = _convolution(1, features[-1].shape[1:3], dtype="float32")(features[-1])
    logit = layers.Reshape((), dtype="float32", name="logit")(logit)
    return keras.Model(images, {"logit": logit, "features": features}, name=name)


def initial_weights(network: keras.Model, seed: tf.Tensor) -> list[tf.Tensor]:
    """Returns new initial values of a network's trainable weights, in their order.

    Kernels are N(0, 0.02), the scales of normalisation N(1, 0.02), offsets and biases 0.

    Args:
        network: of convolutions, dense layers and batch normalisation.
        seed: int64 `[2]`.
    """
    weights = network.trainable_weights
    sizes = [tf.TensorShape(weight.shape).num_elements() for weight in weights]
    noise = DEVIATION * tf.random.stateless_normal([sum(sizes)], seed)
    values = []
    for weight, part in zip(weights, tf.split(noise, sizes), strict=True):
        drawn = tf.reshape(part, weight.shape)
        if weight.name == "gamma":
            drawn = 1.0 + drawn
        elif len(weight.shape) == 1:
            drawn = tf.zeros_like(drawn)
        values.append(drawn)
    return values


def _pyramid(
    images: keras.KerasTensor, width: int, normalise: bool = True
) -> list[keras.KerasTensor]:
    """Returns the hidden layers of an encoder or a critic."""
    x, hidden = images, []
    for level in range(halvings(images.shape[1:])):
        x = _convolution(width * 2**level, KERNEL, 2, "same")(x)
        if normalise and level:
            x = _normalization()(x)
        x = layers.LeakyReLU(SLOPE)(x)
        hidden.append(x)
    return hidden


def _convolution(*arguments: Any, **options: Any) -> keras.Layer:
    initializer = keras.initializers.RandomNormal(0.0, DEVIATION)
    return layers.Conv2D(*arguments, use_bias=False, kernel_initializer=initializer, **options)


def _transposed(*arguments: Any, **options: Any) -> keras.Layer:
    initializer = keras.initializers.RandomNormal(0.0, DEVIATION)
    return layers.Conv2DTranspose(
        *arguments, use_bias=False, kernel_initializer=initializer, **options
    )


def _normalization() -> keras.Layer:
    scale = keras.initializers.RandomNormal(1.0, DEVIATION)
    return BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, gamma_initializer=scale)
