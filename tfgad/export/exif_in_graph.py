"""The Exif block of PNG and JPEG files, found and read in a TensorFlow graph.

It is what `tfgad.data.exif` does in Python. Files of several pictures are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfgad.data import exif
from tfgad.data.image_headers import JPEG_START, PNG_START

# Segments of a JPEG, or chunks of a PNG, before the pixels. Cameras and editors write ten or
# twenty; each costs some 0.1 ms here.
MOST_PARTS = 256
# Markers of a JPEG (ITU-T T.81, table B.1).
START_OF_SCAN, APP1, APP2 = 0xDA, 0xE1, 0xE2
# Those without content: fill bytes and TEM, restarts, start and end of image.
ALONE = (0x00, 0x01, *range(0xD0, 0xDA))
EXIF, PICTURES = b"Exif\0\0", b"MPF\0"
GAIN_MAP = '(?s).* hdrgm:Version=".*'  # the second picture is no page, but the first's brightness
ENTRIES_OF_PICTURES, THUMBNAILS = 0xB002, (0x10001, 0x10002)  # of a multi-picture block

# Bytes `[..., n]` to the numbers `[...]` that they are.
Number = Callable[[tf.Tensor], tf.Tensor]
# Of a part of a file: the place of the next, whether this is the last to look at, whether it is of
# each of three kinds, and the place and length of its content.
Part = tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor, tf.Tensor]


def exif_block(file: tf.Tensor) -> tf.Tensor:
    """Returns the Exif block of a PNG or JPEG, empty if it has none; refuses several pictures."""
    is_jpeg = tf.strings.substr(file, 0, len(JPEG_START)) == JPEG_START
    return tf.cond(is_jpeg, lambda: _exif_of_jpeg(file), lambda: _exif_of_png(file))


def orientation(block: tf.Tensor) -> tf.Tensor:
    """Returns the orientation that an Exif block names, int64 []; see `tfgad.data.exif`."""
    as_it_is = tf.constant(exif.UPRIGHT, tf.int64)

    def read(values: tf.Tensor, number: Number) -> tf.Tensor:
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


def _pictures(block: tf.Tensor) -> tf.Tensor:
    """Returns the number of pictures in a multi-picture block (CIPA DC-007), without thumbnails."""

    def read(values: tf.Tensor, number: Number) -> tf.Tensor:
        table = _directory(values, number)
        entries = tf.boolean_mask(table, number(table[:, :2]) == ENTRIES_OF_PICTURES)
        entries = tf.concat([entries, tf.zeros([1, exif.ENTRY], tf.int64)], axis=0)
        length, place = number(entries[0, 4:8]), number(entries[0, 8:12])
        pictures = number(_rows(values, place, length // 16, 16)[:, :4])
        is_thumbnail = tf.reduce_any(pictures[:, None] % 2**24 == THUMBNAILS, axis=1)
        return tf.reduce_sum(tf.cast(~is_thumbnail, tf.int64))

    return _of_tiff(block, read, tf.constant(1, tf.int64))


def _of_tiff(
    block: tf.Tensor, read: Callable[[tf.Tensor, Number], tf.Tensor], otherwise: tf.Tensor
) -> tf.Tensor:
    """Returns the result of `read` for a block that starts like a TIFF.

    Args:
        block: string [].
        read: takes the block's bytes `[n]`, and a function of `[..., n]` bytes to the numbers
            `[...]` that they are in the block's byte order; returns int64 [].
        otherwise: the result for any other block.
    """
    block = tf.strings.substr(block, 0, exif.LONGEST)
    values = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int64)
    is_little = substring(block, 0, 4) == b"II*\0"
    is_big = substring(block, 0, 4) == b"MM\0*"

    def number(digits: tf.Tensor) -> tf.Tensor:
        digits = tf.where(is_little, digits, digits[..., ::-1])
        return tf.reduce_sum(digits * [256**i for i in range(digits.shape[-1])], axis=-1)

    return tf.cond(is_little | is_big, lambda: read(values, number), lambda: otherwise)


def _directory(values: tf.Tensor, number: Number) -> tf.Tensor:
    """Returns the entries `[n, ENTRY]` of a TIFF's first directory."""
    place = number(_rows(values, 4, 1, 4, padded=True)[0])
    count = number(_rows(values, place, 1, 2, padded=True)[0])
    return _rows(values, place + 2, count, exif.ENTRY)


def _rows(values: tf.Tensor, place: Any, count: Any, width: int, padded: bool = False) -> tf.Tensor:
    """Returns bytes `[count, width]` from a place on; beyond the end, zeros or fewer rows."""
    size = tf.size(values, tf.int64)
    place = tf.minimum(tf.cast(place, tf.int64), size)
    if padded:
        values = tf.concat([values, tf.zeros([width * count], tf.int64)], axis=0)
    else:
        count = tf.minimum(count, (size - place) // width)
    return tf.reshape(values[place : place + count * width], [-1, width])


def _exif_of_jpeg(file: tf.Tensor) -> tf.Tensor:
    """Returns the Exif block of a JPEG, empty if it has none; refuses several pictures."""
    zero = tf.constant(0, tf.int64)

    def step(at: tf.Tensor) -> Part:
        marker = _number(file, at, 2)
        code, length = marker % 256, _number(file, at + 2, 2)
        # Like Pillow: bytes other than markers are skipped, and so are fill bytes.
        is_marker = (marker >= 0xFF00) & (code != 0xFF)
        is_alone = tf.reduce_any(code == tf.constant(ALONE, tf.int64))
        length = tf.where(is_alone, zero, tf.maximum(length, 2))
        jump = tf.where(is_marker, 2 + length, zero + 1)
        is_app1, content = marker == 0xFF00 + APP1, substring(file, at + 4, length - 2)
        wanted = (
            is_app1 & (substring(content, 0, len(EXIF)) == EXIF),
            (marker == 0xFF00 + APP2) & (substring(content, 0, len(PICTURES)) == PICTURES),
            is_app1 & tf.strings.regex_full_match(content, GAIN_MAP),
        )
        return at + jump, marker == 0xFF00 + START_OF_SCAN, wanted, at + 4, length - 2

    (block, pictures, _), (_, _, gain_map) = _parts(file, len(JPEG_START) - 1, step)
    count = _pictures(substring(pictures, len(PICTURES), exif.LONGEST))
    one = _assert_one(tf.where(gain_map > 0, zero, count))
    with tf.control_dependencies([one]):
        return substring(block, len(EXIF), exif.LONGEST)


def _exif_of_png(file: tf.Tensor) -> tf.Tensor:
    """Returns the Exif block of a PNG, empty if it has none before the pixels; refuses frames."""

    def step(at: tf.Tensor) -> Part:
        length, kind = _number(file, at, 4), substring(file, at + 4, 4)
        wanted = kind == b"eXIf", kind == b"acTL", kind == b"fcTL"
        return at + length + 12, kind == b"IDAT", wanted, at + 8, length

    (block, animation, _), (_, animated, first) = _parts(file, len(PNG_START), step)
    # If no frame starts before the pixels, these are one more picture.
    frames = _number(animation, 0, 4) + tf.cast(first == 0, tf.int64)
    with tf.control_dependencies([_assert_one(tf.where(animated > 0, frames, 1))]):
        return tf.identity(block)


def _assert_one(pages: tf.Tensor) -> Any:
    """Refuses files of several pages."""
    return tf.debugging.assert_less_equal(
        pages, tf.constant(1, tf.int64), "the file holds several pages"
    )


def _parts(
    file: tf.Tensor, start: int, step: Callable[[tf.Tensor], Part]
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Goes through the parts of a file, and returns the first of each of three kinds.

    Args:
        file: string [].
        start: place of the first part.
        step: takes the place of a part; returns that of the next, whether this is the last to look
            at, whether it is of each kind, and the place and length of its content.

    Returns:
        The contents, string [] each, empty if there is none; and their places, int64 `[3]`, 0 if
        there is none.
    """
    size = tf.cast(tf.strings.length(file), tf.int64)
    none = tf.zeros([3], tf.int64)

    def goes_on(
        _count: tf.Tensor,
        at: tf.Tensor,
        _places: tf.Tensor,
        _lengths: tf.Tensor,
        is_last: tf.Tensor,
    ) -> tf.Tensor:
        return ~is_last & (at < size)

    def body(
        count: tf.Tensor, at: tf.Tensor, places: tf.Tensor, lengths: tf.Tensor, _: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
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
    return [substring(file, places[i], lengths[i]) for i in range(3)], tf.unstack(places)


def substring(file: tf.Tensor, place: Any, length: Any) -> tf.Tensor:
    """Returns a part of a file, shorter at its end."""
    size = tf.cast(tf.strings.length(file), tf.int64)
    place = tf.minimum(tf.cast(place, tf.int64), size)
    return tf.strings.substr(file, place, tf.maximum(tf.cast(length, tf.int64), 0))


def _number(file: tf.Tensor, place: Any, size: int) -> tf.Tensor:
    """Returns the big-endian number at a place of a file; bytes beyond its end are 0."""
    padded = tf.strings.join([substring(file, place, size), b"\0" * size])
    digits = tf.io.decode_raw(tf.strings.substr(padded, 0, size), tf.uint8)
    digits = tf.cast(tf.ensure_shape(digits, [size]), tf.int64)
    return tf.reduce_sum(digits * [256**i for i in reversed(range(size))])
