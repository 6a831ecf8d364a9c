"""Windows of images as tensors, and tiles of images as arrays; see `tfgad.data.tiling`.

Windows are cut and blended by tensor arithmetic alone, so that an exported model does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Stride = int | tuple[int, int]  # of rows and columns alike, or of each; in pixels


def by_window(
    images: tf.Tensor,
    window: tuple[int, int],
    stride: Stride,
    function: Callable[[tf.Tensor], tf.Tensor],
    *,
    flush: bool = False,
) -> tf.Tensor:
    """Applies a function to every window of images of any size, and blends its results.

    Args:
        images: float32 `[B, H, W, C]`.
        window: `(h, w)`.
        stride: of the windows; it divides both sides.
        function: windows `[N, h, w, C]` to a result of the same height and width, `[N, h, w, K]`.
        flush: whether the last windows of a row or column end flush with the image. Otherwise they
            reach beyond its edge, where the image is mirrored.

    Returns:
        The results over the images, `[B, H, W, K]`.
    """
    size = tf.shape(images)[1:3]
    last = tf.maximum(size - window, 0) if flush else None
    windows = cut(pad_to_grid(images, window, stride), window, stride, last)
    results = function(tf.reshape(windows, [-1, *window, images.shape[-1]]))
    results = tf.reshape(results, tf.concat([tf.shape(windows)[:3], results.shape[1:]], 0))
    results = tf.ensure_shape(results, [None, None, None, *results.shape[3:]])
    if flush:
        results = _moved_back(results, stride, last)
    return blend(results, stride)[:, : size[0], : size[1]]


def pad_to_grid(images: tf.Tensor, window: tuple[int, int], stride: Stride) -> tf.Tensor:
    """Mirrors images `[B, H, W, C]` beyond their lower and right edge until windows cover them."""
    for axis, step in zip((1, 2), _strides(stride), strict=True):
        size, side = tf.shape(images)[axis], window[axis - 1]
        place = tf.range(tf.maximum(size + (side - size) % step, side)) % (2 * size)
        place = tf.where(place < size, place, 2 * size - 1 - place)
        images = tf.gather(images, place, axis=axis)
    return images


def cut(
    images: tf.Tensor, window: tuple[int, int], stride: Stride, last: tf.Tensor | None = None
) -> tf.Tensor:
    """Cuts images `[B, H, W, C]` into windows `[B, rows, columns, h, w, C]`.

    Pixels at the lower and right edge that fill no window are left out.

    Args:
        images: of any type.
        window: `(h, w)`.
        stride: of the windows.
        last: the last row and column where windows may start, `[2]`; they start there instead of
            after it.
    """
    strides = _strides(stride)
    for axis in (1, 2):  # gathered, for LiteRT has no operation that extracts patches
        starts = tf.range(0, tf.shape(images)[axis] - window[axis - 1] + 1, strides[axis - 1])
        if last is not None:
            starts = tf.minimum(starts, last[axis - 1])
        places = starts[:, None] + tf.range(window[axis - 1])
        images = tf.gather(images, tf.reshape(places, [-1]), axis=axis)
    height, width = window
    batch, rows, columns = (tf.shape(images)[axis] // (1, *window)[axis] for axis in range(3))
    channels = images.shape[-1]
    windows = tf.reshape(images, [batch * rows, height, columns, width, channels])
    windows = tf.transpose(windows, [0, 2, 1, 3, 4])  # LiteRT transposes no more than six axes
    return tf.reshape(windows, [batch, rows, columns, height, width, channels])


def cut_to_edge(images: tf.Tensor, window: tuple[int, int]) -> tf.Tensor:
    """Cuts images `[B, H, W, C]` into windows side by side, `[B, rows, columns, h, w, C]`.

    The last window of a row or column ends at the edge and may overlap the one before it.

    Args:
        images: at least as large as a window.
        window: `(h, w)`.
    """
    for axis, side in zip((1, 2), window, strict=True):
        length = images.shape[axis]
        if length is None or length % side:
            starts = starts_of(tf.shape(images)[axis], side)
            places = tf.reshape(starts[:, None] + tf.range(side), [-1])
            images = tf.gather(images, places, axis=axis)
    return cut(images, window, window)


def starts_of(length: tf.Tensor, tile: int) -> tf.Tensor:
    """Returns the starts of tiles along an axis of at least their length, int32 `[tiles]`.

    The same as `tile_starts`, on tensors.
    """
    return tf.concat([tf.range(0, length - tile, tile), [length - tile]], axis=0)


def _strides(stride: Stride) -> tuple[int, int]:
    return stride if isinstance(stride, tuple) else (stride, stride)


def _moved_back(windows: tf.Tensor, stride: Stride, last: tf.Tensor) -> tf.Tensor:
    """Moves windows that start at `last` to the grid, where `blend` expects them.

    Their pixels before the grid are lost: other windows hold these. Beyond the image the last pixel
    is repeated; what is there is cut off.

    Args:
        windows: `[B, rows, columns, h, w, K]`.
        stride: of the grid.
        last: of `cut`.
    """
    shape = tf.shape(windows)
    batch, rows, columns = shape[0], shape[1], shape[2]
    height, width, depth = windows.shape[3:]
    down, across = _strides(stride)
    # Five axes at most: LiteRT slices no more.
    windows = tf.reshape(windows, [batch, rows, columns, height, width * depth])
    place = tf.minimum(tf.range(height) + (rows - 1) * down - last[0], height - 1)
    lowest = tf.gather(windows[:, -1:], place, axis=3)
    windows = tf.concat([windows[:, :-1], lowest], axis=1)
    windows = tf.reshape(windows, [batch * rows, columns, height, width, depth])
    place = tf.minimum(tf.range(width) + (columns - 1) * across - last[1], width - 1)
    rightmost = tf.gather(windows[:, -1:], place, axis=3)
    windows = tf.concat([windows[:, :-1], rightmost], axis=1)
    return tf.reshape(windows, [batch, rows, columns, height, width, depth])


def blend(windows: tf.Tensor, stride: Stride) -> tf.Tensor:
    """Blends windows `[B, rows, columns, h, w, K]` into images `[B, H, W, K]`.

    Each pixel is the mean of the windows that hold it, weighted by `hann_weights`.
    """
    weight = hann_weights(windows.shape[3], windows.shape[4])[..., None]
    ones = tf.ones_like(windows[:1, ..., :1])
    return _overlap_add(windows * weight, stride) / _overlap_add(ones * weight, stride)


def _overlap_add(windows: tf.Tensor, stride: Stride) -> tf.Tensor:
    """Adds windows up where they overlap.

    A window is split into cells of the strides' size. Cells at the same place in their windows
    cover the plane without overlap, so the sum is one shifted plane per cell: as many additions of
    whole planes as a window has cells, and no scatter.
    """
    batch, rows, columns = (tf.shape(windows)[axis] for axis in range(3))
    height, width, depth = windows.shape[3:]
    step_down, step_across = _strides(stride)
    down, across = height // step_down, width // step_across
    # Five axes at most: LiteRT slices no more.
    windows = tf.reshape(windows, [batch * rows, columns, height, width, depth])
    total = 0.0
    for i in range(down):
        for j in range(across):
            top, left = i * step_down, j * step_across
            cell = windows[:, :, top : top + step_down, left : left + step_across]
            plane = tf.transpose(cell, [0, 2, 1, 3, 4])
            plane = tf.reshape(plane, [batch, rows * step_down, columns * step_across, depth])
            below, right = (down - 1 - i) * step_down, (across - 1 - j) * step_across
            total += tf.pad(plane, [[0, 0], [top, below], [left, right], [0, 0]])
    return total


def hann_weights(height: int, width: int) -> np.ndarray:
    """Returns the weights of a window's pixels, `[height, width]`: a Hann window, nowhere 0."""
    rows, columns = (np.hanning(side + 2)[1:-1] for side in (height, width))
    return np.outer(rows, columns).astype("float32")


def strides_of(window: Sequence[int], stride: int) -> tuple[int, int]:
    """Returns the strides along rows and columns that divide the sides of a window.

    Each is the divisor of the side next below `stride`, or next above where that is less than a
    quarter of it: windows of a prime side do not overlap.

    Args:
        window: `(h, w)`.
        stride: that is wanted, in pixels.
    """

    def divisor(side: int) -> int:
        divisors = [each for each in range(1, side + 1) if side % each == 0]
        below = max(each for each in divisors if each <= stride)
        return below if 4 * below >= min(stride, side) else min(d for d in divisors if d > stride)

    height, width = window
    return divisor(height), divisor(width)


def half_stride(side: int) -> int:
    """Returns the stride by which windows of a side overlap by half; those of an odd side touch."""
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
