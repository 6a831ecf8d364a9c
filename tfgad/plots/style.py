"""The style of all plots, and their files."""

from __future__ import annotations

import io
import os
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tfgad import files

# Okabe and Ito's colours, told apart by every kind of colour vision.
NORMAL, ANOMALOUS, OUTLINE = "#0072B2", "#D55E00", "#56B4E9"
INK, FAINT = "#222222", "#999999"

STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
TITLE_STYLE: Any = {"fontsize": 10, "fontweight": "bold"}
DPI = 150

# Transparent over ordinary cloth, red where the map rises, yellow at its top: the upper half of
# inferno, so that the colours also differ in lightness.
HEAT = LinearSegmentedColormap.from_list(
    "heat",
    [
        (*matplotlib.colormaps["inferno"](0.45 + 0.5 * x)[:3], 0.85 * x)
        for x in np.linspace(0, 1, 64)
    ],
)

CONTOUR = (1.0, 1.0, 1.0, 1.0)  # of the map at the threshold


def png(figure: Figure) -> bytes:
    """Returns the content of a PNG file of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a figure as PNG, whole or not at all.

    Raises:
        UsageError: the path cannot be written.
    """
    files.write_bytes(path, png(figure))
