"""The networks of the Multistage GAN: patches of defects from codes, and their fusion with fabric.

Liu et al. 2020 do not publish theirs. A patch is an image and the mask of its defect as one more
channel: `[B, h, w, C + 1]`, all in [-1, 1], the mask's -1 meaning sound and 1 defective.
"""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from tfgad.networks import convolutional
from tfgad.networks.convolutional import KERNEL, SLOPE
from tfgad.networks.layers import BatchNormalization

EMBEDDING = 16  # numbers that stand for a kind of defect, beside the style's and the code's
MOMENTUM = 0.9  # of the averages of batch normalisation: trainings last hundreds of steps
MASK, DISPLACEMENT = -3, slice(-2, None)  # channels of a change; see `on_fabric`
REACH = 6.0  # pixels by which yarns are moved at most, about one yarn
FUSER_STEP = 4  # T halves its images twice: their sides are multiples of this
CONTEXT = (2, 4, 8)  # dilations at a quarter of the size: the last sees 128 pixels around


def generator(patch_shape, latent_dim: int, style_dim: int, kinds: int, width: int) -> keras.Model:
    """G: codes z `[B, latent_dim]`, style `[B, style_dim]` and kind int32 `[B]` to patches.

    It draws the fabric along with the defect.

    Args:
        patch_shape: `(h, w, C + 1)`.
        latent_dim: of z, standard normal.
        style_dim: of the style code, whose numbers have a standard deviation of 1.
        kinds: how many kinds of defect there are.
        width: channels at half the patch's size, doubled with each halving.
    """
    inputs, code = _asked_for(latent_dim, style_dim, kinds)
    inner = convolutional.generator(patch_shape, code.shape[-1], width)
    return keras.Model(inputs, inner(code), name="generator")


def generator_on_fabric(
    patch_shape, latent_dim: int, style_dim: int, kinds: int, width: int
) -> keras.Model:
    """G with a good patch of the fabric `[B, h, w, C]` as its fourth input, to draw a defect on.

    It draws a change of the fabric, `[B, h, w, C + 4]`, which `on_fabric` makes. It is an encoder
    and a decoder with skip connections. The code joins where the patch is smallest. The arguments
    are those of `generator`.
    """
    inputs, code = _asked_for(latent_dim, style_dim, kinds)
    *size, masked = patch_shape
    x = fabric = keras.Input((*size, masked - 1), name="fabric")
    levels = []
    for level in range(convolutional.halvings(patch_shape) - 1):
        x = _strided(x, width * 2**level)
        levels.append(x)
    small = levels[-1].shape[1:]
    asked = layers.Reshape(small)(layers.Dense(math.prod(small), use_bias=False)(code))
    x = layers.Concatenate()([x, layers.ReLU()(BatchNormalization(momentum=MOMENTUM)(asked))])
    for level in reversed(levels[:-1]):
        x = layers.Conv2DTranspose(level.shape[-1], KERNEL, 2, "same", use_bias=False)(x)
        x = layers.ReLU()(BatchNormalization(momentum=MOMENTUM)(x))
        x = layers.Concatenate()([x, level])
    # At full size by interpolation: transposed convolutions leave a chequered defect on fine yarns.
    enlarged = layers.UpSampling2D(interpolation="bilinear")
    moved = _drawn(x, 2, "tanh", "displacement", kernel_initializer="zeros")
    moved = layers.Rescaling(REACH, dtype="float32")(enlarged(moved))
    x = _convolution(layers.Concatenate()([enlarged(x), fabric]), width)
    image, opacity = _drawn(x, masked - 1, "tanh", "image"), _drawn(x, 1, "sigmoid", "opacity")
    mask = _drawn(x, 1, "tanh", "mask")
    change = layers.Concatenate(dtype="float32", name="change")([image, opacity, mask, moved])
    return keras.Model([*inputs, fabric], change, name="generator")


def _drawn(x, filters: int, activation: str, name: str, **arguments):
    x = layers.Conv2D(filters, 3, padding="same", name=name, **arguments)(x)
    return layers.Activation(activation, dtype="float32")(x)


def _asked_for(latent_dim: int, style_dim: int, kinds: int):
    """Returns the inputs z, style and kind, and all three as one vector."""
    latent = keras.Input((latent_dim,), name="latent")
    style = keras.Input((style_dim,), name="style")
    kind = keras.Input((), dtype="int32", name="kind")
    standard_normal = keras.initializers.RandomNormal(stddev=1.0)
    embedded = layers.Embedding(kinds, EMBEDDING, standard_normal, name="embedding")(kind)
    return [latent, style, kind], layers.Concatenate()([latent, style, embedded])


def on_fabric(change, y):
    """Makes a defect of a fabric y `[B, h, w, C]`: yarns moved, something foreign laid over them.

    y̅ = y(p + v(p)) is the fabric with its pixels p moved by v. Over it lies an image d of opacity
    o, and all that where the mask m says: y + m (y̅ + o (d - y̅) - y). A broken or a crowded yarn
    is a v, a stain a d through which the weave shows, a hole a d of opacity 1.

    Args:
        change: `[B, h, w, C + 4]`: d in [-1, 1], o in [0, 1], m in [-1, 1] for m in [0, 1], and v
            in pixels, rows before columns.
        y: in [-1, 1].

    Returns:
        Patches `[B, h, w, C + 1]`.
    """
    image, opacity, mask = change[..., :-4], change[..., -4:-3], change[..., MASK, None]
    moved = displaced(y, change[..., DISPLACEMENT])
    changed = moved + opacity * (image - moved)
    share = (mask + 1.0) / 2.0
    return tf.concat([y + share * (changed - y), mask], axis=-1)


def displaced(images, by):
    """Reads images `[B, h, w, C]` at places moved by `[B, h, w, 2]` pixels, bilinearly."""
    height, width, channels = images.shape[1:]
    row = tf.clip_by_value(tf.range(height, dtype="float32")[:, None] + by[..., 0], 0, height - 1)
    column = tf.clip_by_value(tf.range(width, dtype="float32") + by[..., 1], 0, width - 1)
    top, left = tf.floor(row), tf.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]
    pixels = tf.reshape(images, (-1, height * width, channels))

    def read(r, c):
        place = tf.minimum(r, height - 1) * width + tf.minimum(c, width - 1)
        return tf.gather(pixels, tf.cast(place, tf.int32), batch_dims=1)

    upper = (1 - right) * read(top, left) + right * read(top, left + 1)
    lower = (1 - right) * read(top + 1, left) + right * read(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def critic(patch_shape, style_dim: int, kinds: int, width: int) -> keras.Model:
    """D: patches, style and kind to logits of the `whole` `[B]` and of `places` in it `[B, n]`.

    Each is ψ(φ(x)) + cᵀVφ(x), c the style and the kind: a projection discriminator (Miyato and
    Koyama 2018, eq. 3). For the whole, φ is the mean over its places, nearly as theirs, the sum:
    where a defect lies says nothing of its fabric. A place is judged by the 22x22 pixels that its φ
    sees (as by PatchGAN, Isola et al. 2017, section 3.2.2), so that each pixel of a defect counts
    and not the likeness of all of it alone; both at once are what U-Net GAN found better than
    either (Schönfeld et al. 2020, section 3.1).
    """
    trunk = convolutional.critic(patch_shape, width)
    patches = keras.Input(patch_shape, name="patches")
    style = keras.Input((style_dim,), name="style")
    kind = keras.Input((), dtype="int32", name="kind")
    seen = trunk(patches)

    def asked_for(phi):
        of_style = layers.Dense(phi.shape[-1], use_bias=False, dtype="float32")(style)
        of_kind = layers.Embedding(kinds, phi.shape[-1], dtype="float32")(kind)
        return layers.Add()([of_style, of_kind])

    *_, at_places, phi = seen["features"]
    phi = layers.GlobalAveragePooling2D(dtype="float32")(phi)
    projection = layers.Dot(1, dtype="float32")([phi, asked_for(phi)])
    whole = layers.Add(dtype="float32", name="whole")(
        [seen["logit"], layers.Reshape(())(projection)]
    )
    phi = layers.LeakyReLU(SLOPE)(layers.Conv2D(at_places.shape[-1], 1, dtype="float32")(at_places))
    projection = layers.Dot((3, 1), dtype="float32")([phi, asked_for(phi)])
    projection = layers.Rescaling(phi.shape[-1] ** -0.5)(layers.Reshape((-1,))(projection))
    unasked = layers.Reshape((-1,))(layers.Conv2D(1, 1, dtype="float32")(phi))
    places = layers.Add(dtype="float32", name="places")([unasked, projection])
    return keras.Model([patches, style, kind], {"whole": whole, "places": places}, name="critic")


def fuser(channels: int, width: int) -> keras.Model:
    """T: an image with a foreign patch in it to one whose patch belongs to it.

    A U-Net of two halvings (Ronneberger et al. 2015), whose bottom sees far by dilation: to go on
    with a weave it must know it from outside the window. It begins as the identity, and learns what
    to change.

    Args:
        channels: C.
        width: channels at full size.

    Returns:
        `[B, H, W, C + 2]` to images `[B, H, W, C]` in [-1, 1], H and W multiples of `FUSER_STEP`.
        The input is the image, then the window, 1 inside and 0 outside, then the mask of the
        defect, as it is in a patch inside the window and -1 outside.
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
    """Adds a change to an image, the first channels of what comes with it, and clips to [-1, 1]."""

    def call(self, inputs):
        """Returns images `[B, H, W, C]` of an image with more channels and a change `[.., C]`."""
        image, change = inputs
        return ops.clip(image[..., : change.shape[-1]] + change, -1.0, 1.0)

    def compute_output_shape(self, shapes):
        """Returns the shape of the change."""
        return shapes[1]


def patch_critic(channels: int, width: int) -> keras.Model:
    """D of the fusion: `[B, H, W, C + 1]`, images and masks, to a logit a place `[B, h, w]`.

    Each place judges 22x22 pixels (PatchGAN, Isola et al. 2017, section 3.2.2): whether they are
    cloth, with a defect where the mask says so.
    """
    x = inputs = keras.Input((None, None, channels + 1), name="images_and_masks")
    for level in range(3):
        stride = 2 if level < 2 else 1
        x = layers.Conv2D(width * 2**level, KERNEL, stride, "same")(x)
        x = layers.LeakyReLU(SLOPE)(x)
    logits = layers.Conv2D(1, 1, dtype="float32")(x)
    return keras.Model(inputs, layers.Reshape((-1,))(logits), name="patch_critic")


def _strided(x, filters: int):
    x = layers.Conv2D(filters, KERNEL, 2, "same", use_bias=False)(x)
    return layers.LeakyReLU(SLOPE)(BatchNormalization(momentum=MOMENTUM)(x))


def _convolution(x, filters: int, stride: int = 1, dilation: int = 1):
    x = layers.Conv2D(filters, 3, stride, "same", dilation_rate=dilation, use_bias=False)(x)
    return layers.LeakyReLU(SLOPE)(BatchNormalization(momentum=MOMENTUM)(x))
