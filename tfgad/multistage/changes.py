"""Changes that a generator made for a patch of fabric, applied to an image of any size.

A change is the input of `tfgad.networks.defects.on_fabric`. The generator sees ten yarns, but a
coarse yarn crosses the whole cloth. A defect that reaches the edge of its window is therefore
extended by mirroring, until it or the image ends.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tfgad.multistage.fusion import RIM, inside
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import DISPLACEMENT, MASK

# Pixels at the edges of a patch that are not used: where convolutions are padded, the generated
# defect is up to 1.4 times as opaque as elsewhere (twill's painter, 240 patches).
EDGE = 4


def turned(change: np.ndarray, quarter_turns: int) -> np.ndarray:
    """Turns a change `[h, w, C + 4]` with its displacements, as `np.rot90` turns images."""
    change = np.rot90(change, quarter_turns).copy()
    for _ in range(quarter_turns % 4):
        rows, columns = np.moveaxis(change[..., DISPLACEMENT], -1, 0)
        change[..., DISPLACEMENT] = np.stack([-columns, rows], axis=-1)
    return change


def spread(change: np.ndarray, window: tuple[int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Enlarges a change to a window of an image, and extends its defect beyond the window.

    Args:
        change: float32 `[h, h, C + 4]`.
        window: `(row, column, side)`.
        shape: `(H, W)` of the image.

    Returns:
        `[H, W, C + 4]`; its mask is -1 except on the defect and `RIM` pixels around it.
    """
    scale = window[-1] / len(change)
    *corner, side = within = _used_part(window, len(change))
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
    within_window = pieces[inside(within)]  # others are mirror images, not connected to it
    own = np.isin(pieces, within_window[within_window > 0])
    near = ndimage.maximum_filter(own, 2 * RIM + 1)
    everywhere[..., MASK] = np.where(near, everywhere[..., MASK], -1.0)
    return everywhere


def is_cut_off(mask: np.ndarray, window: tuple[int, int, int], extends: bool = True) -> bool:
    """Returns whether a window cuts off a defect that should lie within it.

    That is a defect which touches one side of the window and not the opposite one, or all four.
    One that touches two opposite sides crosses the cloth, as yarns do, and may be extended. A
    pasted patch is not extended: its defect must touch no side.

    On twill, knots, slubs and holes that are cut off and extended have 2.8 to 3.8 times the area of
    real ones; those that are not cut off 0.9 to 1.2 times.

    Args:
        mask: of the image, bool `[H, W]`.
        window: `(row, column, side)`.
        extends: whether the defect is extended beyond the window; see `spread`.
    """
    seen = mask[inside(_used_part(window, PATCH) if extends else window)]
    top, bottom, left, right = (edge.any() for edge in (*seen[[0, -1]], *seen.T[[0, -1]]))
    if not extends:
        return bool(top or bottom or left or right)
    return bool(top != bottom or left != right or (top and left))


def _used_part(window: tuple[int, int, int], patch_side: int) -> tuple[int, int, int]:
    """Returns a window without the margin of `EDGE` pixels of its patch."""
    row, column, side = window
    edge = round(EDGE * side / patch_side)
    return row + edge, column + edge, side - 2 * edge


def _mirrored(at: int, side: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which position in the window each position shows, and -1 where it is mirrored."""
    place = (np.arange(length) - at) % (2 * side)
    back = place >= side
    return np.where(back, 2 * side - 1 - place, place), np.where(back, -1.0, 1.0)
