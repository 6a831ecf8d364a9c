"""Tiling: large images are cut into pieces of one size, and results are put together again.

A piece has one of three names, by its purpose:

| name | what it is | size, for example |
|---|---|---|
| window | input of a network; windows overlap, `stride` pixels apart | 32x32, stride 16 |
| tile | training image, cut from a larger one; the threshold is set on tiles | 128x128 |
| block | part of an image that is computed at once, to bound memory | 1024x1024 |

Windows and tiles, along one axis:

    image      |-----------------------------------|
    windows    |=======|
                   |=======|                           The last window may reach beyond the edge:
               |---|   |=======|                       there the image is mirrored.
               stride      ...

    tiles      |===========|===========|               They touch. The last one ends flush with
                                  |=====+=====|        the image and overlaps its neighbour.

Windows are put together again by `blend`: a pixel is the mean of the windows that hold it,
weighted by a Hann window, so that the window whose centre is nearest counts most.

A block is larger than what is kept of its result. The margin around it holds all pixels that the
result depends on, so that the blocks together give the result of the whole image:

    +---------------------------+
    | outer margin              |   of the image: read by the windows
    |   +-------------------+   |
    |   | inner margin      |   |   of the error map that the windows give: read by what comes
    |   |   +-----------+   |   |   after them, a blur or tiles
    |   |   |   kept    |   |   |   of the result
    |   |   +-----------+   |   |
    |   +-------------------+   |
    +---------------------------+

`windows` cuts and blends windows, and cuts tiles. `blocks` computes block by block: `by_block` in
a TensorFlow graph, and so in an exported model; `fill_by_block` with NumPy arrays.
"""

from tfgad.data.tiling.blocks import Margin, by_block, fill_by_block, split_axis, two_stage_margin
from tfgad.data.tiling.windows import (
    blend,
    by_window,
    cut,
    cut_tiles,
    cut_to_edge,
    half_stride,
    hann_weights,
    pad_to_grid,
    starts_of,
    strides_of,
    tile_starts,
)

__all__ = [
    "Margin",
    "blend",
    "by_block",
    "by_window",
    "cut",
    "cut_tiles",
    "cut_to_edge",
    "fill_by_block",
    "half_stride",
    "hann_weights",
    "pad_to_grid",
    "split_axis",
    "starts_of",
    "strides_of",
    "tile_starts",
    "two_stage_margin",
]
