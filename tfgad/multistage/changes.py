"""What a generator drew for a patch of fabric, done to an image of any size.

It sees ten yarns, but a coarse yarn crosses the cloth. So a defect that runs off its window goes on
as in a mirror, until it ends or the image does. A change is what `tfgad.networks.defects.on_fabric`
takes.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tfgad.multistage.fusion import RIM, inside
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import DISPLACEMENT, MASK

# Pixels of a patch, at its edges, that are not used: convolutions know no fabric outside, and make
# what they draw there up to 1.4 times as opaque as elsewhere (twill's painter, 240 patches).
EDGE = 4


def turned(change: np.ndarray, quarter_turns: int) -> np.ndarray:
    """Turns a change `[h, w, C + 4]` as `np.rot90` turns images, and where it moves yarns to."""
    change = np.rot90(change, quarter_turns).copy()
    for _ in range(quarter_turns % 4):
        rows, columns = np.moveaxis(change[..., DISPLACEMENT], -1, 0)
        change[..., DISPLACEMENT] = np.stack([-columns, rows], axis=-1)
    return change


def spread(change: np.ndarray, window: tuple[int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Enlarges a change to a window of an image, and lets its defect go on outside.

    Args:
        change: float32 `[h, h, C + 4]`.
        window: `(row, column, side)`.
        shape: `(H, W)` of the image.

    Returns:
        `[H, W, C + 4]`; its mask is -1 except on the defect and `RIM` pixels around it.
    """
    scale = window[-1] / len(change)
    *corner, side = within = _of_use(window, len(change))
    used = change[EDGE:-EDGE, EDGE:-EDGE]
    enlarged = tf.image.resize(used, (side, side), antialias=True).numpy()
    enlarged[..., DISPLACEMENT] *= scale
    (rows, up), (columns, left) = (
        _mirrored(at, side, length) for at, length in zip(corner, shape, strict=True)
    )
    everywhere = enlarged[rows][:, columns]
    everywhere[..., -2] *= up[:, None]
    everywhere[..., -1] *= left
    pieces, _ = ndimage.label(everywhere[..., MASK] > 0)
    begun = pieces[inside(within)]  # the others are mirrored ones, and apart
    near = ndimage.maximum_filter(np.isin(pieces, begun[begun > 0]), 2 * RIM + 1)
    everywhere[..., MASK] = np.where(near, everywhere[..., MASK], -1.0)
    return everywhere


def is_cut_off(mask: np.ndarray, window: tuple[int, int, int], goes_on: bool = True) -> bool:
    """Whether a defect leaves its window on one side and not on the opposite one, or on all four.

    One that does not go on outside, for it is a patch that was pasted, must not leave it at all.

    What crosses the window one way crosses the cloth, as yarns do, and may go on. But a stain that
    its window cuts is not half of a stain twice its size, and nothing covers the cloth. On twill,
    completed as in a mirror, knots, slubs and holes have 2.8 to 3.8 times the area of real ones;
    those that are not cut off 0.9 to 1.2 times.

    Args:
        mask: of the image, bool `[H, W]`.
        window: `(row, column, side)`.
        goes_on: whether the defect goes on outside; see `spread`.
    """
    seen = mask[inside(_of_use(window, PATCH) if goes_on else window)]
    top, bottom, left, right = (edge.any() for edge in (*seen[[0, -1]], *seen.T[[0, -1]]))
    if not goes_on:
        return bool(top or bottom or left or right)
    return bool(top != bottom or left != right or (top and left))


def _of_use(window, patch_side: int) -> tuple[int, int, int]:
    """Returns the part of a window in which a patch is used: all but `EDGE` of its pixels."""
    row, column, side = window
    edge = round(EDGE * side / patch_side)
    return row + edge, column + edge, side - 2 * edge


def _mirrored(at: int, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each place of a row what place of its window it shows, and -1 where mirrored."""
    place = (np.arange(length) - at) % (2 * side)
    back = place >= side
    return np.where(back, 2 * side - 1 - place, place), np.where(back, -1.0, 1.0)
