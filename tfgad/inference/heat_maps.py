"""Pictures of anomaly maps: colours over the image, and the values themselves.

All maps of a model share one colour scale, which its calibration fixes, so that two pictures can be
compared: the threshold is in the middle, and the ends are `COLOUR_SCALES` scales of the calibration
away from it. Below the threshold the colours are faint. A line follows the threshold. Ignored
pixels are outlined and hatched in grey.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, TiffImagePlugin
from scipy import ndimage

from tfgad.plots import CONTOUR, HEAT
from tfgad.scores.map_regions import EIGHT_NEIGHBOURS

if TYPE_CHECKING:
    from tfgad.inference.scoring import Verdict

# At 6 scales from the threshold a probability is 0.0025 or 0.9975.
COLOUR_SCALES = 6
FAINT = 0.6  # of the opacity, below the threshold
STRIP = 2**20  # pixels that are coloured at once; their colours take 64 bytes each
HATCHES = 40  # lines across the shorter side
HATCH, OUTLINE = (0.5, 0.5, 0.5, 0.7), (0.8, 0.8, 0.8, 1)  # red, green, blue, opacity
DESCRIPTION = 270  # the TIFF tag ImageDescription


def map_png(verdict: Verdict) -> bytes:
    """Returns an image with its heat map over it, as a PNG file of the image's size."""
    content = io.BytesIO()
    Image.fromarray(overlay(verdict)).save(content, "PNG")
    return content.getvalue()


def raw_map_tiff(verdict: Verdict) -> bytes:
    """Returns the values of a map as a TIFF file, float32 of one channel and of the image's size.

    The tag ImageDescription holds JSON: `score`, `threshold` on the values (null where the score is
    no maximum of the map) and `scale`, see `tfgad.scores.calibration.probability`.
    """
    numbers = {
        "score": verdict.score,
        "threshold": verdict.map_threshold,
        "scale": verdict.scale,
    }
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[DESCRIPTION] = json.dumps(numbers)
    content = io.BytesIO()
    Image.fromarray(np.asarray(verdict.map, np.float32)).save(content, "TIFF", tiffinfo=tags)
    return content.getvalue()


def overlay(verdict: Verdict) -> np.ndarray:
    """Returns the image with `heat` over it: uint8 `[H, W, 3]`."""
    scale, (height, width) = heat_scale(verdict), verdict.map.shape
    picture = np.empty((height, width, 3), np.uint8)
    step = max(1, STRIP // width)
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        cloth, colours = (verdict.image[rows] + 1) / 2, _heat(verdict, rows, scale)
        alpha = colours[..., 3:]
        picture[rows] = np.rint(255 * (cloth * (1 - alpha) + colours[..., :3] * alpha))
    return picture


def heat(verdict: Verdict) -> np.ndarray:
    """Returns the colours of the map: faint below the threshold, and a line along it.

    Returns:
        red, green, blue and opacity, float `[H, W, 4]` in [0, 1].
    """
    return _heat(verdict, slice(0, len(verdict.map)), heat_scale(verdict))


def _heat(verdict: Verdict, rows: slice, scale: tuple[float, float, float]) -> np.ndarray:
    """Returns some rows of `heat`, given the `heat_scale`."""
    lowest, middle, highest = scale
    values = verdict.map[rows]
    places = np.clip((values - lowest) / max(highest - lowest, 1e-12), 0, 1)
    above = values > middle
    if verdict.map_threshold is None and not (verdict.is_anomalous and not verdict.reason):
        above[:] = False  # the middle of the map's own range, and no threshold
    colours = HEAT(np.where(above, places, np.minimum(places, 0.5)))
    colours[..., 3] *= np.where(above, 1, FAINT)
    if verdict.map_threshold is not None:
        colours[_contour(verdict.map, rows, verdict.map_threshold)] = CONTOUR
    if verdict.ignored is not None:
        inside = verdict.ignored[rows]
        colours[inside, 3] = 0
        colours[inside & _hatches(verdict.map.shape, rows)] = HATCH
        first = max(rows.start - 1, 0)
        colours[_edge(verdict.ignored[first : rows.stop + 1], rows, first)] = OUTLINE
    return colours


def _hatches(shape: tuple[int, ...], rows: slice) -> np.ndarray:
    """Returns where the diagonal lines of a hatched picture are, in some rows: bool `[h, W]`."""
    step = max(4, min(shape) // HATCHES)
    down, across = np.arange(*rows.indices(shape[0]))[:, None], np.arange(shape[1])
    return (down + across) % step < max(1, step // 5)


def _contour(anomaly_map: np.ndarray, rows: slice, threshold: float) -> np.ndarray:
    """Returns where the regions above the threshold end, in some rows: bool `[h, W]`."""
    first = max(rows.start - 1, 0)
    return _edge(anomaly_map[first : rows.stop + 1] > threshold, rows, first)


def _edge(inside: np.ndarray, rows: slice, first: int) -> np.ndarray:
    """Returns where places end, in some rows: bool `[h, W]`.

    Args:
        inside: bool, the rows of the picture from `first` on, one more on both sides if there is.
        rows: of the picture.
        first: row of the picture.
    """
    edge = inside & ~ndimage.binary_erosion(inside, EIGHT_NEIGHBOURS, border_value=1)
    start = rows.start - first
    return edge[start : start + rows.stop - rows.start]


def heat_scale(verdict: Verdict) -> tuple[float, float, float]:
    """Returns the values of the map at the lower end, the middle and the upper end of the colours.

    If the score is no maximum of the map, the map has a scale of its own, from its median to its
    maximum. The upper half of it then shows as above the threshold, and on a defective image only.
    """
    middle = verdict.map_threshold
    if middle is None:
        median, largest = float(np.median(verdict.map)), float(verdict.map.max())
        return median, (median + largest) / 2, largest
    half = COLOUR_SCALES * verdict.scale
    return middle - half, middle, middle + half
