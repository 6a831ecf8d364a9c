"""Windows of an image and back: how a network for small images judges a large one.

A network is trained on `window`-sized pieces. To judge an image it sees every window on a grid of
`stride` pixels; what it says of each window is laid back over the image and averaged where windows
overlap, those that hold a pixel near their centre counting most. All of it is tensor arithmetic,
so that an exported model does the same.
"""

import math

import numpy as np
import tensorflow as tf


def half(size: tuple[int, int]) -> int:
    """Returns a stride by which pieces `(h, w)` overlap by half; odd ones touch instead."""
    side = math.gcd(*size)
    return side // 2 if side % 2 == 0 else side


def hann(height: int, width: int) -> np.ndarray:
    """Returns the weight of a window's pixels, `[height, width]`: a Hann bell, nowhere zero."""
    return np.outer(*(np.hanning(side + 2)[1:-1] for side in (height, width))).astype("float32")


def by_piece(images, size: tuple[int, int], stride: int, judge):
    """Judges images `[B, H, W, C]` of any size piece by piece.

    Args:
        images: float32.
        size: `(h, w)` of the pieces.
        stride: of the pieces, in pixels; it divides both sides.
        judge: pieces `[N, h, w, C]` to what there is to say of their pixels, `[N, h, w, K]`.

    Returns:
        `[B, H, W, K]`.
    """
    pieces = cut(pad_to_grid(images, size, stride), size, stride)
    judged = judge(tf.reshape(pieces, [-1, *size, images.shape[-1]]))
    judged = tf.reshape(judged, tf.concat([tf.shape(pieces)[:3], judged.shape[1:]], 0))
    blended = blend(tf.ensure_shape(judged, [None, None, None, *judged.shape[3:]]), stride)
    return blended[:, : tf.shape(images)[1], : tf.shape(images)[2]]


def pad_to_grid(images, window: tuple[int, int], stride: int):
    """Mirrors images `[B, H, W, C]` beyond their lower and right edge until windows cover them."""
    for axis in (1, 2):
        size, side = tf.shape(images)[axis], window[axis - 1]
        place = tf.range(tf.maximum(size + (side - size) % stride, side)) % (2 * size)
        place = tf.where(place < size, place, 2 * size - 1 - place)
        images = tf.gather(images, place, axis=axis)
    return images


def cut(images, window: tuple[int, int], stride: int | tuple[int, int]):
    """Images `[B, H, W, C]` to windows `[B, rows, columns, h, w, C]`.

    `stride` is that of rows and columns alike, or of each. What does not fill a window at the lower
    and right edge is left out.
    """
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    for axis in (1, 2):  # gathered, for LiteRT has no operation that extracts patches
        starts = tf.range(0, tf.shape(images)[axis] - window[axis - 1] + 1, strides[axis - 1])
        places = starts[:, None] + tf.range(window[axis - 1])
        images = tf.gather(images, tf.reshape(places, [-1]), axis=axis)
    height, width = window
    batch, rows, columns = (tf.shape(images)[axis] // (1, *window)[axis] for axis in range(3))
    channels = images.shape[-1]
    pieces = tf.reshape(images, [batch * rows, height, columns, width, channels])
    pieces = tf.transpose(pieces, [0, 2, 1, 3, 4])  # LiteRT transposes no more than six axes
    return tf.reshape(pieces, [batch, rows, columns, height, width, channels])


def blend(windows, stride: int):
    """Windows `[B, rows, columns, h, w, K]` back to `[B, H, W, K]`, each pixel a weighted mean."""
    weight = hann(windows.shape[3], windows.shape[4])[..., None]
    ones = tf.ones_like(windows[:1, ..., :1])
    return _overlap_add(windows * weight, stride) / _overlap_add(ones * weight, stride)


def _overlap_add(windows, stride: int):
    """Adds windows up where they overlap.

    A window is split into blocks of stride x stride pixels. Blocks at the same place in their
    windows tile the plane without overlap, so the sum is one shifted plane a block: h·w / stride²
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
            block = windows[:, :, top : top + stride, left : left + stride]
            plane = tf.transpose(block, [0, 2, 1, 3, 4])
            plane = tf.reshape(plane, [batch, rows * stride, columns * stride, depth])
            below, right = (down - 1 - i) * stride, (across - 1 - j) * stride
            total += tf.pad(plane, [[0, 0], [i * stride, below], [j * stride, right], [0, 0]])
    return total
