"""Figures of a detector at work, in one style.

Every function returns a `matplotlib.figure.Figure` that belongs to nobody else: pyplot and its
global state stay out of it, so figures can be made in any thread and without a display.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn import metrics as sklearn_metrics

from tfgad import files

# Okabe and Ito's colours, told apart by every kind of colour vision.
NORMAL, ANOMALOUS, OUTLINE = "#0072B2", "#D55E00", "#56B4E9"
INK, FAINT = "#222222", "#999999"

STYLE = {
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
TITLE_STYLE = {"fontsize": 10, "fontweight": "bold"}
DPI = 150

# Inches: images in a grid, and the room around them.
ROW_WIDTH, COLUMNS = 9.2, 8
GAP, MARGIN, TITLE, LINE, ROW_NAME, BAR = 0.05, 0.08, 0.32, 0.15, 0.22, 1.1

# Nothing over ordinary cloth, red where the map rises, yellow at its top: inferno's upper half, so
# that the colours also differ in lightness.
HEAT = LinearSegmentedColormap.from_list(
    "heat",
    [
        (*matplotlib.colormaps["inferno"](0.45 + 0.5 * x)[:3], 0.85 * x)
        for x in np.linspace(0, 1, 64)
    ],
)


@matplotlib.rc_context(STYLE)
def image_grid(images: np.ndarray, title: str = "Images") -> Figure:
    """Returns the images side by side: float `[N, H, W, C]` in [-1, 1], C 1 or 3."""
    figure, cells = _grid(images, [""], title)
    for axes, image in zip(cells[0], images, strict=True):
        _show(axes, image)
    return figure


def samples(images: np.ndarray) -> Figure:
    """Returns a grid of what the generator makes of random latents: `[N, H, W, C]` in [-1, 1]."""
    return image_grid(images, "Samples of the generator")


@matplotlib.rc_context(STYLE)
def reconstructions(images: np.ndarray, reconstructed: np.ndarray, residuals: np.ndarray) -> Figure:
    """Returns three rows: the images, what the model makes of them, and the difference.

    Args:
        images: float `[N, H, W, C]` in [-1, 1].
        reconstructed: the same form.
        residuals: float `[N, H, W]`, not negative; all on one scale, from 0 to the largest.
    """
    rows = ["image", "reconstruction", "residual"]
    figure, cells = _grid(images, rows, "Reconstructions", bar=True)
    scale = Normalize(0, np.max(residuals) or 1)
    for index, image in enumerate(images):
        _show(cells[0, index], image)
        _show(cells[1, index], reconstructed[index])
        cells[2, index].imshow(residuals[index], "inferno", norm=scale)
    _bar(figure, cells, ScalarMappable(scale, "inferno"), {0: "0", scale.vmax: f"{scale.vmax:.2g}"})
    return figure


@matplotlib.rc_context(STYLE)
def painted(good, patches, images, masks, names: Sequence[str]) -> Figure:
    """Returns four rows: good fabric, the generated defect, the two fused, and the mask on it.

    Args:
        good: float `[N, H, W, C]` in [-1, 1].
        patches: N of float `[h, w, C + 1]` in [-1, 1], the last channel the mask.
        images: as `good`, with the defects.
        masks: `[N, H, W, 1]`, non-zero on the defects.
        names: the kind of each.
    """
    rows = ["good fabric", "generated", "fused", "mask"]
    figure, cells = _grid(images, rows, "Painted defects", head=1)
    for index, stack in enumerate(cells.T):
        for axes, image in zip(
            stack,
            (good[index], patches[index][..., :-1], images[index], images[index]),
            strict=True,
        ):
            _show(axes, image)
        _outline(stack[3], masks[index])
        _write_name(stack[0], names[index], line=0)
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
) -> Figure:
    """Returns for each image its true mask's outline, its heat map, and the verdict.

    All maps share one colour scale, with the threshold in its middle; where the maps do not reach
    the threshold's order of magnitude (a score that is no maximum of the map), it ends at their
    99.9 % quantile instead.

    Args:
        images: float `[N, H, W, C]` in [-1, 1].
        maps: float `[N, H, W]`.
        masks: `[N, H, W]` or `[N, H, W, 1]`, non-zero on the anomaly; None without ground truth.
        scores: float `[N]`; with the threshold they give the verdict.
        threshold: scores strictly above it are called anomalous.
        names: what to call each image.
        labels: `[N]`, 0 normal, 1 anomalous: the verdict then says whether it is right.
    """
    rows = ["image", *(["true mask"] if masks is not None else []), "heat map"]
    head = (names is not None) + (scores is not None)
    figure, cells = _grid(images, rows, "Heat maps", head=head, bar=True)
    scale = _map_scale(maps, threshold)
    for index, (image, stack) in enumerate(zip(images, cells.T, strict=True)):
        for axes in stack:
            _show(axes, image)
        if masks is not None:
            _outline(stack[1], masks[index])
        stack[-1].imshow(maps[index], cmap=HEAT, norm=scale)
        if scores is not None:
            label = None if labels is None else labels[index]
            _write_verdict(stack[0], scores[index], threshold, label)
        if names is not None:
            _write_name(stack[0], names[index], line=head - 1)
    ticks = {scale.vmin: f"{scale.vmin:.3g}\nmedian", scale.vmax: f"{scale.vmax:.3g}"}
    if threshold is not None and scale.vmin < threshold < scale.vmax:
        ticks[threshold] = f"{threshold:.3g}\nthreshold"
    _bar(figure, cells, ScalarMappable(scale, HEAT), ticks)
    return figure


@matplotlib.rc_context(STYLE)
def roc(labels: np.ndarray, scores: np.ndarray, threshold: float | None = None) -> Figure:
    """Returns the receiver operating characteristic with the point of the threshold on it.

    Args:
        labels: int `[N]`, 0 normal, 1 anomalous; both must occur.
        scores: float `[N]`.
        threshold: the calibrated score; None marks no point.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    false_positive_rate, recall, _ = sklearn_metrics.roc_curve(labels, scores)
    area = sklearn_metrics.auc(false_positive_rate, recall)
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"ROC, area {area:.3f}")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    axes.text(0.7, 0.65, "chance", color=FAINT, rotation=45, rotation_mode="anchor")
    axes.plot(false_positive_rate, recall, color=INK, linewidth=1.8)
    if threshold is not None:
        alarms = np.mean(scores[labels == 0] > threshold)
        found = np.mean(scores[labels == 1] > threshold)
        axes.plot(alarms, found, "o", color=ANOMALOUS, markersize=8, clip_on=False, zorder=3)
        words = f"at the threshold\n{found:.1%} found\n{alarms:.1%} false alarms"
        # Below the curve, on the side where there is room.
        offset, side = ((12, -8), "left") if alarms < 0.6 else ((-4, -12), "right")
        looks = {"xytext": offset, "textcoords": "offset points", "va": "top", "ha": side}
        axes.annotate(words, (alarms, found), **looks)
    axes.set(xlabel="false alarms among the normal", ylabel="anomalous ones found")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


@matplotlib.rc_context(STYLE)
def score_histogram(
    normal: np.ndarray, anomalous: np.ndarray, threshold: float | None = None
) -> Figure:
    """Returns how the scores of normal and of anomalous images spread about the threshold.

    The axis ends at the 98 % quantile of all scores, or a little beyond the threshold; the last bin
    holds whatever is larger.

    Args:
        normal: float `[N]`, scores of normal images.
        anomalous: float `[M]`, scores of anomalous images; may be empty.
        threshold: the calibrated score; None draws no line.
    """
    scores = np.concatenate([normal, anomalous])
    low, high = scores.min(), np.quantile(scores, 0.98)
    if threshold is not None:
        high = max(high, threshold + 0.1 * abs(threshold - low))
    edges = np.linspace(low, high if high > low else low + 1, 41)
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title("Scores of the test set")
    for values, name, colour in ((normal, "normal", NORMAL), (anomalous, "anomalous", ANOMALOUS)):
        if len(values):
            shares = np.full(len(values), 1 / len(values))
            looks = {"histtype": "stepfilled", "facecolor": (colour, 0.35), "edgecolor": colour}
            label = f"{name} ({len(values):,})"
            axes.hist(np.clip(values, low, edges[-1]), edges, weights=shares, label=label, **looks)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label="threshold")
    beyond = " (last bin: all above)" if scores.max() > edges[-1] else ""
    axes.set(xlabel=f"score{beyond}", ylabel="share of each kind")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend()
    return figure


def png(figure: Figure) -> bytes:
    """Returns the figure as a PNG file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure as PNG, whole or not at all.

    Raises:
        UsageError: the path cannot be written.
    """
    files.write_bytes(path, png(figure))


def _grid(
    images: np.ndarray, rows: Sequence[str], title: str, head: int = 0, bar: bool = False
) -> tuple[Figure, np.ndarray]:
    """Returns a figure with a stack of cells for each image, in bands of at most eight stacks.

    Args:
        images: `[N, H, W, C]`; only their number and shape matter. Of wide ones fewer fit a band.
        rows: what each cell of a stack shows.
        title: of the figure.
        head: lines of text above each stack.
        bar: leaves room for a colour scale at the right.

    Returns:
        The figure and its axes, `[len(rows), N]`.
    """
    count, height, width = np.shape(images)[:3]
    columns = int(np.clip(round(COLUMNS * height / width), 1, COLUMNS))
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
        axes = cells[row, index] = figure.add_axes([*corner / size, *cell / size])
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if column == 0:
            axes.set_ylabel(rows[row], labelpad=3)
    return figure, cells


def _bar(
    figure: Figure, cells: np.ndarray, colours: ScalarMappable, ticks: dict[float, str]
) -> None:
    """Draws the colour scale to the right of the first band."""
    places = [axes.get_position() for axes in cells.ravel()]
    right = max(place.x1 for place in places)
    bottom, top = places[-cells.shape[1]].y0, places[0].y1
    inch = 1 / figure.get_figwidth()
    axes = figure.add_axes([right + 0.12 * inch, bottom, 0.13 * inch, top - bottom])
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


def _map_scale(maps: np.ndarray, threshold: float | None) -> Normalize:
    """Returns the colour scale that all maps share."""
    middle, top = np.quantile(maps, [0.5, 0.999])
    within = threshold is not None and middle < threshold <= middle + 10 * (top - middle)
    highest = 2 * threshold - middle if within else top
    return Normalize(middle, highest if highest > middle else middle + 1, clip=True)


def _write_verdict(axes: Axes, score: float, threshold: float | None, label: int | None) -> None:
    """Writes score and verdict above an image."""
    words = f"{score:.3g}"
    alarm = threshold is not None and score > threshold
    if threshold is not None:
        words = f"{_verdict(alarm, label)} {words}"
    looks = {"color": ANOMALOUS if alarm else NORMAL, "loc": "center", "fontsize": 7.5, "pad": 2}
    axes.set_title(words, **looks)


def _verdict(alarm: bool, label: int | None) -> str:
    if label is None:
        return "anomalous" if alarm else "normal"
    if label:
        return "found" if alarm else "missed"
    return "false alarm" if alarm else "passed"


def _write_name(axes: Axes, name: str, line: int) -> None:
    """Writes the name, or its end if it is long, in the given line above an image."""
    room = int(14 * axes.get_position().width * axes.figure.get_figwidth())  # letters of 7 points
    name = name if len(name) <= room else "…" + name[1 - room :]
    place = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(name, (0.5, 1), (0, 3 + 72 * LINE * line), ha="center", fontsize=7, **place)
