"""The orientation that a camera writes into a file: tag 0x0112 of its Exif block.

`tfgad.export` reads it the same way within an exported model. So that both answer the same for
mangled blocks, too, the definition is narrow: what is not understood means upright. Like Pillow's,
it ends with the first tag whose value would lie outside of the block.
"""

from __future__ import annotations

import numpy as np

UPRIGHT = 1
TAG = 0x0112
SHORT, LONG = 3, 4  # types of a value in TIFF 6.0; an orientation is a SHORT, some write a LONG
ENTRY = 12  # bytes of a tag in a directory
# Bytes of a value of each type, from 0 up; 0 for those that there are not.
UNITS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)
# What is read of a block; in a JPEG it fits a segment, which has 16 bits for its length.
LONGEST = 65536
# Orientations, of the eight, in which the picture's rows are its columns, its rows are in reverse
# order, its columns are; after the transposition (TIFF 6.0, page 36).
TRANSPOSED, ROWS_REVERSED, COLUMNS_REVERSED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def orientation(block: bytes) -> int:
    """Returns the orientation, from 1 (upright) to 8, that an Exif block names.

    Args:
        block: a TIFF header and what follows it, without `Exif` before it.

    Returns:
        That of the last tag of its first directory; 1 where there is none or it is not understood.
    """
    block = block[:LONGEST]
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(block[:4])
    if order is None:
        return UPRIGHT

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
    """Turns `[H, W, ...]` upright: a view of it."""
    if orientation in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in ROWS_REVERSED:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in COLUMNS_REVERSED else pixels
