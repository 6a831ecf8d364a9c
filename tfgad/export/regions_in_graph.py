"""Regions of anomaly maps as TensorFlow's own operations, for exported models.

It finds what `tfgad.scores.map_regions.find_regions` finds with SciPy.

The pixels of a row that touch make a run, and runs of neighbouring rows that touch make an edge.
Each run starts with its own number as its label. In a round both ends of an edge, and the runs
whose numbers are their labels, take the larger label of the two; then each run takes the label of
the run whose number is its label. When nothing changes, all runs of a region have one label. Labels
only grow and are numbers of runs, so that this ends. Whole branches join at once, so that a spiral
takes about ten rounds, not one for each of its turns (Shiloach, Vishkin 1982). The work grows with
the pixels above the threshold: on a good image there are none.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfgad.scores.map_regions import MAX_REGIONS, Region

# Of the outputs for one map.
FORM = {
    "regions": tf.TensorSpec((MAX_REGIONS, len(Region._fields))),
    "region_count": tf.TensorSpec((), tf.int32),
}
RIGHT, INSIDE = np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32)  # image, row, column


@tf.function(
    input_signature=[tf.TensorSpec([None, None, None]), tf.TensorSpec([])], autograph=False
)
def find_regions(maps: tf.Tensor, threshold: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the largest regions of each map; see `tfgad.scores.map_regions.as_outputs`.

    Args:
        maps: float32 `[B, H, W]`.
        threshold: float32 `[]`.

    Returns:
        `regions` float32 `[B, MAX_REGIONS, 9]` and `region_count` int32 `[B]`.
    """
    places = tf.cast(tf.where(maps > threshold), tf.int32)  # [K, 3]: image, row, column
    values = tf.gather_nd(maps, places)
    runs, labels = labelled_runs(places, tf.shape(maps))
    is_root = labels == tf.range(tf.size(labels))
    numbers = tf.cumsum(tf.cast(is_root, tf.int32), exclusive=True)
    segments = tf.gather(tf.gather(numbers, labels), runs)
    count = tf.math.count_nonzero(is_root, dtype=tf.int32)
    images = tf.math.unsorted_segment_max(places[:, 0], segments, count)
    return _by_image(_table(places, values, segments, count), images, tf.shape(maps)[0])


def known_if(is_known: tf.Tensor, found: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns regions, or with False those of a score without a threshold for pixels."""
    unknown = {"regions": 0.0, "region_count": -1}
    return {name: tf.where(is_known, found[name], unknown[name]) for name in found}


def labelled_runs(
    places: tf.Tensor, shape: tf.Tensor, by_corners: bool = True
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the run of each pixel, int32 `[K]`, and the label of each run, int32 `[R]`.

    Runs with the same label are connected.

    Args:
        places: int32 `[K, 3]`, the pixels, row by row: image, row, column.
        shape: of the maps that they lie in.
        by_corners: whether pixels that touch by a corner alone are connected.
    """
    is_start = tf.reduce_any(places[1:] != places[:-1] + RIGHT, axis=1)
    is_start = tf.concat([tf.ones_like(places[:1, 0], tf.bool), is_start], axis=0)  # [K]
    runs = tf.cumsum(tf.cast(is_start, tf.int32)) - 1
    count = tf.math.count_nonzero(is_start, dtype=tf.int32)
    return runs, _joined(_edges(places, runs, shape, by_corners), count)


def _edges(places: tf.Tensor, runs: tf.Tensor, shape: tf.Tensor, by_corners: bool) -> tf.Tensor:
    """Returns the pairs of runs that touch, int32 `[E, 2]`.

    Args:
        places: int32 `[K, 3]`, the pixels, row by row.
        runs: int32 `[K]`, the number of each pixel's run.
        shape: of the maps that they lie in.
        by_corners: whether those touch that have a corner in common.
    """
    # Numbers from 1, in a border of one pixel, so that 0 stands for no run.
    padded = tf.scatter_nd(places + INSIDE, runs + 1, shape + 2 * INSIDE)
    edges = []
    # In the row above: the pixel at the left, the one above, that at the right.
    for x in range(3) if by_corners else (1,):
        over = tf.gather_nd(padded, places + x * RIGHT) - 1
        pairs = tf.stack([runs, over], axis=1)
        is_new = tf.reduce_any(pairs[1:] != pairs[:-1], axis=1)  # two runs touch along many pixels
        is_new = tf.concat([tf.ones_like(over[:1], tf.bool), is_new], axis=0)
        edges.append(tf.boolean_mask(pairs, is_new & (over >= 0)))
    return tf.concat(edges, axis=0)


def _joined(edges: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns a label for each run, int32 `[R]`: the number of a run, one for all of a region.

    Args:
        edges: int32 `[E, 2]`.
        count: number of runs.
    """

    def join(labels: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ends = tf.gather(labels, edges)
        largest = tf.tile(tf.reduce_max(ends, axis=1, keepdims=True), [1, 4])
        taking = tf.reshape(tf.concat([edges, ends], axis=1), [-1, 1])
        joined = tf.tensor_scatter_nd_max(labels, taking, tf.reshape(largest, [-1]))
        joined = tf.gather(joined, joined)
        return joined, tf.reduce_any(joined != labels)

    start = tf.range(count), tf.size(edges) > 0
    labels, _ = tf.while_loop(lambda _, is_changed: is_changed, join, start)
    return labels


def _table(
    places: tf.Tensor, values: tf.Tensor, segments: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Returns the fields of `Region` of each segment, float32 `[count, 9]`.

    Args:
        places: int32 `[K, 3]`, the pixels.
        values: float32 `[K]`, of the map.
        segments: int32 `[K]`, the segment of each pixel.
        count: of the segments.
    """
    corners = places[:, :0:-1]  # column and row
    first = tf.math.unsorted_segment_min(corners, segments, count)
    last = tf.math.unsorted_segment_max(corners, segments, count)
    # A float32 counts to 2^24 and no further, so sums are taken in float64.
    exact = tf.cast(tf.concat([corners, tf.ones_like(corners[:, :1])], axis=1), tf.float64)
    exact = tf.concat([exact, tf.cast(values, tf.float64)[:, None]], axis=1)
    sums = tf.math.unsorted_segment_sum(exact, segments, count)
    area, means = sums[:, 2:3], sums / sums[:, 2:3]
    peak = tf.math.unsorted_segment_max(values, segments, count)[:, None]
    columns = {
        "x": first[:, :1],
        "y": first[:, 1:],
        "width": last[:, :1] - first[:, :1] + 1,
        "height": last[:, 1:] - first[:, 1:] + 1,
        "area": area,
        "peak": peak,
        "mean": means[:, 3:],
        "centroid_x": means[:, :1],
        "centroid_y": means[:, 1:2],
    }
    return tf.concat([tf.cast(columns[name], tf.float32) for name in Region._fields], axis=1)


def _by_image(table: tf.Tensor, images: tf.Tensor, batch: tf.Tensor) -> dict[str, tf.Tensor]:
    """Sorts regions by image and area, and returns the largest of each image; see `find_regions`.

    Args:
        table: float32 `[R, 9]`.
        images: int32 `[R]`, the image of each region.
        batch: number of images.
    """
    # The sort is stable: by the last key first.
    for name in ("peak", "area"):
        order = tf.argsort(-table[:, Region._fields.index(name)], stable=True)
        table, images = tf.gather(table, order), tf.gather(images, order)
    order = tf.argsort(images, stable=True)
    table, images = tf.gather(table, order), tf.gather(images, order)
    counts = tf.math.bincount(images, minlength=batch, maxlength=batch)
    rank = tf.range(tf.size(images)) - tf.gather(tf.cumsum(counts, exclusive=True), images)
    listed = tf.where(rank < MAX_REGIONS)[:, 0]
    cells = tf.gather(tf.stack([images, rank], axis=1), listed)
    shape = (MAX_REGIONS, len(Region._fields))
    regions = tf.scatter_nd(cells, tf.gather(table, listed), tf.stack([batch, *shape]))
    return {
        "regions": tf.ensure_shape(regions, (None, *shape)),
        "region_count": counts,
    }
