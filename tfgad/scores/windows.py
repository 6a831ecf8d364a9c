"""Windows of an image and back: how a network for small images judges a large one.

A network is trained on `window`-sized pieces. To judge an image it sees every window on a grid of
`stride` pixels; what it says of each window is laid back over the image and averaged where windows
overlap, those that hold a pixel near their centre counting most. All of it is tensor arithmetic,
so that an exported model does the same.

The windows of a large image take hundreds of times its memory. So it is scored in blocks, one after
another, each with a rim of all that its pixels depend on: the result is that of the whole image.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Side of the blocks of a large image, with their rims: 0.7 GB of memory at windows of 32x32 pixels
# with a stride of 16. With tiles of 128x128 pixels 1.4 times the image is computed so; blocks of
# 512 take 0.2 GB, and 2.3 times the image is computed.
BLOCK = 1024


class Rim(NamedTuple):
    """What the pixels of a block depend on beyond it, along one axis; all in pixels.

    Attributes:
        grid: blocks begin at its multiples, or their windows would lie elsewhere than the image's.
        far: how far the images reach that the result depends on, a multiple of the stride.
        near: how far of that the first stage's result does.
    """

    grid: int
    far: int
    near: int

    def step(self, side: int) -> int:
        """Returns by how much blocks of a side are apart: their sides without the rims."""
        return self.grid * max(1, (max(side, 4 * self.far) - 2 * self.far) // self.grid)


def rim(first: int, stride: int, second: int = 1, second_stride: int = 1) -> Rim:
    """Returns the rim of a pixel that lies in all pieces that hold it, along one axis.

    Args:
        first: length of the pieces of images that the first stage looks at.
        stride: of these; it divides `first`.
        second: length of the pieces of the first stage's result that the second looks at.
        second_stride: of these; it divides `second`.
    """
    # A piece that holds a pixel of the block begins one stride less than its length away at most.
    # One stride at least: what is mirrored beyond the image's edge lies in the last block.
    grid = math.lcm(stride, second_stride)
    near = max(second - second_stride, second_stride)
    far = near + max(first - stride, stride)
    return Rim(grid, stride * math.ceil(far / stride), near)


class Blocks(NamedTuple):
    """The blocks along one axis of an image: numbers, or tensors where a graph scores any size.

    Attributes:
        length: of the axis.
        step: what is kept of each block; the last keeps more, if it needs no larger a block.
        rim: of the blocks.
    """

    length: int | tf.Tensor
    step: int
    rim: Rim

    @property
    def count(self):
        """How many there are."""
        return tf.maximum(1, -(-(self.length - self.rim.far) // self.step))

    def reach(self, i, far: int) -> slice:
        """Returns where the pixels kept of the i-th block lie, and those as far from them."""
        start = i * self.step
        end = tf.where(i + 1 < self.count, start + self.step, self.length)
        return slice(tf.maximum(start - far, 0), tf.minimum(end + far, self.length))


def parts(length: int, step: int, far: int) -> Iterator[tuple[slice, slice]]:
    """Yields what is kept of each of the `Blocks` along one axis, and each with its rim."""
    blocks = Blocks(length, step, Rim(1, far, far))
    for i in range(int(blocks.count)):
        kept, block = blocks.reach(i, 0), blocks.reach(i, far)
        yield slice(int(kept.start), int(kept.stop)), slice(int(block.start), int(block.stop))


def within(part: slice, whole: slice) -> slice:
    """Returns where a part lies, counted from the start of the whole."""
    return slice(part.start - whole.start, part.stop - whole.start)


def half(size: tuple[int, int]) -> int:
    """Returns a stride by which pieces `(h, w)` overlap by half; odd ones touch instead."""
    side = math.gcd(*size)
    return side // 2 if side % 2 == 0 else side


def hann(height: int, width: int) -> np.ndarray:
    """Returns the weight of a window's pixels, `[height, width]`: a Hann bell, nowhere zero."""
    return np.outer(*(np.hanning(side + 2)[1:-1] for side in (height, width))).astype("float32")


def by_piece(images, size: tuple[int, int], stride: int, judge):
    """Judges images `[B, H, W, C]` of any size piece by piece.

    Args:
        images: float32.
        size: `(h, w)` of the pieces.
        stride: of the pieces, in pixels; it divides both sides.
        judge: pieces `[N, h, w, C]` to what there is to say of their pixels, `[N, h, w, K]`.

    Returns:
        `[B, H, W, K]`.
    """
    pieces = cut(pad_to_grid(images, size, stride), size, stride)
    judged = judge(tf.reshape(pieces, [-1, *size, images.shape[-1]]))
    judged = tf.reshape(judged, tf.concat([tf.shape(pieces)[:3], judged.shape[1:]], 0))
    blended = blend(tf.ensure_shape(judged, [None, None, None, *judged.shape[3:]]), stride)
    return blended[:, : tf.shape(images)[1], : tf.shape(images)[2]]


def by_block(images, rims: tuple[Rim, Rim], depth: int, judge: Callable):
    """Judges images `[B, H, W, C]` of any size block by block, each like the whole image.

    Small images are judged together, as many as have the pixels of a block.

    Args:
        images: float32.
        rims: of rows and of columns.
        depth: K.
        judge: takes a block `[b, h, w, C]`, and a function that cuts what is as high and wide as
            the block, `[b, h, w, ...]`, to the near rim; returns `[b, h', w', K]` cut so.

    Returns:
        float32 `[B, H, W, K]`.
    """
    batch, height, width = (tf.shape(images)[axis] for axis in range(3))
    rows, columns = (
        Blocks(length, rim.step(BLOCK), rim)
        for length, rim in zip((height, width), rims, strict=True)
    )
    together = tf.maximum(1, BLOCK**2 // (height * width))

    def of_images(i):
        several = images[i * together : (i + 1) * together]
        return _side_by_side(rows.count, 1, depth, lambda row: of_rows(several, row))

    def of_rows(several, row):
        return _side_by_side(columns.count, 2, depth, lambda column: of_block(several, row, column))

    def of_block(several, row, column):
        places = (rows, row), (columns, column)
        far, near, kept = (
            [axis.reach(i, reach(axis.rim)) for axis, i in places]
            for reach in (lambda rim: rim.far, lambda rim: rim.near, lambda rim: 0)
        )

        def cut_to(inner, outer, x):
            down, across = map(within, inner, outer)
            return x[:, down, across]

        judged = judge(several[:, far[0], far[1]], lambda x: cut_to(near, far, x))
        return cut_to(kept, near, judged)

    return _side_by_side(-(-batch // together), 0, depth, of_images)


def _side_by_side(count, axis: int, depth: int, made: Callable):
    """Lays what `made(i)` returns for each i below the count, `[B, H, W, depth]`, along an axis.

    It is made one after another, so that the memory that one takes serves the next.
    """
    first = [axis, *(0 if each == axis else each for each in (1, 2)), 3]  # the axis, swapped with 0
    form = {"infer_shape": False, "element_shape": [None, None, None, depth]}

    def one_more(i, done):
        return i + 1, done.write(i, tf.transpose(tf.cast(made(i), tf.float32), first))

    done = tf.TensorArray(tf.float32, count, **form)
    _, done = tf.while_loop(lambda i, _: i < count, one_more, (0, done), parallel_iterations=1)
    return tf.transpose(done.concat(), first)


def pad_to_grid(images, window: tuple[int, int], stride: int):
    """Mirrors images `[B, H, W, C]` beyond their lower and right edge until windows cover them."""
    for axis in (1, 2):
        size, side = tf.shape(images)[axis], window[axis - 1]
        place = tf.range(tf.maximum(size + (side - size) % stride, side)) % (2 * size)
        place = tf.where(place < size, place, 2 * size - 1 - place)
        images = tf.gather(images, place, axis=axis)
    return images


def cut(images, window: tuple[int, int], stride: int | tuple[int, int]):
    """Images `[B, H, W, C]` to windows `[B, rows, columns, h, w, C]`.

    `stride` is that of rows and columns alike, or of each. What does not fill a window at the lower
    and right edge is left out.
    """
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    for axis in (1, 2):  # gathered, for LiteRT has no operation that extracts patches
        starts = tf.range(0, tf.shape(images)[axis] - window[axis - 1] + 1, strides[axis - 1])
        places = starts[:, None] + tf.range(window[axis - 1])
        images = tf.gather(images, tf.reshape(places, [-1]), axis=axis)
    height, width = window
    batch, rows, columns = (tf.shape(images)[axis] // (1, *window)[axis] for axis in range(3))
    channels = images.shape[-1]
    pieces = tf.reshape(images, [batch * rows, height, columns, width, channels])
    pieces = tf.transpose(pieces, [0, 2, 1, 3, 4])  # LiteRT transposes no more than six axes
    return tf.reshape(pieces, [batch, rows, columns, height, width, channels])


def blend(windows, stride: int):
    """Windows `[B, rows, columns, h, w, K]` back to `[B, H, W, K]`, each pixel a weighted mean."""
    weight = hann(windows.shape[3], windows.shape[4])[..., None]
    ones = tf.ones_like(windows[:1, ..., :1])
    return _overlap_add(windows * weight, stride) / _overlap_add(ones * weight, stride)


def _overlap_add(windows, stride: int):
    """Adds windows up where they overlap.

    A window is split into blocks of stride x stride pixels. Blocks at the same place in their
    windows tile the plane without overlap, so the sum is one shifted plane a block: h·w / stride²
    additions of whole planes, and no scatter.
    """
    batch, rows, columns = (tf.shape(windows)[axis] for axis in range(3))
    height, width, depth = windows.shape[3:]
    down, across = height // stride, width // stride
    # Five axes at most: LiteRT slices no more.
    windows = tf.reshape(windows, [batch * rows, columns, height, width, depth])
    total = 0.0
    for i in range(down):
        for j in range(across):
            top, left = i * stride, j * stride
            block = windows[:, :, top : top + stride, left : left + stride]
            plane = tf.transpose(block, [0, 2, 1, 3, 4])
            plane = tf.reshape(plane, [batch, rows * stride, columns * stride, depth])
            below, right = (down - 1 - i) * stride, (across - 1 - j) * stride
            total += tf.pad(plane, [[0, 0], [i * stride, below], [j * stride, right], [0, 0]])
    return total
