"""Anomaly maps as PNG files, for answers a hundredth as long as with the numbers as JSON."""

from __future__ import annotations

import tensorflow as tf

LEVELS = 255  # of a grey image of 8 bits
# Of the outputs for one map.
FORM = {
    "map_bytes": tf.TensorSpec((), tf.string),
    "map_low": tf.TensorSpec((), tf.float32),
    "map_high": tf.TensorSpec((), tf.float32),
}


def maps_as_png(maps: tf.Tensor, lowest_white: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns each map as a grey PNG, with the values of its black and its white.

    Black is the lowest value of a map, white the highest, but no less than `lowest_white`. A grey
    level g stands for the value `map_low + (map_high - map_low) * g / 255`, to within half a level.

    Args:
        maps: float32 `[B, H, W]`.
        lowest_white: float32 `[]`, the threshold of pixels, so that a map below it is never white;
            minus infinity where there is none.

    Returns:
        `map_bytes` string `[B]`, `map_low` and `map_high` float32 `[B]`.
    """
    low = tf.reduce_min(maps, axis=[1, 2])
    high = tf.maximum(tf.reduce_max(maps, axis=[1, 2]), lowest_white)
    shares = tf.math.divide_no_nan(maps - low[:, None, None], (high - low)[:, None, None])
    levels = tf.cast(tf.round(shares * LEVELS), tf.uint8)
    files = tf.map_fn(tf.io.encode_png, levels[..., None], fn_output_signature=tf.string)
    return {"map_bytes": files, "map_low": low, "map_high": high}
