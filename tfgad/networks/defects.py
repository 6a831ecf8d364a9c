"""Networks of the Multistage GAN: defect patches from codes, and their fusion with fabric.

Liu et al. 2020 do not publish their networks; these are our own. A patch is an image with the mask
of its defect as the last channel: `[B, h, w, C + 1]`, all in [-1, 1], where a mask of -1 means
defect-free and 1 defective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tfgad.networks import convolutional
from tfgad.networks.convolutional import KERNEL, SLOPE
from tfgad.networks.layers import BatchNormalization

EMBEDDING = 16  # size of the embedding of the kind of defect
MOMENTUM = 0.9  # of batch normalisation: a training takes only hundreds of steps
MASK, DISPLACEMENT = -3, slice(-2, None)  # channels of a change; see `on_fabric`
REACH = 6.0  # largest displacement in pixels, about one yarn
FUSER_STEP = 4  # sides of T's images are multiples of this: T halves them twice
CONTEXT = (2, 4, 8)  # dilations at a quarter of the size: together they see 120 pixels across


def generator(
    patch_shape: tuple[int, int, int], latent_dim: int, style_dim: int, kinds: int, width: int
) -> keras.Model:
    """G: codes z `[B, latent_dim]`, style `[B, style_dim]` and kind int32 `[B]` to patches.

    It generates the fabric together with the defect.

    Args:
        patch_shape: `(h, w, C + 1)`.
        latent_dim: of z, standard normal.
        style_dim: of the style code, whose components have a standard deviation of 1.
        kinds: number of kinds of defect.
        width: channels at half the size of the patch, doubled with each halving.
    """
    inputs, code = _condition(latent_dim, style_dim, kinds)
    inner = convolutional.generator(patch_shape, code.shape[-1], width)
    return keras.Model(inputs, inner(code), name="generator")


def generator_on_fabric(
    patch_shape: tuple[int, int, int], latent_dim: int, style_dim: int, kinds: int, width: int
) -> keras.Model:
    """G with a good patch of the fabric `[B, h, w, C]` as its fourth input, to put a defect on.

    It returns a change of the fabric, `[B, h, w, C + 4]`, which `on_fabric` applies. It is an
    encoder and a decoder with skip connections. The codes are concatenated at the bottleneck. The
    arguments are those of `generator`.
    """
    inputs, code = _condition(latent_dim, style_dim, kinds)
    *size, masked = patch_shape
    x = fabric = keras.Input((*size, masked - 1), name="fabric")
    levels = []
    for level in range(convolutional.halvings(patch_shape) - 1):
        x = _strided(x, width * 2**level)
        levels.append(x)
    small = levels[-1].shape[1:]
    condition = layers.Reshape(small)(layers.Dense(math.prod(small), use_bias=False)(code))
    x = layers.Concatenate()([x, layers.ReLU()(BatchNormalization(momentum=MOMENTUM)(condition))])
    for level in reversed(levels[:-1]):
        x = layers.Conv2DTranspose(level.shape[-1], KERNEL, 2, "same", use_bias=False)(x)
        x = layers.ReLU()(BatchNormalization(momentum=MOMENTUM)(x))
        x = layers.Concatenate()([x, level])
    # The last step interpolates: transposed convolutions leave a checkerboard on fine yarns.
    enlarged = layers.UpSampling2D(interpolation="bilinear")
    displacement = _output(x, 2, "tanh", "displacement", kernel_initializer="zeros")
    displacement = layers.Rescaling(REACH, dtype="float32")(enlarged(displacement))
    x = _convolution(layers.Concatenate()([enlarged(x), fabric]), width)
    image, opacity = _output(x, masked - 1, "tanh", "image"), _output(x, 1, "sigmoid", "opacity")
    parts = [image, opacity, _output(x, 1, "tanh", "mask"), displacement]
    change = layers.Concatenate(dtype="float32", name="change")(parts)
    return keras.Model([*inputs, fabric], change, name="generator")


def _output(
    x: keras.KerasTensor, filters: int, activation: str, name: str, **arguments: Any
) -> keras.KerasTensor:
    """A named convolution and its activation, in float32."""
    x = layers.Conv2D(filters, 3, padding="same", name=name, **arguments)(x)
    return layers.Activation(activation, dtype="float32")(x)


def _condition(
    latent_dim: int, style_dim: int, kinds: int
) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    """Returns the inputs z, style and kind, and their concatenation, with an embedding of kind."""
    latent = keras.Input((latent_dim,), name="latent")
    style = keras.Input((style_dim,), name="style")
    kind = keras.Input((), dtype="int32", name="kind")
    standard_normal = keras.initializers.RandomNormal(stddev=1.0)
    embedded = layers.Embedding(kinds, EMBEDDING, standard_normal, name="embedding")(kind)
    return [latent, style, kind], layers.Concatenate()([latent, style, embedded])


def on_fabric(change: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Applies a change to good fabric y: returns patches with a defect, `[B, h, w, C + 1]`.

    The fabric is displaced by a vector field v, y̅(p) = y(p + v(p)) at pixels p. An image d of
    opacity o is blended over it. The mask m selects where:

        y + m (y̅ + o (d - y̅) - y)

    Displacement yields broken or crowded yarns, a low opacity stains through which the weave is
    visible, an opacity of 1 holes.

    Args:
        change: `[B, h, w, C + 4]`: d in [-1, 1], o in [0, 1], the mask 2m - 1 in [-1, 1], and v in
            pixels, rows before columns.
        y: images `[B, h, w, C]` in [-1, 1].
    """
    image, opacity, mask = change[..., :-4], change[..., -4:-3], change[..., MASK, None]
    moved = displaced(y, change[..., DISPLACEMENT])
    changed = moved + opacity * (image - moved)
    share = (mask + 1.0) / 2.0
    return tf.concat([y + share * (changed - y), mask], axis=-1)


def displaced(images: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """Bilinear interpolation of images `[B, h, w, C]` at pixels displaced by `[B, h, w, 2]`."""
    _, height, width, channels = ops.shape(images)  # tensors where they differ from call to call
    last_row, last_column = (tf.cast(length - 1, tf.float32) for length in (height, width))
    row = tf.range(height, dtype="float32")[:, None] + by[..., 0]
    column = tf.range(width, dtype="float32") + by[..., 1]
    row, column = tf.clip_by_value(row, 0, last_row), tf.clip_by_value(column, 0, last_column)
    top, left = tf.floor(row), tf.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    pixels = tf.reshape(images, (-1, height * width, channels))

    def read(r: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
        r, c = (tf.cast(tf.minimum(*each), tf.int32) for each in ((r, last_row), (c, last_column)))
        return tf.gather(pixels, r * width + c, batch_dims=1)

    upper = (1 - right) * read(top, left) + right * read(top, left + 1)
    lower = (1 - right) * read(top + 1, left) + right * read(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def critic(
    patch_shape: tuple[int, int, int], style_dim: int, kinds: int, width: int
) -> keras.Model:
    """D: patches, style and kind to logits of the `whole` patch `[B]` and of n `places` `[B, n]`.

    Each logit is ψ(φ(x)) + cᵀVφ(x), with c the style and the kind: a projection discriminator
    (Miyato and Koyama 2018, eq. 3). For the whole patch, φ is the mean over positions, where the
    paper has the sum: the position of a defect does not depend on the fabric. The φ of a place sees
    22x22 pixels (PatchGAN, Isola et al. 2017, section 3.2.2), so that every part of a defect has to
    look real. U-Net GAN found both together better than either (Schönfeld et al. 2020, section
    3.1).
    """
    trunk = convolutional.critic(patch_shape, width)
    patches = keras.Input(patch_shape, name="patches")
    style = keras.Input((style_dim,), name="style")
    kind = keras.Input((), dtype="int32", name="kind")
    seen = trunk(patches)

    def condition(phi: keras.KerasTensor) -> keras.KerasTensor:
        of_style = layers.Dense(phi.shape[-1], use_bias=False, dtype="float32")(style)
        of_kind = layers.Embedding(kinds, phi.shape[-1], dtype="float32")(kind)
        return layers.Add()([of_style, of_kind])

    *_, at_places, phi = seen["features"]
    phi = layers.GlobalAveragePooling2D(dtype="float32")(phi)
    projection = layers.Dot(1, dtype="float32")([phi, condition(phi)])
    whole = layers.Add(dtype="float32", name="whole")(
        [seen["logit"], layers.Reshape(())(projection)]
    )
    phi = layers.LeakyReLU(SLOPE)(layers.Conv2D(at_places.shape[-1], 1, dtype="float32")(at_places))
    projection = layers.Dot((3, 1), dtype="float32")([phi, condition(phi)])
    projection = layers.Rescaling(phi.shape[-1] ** -0.5)(layers.Reshape((-1,))(projection))
    psi = layers.Reshape((-1,))(layers.Conv2D(1, 1, dtype="float32")(phi))
    places = layers.Add(dtype="float32", name="places")([psi, projection])
    return keras.Model([patches, style, kind], {"whole": whole, "places": places}, name="critic")


def fuser(channels: int, width: int) -> keras.Model:
    """T, the defect-fusing network: from an image with a pasted patch to a seamless image.

    It is a U-Net of two halvings (Ronneberger et al. 2015) with dilated convolutions at the bottom,
    since it must continue the weave from outside the window. It is initialised as the identity.

    Args:
        channels: C.
        width: channels at full size.

    Returns:
        A network from `[B, H, W, C + 2]` to images `[B, H, W, C]` in [-1, 1], H and W multiples of
        `FUSER_STEP`. The channels of the input are the image, the window of the patch, 1 inside and
        0 outside, and the mask of the defect, -1 outside the window.
    """
    x = inputs = keras.Input((None, None, channels + 2), name="pasted")
    x = fine = _convolution(x, width)
    x = middle = _convolution(x, 2 * width, stride=2)
    x = _convolution(x, 4 * width, stride=2)
    for dilation in CONTEXT:
        x = layers.Add()([x, _convolution(x, 4 * width, dilation=dilation)])
    for level, filters in ((middle, 2 * width), (fine, width)):
        x = layers.Conv2DTranspose(filters, KERNEL, 2, "same", use_bias=False)(x)
        x = layers.LeakyReLU(SLOPE)(BatchNormalization(momentum=MOMENTUM)(x))
        x = _convolution(layers.Concatenate()([x, level]), filters)
    change = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros")(x)
    images = Retouch(dtype="float32", name="images")([inputs, change])
    return keras.Model(inputs, images, name="fuser")


@keras.saving.register_keras_serializable("tfgad")
class Retouch(layers.Layer):
    """Adds a change to the image in the first channels of another input; clips to [-1, 1]."""

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns images `[B, H, W, C]`, of inputs `[B, H, W, > C]` and changes `[B, H, W, C]`."""
        image, change = inputs
        return ops.clip(image[..., : change.shape[-1]] + change, -1.0, 1.0)

    def compute_output_shape(self, shapes: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Returns the shape of the change."""
        return shapes[1]


def patch_critic(channels: int, width: int) -> keras.Model:
    """D of the fusion: images with masks `[B, H, W, C + 1]` to one logit per position, `[B, n]`.

    Each logit sees 22x22 pixels (PatchGAN, Isola et al. 2017, section 3.2.2): whether they look
    like real cloth, with a defect where the mask is 1.
    """
    x = inputs = keras.Input((None, None, channels + 1), name="images_and_masks")
    for level in range(3):
        stride = 2 if level < 2 else 1
        x = layers.Conv2D(width * 2**level, KERNEL, stride, "same")(x)
        x = layers.LeakyReLU(SLOPE)(x)
    logits = layers.Conv2D(1, 1, dtype="float32")(x)
    return keras.Model(inputs, layers.Reshape((-1,))(logits), name="patch_critic")


def _strided(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """Strided convolution that halves the size, batch normalisation and leaky ReLU."""
    x = layers.Conv2D(filters, KERNEL, 2, "same", use_bias=False)(x)
    return layers.LeakyReLU(SLOPE)(BatchNormalization(momentum=MOMENTUM)(x))


def _convolution(
    x: keras.KerasTensor, filters: int, stride: int = 1, dilation: int = 1
) -> keras.KerasTensor:
    """3x3 convolution, batch normalisation and leaky ReLU."""
    x = layers.Conv2D(filters, 3, stride, "same", dilation_rate=dilation, use_bias=False)(x)
    return layers.LeakyReLU(SLOPE)(BatchNormalization(momentum=MOMENTUM)(x))
