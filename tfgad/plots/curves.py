"""Plots of the scores of a test set."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn import metrics as sklearn_metrics

from tfgad.plots.style import ANOMALOUS, FAINT, INK, NORMAL, STYLE

LABEL_HEIGHT = 0.25  # of three lines below a point, as a share of the axis


@matplotlib.rc_context(STYLE)
def roc(labels: np.ndarray, scores: np.ndarray, threshold: float | None = None) -> Figure:
    """Plots the receiver operating characteristic with the point of the threshold on it.

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
        looks: Any
        if found > LABEL_HEIGHT:  # below the curve, on the side where there is room
            offset, side = ((12, -8), "left") if alarms < 0.6 else ((-4, -12), "right")
            looks = {"xytext": offset, "textcoords": "offset points", "va": "top", "ha": side}
        else:  # in a corner away from the curve, instead of over the axis
            looks = {"xytext": (0.98, 0.03), "va": "bottom", "ha": "right"}
            if alarms > 0.5:
                looks = {"xytext": (0.02, 0.97), "va": "top", "ha": "left"}
            looks["textcoords"] = "axes fraction"
            looks["arrowprops"] = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.8}
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
    """Plots histograms of the scores of normal and of anomalous images about the threshold.

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
            axes.hist(
                np.clip(values, low, edges[-1]),
                list(edges),
                weights=shares,
                label=f"{name} ({len(values):,})",
                histtype="stepfilled",
                facecolor=(colour, 0.35),
                edgecolor=colour,
            )
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle="--", label="threshold")
    beyond = " (last bin: all above)" if scores.max() > edges[-1] else ""
    axes.set(xlabel=f"score{beyond}", ylabel="share of each kind")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend()
    return figure
