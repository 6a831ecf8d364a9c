"""Errors of a reconstruction as maps: each one's mean over a window is the papers' term."""

import numpy as np
import tensorflow as tf


def pixel_errors(x, y):
    """Squared difference of images `[B, h, w, C]`, mean over channels: `[B, h, w]`."""
    return tf.reduce_mean(tf.square(x - y), axis=-1)


def feature_errors(f_x, f_y, window) -> dict:
    """Squared difference of hidden layers, `features_0` the finest: `[B, h, w]` each.

    Args:
        f_x: hidden layers of one image, `[B, h', w', c]`.
        f_y: of the other.
        window: `(h, w, C)`; every feature's error is repeated over the pixels it stands for. Where
            its sides do not divide the window's, some stand for a pixel more than others.
    """
    maps = {}
    for i, (a, b) in enumerate(zip(f_x, f_y, strict=True)):
        error = pixel_errors(a, b)
        for axis in (1, 2):
            error = _stretched(error, window[axis - 1], axis)
        maps[f"features_{i}"] = error
    return maps


def _stretched(error, side: int, axis: int):
    own = error.shape[axis]
    if side % own == 0:
        return tf.repeat(error, side // own, axis=axis)
    return tf.gather(error, [place * own // side for place in range(side)], axis=axis)


def over_window(values, window):
    """Spreads one number a window, `[B]`, over its pixels: `[B, h, w]`."""
    return tf.tile(values[:, None, None], [1, window[0], window[1]])


def mean_of_map(errors):
    """The mean of each error map: `[B, h, w]` to `[B]`."""
    return tf.reduce_mean(errors, axis=[1, 2])


def gaussian_blur(maps, sigma: float):
    """Blurs `[B, H, W, K]` over H and W by a Gaussian of `sigma` pixels, edges mirrored.

    The kernel ends at three sigma; no image may be smaller than that.
    """
    radius = round(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype("float32")
    taps /= taps.sum()
    depth = maps.shape[-1]
    down = np.tile(taps[:, None, None, None], [1, 1, depth, 1])
    across = down.transpose(1, 0, 2, 3)
    edge = [radius, radius]
    maps = tf.pad(maps, [[0, 0], edge, edge, [0, 0]], "SYMMETRIC")
    for kernel in (down, across):
        maps = tf.nn.depthwise_conv2d(maps, kernel, [1, 1, 1, 1], "VALID")
    return maps
