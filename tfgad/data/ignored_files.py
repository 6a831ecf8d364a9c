"""Mask files of ignored pixels: white is ignored.

A file of the levels 0 and 1, as label tools write them, counts as black and white, unless its
format is lossy. Of others a level of 128 or more is white.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.folder import masks
from tfgad.data.image_files import ImageError
from tfgad.data.pixels import LETTERBOX, resize
from tfgad.errors import UsageError

WHITE = 128  # half of 255


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """Returns where a mask file is white: bool `[H, W]`.

    Raises:
        ImageError: the file cannot be decoded.
    """
    levels = masks.mask_levels(Path(path))
    is_exact = Path(path).suffix.lower() not in masks.LOSSY
    return levels >= (1 if is_exact and levels.max() <= 1 else WHITE)


def same_aspect(one: Sequence[int], other: Sequence[int]) -> bool:
    """Returns whether two sizes `(H, W, ...)` have one aspect ratio, but for rounded sides."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= masks.ASPECT_TOLERANCE


def at_size(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes a mask bool `[H, W]`: to more pixels by the nearest, to fewer by any of them."""
    return masks.resize(mask[:, :, None].astype(np.uint8), size[0], size[1])[..., 0] > 0


def region_of(path: str | os.PathLike, images: AnomalyData) -> np.ndarray:
    """Returns the region of a mask file on the images of a data set: bool `[H, W]`.

    A pixel of a resized image is ignored as soon as one of the pixels that it is made from is. So
    what the mask covers in a file leaves no trace in the pixels that are kept.

    Args:
        path: the mask, of the aspect ratio of the images. If they have several, of that which they
            are stretched to.
        images: a data set of resized images.

    Raises:
        UsageError: images that are not resized whole, or that are letterboxed; a file that cannot
            be read; a mask of another aspect ratio, or one that ignores everything or nothing.
    """
    if not images.resized:
        problem = f"marks a place on images that are resized whole, and those of {images.spec} are"
        hint = "load the data with size=, such as folder:PATH?size=256"
        raise UsageError("mask", path, f"{problem} not", hint)
    if images.fit == LETTERBOX:  # the padding of another aspect ratio would move it
        hint = "load the data with size=HxW, of the aspect ratio of the images"
        raise UsageError("mask", path, "marks no place on letterboxed images", hint)
    try:
        mask = read_mask(path)
    except ImageError as error:
        raise UsageError("mask", path, error.reason, "give an image file") from error
    height, width, _ = images.image_shape
    region = np.zeros((height, width), bool)
    for size in _sizes_of(path, mask, images):
        shares = at_size(mask, size)[..., None].astype(np.float32)
        region |= resize(shares, (height, width))[..., 0] > 0
    if region.all() or not region.any():
        problem = "ignores every pixel" if region.all() else "ignores no pixel: nothing is white"
        raise UsageError("mask", path, problem, "paint white what is to be ignored, black the rest")
    return region


def _sizes_of(path: str | os.PathLike, mask: np.ndarray, images: AnomalyData) -> list[tuple]:
    """Returns the sizes `(H, W)` of the images that a mask is for.

    Raises:
        UsageError: their aspect ratio is not the mask's.
    """
    tile = images.image_shape[:2]
    sizes = sorted(images.files.sizes) if images.files and images.files.sizes else [tile]
    varies = not all(same_aspect(sizes[0], size) for size in sizes)
    expected = tile if varies else sizes[0]
    if not same_aspect(mask.shape, expected):
        own, theirs = (f"{each[0]}x{each[1]}" for each in (mask.shape, expected))
        what = "which images of several aspect ratios are stretched to" if varies else "the images"
        problem = f"has {own} pixels, another aspect ratio than {theirs}, {what}"
        raise UsageError("mask", path, problem, f"give a mask of {theirs} pixels (height x width)")
    return sizes
