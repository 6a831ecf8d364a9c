"""Bootstrap draws of a test set: the figures of each, and their intervals.

A draw takes as many groups of images as there are, with replacement, and all images of each: images
of a group share their cause, so that they vary less than as many independent ones (the cluster
bootstrap; Davison and Hinkley, Bootstrap Methods and Their Application, 1997, section 3.8). Groups
with and without an anomalous image are drawn apart. All draws are computed together, from one sort
of the scores and one histogram of the map per image.
"""

from __future__ import annotations

import numpy as np

from tfgad.evaluation.pixel_metrics import AUPRO_LIMIT, area, checked_maps, region_weights

# Grid for the intervals of the pixel figures. Of the pixels that place it, each bin holds at most
# 0.05 % of all and 0.05 % of the anomalous ones, or one value alone: on 128x128 tiles the binned
# AUROC and AUPRO differ from the exact ones by less than 0.0005.
PIXEL_BINS = 2000
PIXEL_SAMPLE = 1_000_000  # pixels that place the grid

Drawn = dict[str, np.ndarray]  # figure -> float `[draws]`, that of each draw


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


def drawn_ranking(labels: np.ndarray, scores: np.ndarray, draws: np.ndarray) -> Drawn:
    """Returns the figures of `metrics.image_metrics`; none if only one class occurs.

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
    anomalous = found[:, -1:]
    called = np.maximum(found + false_alarms, 1)  # 0 only where found is 0 too
    gained = np.diff(found, axis=-1, prepend=0)
    return {
        "image_auroc": area(_curve(false_alarms), _curve(found)),
        "image_ap": _ratio(np.sum(gained * found / called, axis=-1), anomalous[:, 0]),
        "image_f1_max": np.max(2 * found / (called + anomalous), axis=-1),
    }


def drawn_pixels(
    masks: np.ndarray, maps: np.ndarray, draws: np.ndarray, ignored: np.ndarray | None = None
) -> Drawn:
    """Returns `pixel_auroc` and `pixel_aupro`, from a histogram per image.

    There is neither if no pixel, or every pixel, is anomalous.

    Args:
        masks: bool `[N, H, W]`.
        maps: float `[N, H, W]`.
        draws: `[draws, N]`, of `draw_images`.
        ignored: bool `[H, W]`, pixels that count as neither, marked or not. None if all count.
    """
    masks, maps = checked_maps(masks, maps, ignored)
    maps = maps if np.issubdtype(maps.dtype, np.floating) else maps.astype(np.float64)
    kept = True if ignored is None else ~ignored
    if not masks.any() or (masks == kept).all():
        return {}
    edges = np.unique(np.concatenate([_edges(maps.ravel()), _edges(maps[masks])]))
    normal, anomalous, overlap = np.zeros((3, len(maps), edges.size + 1), np.float32)
    for i, (mask, values) in enumerate(zip(masks, maps, strict=True)):
        bins = edges.size - np.searchsorted(edges, values, "right")  # the most anomalous first
        weights = region_weights(mask[None])
        for counts, cells, of_cells in (
            (normal, bins[~mask & kept], None),
            (anomalous, bins[mask], None),
            (overlap, bins[mask], weights),
        ):
            counts[i] = np.bincount(cells, of_cells, minlength=edges.size + 1)
    false_alarms, found, regions = (
        _curve(np.cumsum(draws @ histograms, axis=-1, dtype=np.float64))
        for histograms in (normal, anomalous, overlap)
    )
    return {
        "pixel_auroc": area(false_alarms, found),
        "pixel_aupro": area(false_alarms, regions, AUPRO_LIMIT),
    }


def _edges(values: np.ndarray) -> np.ndarray:
    """Returns the quantiles of map values; one that many pixels have gets a bin of its own."""
    sample = values[:: max(1, values.size // PIXEL_SAMPLE)]
    quantiles = np.quantile(sample, np.linspace(0, 1, PIXEL_BINS + 1)[1:-1]).astype(values.dtype)
    repeated = quantiles[1:][np.diff(quantiles) == 0]
    with np.errstate(over="ignore"):  # the largest number is followed by infinity
        return np.concatenate([quantiles, np.nextafter(repeated, np.inf, dtype=values.dtype)])


def drawn_alarms(labels: np.ndarray, alarm: np.ndarray, draws: np.ndarray) -> Drawn:
    """Returns `false_positive_rate` and `recall` at the threshold, of the classes that occur.

    Args:
        labels: bool `[N]`.
        alarm: bool `[N]`, of the images that are called anomalous.
        draws: `[draws, N]`, of `draw_images`.
    """
    return {
        key: _ratio(
            draws[:, members] @ alarm[members].astype(np.float32), draws[:, members].sum(axis=-1)
        )
        for key, members in (("false_positive_rate", ~labels), ("recall", labels))
        if members.any()
    }


def interval(values: np.ndarray) -> list[float] | None:
    """Returns the 2.5 % and 97.5 % quantiles of the draws; None if a draw does not define it.

    Args:
        values: float `[draws]`, a figure of each draw.
    """
    if not values.size or not np.all(np.isfinite(values)):
        return None
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def _curve(counts: np.ndarray) -> np.ndarray:
    """Returns counts as shares of the last, behind the 0 where nothing is called anomalous.

    Args:
        counts: `[draws, T]`, rising.
    """
    return np.pad(_ratio(counts, counts[:, -1:]), ((0, 0), (1, 0)))


def _ratio(part: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns a ratio, NaN where a draw has nothing to divide by: there is no interval then."""
    with np.errstate(invalid="ignore"):
        return part / of
