"""Plots of a detector's results, in one style.

Every function returns a `matplotlib.figure.Figure` of its own, without pyplot and its global state,
so that figures can be made in any thread and without a display.
"""

from tfgad.plots.curves import roc, score_histogram
from tfgad.plots.grids import heat_maps, image_grid, painted, reconstructions, samples
from tfgad.plots.style import ANOMALOUS, CONTOUR, HEAT, NORMAL, png, save

__all__ = [
    "ANOMALOUS",
    "CONTOUR",
    "HEAT",
    "NORMAL",
    "heat_maps",
    "image_grid",
    "painted",
    "png",
    "reconstructions",
    "roc",
    "samples",
    "save",
    "score_histogram",
]
