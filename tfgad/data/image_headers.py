"""Headers of image files that take far longer to read than the files are large.

Pillow reads a header as soon as it opens a file: tags, segments and chunks one by one, in Python,
and a copy of each tag's value, even if all values share the same bytes. A TIFF or an Exif block of
0.2 MB with 16,000 such tags took 3 GB and 11 s, and a JPEG of 4 MB with a million empty segments
5 s. Such files are refused before Pillow opens them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL.JpegImagePlugin import MARKER
from PIL.TiffImagePlugin import PREFIXES

from tfgad.data.exif import UNITS

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
MEBI = 2**20
# Tags of a directory. Cameras write about a hundred, raw converters a few hundred.
MAX_TAGS = 2**12
# Numbers in a directory, each an object of Python: 0.5 s. A palette of 16 bits has 196,608, and a
# line scan of 4096x65536 with a strip for each row 131,072.
MAX_NUMBERS = 2**19
MAX_RATIONALS = 2**14  # fractions among them, which take 12 us each; a camera writes about thirty
# Strips or tiles of a TIFF without compression, which Pillow reads one by one in 27 us: these, or
# one for each 16 pixels.
MAX_STRIPS, PIXELS_OF_STRIP = 2**14, 16
# Sizes of all compressed strips together, in sizes of the file; some writers state them wrongly.
SHARED = 2
# Segments of a JPEG before its pixels, and chunks of a PNG. A segment has up to 64 KiB.
MAX_PARTS = 2**12
# All chunks of a PNG: 0.6 s. Encoders write one for each 8 KiB or more, so these are 512 MiB.
MAX_CHUNKS = 2**16
MAX_METADATA = 16 * MEBI  # bytes of these segments together
MAX_STARTS = 4  # of an Exif block; some writers repeat it once
MAX_FILLING = 2**16  # bytes between the segments; encoders write none, or a few

# The starts that Pillow takes for a TIFF, and their order of bytes.
TIFF_STARTS = {start: "<" if start[:1] == b"I" else ">" for start in map(bytes, PREFIXES)}
BIG = 43  # in the third byte: a BigTIFF
WIDTH, HEIGHT, COMPRESSION, NONE = 256, 257, 259, 1
OFFSETS, COUNTS = (273, 324), (279, 325)  # of strips and of tiles
DIRECTORIES = (0x8769, 0x8825, 0xA005)  # of Exif, GPS and interoperability, which Pillow reads too
BYTES, RATIONALS = (1, 2, 7), (5, 10)  # types: values that remain bytes or text, and fractions
# Types of whole numbers, as NumPy names them.
NUMBERS = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8"}
SCAN, APP1, APP2 = 0xFFDA, 0xFFE1, 0xFFE2  # markers of a JPEG
RESOURCE = b"8BIM"  # start of each of Photoshop's blocks, of which a segment may have 5,000
EXIF, PICTURES = b"Exif\0\0", b"MPF\0"  # starts of the segments with a directory of their own


class _ExcessError(Exception):
    """A header takes too long to read."""


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A tag of a directory: the type of its values, how many, and their bytes in the file."""

    tag: int
    kind: int
    count: int
    size: int
    place: int


def header_excess(file: BinaryIO) -> str:
    """Returns why a header takes far longer to read than the file is large; empty if it does not.

    Files that are no JPEG, PNG or TIFF pass: the readers of the others take no longer for many
    parts. The file's position is its start, before and after.

    Args:
        file: the file, which can be sought in.
    """
    start = file.read(8)
    try:
        if start[:4] in TIFF_STARTS:
            _check_tiff(file)
        elif start.startswith(JPEG_START):
            _check_jpeg(file)
        elif start == PNG_START:
            _check_png(file)
    except _ExcessError as error:
        return f"{error}, and would be slow to read"
    except (struct.error, OverflowError):
        return ""  # it ends early, or is damaged: Pillow stops there, too
    finally:
        file.seek(0)
    return ""


def _check_png(file: BinaryIO) -> None:
    """Checks the chunks: those before the pixels, and all of them."""
    before = True
    for count in range(MAX_CHUNKS + 1):
        length, kind = struct.unpack(">I4s", file.read(8))
        before = before and kind != b"IDAT"
        if kind == b"IEND":
            return
        if before and count == MAX_PARTS:
            raise _ExcessError(f"has more than {MAX_PARTS} chunks before its pixels")
        file.seek(length + 4, os.SEEK_CUR)  # with its checksum
    raise _ExcessError(f"has more than {MAX_CHUNKS} chunks")


def _check_jpeg(file: BinaryIO) -> None:
    """Checks the segments before the first scan, and the directories in them."""
    exif, pictures = [], b""
    for marker, data in _segments(file):
        if marker == APP1 and data.startswith(EXIF):
            exif.append(data.removeprefix(EXIF))
        elif marker == APP2 and data.startswith(PICTURES):
            pictures = data.removeprefix(PICTURES)
    joined = b"".join(exif)  # as Pillow joins them, and removes repeated starts one by one
    for _ in range(MAX_STARTS - 1):  # the first is removed above
        joined = joined.removeprefix(EXIF)
    if joined.startswith(EXIF):
        raise _ExcessError(f"has more than {MAX_STARTS} starts of its Exif block")
    for block in (joined, pictures):
        if block[:4] in TIFF_STARTS:
            with contextlib.suppress(struct.error):  # it ends early: so does the reading
                _Directory(io.BytesIO(block)).check()


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields the markers and contents that Pillow reads before the first scan of a JPEG."""
    file.seek(2)
    parts = filling = size = 0
    before = file.read(1)
    while kind := file.read(1):
        if before != b"\xff" or kind in b"\0\xff":
            before, filling = kind, filling + 1
            if filling > MAX_FILLING:
                raise _ExcessError(f"has more than {MAX_FILLING} bytes between its segments")
            continue
        marker = 0xFF00 + kind[0]
        if marker == SCAN or marker not in MARKER:
            return
        data = b""
        if MARKER[marker][2]:  # it has content
            (length,) = struct.unpack(">H", file.read(2))
            data = file.read(max(0, length - 2))
        parts, size = parts + 1 + data.count(RESOURCE), size + len(data)
        if parts > MAX_PARTS:
            raise _ExcessError(f"has more than {MAX_PARTS} segments or blocks before its pixels")
        if size > MAX_METADATA:
            raise _ExcessError(f"has more than {MAX_METADATA // MEBI} MiB before its pixels")
        yield marker, data
        before = file.read(1)


def _check_tiff(file: BinaryIO) -> None:
    """Checks the first directory of a TIFF, those that it names, and its strips."""
    directory = _Directory(file)
    directory.check()
    if directory.number(COMPRESSION) in (0, NONE):  # without the tag there is none
        strips = max(map(directory.count, OFFSETS))
        pixels = directory.number(WIDTH) * directory.number(HEIGHT)
        if strips > max(MAX_STRIPS, pixels // PIXELS_OF_STRIP):
            raise _ExcessError(f"has {strips} strips or tiles, too many for its {pixels} pixels")
        return
    # Each strip is decompressed to its end, so that strips which share their bytes multiply them.
    for tag in COUNTS:
        sizes = np.clip(directory.numbers(tag).astype("f8"), 0, directory.size)
        if sizes.sum() > SHARED * directory.size:
            raise _ExcessError("has strips or tiles that together are larger than the file")


class _Directory:
    """A directory of a TIFF, or of a block in its format, read until Pillow would stop.

    Args:
        file: the file or block.
        place: where the directory starts; None for the first.
    """

    def __init__(self, file: BinaryIO, place: int | None = None):
        self._file, self.size = file, file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(4)
        self._order, self._is_big = TIFF_STARTS[start], start[2] == BIG
        if place is None:
            file.seek(8 if self._is_big else 4)
            (place,) = self._read("Q" if self._is_big else "L")
        file.seek(min(place, self.size))
        self._entries: list[_Entry] = []
        with contextlib.suppress(struct.error):  # it ends early: the tags before that are read
            self._entries.extend(self._read_entries())
        self._by_tag = {each.tag: each for each in self._entries}

    def check(self, depth: int = 2) -> None:
        """Raises _ExcessError if this takes too long to read, or a directory that it names."""
        numbers = sum(each.count for each in self._entries if each.kind not in BYTES)
        if numbers > MAX_NUMBERS:
            raise _ExcessError(f"has more than {MAX_NUMBERS} numbers in its tags")
        if sum(each.count for each in self._entries if each.kind in RATIONALS) > MAX_RATIONALS:
            raise _ExcessError(f"has more than {MAX_RATIONALS} fractions in its tags")
        if sum(each.size for each in self._entries) > self.size:
            raise _ExcessError("has tags that together are larger than the file")
        for tag in DIRECTORIES if depth else ():
            place = self.number(tag)
            if 0 < place < self.size:
                _Directory(self._file, place).check(depth - 1)

    def count(self, tag: int) -> int:
        """Returns how many values a tag has."""
        return self._by_tag[tag].count if tag in self._by_tag else 0

    def numbers(self, tag: int) -> np.ndarray:
        """Returns the numbers of a tag; none if it is missing or of another type."""
        entry = self._by_tag.get(tag)
        if entry is None or entry.kind not in NUMBERS:
            return np.zeros(0, np.int64)
        self._file.seek(entry.place)
        return np.frombuffer(self._file.read(entry.size), self._order + NUMBERS[entry.kind])

    def number(self, tag: int) -> int:
        """Returns the first number of a tag; 0 if there is none."""
        return int(next(iter(self.numbers(tag)), 0))

    def _read_entries(self) -> Iterator[_Entry]:
        (entries,) = self._read("Q" if self._is_big else "H")
        length = "Q" if self._is_big else "L"
        for i in range(entries):
            tag, kind, count = self._read("HH" + length)
            place = self._file.tell()
            (data_place,) = self._read(length)
            size = count * (UNITS[kind] if kind < len(UNITS) else 0)
            if size > self._file.tell() - place:
                if data_place + size > self.size:
                    return
                place = data_place
            if i == MAX_TAGS:
                raise _ExcessError(f"has more than {MAX_TAGS} tags")
            if size:
                yield _Entry(tag, kind, count, size, place)

    def _read(self, form: str) -> tuple[int, ...]:
        form = self._order + form
        return struct.unpack(form, self._file.read(struct.calcsize(form)))
