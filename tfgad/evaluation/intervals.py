"""Bootstrap intervals of the figures of a test set.

A draw takes as many groups of images as there are, with replacement, and all images of each: images
of a group share their cause, so that they vary less than as many independent ones (the cluster
bootstrap; Davison and Hinkley, Bootstrap Methods and Their Application, 1997, section 3.8). Groups
with and without an anomalous image are drawn apart. All draws are computed together, from one sort
of the scores and one histogram of the map per image.
"""

from __future__ import annotations

import numpy as np

from tfgad.evaluation.pixel_metrics import AUPRO_LIMIT, area, region_weights

# Grid for the intervals of the pixel figures. Each bin holds 0.05 % of the pixels: on 128x128 tiles
# the binned AUROC and AUPRO differ from the exact ones by less than 0.0005.
PIXEL_BINS = 2000
PIXEL_SAMPLE = 1_000_000  # pixels that place the grid

Intervals = dict[str, list[float] | None]


def draw_images(
    labels: np.ndarray,
    bootstrap: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Returns how often each draw takes each image.

    Args:
        labels: bool `[N]`.
        bootstrap: number of draws.
        rng: of the draws.
        groups: int `[N]`, the group of each image, from 0 up, none left out. If not given, each
            image is a group of its own, and a draw has as many anomalous images as there are.

    Returns:
        float32 `[bootstrap, N]`.
    """
    if groups is None:
        groups = np.arange(labels.size)
    anomalous = np.bincount(groups, weights=labels) > 0
    draws = np.zeros((bootstrap, anomalous.size), np.float32)
    for members in (np.flatnonzero(anomalous), np.flatnonzero(~anomalous)):
        if members.size:
            uniform = np.full(members.size, 1 / members.size)
            draws[:, members] = rng.multinomial(members.size, uniform, size=bootstrap)
    return draws[:, groups]


def image_intervals(labels: np.ndarray, scores: np.ndarray, draws: np.ndarray) -> Intervals:
    """Returns the intervals of `metrics.image_metrics`; empty if only one class occurs.

    Args:
        labels: bool `[N]`.
        scores: float `[N]`.
        draws: `[draws, N]`, of `draw_images`.
    """
    if np.unique(labels).size < 2:
        return {}
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    draws, labels = draws[:, order], labels[order]
    found = np.cumsum(draws * labels, axis=-1, dtype=np.float64)[:, last_of_tie]
    false_alarms = np.cumsum(draws * ~labels, axis=-1, dtype=np.float64)[:, last_of_tie]
    anomalous, normal = found[:, -1:], false_alarms[:, -1:]
    called = np.maximum(found + false_alarms, 1)  # 0 only where found is 0 too
    gained = np.diff(found, axis=-1, prepend=0)
    with np.errstate(invalid="ignore"):  # a draw of groups without a normal image: no interval
        roc = _from_origin(false_alarms / normal), _from_origin(found / anomalous)
    return {
        "image_auroc": _interval(area(*roc)),
        "image_ap": _interval(np.sum(gained * found / called, axis=-1) / anomalous[:, 0]),
        "image_f1_max": _interval(np.max(2 * found / (called + anomalous), axis=-1)),
    }


def pixel_intervals(masks: np.ndarray, maps: np.ndarray, draws: np.ndarray) -> Intervals:
    """Returns the intervals of `pixel_auroc` and `pixel_aupro`, from a histogram per image.

    Args:
        masks: bool `[N, H, W]`.
        maps: float `[N, H, W]`.
        draws: `[draws, N]`, of `draw_images`.
    """
    if not masks.any() or masks.all():
        return {}
    sample = maps.ravel()[:: max(1, maps.size // PIXEL_SAMPLE)]
    edges = np.unique(np.quantile(sample, np.linspace(0, 1, PIXEL_BINS + 1)[1:-1]))
    edges = edges.astype(maps.dtype)
    normal, anomalous, overlap = np.zeros((3, len(maps), edges.size + 1), np.float32)
    for i, (mask, values) in enumerate(zip(masks, maps, strict=True)):
        bins = edges.size - np.searchsorted(edges, values, "right")  # the most anomalous first
        weights = region_weights(mask[None])
        for counts, cells, of_cells in (
            (normal, bins[~mask], None),
            (anomalous, bins[mask], None),
            (overlap, bins[mask], weights),
        ):
            counts[i] = np.bincount(cells, of_cells, minlength=edges.size + 1)

    def curve(histograms: np.ndarray) -> np.ndarray:
        """Returns the share of the pixels at or above each bin: `[draws, bins + 1]`."""
        counts = np.cumsum(draws @ histograms, axis=-1, dtype=np.float64)
        # A draw of anomalous images whose masks are all empty divides 0 by 0: no interval then.
        with np.errstate(invalid="ignore"):
            return _from_origin(counts / counts[:, -1:])

    false_alarms = curve(normal)
    return {
        "pixel_auroc": _interval(area(false_alarms, curve(anomalous))),
        "pixel_aupro": _interval(area(false_alarms, curve(overlap), AUPRO_LIMIT)),
    }


def alarm_intervals(labels: np.ndarray, alarm: np.ndarray, draws: np.ndarray) -> Intervals:
    """Returns the intervals of the false-positive rate and the recall at the threshold.

    Args:
        labels: bool `[N]`.
        alarm: bool `[N]`, of the images that are called anomalous.
        draws: `[draws, N]`, of `draw_images`.
    """
    found: Intervals = {}
    for key, members in (("false_positive_rate", ~labels), ("recall", labels)):
        drawn = draws[:, members]
        with np.errstate(invalid="ignore"):  # a draw without any: no interval
            rates = drawn @ alarm[members].astype(np.float32) / drawn.sum(axis=-1)
        found |= {key: _interval(rates)} if members.any() else {}
    return found


def _interval(values: np.ndarray) -> list[float] | None:
    """Returns the 2.5 % and 97.5 % quantiles of the draws; None if a draw does not define it."""
    if not values.size or not np.all(np.isfinite(values)):
        return None
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def _from_origin(curve: np.ndarray) -> np.ndarray:
    """Returns the curve with the point 0 before it, where nothing is called anomalous."""
    return np.concatenate([np.zeros_like(curve[:, :1]), curve], axis=-1)
