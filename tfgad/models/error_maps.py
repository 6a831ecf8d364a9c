"""Errors of a reconstruction as maps: each one's mean over a window is the papers' term."""

import tensorflow as tf


def pixel_errors(x, y):
    """Squared difference of images `[B, h, w, C]`, mean over channels: `[B, h, w]`."""
    return tf.reduce_mean(tf.square(x - y), axis=-1)


def feature_errors(f_x, f_y, window) -> dict:
    """Squared difference of hidden layers, `features_0` the finest: `[B, h, w]` each.

    Args:
        f_x: hidden layers of one image, `[B, h', w', c]`, each side a divisor of the window's.
        f_y: of the other.
        window: `(h, w, C)`; every feature's error is repeated over the pixels it stands for.
    """
    maps = {}
    for i, (a, b) in enumerate(zip(f_x, f_y, strict=True)):
        error = pixel_errors(a, b)
        error = tf.repeat(error, window[0] // a.shape[1], axis=1)
        maps[f"features_{i}"] = tf.repeat(error, window[1] // a.shape[2], axis=2)
    return maps


def over_window(values, window):
    """Spreads one number a window, `[B]`, over its pixels: `[B, h, w]`."""
    return tf.tile(values[:, None, None], [1, window[0], window[1]])


def mean_of_map(errors):
    """The mean of each error map: `[B, h, w]` to `[B]`."""
    return tf.reduce_mean(errors, axis=[1, 2])
