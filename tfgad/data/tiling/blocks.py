"""Images computed block by block, with bounded memory; see `tfgad.data.tiling`.

The windows of a large image take hundreds of times its memory. So its result is computed in blocks,
one after another, each with a margin of all that its pixels depend on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Side of the blocks of `by_block`, with their margins: 0.7 GB of memory at windows of 32x32 pixels
# with a stride of 16. With tiles of 128x128 pixels 1.4 times the image is computed so; blocks of
# 512 take 0.2 GB, and 2.3 times the image is computed.
BLOCK = 1024


class Margin(NamedTuple):
    """What the pixels of a block depend on beyond it, along one axis; all in pixels.

    Attributes:
        grid: blocks start at its multiples, or their windows would lie elsewhere than the image's.
        outer: how far the pixels of the image reach, a multiple of the windows' stride.
        inner: how far the pixels of the first stage's result reach.
    """

    grid: int
    outer: int
    inner: int

    def step(self, side: int) -> int:
        """Returns the distance between blocks of a side: the side without its margins."""
        return self.grid * max(1, (max(side, 4 * self.outer) - 2 * self.outer) // self.grid)


def two_stage_margin(
    first: int, first_stride: int, second: int = 1, second_stride: int = 1
) -> Margin:
    """Returns the margin of a result that is computed in two stages, along one axis.

    Args:
        first: length of the windows of the image that the first stage reads.
        first_stride: of these; it divides `first`.
        second: length of the windows of the first stage's result that the second stage reads.
        second_stride: of these; it divides `second`.
    """
    # A window that holds a pixel of the block starts at most its length less one stride before it.
    # One stride at least: what is mirrored beyond the image's edge lies in the last block.
    grid = math.lcm(first_stride, second_stride)
    inner = max(second - second_stride, second_stride)
    outer = inner + max(first - first_stride, first_stride)
    return Margin(grid, first_stride * math.ceil(outer / first_stride), inner)


class _Axis(NamedTuple):
    """The blocks along one axis of an image; numbers, or tensors in a graph for any size.

    Attributes:
        length: of the axis.
        step: what is kept of each block; the last keeps more, if it needs no larger a block.
        margin: of the blocks.
    """

    length: int | tf.Tensor
    step: int
    margin: Margin

    @property
    def count(self) -> tf.Tensor:
        """How many blocks there are."""
        return tf.maximum(1, -(-(self.length - self.margin.outer) // self.step))

    def reach(self, i: int | tf.Tensor, far: int) -> slice:
        """Returns where the kept pixels of the i-th block lie, and those up to `far` from them."""
        start = i * self.step
        end = tf.where(i + 1 < self.count, start + self.step, self.length)
        return slice(tf.maximum(start - far, 0), tf.minimum(end + far, self.length))


def split_axis(length: int, step: int, outer: int) -> Iterator[tuple[slice, slice]]:
    """Yields what is kept of each block along one axis, and the block with its outer margin.

    Args:
        length: of the axis.
        step: what is kept of each block; the last keeps more, if it needs no larger a block.
        outer: margin.
    """
    axis = _Axis(length, step, Margin(1, outer, outer))
    for i in range(int(axis.count)):
        kept, block = axis.reach(i, 0), axis.reach(i, outer)
        yield slice(int(kept.start), int(kept.stop)), slice(int(block.start), int(block.stop))


def _within(part: slice, whole: slice) -> slice:
    """Returns where a part lies, counted from the start of the whole."""
    return slice(part.start - whole.start, part.stop - whole.start)


def by_block(
    images: tf.Tensor,
    margins: tuple[Margin, Margin],
    depth: int,
    function: Callable[[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]], tf.Tensor],
) -> tf.Tensor:
    """Applies a function to images of any size block by block, in a graph.

    Small images are computed together, as many as have the pixels of a block.

    Args:
        images: float32 `[B, H, W, C]`.
        margins: of rows and of columns.
        depth: K, channels of the result.
        function: `function(block, trim)` takes a block `[b, h, w, C]` with its outer margin and
            returns its result `[b, h', w', K]` with the inner margin. `trim` cuts any tensor
            `[b, h, w, ...]` from the outer margin to the inner one.

    Returns:
        float32 `[B, H, W, K]`, the result of the whole images.
    """
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    rows, columns = (
        _Axis(length, margin.step(BLOCK), margin)
        for length, margin in zip((height, width), margins, strict=True)
    )
    together = tf.maximum(1, BLOCK**2 // (height * width))

    def of_images(i: tf.Tensor) -> tf.Tensor:
        several = images[i * together : (i + 1) * together]
        return _concatenated(rows.count, 1, depth, lambda row: of_row(several, row))

    def of_row(several: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        return _concatenated(columns.count, 2, depth, lambda column: of_block(several, row, column))

    def of_block(several: tf.Tensor, row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        places = (rows, row), (columns, column)
        outer = [axis.reach(i, axis.margin.outer) for axis, i in places]
        inner = [axis.reach(i, axis.margin.inner) for axis, i in places]
        kept = [axis.reach(i, 0) for axis, i in places]
        result = function(several[:, outer[0], outer[1]], lambda x: _crop(x, inner, outer))
        return _crop(result, kept, inner)

    return _concatenated(-(-batch // together), 0, depth, of_images)


def _crop(x: tf.Tensor, part: Sequence[slice], whole: Sequence[slice]) -> tf.Tensor:
    """Crops `[B, h, w, ...]`, which covers the whole's rows and columns, to those of a part."""
    rows, columns = map(_within, part, whole)
    return x[:, rows, columns]


def _concatenated(
    count: tf.Tensor, axis: int, depth: int, function: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Concatenates `function(i)`, `[B, H, W, depth]`, of each i below the count along an axis.

    They are computed one after another, so that each uses the memory of the one before.
    """
    first = [axis, *(0 if each == axis else each for each in (1, 2)), 3]  # the axis, swapped with 0
    form = {"infer_shape": False, "element_shape": [None, None, None, depth]}

    def one_more(i: tf.Tensor, done: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, done.write(i, tf.transpose(tf.cast(function(i), tf.float32), first))

    done = tf.TensorArray(tf.float32, count, **form)
    _, done = tf.while_loop(lambda i, _: i < count, one_more, (0, done), parallel_iterations=1)
    return tf.transpose(done.concat(), first)


def fill_by_block(
    result: np.ndarray,
    image: np.ndarray,
    margins: Sequence[Margin],
    tile: Sequence[int],
    pixels: int,
    function: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Applies a function to an image block by block and writes what it returns into an array.

    Blocks start and end on the grid of the model's windows and of its tiles. So the windows and the
    tiles of a block are those of the whole image.

    Args:
        result: `[H, W, ...]`, written to.
        image: `[H, W, C]`.
        margins: of the result, along rows and along columns.
        tile: `(height, width)` of the model's tiles.
        pixels: of a block; more where the margins alone have so many.
        function: a block `[h, w, C]` to its result `[h, w, ...]`.
    """
    axes = []
    for length, margin, side in zip(image.shape[:2], margins, tile, strict=True):
        grid = math.lcm(margin.grid, side)
        wider = margin._replace(grid=grid, outer=grid * math.ceil(margin.outer / grid))
        axes.append(list(split_axis(length, wider.step(math.isqrt(pixels)), wider.outer)))
    for rows, outer_rows in axes[0]:
        for columns, outer_columns in axes[1]:
            inside = _within(rows, outer_rows), _within(columns, outer_columns)
            result[rows, columns] = function(image[outer_rows, outer_columns])[inside]
