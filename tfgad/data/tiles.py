"""Images larger than a model's input, cut into tiles to learn from."""

from __future__ import annotations

import numpy as np


def starts(length: int, tile: int) -> list[int]:
    """Returns where tiles start along one axis: they cover it wholly and end flush with it.

    Args:
        length: of the axis, in pixels.
        tile: side of a tile, at least 1.

    Returns:
        Multiples of `tile`, and last `length - tile`, or 0 where the tile is the longer one.
    """
    last = max(length - tile, 0)
    return [*range(0, last, tile), last]


def cut(image: np.ndarray, tile: int) -> np.ndarray:
    """Cuts an image into square tiles that cover all of it, row by row.

    The last of a row or column may overlap its neighbour. An image smaller than a tile is continued
    by reflection, which keeps a texture going.

    Args:
        image: `[H, W, C]`.
        tile: side of a tile in pixels, at least 1.

    Returns:
        The tiles, `[N, tile, tile, C]`, of the image's type.
    """
    height, width, _ = image.shape
    missing = [(0, max(tile - height, 0)), (0, max(tile - width, 0)), (0, 0)]
    padded = np.pad(image, missing, mode="symmetric")
    ys, xs = starts(height, tile), starts(width, tile)
    return np.stack([padded[y : y + tile, x : x + tile] for y in ys for x in xs])
