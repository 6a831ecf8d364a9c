"""Ignored pixels that an image has for itself: a hand, a label, a seam that another one lacks.

Networks have not seen such a place in training. So it is not filled with one colour, as the region
of a model is (`tfgad.data.ignored`), but with the image's own texture, mirrored at the border of
the place; and the map leaves out `MARGIN` pixels around it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from tfgad.errors import UsageError

# Pixels. 400 good tiles of twill, 128 pixels a side, each with a square mask of 16 to 64 pixels:
# beside it 6 to 31 are above the threshold at margin 0, and from 4 on no more than the 2 that are
# without masks. Of the limit that 20 exceed without, 27 to 34 do at 4, 21 to 28 at 8, 19 to 28 at
# 16. Filled with the mean, up to 376 are above the threshold at 8, 355 at 16, 313 at 32, and up to
# all 400 are unlike any good one (`examples/benchmarks/own_masks.py`, `ganomaly_unet`).
MARGIN = 8


def mirrored_into(image: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Fills ignored pixels of an image with its kept ones, mirrored at the border between them.

    A pixel takes the value of its mirror image in the kept pixel next to it, or of that pixel where
    the mirror image is itself ignored or outside.

    Args:
        image: float32 `[H, W, C]`.
        ignored: bool `[H, W]`, not all of it true.
    """
    if not ignored.any():
        return image
    rows, columns = np.nonzero(ignored)
    # The nearest kept pixel is in the box around all ignored ones, or next to it.
    top, left = max(rows.min() - 1, 0), max(columns.min() - 1, 0)
    box = ignored[top : rows.max() + 2, left : columns.max() + 2]
    near = ndimage.distance_transform_edt(box, return_distances=False, return_indices=True)
    near_row = near[0][rows - top, columns - left] + top
    near_column = near[1][rows - top, columns - left] + left
    row, column = 2 * near_row - rows, 2 * near_column - columns
    height, width = ignored.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    usable = inside & ~ignored[row, column]
    filled = image.copy()
    filled[rows, columns] = image[
        np.where(usable, row, near_row), np.where(usable, column, near_column)
    ]
    return filled


def with_margin(ignored: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """Returns a mask bool `[H, W]`, wider by a margin in pixels on all sides."""
    return ndimage.maximum_filter(ignored, 2 * margin + 1) if margin else ignored


def filled(images: Any, ignored: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """Returns images `[B, H, W, C]`, each filled by `mirrored_into`.

    Args:
        images: of any floating type.
        ignored: bool `[B, H, W]`.
        region: bool `[H, W]`, what the model ignores of every image; None if nothing. It is not
            filled here.

    Raises:
        UsageError: masks of another type or shape, or that leave nothing of an image, with the
            region if there is one.
    """
    images, ignored = np.asarray(images), np.asarray(ignored)
    if ignored.dtype != bool or ignored.shape != images.shape[:3]:
        hint = f"give bool {list(images.shape[:3])}, a mask for each image"
        raise UsageError("ignored", f"{ignored.dtype} {ignored.shape}", "are no such masks", hint)
    left_out_of_map = with_margins(ignored)
    if region is not None and region.shape == ignored.shape[1:]:
        left_out_of_map = left_out_of_map | region
    if left_out_of_map.all(axis=(1, 2)).any():
        problem = f"leave nothing of an image, with a margin of {MARGIN} pixels"
        problem += " and the region of the model" if region is not None else ""
        raise UsageError("ignored", ignored.shape, problem, "leave such images out")
    pairs = zip(images, ignored, strict=True)
    return np.stack([mirrored_into(*pair) for pair in pairs]) if len(images) else images


def with_margins(ignored: np.ndarray) -> np.ndarray:
    """Returns masks bool `[B, H, W]`, each wider by `MARGIN`."""
    return np.stack([with_margin(each) for each in ignored]) if len(ignored) else ignored
