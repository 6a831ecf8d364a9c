"""Regions of an anomaly map: the connected places above the threshold, one for each defect.

Pixels that touch by a side or a corner belong together (8-connectivity). The same regions are found
inside exported models, see `tfgad/export/regions_in_graph.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)  # and the pixel itself
# Regions of an image that an exported model lists, the largest. An image with more differs as a
# whole: on it boxes tell nothing.
MAX_REGIONS = 64


class Region(NamedTuple):
    """A connected region of the map above the threshold. Lengths are in pixels of the image.

    Attributes:
        x: the column at the left of its box, from 0.
        y: the row at the top of its box, from 0.
        width: of its box.
        height: of its box.
        area: number of its pixels.
        peak: the largest value of the map in it.
        mean: the mean value of the map in it.
        centroid_x: mean column of its pixels.
        centroid_y: mean row of its pixels.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    mean: float
    centroid_x: float
    centroid_y: float


def find_regions(anomaly_map: np.ndarray, threshold: float) -> list[Region]:
    """Returns the regions of a map, the largest first; of equal area, the one with the higher peak.

    Args:
        anomaly_map: float32 `[H, W]`.
        threshold: a pixel with a value strictly above it belongs to a region.
    """
    above = anomaly_map > threshold
    if not above.any():
        return []
    labels, count = ndimage.label(above, EIGHT_NEIGHBOURS)
    boxes = ndimage.find_objects(labels)
    # From the pixels of the regions alone: from whole maps of 51 megapixels it took 12 s, as long
    # as the scoring by a small network.
    rows, columns = np.nonzero(above)
    values, of_pixel = anomaly_map[rows, columns], labels[rows, columns] - 1
    areas = np.bincount(of_pixel, minlength=count)
    means, centre_rows, centre_columns = (
        np.bincount(of_pixel, each, count) / areas for each in (values, rows, columns)
    )
    peaks = ndimage.maximum(values, of_pixel, range(count))
    regions = [
        Region(
            x=across.start,
            y=down.start,
            width=across.stop - across.start,
            height=down.stop - down.start,
            area=int(area),
            peak=float(peak),
            mean=float(mean),
            centroid_x=float(x),
            centroid_y=float(y),
        )
        for (down, across), area, peak, mean, x, y in zip(
            boxes, areas, peaks, means, centre_columns, centre_rows, strict=True
        )
    ]
    return sorted(regions, key=lambda region: (-region.area, -region.peak))


def as_outputs(regions: Sequence[Region] | None) -> dict[str, np.ndarray]:
    """Returns the regions of an image as an exported model does.

    Args:
        regions: as `find_regions` returns them; None where the score has no threshold for pixels.

    Returns:
        `regions` float32 `[MAX_REGIONS, 9]`, the fields of `Region` in each row, zeros below the
        last one, and `region_count` int32 `[]`: of all regions, also of those that did not fit, or
        -1 for None.
    """
    table = np.zeros((MAX_REGIONS, len(Region._fields)), np.float32)
    for row, region in zip(table, regions or (), strict=False):
        row[:] = region
    count = -1 if regions is None else len(regions)
    return {"regions": table, "region_count": np.array(count, np.int32)}


def from_outputs(outputs: Mapping[str, np.ndarray]) -> list[Region] | None:
    """Returns the regions of one image that an exported model lists; the reverse of `as_outputs`.

    They are no more than `MAX_REGIONS`: compare their number with `region_count`.
    """
    count = int(outputs["region_count"])
    if count < 0:
        return None
    rows = np.asarray(outputs["regions"])[: min(count, MAX_REGIONS)]
    return [Region(*map(int, row[:5]), *map(float, row[5:])) for row in rows]
