"""Error maps: squared errors of a reconstruction per pixel, and functions of such maps.

The mean of an error map over a window is the term of the papers' losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def pixel_errors(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Mean squared difference over the channels of images `[B, h, w, C]`: `[B, h, w]`."""
    return tf.reduce_mean(tf.square(x - y), axis=-1)


def feature_errors(
    f_x: Sequence[tf.Tensor], f_y: Sequence[tf.Tensor], window: Sequence[int]
) -> dict[str, tf.Tensor]:
    """Mean squared differences of hidden layers, enlarged to the window: `[B, h, w]` each.

    Args:
        f_x: hidden layers of one image, `[B, h', w', c]` each, fine to coarse.
        f_y: those of the other.
        window: `(h, w, C)`. The error of a feature is repeated over the pixels that it covers.
            Where h' or w' does not divide the side of the window, some features cover one pixel
            more than others.

    Returns:
        Maps by name; `features_0` is that of the finest layer.
    """
    maps = {}
    for i, (a, b) in enumerate(zip(f_x, f_y, strict=True)):
        error = pixel_errors(a, b)
        for axis in (1, 2):
            error = _enlarged(error, window[axis - 1], axis)
        maps[f"features_{i}"] = error
    return maps


def _enlarged(error: tf.Tensor, side: int, axis: int) -> tf.Tensor:
    """Repeats values along an axis until it has the given length."""
    length = error.shape[axis]
    if side % length == 0:
        return tf.repeat(error, side // length, axis=axis)
    return tf.gather(error, [place * length // side for place in range(side)], axis=axis)


def over_window(values: tf.Tensor, window: Sequence[int]) -> tf.Tensor:
    """Repeats one value per window, `[B]`, over its pixels: `[B, h, w]`."""
    return tf.tile(values[:, None, None], [1, window[0], window[1]])


def mean_of_map(errors: tf.Tensor) -> tf.Tensor:
    """Mean of each error map: `[B, h, w]` to `[B]`."""
    return tf.reduce_mean(errors, axis=[1, 2])
