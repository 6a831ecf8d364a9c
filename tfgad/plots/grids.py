"""Plots of images side by side: samples, reconstructions, heat maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from tfgad.plots.style import ANOMALOUS, CONTOUR, HEAT, INK, NORMAL, OUTLINE, STYLE, TITLE_STYLE

# Inches: images in a grid, and the room around them.
ROW_WIDTH, COLUMNS = 9.2, 8
GAP, MARGIN, TITLE, LINE, ROW_NAME, BAR = 0.05, 0.08, 0.32, 0.15, 0.22, 1.1


@matplotlib.rc_context(STYLE)
def image_grid(images: np.ndarray, title: str = "Images") -> Figure:
    """Plots images float `[N, H, W, C]` in [-1, 1] side by side; C is 1 or 3."""
    figure, cells = _grid(images, [""], title)
    for axes, image in zip(cells[0], images, strict=True):
        _show(axes, image)
    return figure


def samples(images: np.ndarray) -> Figure:
    """Plots generated images `[N, H, W, C]` in [-1, 1] side by side."""
    return image_grid(images, "Samples of the generator")


@matplotlib.rc_context(STYLE)
def reconstructions(images: np.ndarray, reconstructed: np.ndarray, residuals: np.ndarray) -> Figure:
    """Plots images, their reconstructions and the residuals, in three rows.

    Args:
        images: float `[N, H, W, C]` in [-1, 1].
        reconstructed: the same shape and range.
        residuals: float `[N, H, W]`, not negative; all on one scale, from 0 to the largest.
    """
    rows = ["image", "reconstruction", "residual"]
    figure, cells = _grid(images, rows, "Reconstructions", bar=True)
    largest = float(np.max(residuals)) or 1.0
    scale = Normalize(0, largest)
    for index, image in enumerate(images):
        _show(cells[0, index], image)
        _show(cells[1, index], reconstructed[index])
        cells[2, index].imshow(residuals[index], "inferno", norm=scale)
    ticks = {0.0: "0", largest: f"{largest:.2g}"}
    _bar(figure, cells, ScalarMappable(scale, "inferno"), ticks)
    return figure


@matplotlib.rc_context(STYLE)
def painted(
    good: np.ndarray,
    patches: Sequence[np.ndarray],
    images: np.ndarray,
    masks: np.ndarray,
    names: Sequence[str],
) -> Figure:
    """Plots painted defects: good fabric, generated defect, both fused, and the mask on them.

    Args:
        good: float `[N, H, W, C]` in [-1, 1].
        patches: N of float `[h, w, C + 1]` in [-1, 1], the last channel the mask.
        images: the same shape as `good`, with the defects.
        masks: `[N, H, W, 1]`, non-zero on the defects.
        names: the kind of each.
    """
    rows = ["good fabric", "generated", "fused", "mask"]
    written = [_wrapped(name, images) for name in names]
    head = max(name.count("\n") for name in written) + 1
    figure, cells = _grid(images, rows, "Painted defects", head=head)
    for index, stack in enumerate(cells.T):
        for axes, image in zip(
            stack,
            (good[index], patches[index][..., :-1], images[index], images[index]),
            strict=True,
        ):
            _show(axes, image)
        _outline(stack[3], masks[index])
        _write_name(stack[0], written[index], line=0)
    return figure


@matplotlib.rc_context(STYLE)
def heat_maps(
    images: np.ndarray,
    maps: np.ndarray,
    masks: np.ndarray | None = None,
    scores: np.ndarray | None = None,
    threshold: float | None = None,
    names: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    title: str = "Heat maps",
) -> Figure:
    """Plots for each image the outline of its true mask, its heat map, and the verdict.

    All maps share one colour scale, with the threshold in its middle, and a line follows the
    threshold. Where the scores are not the maxima of the maps, or the maps do not reach the
    threshold's order of magnitude, there is no line, and the scale ends at their 99.9 % quantile.

    Args:
        images: float `[N, H, W, C]` in [-1, 1].
        maps: float `[N, H, W]`.
        masks: `[N, H, W]` or `[N, H, W, 1]`, non-zero on the anomaly; None without ground truth.
        scores: float `[N]`; with the threshold they give the verdict.
        threshold: scores strictly above it are called anomalous.
        names: of the images.
        labels: `[N]`, 0 normal, 1 anomalous: the verdict then says whether it is right.
        title: of the figure.
    """
    rows = ["image", *(["true mask"] if masks is not None else []), "heat map"]
    written = [_wrapped(name, images) for name in names or ()]
    head = max((name.count("\n") + 1 for name in written), default=0) + (scores is not None)
    figure, cells = _grid(images, rows, title, head=head, bar=True)
    is_peak = scores is None or np.allclose(scores, np.max(maps, axis=(1, 2)), rtol=1e-3)
    lowest, highest = _map_range(maps, threshold if is_peak else None)
    shows_threshold = is_peak and threshold is not None and lowest < threshold < highest
    scale = Normalize(lowest, highest, clip=True)
    for index, (image, stack) in enumerate(zip(images, cells.T, strict=True)):
        for axes in stack:
            _show(axes, image)
        if masks is not None:
            _outline(stack[1], masks[index])
        stack[-1].imshow(maps[index], cmap=HEAT, norm=scale)
        if shows_threshold and np.max(maps[index]) > threshold > np.min(maps[index]):
            stack[-1].contour(maps[index], [threshold], colors=[CONTOUR], linewidths=0.8)
        if scores is not None:
            label = None if labels is None else labels[index]
            _write_verdict(stack[0], scores[index], threshold, label)
        if names is not None:
            _write_name(stack[0], written[index], line=int(scores is not None))
    ticks = {lowest: f"{lowest:.3g}\nmedian", highest: f"{highest:.3g}"}
    if shows_threshold and threshold is not None:
        ticks[threshold] = f"{threshold:.3g}\nthreshold"
    _bar(figure, cells, ScalarMappable(scale, HEAT), ticks)
    return figure


def _grid(
    images: np.ndarray, rows: Sequence[str], title: str, head: int = 0, bar: bool = False
) -> tuple[Figure, np.ndarray]:
    """Returns a figure with a stack of cells for each image, in bands of at most eight stacks.

    Args:
        images: `[N, H, W, C]`; only their number and shape matter. Of wide ones fewer fit a band.
        rows: title of each row of cells.
        title: of the figure.
        head: lines of text above each stack.
        bar: leaves room for a colour scale at the right.

    Returns:
        The figure and its axes, `[len(rows), N]`.
    """
    count, height, width = np.shape(images)[:3]
    columns = _columns(images)
    cell = np.array([ROW_WIDTH / columns, ROW_WIDTH / columns * height / width])
    columns = min(columns, count)
    bands = -(-count // columns)
    left = MARGIN + ROW_NAME * any(rows)
    band_height = head * LINE + len(rows) * (cell[1] + GAP) + 2 * GAP
    size = np.array(
        [
            max(3.0, left + columns * (cell[0] + GAP) + BAR * bar),
            TITLE + bands * band_height + MARGIN,
        ]
    )
    figure = Figure(figsize=tuple(size))
    figure.text(MARGIN / size[0], 1 - MARGIN / size[1], title, va="top", **TITLE_STYLE)
    cells = np.empty((len(rows), count), object)
    for row, index in np.ndindex(cells.shape):
        band, column = divmod(index, columns)
        top = TITLE + band * band_height + head * LINE + row * (cell[1] + GAP)
        corner = np.array([left + column * (cell[0] + GAP), size[1] - top - cell[1]])
        (x, y), (wide, high) = corner / size, cell / size
        axes = figure.add_axes((x, y, wide, high))
        cells[row, index] = axes
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if column == 0:
            axes.set_ylabel(rows[row], labelpad=3)
    return figure, cells


def _columns(images: np.ndarray) -> int:
    """Returns how many stacks of images `[N, H, W, C]` fit a band."""
    height, width = np.shape(images)[1:3]
    return int(np.clip(round(COLUMNS * height / width), 1, COLUMNS))


def _bar(
    figure: Figure, cells: np.ndarray, colours: ScalarMappable, ticks: dict[float, str]
) -> None:
    """Draws the colour scale to the right of the first band."""
    places = [axes.get_position() for axes in cells.ravel()]
    right = max(place.x1 for place in places)
    bottom, top = places[-cells.shape[1]].y0, places[0].y1
    inch = 1 / figure.get_figwidth()
    axes = figure.add_axes((right + 0.12 * inch, bottom, 0.13 * inch, top - bottom))
    axes.set_facecolor("#666666")  # cloth, where the colours are transparent
    bar = figure.colorbar(colours, cax=axes)
    bar.outline.set_visible(False)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.tick_params(length=2, labelsize=8)


def _show(axes: Axes, image: np.ndarray) -> None:
    """Draws an image `[H, W, C]` in [-1, 1] without axes."""
    shades = np.clip((np.asarray(image, np.float32) + 1) / 2, 0, 1)
    axes.imshow(shades.squeeze(-1) if shades.shape[-1] == 1 else shades, "gray", vmin=0, vmax=1)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    """Draws the mask's outline, dark below light so that it shows on any cloth."""
    mask = np.pad(np.asarray(mask).squeeze() != 0, 1)  # closes regions at the border
    if mask.any():
        places = np.arange(-1, mask.shape[1] - 1), np.arange(-1, mask.shape[0] - 1)
        axes.contour(*places, mask, [0.5], colors=INK, linewidths=2.4)
        axes.contour(*places, mask, [0.5], colors=OUTLINE, linewidths=1.2)


def _map_range(maps: np.ndarray, threshold: float | None) -> tuple[float, float]:
    """Returns both ends of the colour scale that all maps share."""
    median, top = map(float, np.quantile(maps, [0.5, 0.999]))
    if threshold is not None and median < threshold <= median + 10 * (top - median):
        top = 2 * threshold - median
    return median, top if top > median else median + 1


def _write_verdict(axes: Axes, score: float, threshold: float | None, label: int | None) -> None:
    """Writes score and verdict above an image."""
    words = f"{score:.3g}"
    alarm = threshold is not None and score > threshold
    if threshold is not None:
        words = f"{_verdict(alarm, label)} {words}"
    colour = ANOMALOUS if alarm else NORMAL
    axes.set_title(words, color=colour, loc="center", fontsize=7.5, pad=2)


def _verdict(alarm: bool, label: int | None) -> str:
    if label is None:
        return "anomalous" if alarm else "normal"
    if label:
        return "found" if alarm else "missed"
    return "false alarm" if alarm else "passed"


def _wrapped(name: str, images: np.ndarray) -> str:
    """Returns a name in lines that are no wider than one of the images, with nothing cut off.

    Lines end after one of `/_-. ` where they can.
    """
    room = int(14 * ROW_WIDTH / _columns(images))  # letters of 7 points
    lines = [""]
    for part in re.findall(r"[^/_\-. ]*[/_\-. ]|[^/_\-. ]+", name):
        if len(lines[-1]) + len(part) > room and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1]) > room:
            lines[-1:] = [lines[-1][:room], lines[-1][room:]]
    return "\n".join(lines)


def _write_name(axes: Axes, name: str, line: int) -> None:
    """Writes a name above an image, its last line in the given line."""
    place: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(name, (0.5, 1), (0, 3 + 72 * LINE * line), ha="center", fontsize=7, **place)
