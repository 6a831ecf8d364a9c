"""Image files that cost far more to decode than their pixels do.

A decoder cannot be interrupted, so such files are refused before they are decoded. Examples: a PNG
of 0.9 MB whose pixels decompress to 900 MB kept TensorFlow's decoder busy for 11 s, one of 3.9 MB
with 500 compressed texts for 75 s, and a JPEG of 33 KB with 1,000 scans for 6 s.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator

from tfgad.data.image_headers import JPEG_START, MAX_CHUNKS, MEBI, PNG_START

MAX_PIXELS = 32 * MEBI  # of one image, for the server's interfaces and the page
# Of an image: a JPEG's longest is 65,535, that of a line scan 65,536. A model that resizes its
# images took 10 us for each row of a narrow one: 0.7 s for this many, 10 s for 2^20.
MAX_SIDE = 2**16
# First chunk of a PNG: length, kind, width, height, depth, colour, two zeros, interlace.
PNG_HEADER = struct.Struct(">I4sIIBBBBB")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (PNG specification, table 11.1)
# First column and row of each pass of an interlaced PNG, and the steps to the next ones.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
# Decompressed bytes of a PNG's texts and profile; the largest profiles of printers have 3 MiB.
MAX_METADATA = 16 * MEBI
MAX_NAME = 2**10  # bytes of a text's keyword, language and translated keyword together
OUTPUT_STEP, INPUT_STEP = MEBI, 2**16  # bytes that decompression yields and takes at a time
# Scans of a progressive JPEG; encoders make about ten. Each costs a pass over the whole image.
MAX_SCANS = 64
JPEG_SCAN = b"\xff\xda"  # within the data of a scan, FF is followed by 00 or by a restart marker


@dataclasses.dataclass(frozen=True)
class PngHeader:
    """The header of a PNG.

    Attributes:
        height: in pixels.
        width: in pixels.
        size: bytes of its decompressed pixels.
    """

    height: int
    width: int
    size: int


def excess(file: bytes) -> str:
    """Returns why a file costs far more to decode than its pixels do; empty if it does not.

    Files that are neither PNG nor JPEG, or have no valid header, pass. Check the number of pixels
    before: the check of a PNG decompresses as many bytes as the pixels have.
    """
    if file.startswith(JPEG_START) and file.count(JPEG_SCAN) > MAX_SCANS:
        return f"has more than {MAX_SCANS} scans, and would be slow to decode"
    header = png_header(file) if file.startswith(PNG_START) else None
    if header is None:
        return ""
    try:
        pixels, others = _compressed_streams(file)
    except _ExcessError as error:
        return str(error)
    if _exceeds(pixels, header.size):
        return f"holds more than its {header.height}x{header.width} pixels"
    if _exceeds(others, MAX_METADATA):
        return f"has texts and a profile that decompress to more than {MAX_METADATA // MEBI} MiB"
    return ""


def png_header(file: bytes) -> PngHeader | None:
    """Returns the header of a PNG; None if it is invalid."""
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
    return PngHeader(height, width, size)


class _ExcessError(Exception):
    """A PNG has too many chunks, or too long a name in one of them."""


def _pass_size(height: int, width: int, bits: int, of_pass: tuple[int, int, int, int]) -> int:
    """Returns the bytes of one pass of a PNG: its rows, each with a byte for its filter."""
    left, top, across, down = of_pass
    columns, rows = -(-(width - left) // across), -(-(height - top) // down)
    return rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0


def _compressed_streams(file: bytes) -> tuple[list[list[memoryview]], list[list[memoryview]]]:
    """Returns the zlib streams of a PNG: that of its pixels, and all others, each in pieces."""
    pixels: list[memoryview] = []
    others: list[list[memoryview]] = []
    for count, (kind, data) in enumerate(_chunks(file)):
        if count == MAX_CHUNKS:
            raise _ExcessError(f"has more than {MAX_CHUNKS} chunks")
        if kind == b"IDAT":
            pixels.append(data)
        elif kind in (b"zTXt", b"iCCP", b"iTXt"):
            others.append([data[_stream_start(kind, data) :]])
    return [pixels], others


def _chunks(file: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, position = memoryview(file), len(PNG_START)
    while position + 8 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, position)
        yield kind, view[position + 8 : position + 8 + length]
        position += length + 12  # with its length, kind and checksum


def _stream_start(kind: bytes, data: memoryview) -> int:
    """Returns the position of a chunk's zlib stream, which follows its names.

    Raises:
        _ExcessError: the names are too long.
    """
    head = bytes(data[:MAX_NAME])
    position = head.find(b"\0") + 2  # after the keyword, at most 79 bytes, and the method
    if kind == b"iTXt":  # a flag before the method, then language and translated keyword
        if head[position - 1 : position] != b"\1":
            return len(data)  # it is not compressed
        language_end = head.find(b"\0", position + 1)
        translated_end = head.find(b"\0", language_end + 1)
        if -1 in (language_end, translated_end):
            if len(data) <= MAX_NAME:
                return len(data)  # it is truncated: nothing follows the names
            raise _ExcessError(f"has a text whose name is longer than {MAX_NAME} bytes")
        return translated_end + 1
    return position


def _exceeds(streams: list[list[memoryview]], most: int) -> bool:
    """Returns whether zlib streams, each in pieces, decompress to more than `most` bytes."""
    for stream in streams:
        decompressor = zlib.decompressobj()
        for step in _in_steps(stream):
            rest: bytes | memoryview = step
            while len(rest) and not decompressor.eof:
                try:
                    most -= len(decompressor.decompress(rest, min(most + 1, OUTPUT_STEP)))
                except zlib.error:
                    break  # the decoder stops there, too
                if most < 0:
                    return True
                rest = decompressor.unconsumed_tail
    return False


def _in_steps(stream: list[memoryview]) -> Iterator[memoryview]:
    """Yields short pieces, since the unconsumed tail of a piece is copied at each output step."""
    for piece in stream:
        for start in range(0, len(piece), INPUT_STEP):
            yield piece[start : start + INPUT_STEP]
