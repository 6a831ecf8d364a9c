"""Checks of images and labels given to a detector, before it learns from them or scores them."""

from __future__ import annotations

from typing import Any

import numpy as np
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


def whole_numbers(labels: Any) -> tf.Tensor:
    """Returns labels `[B]` as they are.

    Raises:
        UsageError: labels that are not integers, or not one per image, such as one-hot vectors.
    """
    labels = tf.convert_to_tensor(labels)
    hint = "give one whole number per image, int32 [B]"
    if not labels.dtype.is_integer:
        raise UsageError("labels", labels.dtype.name, "are not of an integer type", hint)
    if not labels.shape.is_compatible_with([None]):
        raise UsageError("labels", tuple(labels.shape), "do not have the shape [B]", hint)
    return labels


def labels_in_range(labels: Any, classes: int) -> tf.Tensor:
    """Returns labels `[B]` as int32, in a graph or not.

    Args:
        labels: whole numbers from 0 to `classes - 1`.
        classes: how many there are.

    Returns:
        The labels. Those that no class has raise TensorFlow's `InvalidArgumentError` when the batch
        is computed.

    Raises:
        UsageError: labels of another type or shape.
    """
    labels = tf.cast(whole_numbers(labels), tf.int64)
    labels = tf.ensure_shape(labels, [None], name="labels")  # of which a graph may not know it
    known = tf.reduce_all((labels >= 0) & (labels < classes))
    assertion = tf.debugging.Assert(known, [f"labels are not from 0 to {classes - 1}", labels])
    with tf.control_dependencies([assertion] if assertion is not None else []):
        return tf.cast(labels, tf.int32)


def normal_images(normals: Any) -> tf.data.Dataset:
    """Returns a stream of images `[H, W, C]`, one at a time.

    Args:
        normals: an array of float32 images `[N, H, W, C]`, or a dataset: of images one at a time,
            or of tuples that begin with them, such as `(image, label)`.

    Raises:
        UsageError: something else, such as a dataset of batches or an endless one.
    """
    if not isinstance(normals, tf.data.Dataset):
        normals = tf.data.Dataset.from_tensor_slices(_floats(normals))
    spec = normals.element_spec
    if isinstance(spec, tuple):
        normals, spec = normals.map(lambda image, *_: image), spec[0]
    if not isinstance(spec, tf.TensorSpec):
        raise _no_array(spec)
    if spec.shape.rank != 3 or not spec.shape.is_fully_defined():
        hint = "give images [H, W, C] of one known size, one at a time"
        hint += ": call `unbatch()`" if spec.shape.rank == 4 else ""
        raise UsageError("images", tuple(spec.shape), "is not the shape of one image", hint)
    if normals.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise UsageError(
            "images", "dataset", "is endless", "leave out `repeat()`, or call `take(N)`"
        )
    if spec.dtype.is_floating and spec.dtype != tf.float32:
        normals = normals.map(lambda image: tf.cast(image, tf.float32))
    return normals


def size_of(normals: tf.data.Dataset, size: int | None) -> int:
    """Returns how many images a stream has: `size`, or what it knows itself.

    Raises:
        UsageError: it does not know, and `size` is not given; or it knows another number.
    """
    known = int(normals.cardinality())
    if size is not None and known >= 0 and size != known:
        problem = f"is not the size of the dataset, which is {known}"
        raise UsageError("size", size, problem, "leave it out")
    if size is None and known < 0:
        hint = "give how many images the dataset has"
        raise UsageError("size", None, "is not known to the dataset", hint)
    return known if size is None else size


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Returns what was computed of batches of images as one array, `[N, ...]`.

    Raises:
        UsageError: there were no images.
    """
    if not parts:
        raise UsageError("images", 0, "are none", "give at least one image")
    return np.concatenate(parts)


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
    if isinstance(images, dict):
        raise _no_array(images)
    try:
        images = tf.convert_to_tensor(images)
    except (TypeError, ValueError) as error:
        raise _no_array(images) from error
    if not images.dtype.is_floating:
        raise UsageError("images", images.dtype.name, "are not float32 in [-1, 1]", SCALING)
    return tf.cast(images, tf.float32)


def _no_array(images: Any) -> UsageError:
    """Returns the error of images in another form than an array, such as a dict."""
    hint = "give float32 [B, H, W, C]"
    value = type(images).__name__
    if isinstance(images, dict):
        value = f"dict of {', '.join(map(str, images))}"
        hint = "give the images alone, such as dataset.map(lambda each: each['image'])"
    elif isinstance(images, tf.data.Dataset):
        hint += ", or the dataset to `predict`"
    return UsageError("images", value, "is not an array of images", hint)


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
