"""Plot of images on which two runs differ, with the heat map of each."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tfgad.plots.style import ANOMALOUS, HEAT, INK, NORMAL, OUTLINE, STYLE

ROW, WIDTH = 1.9, 6.6  # inches


@matplotlib.rc_context(STYLE)
def differences(
    images: Sequence[Sequence[np.ndarray]],
    maps: Sequence[Sequence[np.ndarray]],
    masks: Sequence[np.ndarray],
    titles: Sequence[Sequence[str]],
    alarms: Sequence[Sequence[bool]],
    thresholds: Sequence[float],
    headings: Sequence[str],
) -> Figure:
    """Plots one row for each image: its true mask, and the heat maps of two runs.

    Args:
        images: for each row, what each run has seen, float `[H, W, C]` in [-1, 1].
        maps: for each row, the map of each run, `[H, W]` of its image.
        masks: for each row the true mask, `[H, W]` of the first run's image; all 0 without any.
        titles: for each row the texts above the image and above the two maps.
        alarms: for each row, whether each run calls the image anomalous.
        thresholds: of the two runs. Each run's maps share a colour scale.
        headings: names of the two runs.
    """
    figure = Figure(figsize=(WIDTH, ROW * len(images)), layout="constrained")
    cells = figure.subplots(len(images), 3, squeeze=False)
    scales = [_scale([row[run] for row in maps], thresholds[run]) for run in (0, 1)]
    for row, axes in enumerate(cells):
        for place, cell in enumerate(axes):
            run = max(place - 1, 0)
            _show(cell, images[row][run])
            colour, title = INK, titles[row][place]
            if place:
                title = f"{headings[run]}: {title}"
                cell.imshow(maps[row][run], cmap=HEAT, norm=scales[run])
                colour = ANOMALOUS if alarms[row][run] else NORMAL
            elif np.any(masks[row]):
                cell.contour(np.pad(masks[row], 1)[1:-1, 1:-1], [0.5], colors=OUTLINE)
            cell.set_title(title, fontsize=7, color=colour, pad=3)
    return figure


def _scale(maps: Sequence[np.ndarray], threshold: float) -> Normalize:
    """Returns a colour scale with the threshold in its middle, if the maps come near it."""
    values = np.concatenate([np.ravel(each) for each in maps])
    middle, top = (float(each) for each in np.quantile(values, [0.5, 0.999]))
    if middle < threshold <= middle + 10 * (top - middle):
        top = 2 * threshold - middle
    return Normalize(middle, top if top > middle else middle + 1, clip=True)


def _show(axes: Axes, image: np.ndarray) -> None:
    shades = np.clip((np.asarray(image, np.float32) + 1) / 2, 0, 1)
    axes.imshow(shades.squeeze(-1) if shades.shape[-1] == 1 else shades, "gray", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
