"""`tfgad.multistage.changes` as TensorFlow's own operations, for exported painters.

Windows are int32 `[3]` here, `(row, column, side)`, and shapes int32 `[2]`. Both are known only
when the graph runs. All else is as in `changes`, where it is explained.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfgad.export.regions_in_graph import labelled_runs
from tfgad.multistage.changes import EDGE
from tfgad.multistage.fusion import RIM
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import DISPLACEMENT, MASK

# A displacement (rows, columns), times the matrix of n quarter turns, is the turned one.
QUARTER = np.array([[0, 1], [-1, 0]], np.float32)
TURNS = np.stack([np.linalg.matrix_power(QUARTER, n) for n in range(4)])


def rot90(patch: tf.Tensor, quarter_turns: tf.Tensor) -> tf.Tensor:
    """Turns a square patch `[h, h, C]`, as `np.rot90` does."""
    return tf.ensure_shape(tf.image.rot90(patch, quarter_turns), patch.shape)


def turned(change: tf.Tensor, quarter_turns: tf.Tensor) -> tf.Tensor:
    """Turns a change `[h, h, C + 4]` with its displacements; see `changes.turned`."""
    change = rot90(change, quarter_turns)
    moved = change[..., DISPLACEMENT] @ tf.gather(TURNS, quarter_turns % 4)
    return tf.concat([change[..., : DISPLACEMENT.start], moved], axis=-1)


def spread(change: tf.Tensor, window: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Enlarges a change `[64, 64, C + 4]` to an image, `[H, W, C + 4]`; see `changes.spread`."""
    scale = tf.cast(window[2], tf.float32) / PATCH
    row, column, side = tf.unstack(_used_part(window))
    used = change[EDGE:-EDGE, EDGE:-EDGE]
    enlarged = tf.image.resize(used, tf.stack([side, side]), antialias=True)
    (rows, up), (columns, left) = (
        _mirrored(at, side, length) for at, length in ((row, shape[0]), (column, shape[1]))
    )
    everywhere = tf.gather(tf.gather(enlarged, rows), columns, axis=1)
    flips = tf.stack(tf.meshgrid(up, left, indexing="ij"), axis=-1)
    moved = everywhere[..., DISPLACEMENT] * scale * flips
    mask = everywhere[..., MASK]
    near = _dilated(_connected(mask > 0, tf.stack([row, column, side])))
    mask = tf.where(near, mask, -1.0)[..., None]
    return tf.concat([everywhere[..., :MASK], mask, moved], axis=-1)


def is_cut_off(mask: tf.Tensor, window: tf.Tensor, extends: bool = True) -> tf.Tensor:
    """Returns whether a window cuts off a defect, bool []; see `changes.is_cut_off`."""
    row, column, side = tf.unstack(_used_part(window) if extends else window)
    seen = mask[row : row + side, column : column + side]
    edges = seen[0], seen[-1], seen[:, 0], seen[:, -1]
    top, bottom, left, right = (tf.reduce_any(edge) for edge in edges)
    if not extends:
        return top | bottom | left | right
    return (top ^ bottom) | (left ^ right) | (top & left)


def _used_part(window: tf.Tensor) -> tf.Tensor:
    """Returns a window without the margin of `EDGE` pixels of its patch."""
    edge = tf.cast(tf.round(EDGE / PATCH * tf.cast(window[2], tf.float32)), tf.int32)
    return window + edge * tf.constant([1, 1, -2])


def _mirrored(at: tf.Tensor, side: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which position in the window each position shows, and -1 where it is mirrored."""
    place = (tf.range(length) - at) % (2 * side)
    back = place >= side
    return tf.where(back, 2 * side - 1 - place, place), tf.where(back, -1.0, 1.0)


def _connected(mask: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns the pieces of a mask `[H, W]` that lie in a window or reach into it."""
    places = tf.cast(tf.where(mask[None]), tf.int32)
    runs, labels = labelled_runs(places, tf.shape(mask[None]), by_corners=False)
    pieces = tf.gather(labels, runs)
    from_corner = places[:, 1:] - window[:2]
    is_within = tf.reduce_all((from_corner >= 0) & (from_corner < window[2]), axis=1)
    is_own = tf.math.unsorted_segment_max(tf.cast(is_within, tf.int32), pieces, tf.size(labels))
    own = tf.gather(tf.cast(is_own > 0, tf.int32), pieces)
    return tf.scatter_nd(places[:, 1:], own, tf.shape(mask)) > 0


def _dilated(mask: tf.Tensor) -> tf.Tensor:
    """Returns a mask `[H, W]` with `RIM` pixels around it."""
    wide = tf.nn.max_pool2d(tf.cast(mask, tf.float32)[None, ..., None], 2 * RIM + 1, 1, "SAME")
    return wide[0, ..., 0] > 0
