"""PNG and JPEG files to images within a TensorFlow graph: the pixels of `tfgad.data.images`.

That is what `score_bytes` of an exported model begins with, so all here is made of TensorFlow's own
operations. What `tfgad.data.images` refuses is refused, as INVALID_ARGUMENT.
"""

from __future__ import annotations

import tensorflow as tf

from tfgad.data import exif
from tfgad.data.image_files import PNG_BITS, PNG_START
from tfgad.data.pixels import LUMA, white_of

JPEG_START = b"\xff\xd8\xff"
# Segments of a JPEG, or chunks of a PNG, before the pixels. Cameras and editors write ten or
# twenty; each costs some 0.1 ms here.
MOST_PARTS = 256
# Markers of a JPEG (ITU-T T.81, table B.1).
START_OF_SCAN, APP1, APP2 = 0xDA, 0xE1, 0xE2
# Those that stand alone: fill bytes and TEM, restarts, start and end of image.
ALONE = (0x00, 0x01, *range(0xD0, 0xDA))
EXIF, PICTURES = b"Exif\0\0", b"MPF\0"
GAIN_MAP = '(?s).* hdrgm:Version=".*'  # the second picture is no page, but the first's brightness
ENTRIES_OF_PICTURES, THUMBNAILS = 0xB002, (0x10001, 0x10002)  # of a multi-picture block


def decode(file, channels: int, depth: int | None):
    """Decodes a file and turns it upright by its EXIF orientation.

    Args:
        file: string [], a whole PNG or JPEG.
        channels: 1 for grey, 3 for colour.
        depth: of PNG files of 16 bits; see `tfgad.data.pixels.scaled`.

    Returns:
        float32 `[H, W, channels]` in [-1, 1].
    """
    is_jpeg = tf.strings.substr(file, 0, len(JPEG_START)) == JPEG_START
    is_png = tf.strings.substr(file, 0, len(PNG_START)) == PNG_START
    # The decoders take more kinds than these, and of a GIF all frames.
    known = tf.debugging.Assert(is_jpeg | is_png, ["the file is not a PNG or JPEG"])
    with tf.control_dependencies([known]):
        is_deep = is_png & (_bytes(file, PNG_BITS, 1) == b"\x10")

    def jpeg():  # the accurate transform is Pillow's; TensorFlow's own is off by up to 13 levels
        return tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")

    def shallow():
        return tf.cond(is_jpeg, jpeg, lambda: tf.io.decode_png(file, channels=3))

    def deep_image():
        return _scaled(_deep(file, depth), channels, white_of(depth))

    image = tf.cond(is_deep, deep_image, lambda: _scaled(shallow(), channels, 255))
    return upright(image, orientation(exif_block(file)))


def exif_block(file):
    """Returns the Exif block of a PNG or JPEG, empty if it has none; refuses several pictures."""
    is_jpeg = tf.strings.substr(file, 0, len(JPEG_START)) == JPEG_START
    return tf.cond(is_jpeg, lambda: _exif_of_jpeg(file), lambda: _exif_of_png(file))


def _deep(file, depth: int | None):
    """Decodes a PNG of 16 bits, and refuses values above white."""
    colour = tf.io.decode_png(file, channels=3, dtype=tf.uint16)
    white = white_of(depth)
    message = f"the image holds values above {white}, the maximum of {depth} bits"
    highest = tf.reduce_max(tf.cast(colour, tf.int32))
    with tf.control_dependencies([tf.debugging.assert_less_equal(highest, white, message)]):
        return tf.identity(colour)


def _scaled(colour, channels: int, white: int):
    """Whole numbers `[H, W, 3]` to float32 `[H, W, channels]` in [-1, 1]."""
    if channels == 1:
        luma = tf.reduce_sum(tf.cast(colour, tf.int64) * LUMA, axis=-1, keepdims=True)
        colour = (luma + 2**15) // 2**16
    return from_levels(colour, white / 2)


def from_levels(levels, middle: float):
    """Levels from 0 to twice the middle, to [-1, 1]: bit for bit what `tfgad.data.images` makes.

    By a constant TensorFlow would multiply with its inverse, which rounds otherwise. A search of
    hundreds of steps makes much of the last bit.
    """
    return tf.cast(levels, tf.float32) / tf.compat.v1.placeholder_with_default(middle, []) - 1


def upright(image, orientation):
    """Turns `[H, W, C]` upright; see `tfgad.data.exif.upright`."""

    def is_in(orientations):
        return tf.reduce_any(orientation == tf.constant(orientations, tf.int64))

    def turned():
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


def orientation(block):
    """Returns the orientation that an Exif block names, int64 []; see `tfgad.data.exif`."""
    as_it_is = tf.constant(exif.UPRIGHT, tf.int64)

    def read(values, number):
        table = _directory(values, number)
        tag, kind, count = number(table[:, :2]), number(table[:, 2:4]), number(table[:, 4:8])
        value = tf.where(kind == exif.SHORT, number(table[:, 8:10]), number(table[:, 8:12]))
        is_known = (kind == exif.SHORT) | (kind == exif.LONG)
        units = tf.constant((*exif.UNITS, 0), tf.int64)
        size = count * tf.gather(units, tf.minimum(kind, len(exif.UNITS)))
        is_outside = (size > 4) & (number(table[:, 8:12]) + size > tf.size(values, tf.int64))
        is_known &= tf.cumsum(tf.cast(is_outside, tf.int64)) == 0
        found = tf.boolean_mask(value, (tag == exif.TAG) & is_known & (count == 1))
        last = tf.concat([as_it_is[None], found], axis=0)[-1]
        return tf.where((last >= 1) & (last <= 8), last, as_it_is)

    return _of_tiff(block, read, as_it_is)


def _pictures(block):
    """Returns of how many pictures, less thumbnails, a multi-picture block (CIPA DC-007) tells."""

    def read(values, number):
        table = _directory(values, number)
        entries = tf.boolean_mask(table, number(table[:, :2]) == ENTRIES_OF_PICTURES)
        entries = tf.concat([entries, tf.zeros([1, exif.ENTRY], tf.int64)], axis=0)
        length, place = number(entries[0, 4:8]), number(entries[0, 8:12])
        pictures = number(_rows(values, place, length // 16, 16)[:, :4])
        is_thumbnail = tf.reduce_any(pictures[:, None] % 2**24 == THUMBNAILS, axis=1)
        return tf.reduce_sum(tf.cast(~is_thumbnail, tf.int64))

    return _of_tiff(block, read, tf.constant(1, tf.int64))


def _of_tiff(block, read, otherwise):
    """Returns what `read` says of a block that begins as a TIFF does.

    Args:
        block: string [].
        read: the block's bytes `[n]`, and a function of `[..., n]` bytes to the numbers `[...]`
            that they are in the block's order -> int64 [].
        otherwise: the answer for any other block.
    """
    block = tf.strings.substr(block, 0, exif.LONGEST)
    values = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int64)
    is_little = _bytes(block, 0, 4) == b"II*\0"
    is_big = _bytes(block, 0, 4) == b"MM\0*"

    def number(digits):
        digits = tf.where(is_little, digits, digits[..., ::-1])
        return tf.reduce_sum(digits * [256**i for i in range(digits.shape[-1])], axis=-1)

    return tf.cond(is_little | is_big, lambda: read(values, number), lambda: otherwise)


def _directory(values, number):
    """Returns the entries `[n, ENTRY]` of a TIFF's first directory."""
    place = number(_rows(values, 4, 1, 4, padded=True)[0])
    count = number(_rows(values, place, 1, 2, padded=True)[0])
    return _rows(values, place + 2, count, exif.ENTRY)


def _rows(values, place, count, width: int, padded: bool = False):
    """Returns bytes `[count, width]` from a place on; where they end, zeros or fewer rows."""
    size = tf.size(values, tf.int64)
    place = tf.minimum(tf.cast(place, tf.int64), size)
    if padded:
        values = tf.concat([values, tf.zeros([width * count], tf.int64)], axis=0)
    else:
        count = tf.minimum(count, (size - place) // width)
    return tf.reshape(values[place : place + count * width], [-1, width])


def _exif_of_jpeg(file):
    """Returns the Exif block of a JPEG, empty if it has none; refuses several pictures."""
    zero = tf.constant(0, tf.int64)

    def step(at):
        marker = _number(file, at, 2)
        code, length = marker % 256, _number(file, at + 2, 2)
        # As Pillow reads: other bytes than markers are passed over, and so are fill bytes.
        is_marker = (marker >= 0xFF00) & (code != 0xFF)
        is_alone = tf.reduce_any(code == tf.constant(ALONE, tf.int64))
        length = tf.where(is_alone, zero, tf.maximum(length, 2))
        jump = tf.where(is_marker, 2 + length, zero + 1)
        is_app1, content = marker == 0xFF00 + APP1, _bytes(file, at + 4, length - 2)
        wanted = (
            is_app1 & (_bytes(content, 0, len(EXIF)) == EXIF),
            (marker == 0xFF00 + APP2) & (_bytes(content, 0, len(PICTURES)) == PICTURES),
            is_app1 & tf.strings.regex_full_match(content, GAIN_MAP),
        )
        return at + jump, marker == 0xFF00 + START_OF_SCAN, wanted, at + 4, length - 2

    (block, pictures, _), (_, _, gain_map) = _parts(file, len(JPEG_START) - 1, step)
    count = _pictures(_bytes(pictures, len(PICTURES), exif.LONGEST))
    one = _assert_one(tf.where(gain_map > 0, zero, count))
    with tf.control_dependencies([one]):
        return _bytes(block, len(EXIF), exif.LONGEST)


def _exif_of_png(file):
    """Returns the Exif block of a PNG, empty if it has none before the pixels; refuses frames."""

    def step(at):
        length, kind = _number(file, at, 4), _bytes(file, at + 4, 4)
        wanted = kind == b"eXIf", kind == b"acTL", kind == b"fcTL"
        return at + length + 12, kind == b"IDAT", wanted, at + 8, length

    (block, animation, _), (_, animated, first) = _parts(file, len(PNG_START), step)
    # Where no frame begins before the pixels, those are a picture besides.
    frames = _number(animation, 0, 4) + tf.cast(first == 0, tf.int64)
    with tf.control_dependencies([_assert_one(tf.where(animated > 0, frames, 1))]):
        return tf.identity(block)


def _assert_one(pages):
    return tf.debugging.assert_less_equal(
        pages, tf.constant(1, tf.int64), "the file holds several pages"
    )


def _parts(file, start: int, step):
    """Goes from part to part of a file, and returns of three kinds the first.

    Args:
        file: string [].
        start: place of the first part.
        step: place of a part -> that of the next, whether this is the last to look at, whether it
            is of each kind, and the place and length of its content.

    Returns:
        The contents, string [] each, empty if there is none; and their places, int64 `[3]`, 0 if
        there is none.
    """
    size = tf.cast(tf.strings.length(file), tf.int64)
    none = tf.zeros([3], tf.int64)

    def goes_on(_count, at, _places, _lengths, is_last):
        return ~is_last & (at < size)

    def body(count, at, places, lengths, _):
        following, is_last, wanted, place, length = step(at)
        is_new = tf.stack(wanted) & (places == 0)
        places, lengths = tf.where(is_new, place, places), tf.where(is_new, length, lengths)
        return count + 1, following, places, lengths, is_last

    count, _, places, lengths, _ = tf.while_loop(
        goes_on,
        body,
        (0, tf.constant(start, tf.int64), none, none, tf.constant(False)),
        maximum_iterations=MOST_PARTS,
    )
    message = f"the file has more than {MOST_PARTS} parts before its pixels"
    with tf.control_dependencies([tf.debugging.assert_less(count, MOST_PARTS, message)]):
        places = tf.identity(places)
    return [_bytes(file, places[i], lengths[i]) for i in range(3)], tf.unstack(places)


def _bytes(file, place, length):
    """Returns a part of a file, shorter where that ends."""
    size = tf.cast(tf.strings.length(file), tf.int64)
    place = tf.minimum(tf.cast(place, tf.int64), size)
    return tf.strings.substr(file, place, tf.maximum(tf.cast(length, tf.int64), 0))


def _number(file, place, size: int):
    """Returns the number, first byte first, at a place of a file; bytes behind its end are 0."""
    padded = tf.strings.join([_bytes(file, place, size), b"\0" * size])
    digits = tf.io.decode_raw(tf.strings.substr(padded, 0, size), tf.uint8)
    digits = tf.cast(tf.ensure_shape(digits, [size]), tf.int64)
    return tf.reduce_sum(digits * [256**i for i in reversed(range(size))])
