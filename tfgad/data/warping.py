"""Geometric changes and a blur of image batches, as TensorFlow operations."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def turned(images: tf.Tensor, angle: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Turns and enlarges images `[B, H, W, C]` about their centres; beyond the edge they reflect.

    Args:
        images: float32 `[B, H, W, C]`.
        angle: in radians, `[B, 1, 1, 1]`.
        scale: above 1 enlarges, `[B, 1, 1, 1]`.
    """
    shape = tf.shape(images)
    centre_y, centre_x = (tf.cast(side - 1, tf.float32) / 2 for side in (shape[1], shape[2]))
    cos, sin = (f(angle[:, 0, 0, 0]) / scale[:, 0, 0, 0] for f in (tf.cos, tf.sin))
    zeros = tf.zeros_like(cos)
    rows = [
        cos,
        -sin,
        centre_x - cos * centre_x + sin * centre_y,
        sin,
        cos,
        centre_y - sin * centre_x - cos * centre_y,
        zeros,
        zeros,
    ]
    result = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(rows, axis=1),
        output_shape=shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(result, images.shape)


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


def blurred(images: tf.Tensor, sigma: float = 1.5) -> tf.Tensor:
    """Gaussian blur of images `[B, H, W, C]`; sigma in pixels."""
    radius = round(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype("float32")
    taps /= taps.sum()
    kernel = np.tile(taps[:, None, None, None], [1, 1, images.shape[-1], 1])
    edge = [radius, radius]
    images = tf.pad(images, [[0, 0], edge, edge, [0, 0]], "SYMMETRIC")
    for each in (kernel, kernel.transpose(1, 0, 2, 3)):
        images = tf.nn.depthwise_conv2d(images, each, [1, 1, 1, 1], "VALID")
    return images
