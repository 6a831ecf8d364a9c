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
    images = _floats(parts[0])
    if not images.shape.is_compatible_with([None, *window]):
        height, width, channels = window
        hint = f"fit on [B, {height}, {width}, {channels}], such as tfgad.training_batches gives"
        raise UsageError("images", tuple(images.shape), "do not have the window's shape", hint)
    if labelled and len(parts) < 2:
        raise UsageError("labels", None, "are missing", "fit on (images, labels)")
    images = _in_range(tf.ensure_shape(images, [None, *window]))
    return (images, parts[1]) if labelled else images


def images_in_range(images: Any, window: tuple[int, int, int]) -> tf.Tensor:
    """Returns images to score, in a graph or not; see `checked_batch`.

    Raises:
        UsageError: images that are not float32, of other channels, or smaller than the window.
    """
    return _in_range(_of_some_size(images, window))


def _of_some_size(images: Any, window: tuple[int, int, int]) -> tf.Tensor:
    """Returns float32 images of the window's channels, not smaller than it as far as is known."""
    images = _floats(images)
    shape, (height, width, channels) = images.shape, window
    if not shape.is_compatible_with([None, None, None, channels]):
        hint = f"give float32 [B, H, W, {channels}]"
        raise UsageError("images", tuple(shape), "is not the shape of a batch of images", hint)
    sides = shape[1:3] if shape.rank else []
    pairs = zip(sides, (height, width), strict=False)  # no sides where the rank is not known
    if any(own is not None and own < least for own, least in pairs):
        size = "x".join(map(str, sides))
        hint = f"give images of at least {height}x{width} pixels"
        raise UsageError("images", size, "smaller than the window", hint)
    return images


def _floats(images: Any) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    if not images.dtype.is_floating:
        raise UsageError("images", images.dtype.name, "are not float32 in [-1, 1]", SCALING)
    return tf.cast(images, tf.float32)


def _in_range(images: tf.Tensor) -> tf.Tensor:
    """Returns the images, after an assertion that they are in [-1, 1]."""
    largest = tf.reduce_max(tf.abs(images))
    message = f"images are not in [-1, 1]: {SCALING}"
    in_range = tf.debugging.assert_less_equal(largest, MAX_ABS_PIXEL, message)
    with tf.control_dependencies([in_range] if in_range is not None else []):
        return tf.identity(images)


def checked_images(images: Any, window: tuple[int, int, int]) -> tf.Tensor:
    """Returns images to score as float32 `[B, H, W, C]`.

    Args:
        images: in [-1, 1], each side at least the window's.
        window: `(h, w, C)`.

    Raises:
        UsageError: another shape, an empty batch, or values that are not finite or not in range.
    """
    images = _of_some_size(images, window)
    if not images.shape[0]:
        shape = tuple(images.shape)
        raise UsageError("images", shape, "is an empty batch", "give at least one image")
    if not bool(tf.reduce_all(tf.math.is_finite(images))):
        bad = int(tf.reduce_sum(tf.cast(~tf.math.is_finite(images), tf.int32)))
        raise UsageError("images", f"{bad} values", "NaN or infinite", "leave them out")
    largest = float(tf.reduce_max(tf.abs(images)))
    if largest > MAX_ABS_PIXEL:
        raise UsageError("images", f"a value of {largest:g}", "is beyond [-1, 1]", SCALING)
    return images
