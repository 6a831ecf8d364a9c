"""Decoding of PNG and JPEG files in a TensorFlow graph, to the pixels of `tfgad.data.images`.

The signature `score_bytes` of an exported model starts with it, so it consists of TensorFlow's own
operations. Files that `tfgad.data.images` refuses are refused, as INVALID_ARGUMENT.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfgad.data import exif
from tfgad.data.image_files import PNG_BITS
from tfgad.data.image_headers import JPEG_START, PNG_START
from tfgad.data.pixels import LUMA, white_of
from tfgad.export.exif_in_graph import exif_block, orientation, substring


def decode(file: tf.Tensor, channels: int, depth: int | None) -> tf.Tensor:
    """Decodes a file and turns it upright by its EXIF orientation.

    Args:
        file: string [], a whole PNG or JPEG.
        channels: 1 for grey, 3 for colour.
        depth: bits of PNG files of 16 bits; see `tfgad.data.pixels.scaled`.

    Returns:
        float32 `[H, W, channels]` in [-1, 1].
    """
    is_jpeg = tf.strings.substr(file, 0, len(JPEG_START)) == JPEG_START
    is_png = tf.strings.substr(file, 0, len(PNG_START)) == PNG_START
    # The decoders take more formats than these, and all frames of a GIF.
    known = tf.debugging.Assert(is_jpeg | is_png, ["the file is not a PNG or JPEG"])
    with tf.control_dependencies([known]):
        is_deep = is_png & (substring(file, PNG_BITS, 1) == b"\x10")

    def jpeg() -> tf.Tensor:
        # The accurate transform is Pillow's; TensorFlow's default is off by up to 13 levels.
        return tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")

    def shallow() -> tf.Tensor:
        return tf.cond(is_jpeg, jpeg, lambda: tf.io.decode_png(file, channels=3))

    def deep_image() -> tf.Tensor:
        return scaled(_deep(file, depth), channels, white_of(depth))

    image = tf.cond(is_deep, deep_image, lambda: scaled(shallow(), channels, 255))
    return upright(image, orientation(exif_block(file)))


def _deep(file: tf.Tensor, depth: int | None) -> tf.Tensor:
    """Decodes a PNG of 16 bits, and refuses values above white."""
    colour = tf.io.decode_png(file, channels=3, dtype=tf.uint16)
    white = white_of(depth)
    message = f"the image holds values above {white}, the maximum of {depth} bits"
    highest = tf.reduce_max(tf.cast(colour, tf.int32))
    with tf.control_dependencies([tf.debugging.assert_less_equal(highest, white, message)]):
        return tf.identity(colour)


def scaled(colour: tf.Tensor, channels: int, white: int) -> tf.Tensor:
    """Scales whole numbers `[H, W, 3]` to float32 `[H, W, channels]` in [-1, 1]."""
    if channels == 1:
        luma = tf.reduce_sum(tf.cast(colour, tf.int64) * LUMA, axis=-1, keepdims=True)
        colour = (luma + 2**15) // 2**16
    return from_levels(colour, white / 2)


def from_levels(levels: tf.Tensor, middle: float) -> tf.Tensor:
    """Scales levels from 0 to twice the middle to [-1, 1], bit for bit as `tfgad.data.images` does.

    TensorFlow replaces division by a constant with multiplication by its inverse, which rounds
    otherwise. A search of hundreds of steps amplifies a difference in the last bit.
    """
    return tf.cast(levels, tf.float32) / tf.compat.v1.placeholder_with_default(middle, []) - 1


def to_levels(images: tf.Tensor) -> tf.Tensor:
    """Converts images in [-1, 1] to uint8, rounded to the nearest level."""
    return tf.cast(tf.clip_by_value(tf.round((images + 1) * 127.5), 0, 255), tf.uint8)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns `[H, W, C]` upright; see `tfgad.data.exif.upright`."""

    def is_in(orientations: Sequence[int]) -> tf.Tensor:
        return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))

    def turned() -> tf.Tensor:
        across = is_in(exif.TRANSPOSED)
        picture = tf.cond(across, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        for axis, reversed_ in enumerate((exif.ROWS_REVERSED, exif.COLUMNS_REVERSED)):
            picture = tf.cond(
                is_in(reversed_),
                lambda p=picture, a=axis: tf.reverse(p, [a]),
                lambda p=picture: p,
            )
        return picture

    return tf.cond(orientation == exif.UPRIGHT, lambda: image, turned)
