"""Geometric changes and a blur of image batches, as TensorFlow operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# A blur is two products of matrices where no side is longer than so many kernels, and two depthwise
# convolutions elsewhere. At 128x128 pixels and a sigma of 8 the convolutions take 11 times as long
# for one channel and 3 times for five; at a sigma of 2, 2.6 and 1.2 times. At 512x512 pixels and
# sigmas of 2 and 8 they take 0.8 and 4.3 times as long for one channel, 0.3 and 1.0 for five.
LONGEST_PRODUCT = 10


def turned(images: tf.Tensor, angle: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Turns and enlarges images `[B, H, W, C]` about their centres; beyond the edge they reflect.

    Args:
        images: float32 `[B, H, W, C]`.
        angle: in radians, `[B, 1, 1, 1]`.
        scale: above 1 enlarges, `[B, 1, 1, 1]`.
    """
    cos, sin = (f(angle[:, 0, 0, 0]) / scale[:, 0, 0, 0] for f in (tf.cos, tf.sin))
    return affine(images, [[cos, -sin], [sin, cos]], (0.0, 0.0), "REFLECT")


def affine(
    images: tf.Tensor,
    matrix: Sequence[Sequence[tf.Tensor]],
    shifts: Sequence[tf.Tensor | float],
    fill_mode: str,
) -> tf.Tensor:
    """Samples images `[B, H, W, C]` at M (p - centre) + centre + shift for each place p.

    Between pixels it interpolates bilinearly.

    Args:
        images: float32 `[B, H, W, C]`.
        matrix: M, two rows of two; that of x first; numbers `[B]`.
        shifts: in pixels, of x and of y; `[B]` or one for all.
        fill_mode: what lies beyond the edge, as `tf.raw_ops.ImageProjectiveTransformV3` names it.
    """
    shape = tf.shape(images)
    side = tf.cast(shape[1:3], tf.float32)
    centre = [(side[1] - 1) / 2, (side[0] - 1) / 2]
    offsets = [
        middle + shift - row[0] * centre[0] - row[1] * centre[1]
        for row, middle, shift in zip(matrix, centre, shifts, strict=True)
    ]
    zeros = tf.zeros_like(offsets[0])
    transforms = [*matrix[0], offsets[0], *matrix[1], offsets[1], zeros, zeros]
    transformed = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(transforms, axis=1),
        output_shape=shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill_mode,
    )
    return tf.ensure_shape(transformed, images.shape)


def displaced(images: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """Samples images `[B, H, W, C]` at displaced places, bilinearly; edges repeat.

    Args:
        images: float32 `[B, H, W, C]`.
        shifts: rows and columns in pixels, `[B, H, W, 2]`.
    """
    shape = tf.shape(images)
    height, width = shape[1], shape[2]
    rows = tf.cast(tf.range(height), tf.float32)[None, :, None] + shifts[..., 0]
    columns = tf.cast(tf.range(width), tf.float32)[None, None] + shifts[..., 1]
    rows = tf.clip_by_value(rows, 0.0, tf.cast(height - 1, tf.float32))
    columns = tf.clip_by_value(columns, 0.0, tf.cast(width - 1, tf.float32))
    top, left = tf.floor(rows), tf.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    bottom, after = tf.minimum(top + 1, height - 1), tf.minimum(left + 1, width - 1)
    flat = tf.reshape(images, [shape[0], height * width, images.shape[-1]])

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather(flat, row * width + column, axis=1, batch_dims=1)

    upper = (1.0 - right) * at(top, left) + right * at(top, after)
    lower = (1.0 - right) * at(bottom, left) + right * at(bottom, after)
    return (1.0 - down) * upper + down * lower


def gaussian_blur(maps: tf.Tensor, sigma: float) -> tf.Tensor:
    """Gaussian blur of `[B, H, W, K]` over H and W, with mirrored edges.

    Args:
        maps: at least as high and wide as the radius of the kernel, three sigma.
        sigma: in pixels.
    """
    radius = round(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype("float32")
    taps /= taps.sum()
    height, width, depth = maps.shape[1:]
    is_known = height is not None and width is not None and min(height, width) >= radius
    if is_known and max(height, width) <= LONGEST_PRODUCT * len(taps):
        return _blur_by_products(maps, _blur_matrix(height, taps), _blur_matrix(width, taps))
    down = np.tile(taps[:, None, None, None], [1, 1, depth, 1])
    across = down.transpose(1, 0, 2, 3)
    edge = [radius, radius]
    maps = tf.pad(maps, [[0, 0], edge, edge, [0, 0]], "SYMMETRIC")
    for kernel in (down, across):
        maps = tf.nn.depthwise_conv2d(maps, kernel, [1, 1, 1, 1], "VALID")
    return maps


def _blur_matrix(side: int, taps: np.ndarray) -> tf.Tensor:
    """Returns the matrix by which a column of a map is blurred, `[side, side]`.

    It is computed in the graph: constants would make the exported graph of a `ganomaly_unet` for
    tiles of 128x128 pixels, of 2.4 MB, larger by 0.7 MB.
    """
    by_distance = np.append(taps[len(taps) // 2 :], np.float32(0))
    i, j = tf.range(side)[:, None], tf.range(side)
    distances = i - j, i + j + 1, 2 * side - 1 - i - j  # of a pixel, and of its two mirror images
    beyond = len(by_distance) - 1
    return tf.add_n([tf.gather(by_distance, tf.minimum(abs(d), beyond)) for d in distances])


def _blur_by_products(maps: tf.Tensor, down: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    """Blurs `[B, H, W, K]` by the matrices of columns, `[H, H]`, and of rows, `[W, W]`."""
    height, width, depth = maps.shape[1:]
    columns = tf.reshape(maps, [-1, height, width * depth])
    rows = tf.reshape(tf.matmul(down[None], columns), [-1, width, depth])
    rows = tf.reshape(tf.transpose(rows, [0, 2, 1]), [-1, width])
    rows = tf.reshape(tf.matmul(rows, across, transpose_b=True), [-1, depth, width])
    return tf.reshape(tf.transpose(rows, [0, 2, 1]), [-1, height, width, depth])
