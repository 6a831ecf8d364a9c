"""Images larger than a model's input: cut into tiles, and the tiles' maps blended back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfgad.errors import UsageError


def starts(length: int, tile: int, overlap: int = 0) -> list[int]:
    """Returns where tiles start along one axis: they cover it wholly and end flush with it.

    Args:
        length: of the axis, in pixels.
        tile: side of a tile.
        overlap: pixels that neighbours share; the last pair may share more.

    Raises:
        UsageError: the overlap is not smaller than the tile, or one of them is not positive.
    """
    if tile < 1:
        raise UsageError("tile", tile, "is no side of a tile", "give at least 1")
    if not 0 <= overlap < tile:
        raise UsageError("overlap", overlap, "does not suit the tile", f"give 0 to {tile - 1}")
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]


def cut(image: np.ndarray, tile: int, overlap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cuts an image into square tiles that cover all of it.

    An image smaller than a tile is continued by reflection, which keeps a texture going.

    Args:
        image: `[H, W]` or `[H, W, C]`.
        tile: side of a tile in pixels.
        overlap: pixels that neighbours share at least.

    Returns:
        The tiles, `[N, tile, tile]` or `[N, tile, tile, C]`, of the image's type, and their
        upper left corners, int32 `[N, 2]`, y first.

    Raises:
        UsageError: as for `starts`.
    """
    height, width = image.shape[:2]
    corners = [(y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap)]
    missing = [(0, max(tile - height, 0)), (0, max(tile - width, 0))]
    padded = np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="symmetric")
    tiles = np.stack([padded[y : y + tile, x : x + tile] for y, x in corners])
    return tiles, np.array(corners, np.int32)


def blend(maps: np.ndarray, positions: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Joins the maps of tiles into the map of the image they were cut from.

    Each pixel is the mean of all tiles that cover it, weighted by a raised cosine (Hann window)
    that is highest in the middle of a tile: a tile fades in from its border, so no seam shows,
    and its centre, where a network sees the most context, counts most.

    Args:
        maps: `[N, tile, tile]`.
        positions: upper left corners, `[N, 2]`, y first, as `cut` returns them.
        shape: height and width of the image.

    Returns:
        float32 `[H, W]`.
    """
    tile = maps.shape[1]
    window = _hann(tile)
    # Float64, so that where tiles agree their blend is their common value and not a rounding off.
    total = np.zeros((max(shape[0], tile), max(shape[1], tile)))
    weight = np.zeros_like(total)
    for part, (y, x) in zip(maps, positions, strict=True):
        total[y : y + tile, x : x + tile] += window * part
        weight[y : y + tile, x : x + tile] += window
    return (total / weight)[: shape[0], : shape[1]].astype(np.float32)


def _hann(tile: int) -> np.ndarray:
    """The window at pixel centres: nowhere zero, so the image's own border is covered too."""
    ramp = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(tile) + 0.5) / tile)
    return np.outer(ramp, ramp)
