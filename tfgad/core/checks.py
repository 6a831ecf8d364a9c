"""Checks of images that are given to a detector, before it learns from them or scores them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfgad.errors import UsageError

MAX_ABS_PIXEL = 1.0 + 1e-3  # of images in [-1, 1], with room for rounding
SCALING = "divide 8-bit images by 127.5 and subtract 1"


def checked_batch(data: Any, window: tuple[int, int, int], labelled: bool) -> Any:
    """Returns what `train_step` takes of a batch that `fit` hands on.

    Args:
        data: `images`, `(images,)` or `(images, labels)`; images float32 `[B, h, w, C]`.
        window: `(h, w, C)`.
        labelled: whether labels are needed.

    Returns:
        The images, or `(images, labels)`. Images beyond [-1, 1], or NaN, raise TensorFlow's
        `InvalidArgumentError` when the batch is computed.

    Raises:
        UsageError: images that are not float32 or have another shape, or no labels.
    """
    parts = data if isinstance(data, (tuple, list)) else (data,)
    images = tf.convert_to_tensor(parts[0])
    if not images.dtype.is_floating:
        raise UsageError("images", images.dtype.name, "are not float32 in [-1, 1]", SCALING)
    if tuple(images.shape[1:]) != window:
        height, width, channels = window
        hint = f"fit on [B, {height}, {width}, {channels}], such as tfgad.training_batches gives"
        raise UsageError("images", tuple(images.shape), "do not have the window's shape", hint)
    if labelled and len(parts) < 2:
        raise UsageError("labels", None, "are missing", "fit on (images, labels)")
    message = f"images are not in [-1, 1]: {SCALING}"
    largest = tf.reduce_max(tf.abs(images))
    in_range = tf.debugging.assert_less_equal(largest, MAX_ABS_PIXEL, message)
    with tf.control_dependencies([in_range] if in_range is not None else []):
        images = tf.identity(images)
    return (images, parts[1]) if labelled else images


def checked_images(images: Any, window: tuple[int, int, int]) -> tf.Tensor:
    """Returns images to score as float32 `[B, H, W, C]`.

    Args:
        images: in [-1, 1], each side at least the window's.
        window: `(h, w, C)`.

    Raises:
        UsageError: another shape, an empty batch, or values that are not finite or not in range.
    """
    images = tf.convert_to_tensor(images, tf.float32)
    height, width, channels = window
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[3] != channels:
        hint = f"give float32 [B, H, W, {channels}]"
        raise UsageError("images", shape, "is not the shape of a batch of images", hint)
    if not shape[0]:
        raise UsageError("images", shape, "is an empty batch", "give at least one image")
    if shape[1] < height or shape[2] < width:
        hint = f"give images of at least {height}x{width} pixels"
        raise UsageError("images", f"{shape[1]}x{shape[2]}", "smaller than the window", hint)
    if not bool(tf.reduce_all(tf.math.is_finite(images))):
        bad = int(tf.reduce_sum(tf.cast(~tf.math.is_finite(images), tf.int32)))
        raise UsageError("images", f"{bad} values", "NaN or infinite", "leave them out")
    largest = float(tf.reduce_max(tf.abs(images)))
    if largest > MAX_ABS_PIXEL:
        raise UsageError("images", f"a value of {largest:g}", "is beyond [-1, 1]", SCALING)
    return images
