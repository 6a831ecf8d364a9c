"""The sizes of the images in a request, known before any is decoded.

A decoder cannot be interrupted, so that a file which costs far more than its pixels do is refused
before: a PNG of 0.9 MB whose pixels unfold to 900 MB kept TensorFlow's decoder busy for 11 s, one
of 3.9 MB with 500 compressed texts for 75 s, and a JPEG of 33 KB with 1,000 scans for 6 s.
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
import zlib
from collections.abc import Hashable, Iterator, Mapping

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from tfgad.data import exif
from tfgad.data.image_files import PNG_START, orientation_of
from tfgad.export.decoding import JPEG_START
from tfgad.serving.server.errors import ServingError, invalid
from tfgad.serving.server.limits import MEBI, Limits

IMAGE_BYTES = "image_bytes"  # the input of `tfgad.export.saved_model` that takes whole files
# Of its first chunk: length, kind, width, height, depth, colour, two that are always 0, interlace.
PNG_HEADER = struct.Struct(">I4sIIBBBBB")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG specification, table 11.1)
# The first column and row of each pass of an interlaced one, and the steps to the next.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
MOST_CHUNKS = 2**16  # of a PNG; encoders cut the pixels into pieces of 8 KiB or more
# What texts and profile of a PNG may unfold to; the largest profiles of printers have 3 MiB.
MOST_UNFOLDED = 16 * MEBI
MOST_NAME = 2**10  # bytes of a text's keyword, language and translated keyword together
UNFOLDED_AT_ONCE, STEP = MEBI, 2**16  # bytes that come out at a time, and that go in
# Of a progressive JPEG; encoders make about ten. The decoder goes through the whole image for each.
MOST_SCANS = 64
JPEG_SCAN = b"\xff\xda"  # within the data of a scan, FF is followed by 00 or a restart's number


@dataclasses.dataclass(frozen=True)
class Rows:
    """What batching must know of a request's rows.

    Attributes:
        count: how many.
        cost: of each, in values or pixels: what the memory of a run grows with.
        kind: requests of one kind may share a run; None, where one may share with none.
    """

    count: int
    cost: int
    kind: Hashable | None


def measure(inputs: Mapping[str, np.ndarray], limits: Limits) -> Rows:
    """Measures a request that fits its signature.

    Raises:
        ServingError: an image is too large, or is none; all together are too many or too large.
    """
    kind, cost, alike = [], 1, True
    count = max((len(array) if array.ndim else 1 for array in inputs.values()), default=1)
    for name in sorted(inputs):
        array = inputs[name]
        kind.append((name, array.shape[1:], array.dtype.str))
        if name == IMAGE_BYTES and array.dtype == object and array.ndim == 1:
            if count > limits.max_files:
                most = f"{limits.max_files} (--max-files)"
                raise invalid(f"the request holds {count} images, more than {most}")
            sizes = {encoded_size(file, i, limits.max_pixels) for i, file in enumerate(array)}
            alike = alike and len(sizes) == 1
            kind.append(next(iter(sizes)))
        elif array.ndim == 4:
            sizes = {array.shape[1:3]}
        else:
            cost = max(cost, math.prod(array.shape[1:]))
            continue
        cost = max(cost, *(_checked_area(size, limits.max_pixels) for size in sizes))
    if cost * count > limits.max_images * limits.max_pixels:
        most = limits.max_images * limits.max_pixels
        problem = f"the request holds {cost * count} pixels, more than {most}"
        raise invalid(f"{problem} (--max-images times --max-pixels)")
    return Rows(count, cost, tuple(kind) if alike else None)


def encoded_size(
    file: bytes, index: int = 0, max_pixels: int = Limits.max_pixels
) -> tuple[int, int]:
    """Returns height and width of a PNG or JPEG from its head, once it is turned upright.

    TensorFlow's decoder takes more kinds of files than an exported model promises, GIF and its
    frames for one; those are refused.

    Raises:
        ServingError: it is none; it is too large, or costs far more to decode than its pixels do.
    """
    if file.startswith(PNG_START):
        return _png_size(file, index, max_pixels)
    if file.startswith(JPEG_START):
        return _jpeg_size(file, index, max_pixels)
    raise _unreadable(index)


def _jpeg_size(file: bytes, index: int, max_pixels: int) -> tuple[int, int]:
    size = _upright_size(JpegImagePlugin.JpegImageFile, file, index)
    _checked_area(size, max_pixels)
    _check_cost(file, index)
    return size


def _upright_size(reader, file: bytes, index: int) -> tuple[int, int]:
    try:  # these readers, unlike `Image.open`, leave it to the caller what is too large
        with reader(io.BytesIO(file)) as image:
            across = orientation_of(image) in exif.TRANSPOSED
            return image.size if across else (image.height, image.width)
    except Exception:  # on broken files Pillow's readers raise almost anything
        raise _unreadable(index) from None


def _png_size(file: bytes, index: int, max_pixels: int) -> tuple[int, int]:
    header = _png_header(file)
    if header is None:
        raise _unreadable(index)
    _checked_area((header.height, header.width), max_pixels)
    _check_cost(file, index)
    return _upright_size(PngImagePlugin.PngImageFile, file, index)


def _check_cost(file: bytes, index: int) -> None:
    reason = excess(file)
    if reason:
        raise invalid(f"image {index} {reason}")


def excess(file: bytes) -> str:
    """Says why a file would cost far more to decode than its pixels do; empty if it would not.

    What is neither PNG nor JPEG, or has no head of one, passes. Call it for an image that is not
    too large: it unfolds as many bytes as the pixels have.
    """
    if file.startswith(JPEG_START) and file.count(JPEG_SCAN) > MOST_SCANS:
        return f"has more than {MOST_SCANS} scans, and would be slow to decode"
    header = _png_header(file) if file.startswith(PNG_START) else None
    if header is None:
        return ""
    try:
        pixels, others = _unfolding(file)
    except _ExcessError as error:
        return str(error)
    if _unfolds_to_more(pixels, header.size):
        return f"holds more than its {header.height}x{header.width} pixels"
    if _unfolds_to_more(others, MOST_UNFOLDED):
        return f"has texts and profile that unfold to more than {MOST_UNFOLDED // MEBI} MiB"
    return ""


class _ExcessError(Exception):
    """A PNG has more parts than it may."""


@dataclasses.dataclass(frozen=True)
class _PngHeader:
    """Height and width of a PNG, and the bytes that its pixels unfold to."""

    height: int
    width: int
    size: int


def _png_header(file: bytes) -> _PngHeader | None:
    """Returns what a PNG's first chunk says; None if that is broken."""
    try:
        length, kind, width, height, depth, colour, _, _, interlace = PNG_HEADER.unpack_from(
            file, len(PNG_START)
        )
        bits = depth * PNG_CHANNELS[colour]
    except (struct.error, KeyError):
        return None
    if length != 13 or kind != b"IHDR" or not width or not height:
        return None
    passes = ADAM7 if interlace else ((0, 0, 1, 1),)
    size = sum(_pass_size(height, width, bits, each) for each in passes)
    return _PngHeader(height, width, size)


def _unfolding(file: bytes) -> tuple[list[list[memoryview]], list[list[memoryview]]]:
    """Returns what a PNG holds compressed: its pixels, and all else; each stream in its pieces."""
    pixels: list[memoryview] = []
    others: list[list[memoryview]] = []
    for count, (kind, data) in enumerate(_chunks(file)):
        if count == MOST_CHUNKS:
            raise _ExcessError(f"has more than {MOST_CHUNKS} chunks")
        if kind == b"IDAT":
            pixels.append(data)
        elif kind in (b"zTXt", b"iCCP", b"iTXt"):
            others.append([data[_start_of_stream(kind, data) :]])
    return [pixels], others


def _chunks(file: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, place = memoryview(file), len(PNG_START)
    while place + 8 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, place)
        yield kind, view[place + 8 : place + 8 + length]
        place += length + 12  # with its length, kind and checksum


def _start_of_stream(kind: bytes, data: memoryview) -> int:
    """Returns where the compressed part of a chunk begins, after its names.

    Raises:
        _ExcessError: the names are too long, so that it is not found.
    """
    head = bytes(data[:MOST_NAME])
    place = head.find(b"\0") + 2  # the keyword, of 79 bytes at most, and the method
    if kind == b"iTXt":  # a flag before the method, then language and translated keyword
        if head[place - 1 : place] != b"\1":
            return len(data)  # it is not compressed
        language_end = head.find(b"\0", place + 1)
        translated_end = head.find(b"\0", language_end + 1)
        if -1 in (language_end, translated_end):
            if len(data) <= MOST_NAME:
                return len(data)  # it is cut off: nothing follows the names
            raise _ExcessError(f"has a text whose name is longer than {MOST_NAME} bytes")
        return translated_end + 1
    return place


def _unfolds_to_more(streams: list[list[memoryview]], most: int) -> bool:
    """Returns whether zlib streams, each in its pieces, unfold to more bytes than so many."""
    for stream in streams:
        unfold = zlib.decompressobj()
        for rest in _in_steps(stream):
            while len(rest) and not unfold.eof:
                try:
                    most -= len(unfold.decompress(rest, min(most + 1, UNFOLDED_AT_ONCE)))
                except zlib.error:
                    break  # the decoder stops there, too
                if most < 0:
                    return True
                rest = unfold.unconsumed_tail
    return False


def _in_steps(stream: list[memoryview]) -> Iterator[memoryview]:
    """Yields short pieces, for what is not unfolded yet of one is copied each time."""
    for piece in stream:
        for start in range(0, len(piece), STEP):
            yield piece[start : start + STEP]


def _pass_size(height: int, width: int, bits: int, of_pass: tuple[int, int, int, int]) -> int:
    """Returns the bytes of a pass of a PNG: its rows, each with the number of its filter."""
    left, top, across, down = of_pass
    columns, rows = -(-(width - left) // across), -(-(height - top) // down)
    return rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0


def _unreadable(index: int) -> ServingError:
    return invalid(f"image {index} is no PNG or JPEG that can be read")


def _checked_area(size: tuple[int, int], most: int) -> int:
    height, width = size
    if height * width > most:
        problem = f"an image of {height}x{width} pixels is larger than the limit of {most}"
        raise invalid(f"{problem} (--max-pixels)")
    return height * width
