"""Windows of images as tensors, and tiles of images as arrays; see `tfgad.data.tiling`.

Windows are cut and blended by tensor arithmetic alone, so that an exported model does the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf


def by_window(
    images: tf.Tensor,
    window: tuple[int, int],
    stride: int,
    function: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Applies a function to every window of images of any size, and blends its results.

    Args:
        images: float32 `[B, H, W, C]`.
        window: `(h, w)`.
        stride: of the windows, in pixels; it divides both sides.
        function: windows `[N, h, w, C]` to a result of the same height and width, `[N, h, w, K]`.

    Returns:
        The results over the images, `[B, H, W, K]`.
    """
    windows = cut(pad_to_grid(images, window, stride), window, stride)
    results = function(tf.reshape(windows, [-1, *window, images.shape[-1]]))
    results = tf.reshape(results, tf.concat([tf.shape(windows)[:3], results.shape[1:]], 0))
    blended = blend(tf.ensure_shape(results, [None, None, None, *results.shape[3:]]), stride)
    return blended[:, : tf.shape(images)[1], : tf.shape(images)[2]]


def pad_to_grid(images: tf.Tensor, window: tuple[int, int], stride: int) -> tf.Tensor:
    """Mirrors images `[B, H, W, C]` beyond their lower and right edge until windows cover them."""
    for axis in (1, 2):
        size, side = tf.shape(images)[axis], window[axis - 1]
        place = tf.range(tf.maximum(size + (side - size) % stride, side)) % (2 * size)
        place = tf.where(place < size, place, 2 * size - 1 - place)
        images = tf.gather(images, place, axis=axis)
    return images


def cut(images: tf.Tensor, window: tuple[int, int], stride: int | tuple[int, int]) -> tf.Tensor:
    """Cuts images `[B, H, W, C]` into windows `[B, rows, columns, h, w, C]`.

    Pixels at the lower and right edge that fill no window are left out.

    Args:
        images: of any type.
        window: `(h, w)`.
        stride: of rows and columns alike, or `(rows, columns)`, in pixels.
    """
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    for axis in (1, 2):  # gathered, for LiteRT has no operation that extracts patches
        starts = tf.range(0, tf.shape(images)[axis] - window[axis - 1] + 1, strides[axis - 1])
        places = starts[:, None] + tf.range(window[axis - 1])
        images = tf.gather(images, tf.reshape(places, [-1]), axis=axis)
    height, width = window
    batch, rows, columns = (tf.shape(images)[axis] // (1, *window)[axis] for axis in range(3))
    channels = images.shape[-1]
    windows = tf.reshape(images, [batch * rows, height, columns, width, channels])
    windows = tf.transpose(windows, [0, 2, 1, 3, 4])  # LiteRT transposes no more than six axes
    return tf.reshape(windows, [batch, rows, columns, height, width, channels])


def blend(windows: tf.Tensor, stride: int) -> tf.Tensor:
    """Blends windows `[B, rows, columns, h, w, K]` into images `[B, H, W, K]`.

    Each pixel is the mean of the windows that hold it, weighted by `hann_weights`.
    """
    weight = hann_weights(windows.shape[3], windows.shape[4])[..., None]
    ones = tf.ones_like(windows[:1, ..., :1])
    return _overlap_add(windows * weight, stride) / _overlap_add(ones * weight, stride)


def _overlap_add(windows: tf.Tensor, stride: int) -> tf.Tensor:
    """Adds windows up where they overlap.

    A window is split into cells of stride x stride pixels. Cells at the same place in their windows
    cover the plane without overlap, so the sum is one shifted plane per cell: h·w / stride²
    additions of whole planes, and no scatter.
    """
    batch, rows, columns = (tf.shape(windows)[axis] for axis in range(3))
    height, width, depth = windows.shape[3:]
    down, across = height // stride, width // stride
    # Five axes at most: LiteRT slices no more.
    windows = tf.reshape(windows, [batch * rows, columns, height, width, depth])
    total = 0.0
    for i in range(down):
        for j in range(across):
            top, left = i * stride, j * stride
            cell = windows[:, :, top : top + stride, left : left + stride]
            plane = tf.transpose(cell, [0, 2, 1, 3, 4])
            plane = tf.reshape(plane, [batch, rows * stride, columns * stride, depth])
            below, right = (down - 1 - i) * stride, (across - 1 - j) * stride
            total += tf.pad(plane, [[0, 0], [i * stride, below], [j * stride, right], [0, 0]])
    return total


def hann_weights(height: int, width: int) -> np.ndarray:
    """Returns the weights of a window's pixels, `[height, width]`: a Hann window, nowhere 0."""
    rows, columns = (np.hanning(side + 2)[1:-1] for side in (height, width))
    return np.outer(rows, columns).astype("float32")


def half_stride(size: tuple[int, int]) -> int:
    """Returns the stride by which windows `(h, w)` overlap by half; those of odd size touch."""
    side = math.gcd(*size)
    return side // 2 if side % 2 == 0 else side


def tile_starts(length: int, tile: int) -> list[int]:
    """Returns where tiles start along one axis: they cover it and end flush with it.

    Args:
        length: of the axis, in pixels.
        tile: side of a tile, at least 1.

    Returns:
        Multiples of `tile`, and last `length - tile`, or 0 where the tile is the longer one.
    """
    last = max(length - tile, 0)
    return [*range(0, last, tile), last]


def cut_tiles(image: np.ndarray, tile: int) -> np.ndarray:
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
    ys, xs = tile_starts(height, tile), tile_starts(width, tile)
    return np.stack([padded[y : y + tile, x : x + tile] for y in ys for x in xs])
