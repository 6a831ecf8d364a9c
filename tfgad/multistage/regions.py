"""Connected regions of a mask: their boxes, outlines and run lengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import contourpy
import numpy as np
from scipy import ndimage

from tfgad.scores.map_regions import EIGHT_NEIGHBOURS


@dataclasses.dataclass(frozen=True)
class Region:
    """A connected region of a mask.

    Attributes:
        x: first column of its bounding box.
        y: first row of its bounding box.
        inside: which pixels of the box belong to it, bool `[height, width]`.
    """

    x: int
    y: int
    inside: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The bounding box: x, y, width, height in pixels."""
        height, width = self.inside.shape
        return self.x, self.y, width, height

    @property
    def area(self) -> int:
        """The number of pixels."""
        return int(self.inside.sum())

    @property
    def has_holes(self) -> bool:
        """Whether it surrounds pixels that do not belong to it."""
        return self.filled().sum() != self.area

    def filled(self) -> np.ndarray:
        """Returns the pixels of the region and of its holes, bool `[height, width]`."""
        return ndimage.binary_fill_holes(self.inside)


def regions(mask: np.ndarray) -> Iterator[Region]:
    """Yields the regions of a mask `[H, W, 1]`; pixels that touch at a corner are connected."""
    labels, _ = ndimage.label(mask[..., 0], EIGHT_NEIGHBOURS)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        yield Region(columns.start, rows.start, labels[rows, columns] == number)


def outline(region: Region) -> np.ndarray:
    """Returns the corners of a region's outer border, int `[N, 2]`: x, y; pixels are squares.

    The border encloses exactly the pixels of the region and of its holes.
    """
    doubled = np.pad(region.filled(), 1).repeat(2, axis=0).repeat(2, axis=1)
    # Below one half, pixels that touch at a corner are connected here too.
    lines: Any = contourpy.contour_generator(z=doubled.astype(float)).lines(0.4)
    (line,) = lines
    # It cuts the corners of pixels by a quarter of a pixel, which rounding undoes.
    corners = np.round((line[:-1] + 0.5) / 2).astype(int)
    corners += np.array([region.x - 1, region.y - 1])
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    before = corners - np.roll(corners, 1, axis=0)
    after = np.roll(corners, -1, axis=0) - corners
    return corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]  # where it turns


def run_lengths(region: Region, shape: tuple[int, int]) -> dict[str, list[int]]:
    """Returns a region as COCO's run lengths.

    They count pixels outside and inside the region in turn, down one column after another.

    Args:
        region: of an image.
        shape: of the image: height, width.
    """
    x, y, width, height = region.box
    mask = np.zeros(shape, bool)
    mask[y : y + height, x : x + width] = region.inside
    changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    return {"size": list(shape), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}
