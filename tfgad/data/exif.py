"""The orientation of an image, tag 0x0112 of a file's Exif block.

`tfgad.export` reads it the same way inside an exported model. To make both agree on damaged blocks,
everything unknown means upright. Like Pillow's reader, this one stops at the first tag whose value
would lie outside the block.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

UPRIGHT = 1
TAG = 0x0112
SHORT, LONG = 3, 4  # types of a value in TIFF 6.0; an orientation is a SHORT, some write a LONG
ENTRY = 12  # bytes of a tag in a directory
# Bytes of a value of each type from 0 up; 0 for types that do not exist.
UNITS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)
# Bytes read of a block. In a JPEG it is a segment, whose length has 16 bits.
LONGEST = 65536
# Orientations with rows and columns exchanged, and those with reversed rows or columns after that
# (TIFF 6.0, page 36).
TRANSPOSED, ROWS_REVERSED, COLUMNS_REVERSED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def orientation(block: bytes) -> int:
    """Returns the orientation in an Exif block, from 1 (upright) to 8.

    Args:
        block: the block from its TIFF header on, without the preceding `Exif`.

    Returns:
        The value of the last such tag in the first directory; 1 if there is none or it is invalid.
    """
    block = block[:LONGEST]
    if block[:4] not in (b"II*\0", b"MM\0*"):
        return UPRIGHT
    order: Literal["little", "big"] = "little" if block[:2] == b"II" else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(block[start : start + size], order)

    directory = number(4, 4)
    if directory + 2 > len(block):
        return UPRIGHT
    first = directory + 2
    entries = min(number(directory, 2), (len(block) - first) // ENTRY)
    found = UPRIGHT
    for entry in range(first, first + entries * ENTRY, ENTRY):
        kind, count = number(entry + 2, 2), number(entry + 4, 4)
        size = count * UNITS[kind] if kind < len(UNITS) else 0
        if size > 4 and number(entry + 8, 4) + size > len(block):
            break
        if number(entry, 2) == TAG and kind in (SHORT, LONG) and count == 1:
            found = number(entry + 8, 2 if kind == SHORT else 4)
    return found if 1 <= found <= 8 else UPRIGHT


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns a view of `[H, W, ...]`, rotated upright."""
    if orientation in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in ROWS_REVERSED:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in COLUMNS_REVERSED else pixels
