"""How well scores and maps tell anomalies from normal images, with bootstrap intervals.

A score or map value is higher where it is more anomalous; only its order counts. An image is
called anomalous when its score is strictly above the threshold. A figure that the test set does
not define (one class only, no masks) is None, which JSON can hold, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from tfgad.data.anomaly_data import IMAGE

# Figure of `evaluate` -> its name in tables: short, for terminals of 80 columns.
NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1 max",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "AUPRO to 0.3",
    "false_positive_rate": "false alarms",
    "recall": "defects found",
}

# Figure of `segmentation` -> its name in tables.
SEGMENTATION_NAMES = {
    "iou": "IoU",
    "mean_iou": "mean IoU",
    "pixel_precision": "pixel precision",
    "pixel_recall": "pixel recall",
    "f_measure": "F-measure",
}

# Every figure of an evaluation of images -> its name in tables.
ALL_NAMES = {**NAMES, **SEGMENTATION_NAMES, "iou_at_threshold": "IoU at the threshold"}


def names_of(unit: str) -> dict[str, str]:
    """Returns every figure's name in tables where `unit`, `"image"` or `"tile"`, was counted."""
    if unit == IMAGE:
        return ALL_NAMES
    of_alarms = {"false_positive_rate": f"{unit} FPR", "recall": f"{unit} recall"}
    return {key: name.replace(IMAGE, unit) for key, name in ALL_NAMES.items()} | of_alarms


AUPRO_LIMIT = 0.3  # Bergmann et al., MVTec AD (CVPR 2019): false-positive rates above are useless.

# The published MVTec AD evaluation counts diagonal neighbours as one region.
EIGHT_NEIGHBOURS = np.ones((3, 3), int)

# Grid for the intervals of the pixel figures. Each bin holds 0.05 % of the pixels: on 128x128 tiles
# the binned AUROC and AUPRO differ from the exact ones by less than 0.0005.
PIXEL_BINS = 2000
PIXEL_SAMPLE = 1_000_000  # pixels that place the grid

CHUNK = 2**22  # pixels that are looked at together, beside a test set's maps and masks: 100 MB


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """Returns how well the scores order the images.

    Args:
        labels: int `[N]`, 0 normal, 1 anomalous.
        scores: float `[N]`.

    Returns:
        `image_auroc`, `image_ap` (average precision) and `image_f1_max` (the best F1 of any
        threshold), each in [0, 1]; None if only one class occurs.

    Raises:
        ValueError: scores that are not finite, or another number of them than of labels.
    """
    labels, scores = _checked(labels, scores)
    if np.unique(labels).size < 2:
        return dict.fromkeys(("image_auroc", "image_ap", "image_f1_max"))
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return {
        "image_auroc": float(sklearn_metrics.roc_auc_score(labels, scores)),
        "image_ap": float(sklearn_metrics.average_precision_score(labels, scores)),
        "image_f1_max": float(f1.max()),
    }


def pixel_auroc(masks: np.ndarray, maps: np.ndarray) -> float | None:
    """Returns the area under the ROC of all pixels; None if only one class occurs.

    Args:
        masks: `[N, H, W]` or `[N, H, W, 1]`, non-zero on the anomaly.
        maps: float `[N, H, W]`.

    Raises:
        ValueError: values that are not finite, or shapes that do not match.
    """
    masks, maps = _checked_maps(masks, maps)
    return _pixel_area(masks, maps, np.ones(np.count_nonzero(masks)), limit=1.0)


def pixel_aupro(masks: np.ndarray, maps: np.ndarray, limit: float = AUPRO_LIMIT) -> float | None:
    """Returns the area under the per-region-overlap curve, exact, divided by the limit.

    The overlap of a threshold is the part of each anomalous region above it, averaged over the
    regions, so that a small defect counts as much as a large one (Bergmann et al., MVTec AD, CVPR
    2019 and IJCV 2021). It is the recall of pixels weighted with 1 / size of their region.

    Args:
        masks: `[N, H, W]` or `[N, H, W, 1]`, non-zero on the anomaly.
        maps: float `[N, H, W]`.
        limit: the false-positive rate of pixels up to which the curve counts, in (0, 1].

    Returns:
        The area in [0, 1]; None if no pixel, or every pixel, is anomalous.

    Raises:
        ValueError: values that are not finite, or shapes that do not match.
    """
    masks, maps = _checked_maps(masks, maps)
    return _pixel_area(masks, maps, _region_weights(masks), limit)


def segmentation(masks: np.ndarray, marked: np.ndarray) -> dict[str, float | None]:
    """Returns how well marked pixels are those of the defects, over all images together.

    Args:
        masks: 1 on defects, `[N, H, W]` or `[N, H, W, 1]`.
        marked: whether a pixel is called defective, of as many pixels.

    Returns:
        `iou`, common over joint area of the defects; `mean_iou`, its mean with that of the
        background; `pixel_precision`, `pixel_recall` and their harmonic mean `f_measure`. None
        where nothing is defective or, for the precision, where nothing is marked.
    """
    true, marked = np.asarray(masks, bool).ravel(), np.asarray(marked, bool).ravel()
    hits = int(np.count_nonzero(true & marked))
    false, missed = int(np.count_nonzero(marked)) - hits, int(np.count_nonzero(true)) - hits
    none = len(true) - hits - false - missed
    if hits + missed == 0:
        return dict.fromkeys(SEGMENTATION_NAMES)
    iou = hits / (hits + false + missed)
    return {
        "iou": iou,
        "mean_iou": (iou + none / max(none + false + missed, 1)) / 2,
        "pixel_precision": hits / (hits + false) if hits + false else None,
        "pixel_recall": hits / (hits + missed),
        "f_measure": 2 * hits / (2 * hits + false + missed),
    }


def at_threshold(
    labels: np.ndarray, scores: np.ndarray, threshold: float, outside: np.ndarray | None = None
) -> dict[str, float | int | None]:
    """Returns the confusion of calling every score strictly above the threshold anomalous.

    Args:
        labels: int `[N]`, 0 normal, 1 anomalous.
        scores: float `[N]`.
        threshold: a score.
        outside: bool `[N]`, of images that are called anomalous whatever their score.

    Returns:
        `false_positive_rate` and `recall` (None without normal or without anomalous images),
        and the counts `true_positives`, `false_positives`, `true_negatives`, `false_negatives`.

    Raises:
        ValueError: scores that are not finite, or another number of them than of labels.
    """
    labels, scores = _checked(labels, scores)
    alarm = scores > threshold if outside is None else (scores > threshold) | outside
    counts = {
        "true_positives": int(np.sum(alarm & labels)),
        "false_positives": int(np.sum(alarm & ~labels)),
        "true_negatives": int(np.sum(~alarm & ~labels)),
        "false_negatives": int(np.sum(~alarm & labels)),
    }
    return {
        "false_positive_rate": float(alarm[~labels].mean()) if np.any(~labels) else None,
        "recall": float(alarm[labels].mean()) if np.any(labels) else None,
        **counts,
    }


def evaluate(
    labels: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray | None = None,
    maps: np.ndarray | None = None,
    threshold: float | None = None,
    *,
    masked: np.ndarray | None = None,
    images_of: np.ndarray | None = None,
    outside: np.ndarray | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float | list[float] | None]:
    """Returns every figure of a test set with its 95 % bootstrap interval, ready for JSON.

    A bootstrap draw takes as many normal and as many anomalous images as there are, with
    replacement; the pixel figures follow the same drawn images. Their intervals come from maps
    binned once into 2,000 quantiles, one histogram an image; the figures themselves are exact.

    Args:
        labels: int `[N]`, 0 normal, 1 anomalous.
        scores: float `[N]`.
        masks: `[N, H, W]` or `[N, H, W, 1]`, non-zero on the anomaly; None without ground truth.
        maps: float `[N, H, W]`; None if the method draws none.
        threshold: the calibrated score; None if there is none.
        masked: bool `[N]`, of which the mask is known; the pixel figures are of these. All if not
            given.
        images_of: int `[N]`, from 0 up, the image that each is a tile of. Images are then
            counted, see `by_image`, and drawn with all of their tiles.
        outside: bool `[N]`, which are called anomalous whatever their score, as those that are
            unlike any good image. It counts for the figures at the threshold; none if not given.
        bootstrap: draws; 0 leaves every interval None.
        seed: of the draws.

    Returns:
        `image_auroc`, `image_ap`, `image_f1_max`, `pixel_auroc`, `pixel_aupro`, `threshold`,
        `false_positive_rate`, `recall`, and `<key>_ci` `[low, high]` beside each. A figure that is
        not defined is None, and so is its interval. `threshold_ci` is always None: the threshold is
        given, not estimated from these images.

    Raises:
        ValueError: scores or maps that are not finite, or shapes that do not match.
    """
    labels, scores = _checked(labels, scores)
    count = len(scores)
    masked = np.ones(count, bool) if masked is None else np.asarray(masked, bool)
    images_of = np.arange(count) if images_of is None else images_of
    outside = np.zeros(count, bool) if outside is None else np.asarray(outside, bool)
    _, outside = by_image(labels, outside, images_of)
    labels, scores = by_image(labels, scores, images_of)
    draws = of_pixels = _draws(labels, bootstrap, np.random.default_rng(seed))
    figures = image_metrics(labels, scores)
    figures |= {"pixel_auroc": None, "pixel_aupro": None}
    intervals = _image_intervals(labels, scores, draws)
    if masks is not None and maps is not None:
        if len(maps) != count:
            raise ValueError(f"{count} scores but {len(maps)} maps")
        if not masked.all():  # else a draw might hold no defect with a mask
            masks, maps = np.asarray(masks)[masked], np.asarray(maps)[masked]
            drawn, images_of = np.unique(images_of[masked], return_inverse=True)
            of_pixels = _draws(labels[drawn], bootstrap, np.random.default_rng(seed))
        figures["pixel_auroc"] = pixel_auroc(masks, maps)
        figures["pixel_aupro"] = pixel_aupro(masks, maps)
        intervals |= _pixel_intervals(*_checked_maps(masks, maps), of_pixels[:, images_of])
    figures |= {"threshold": threshold, "false_positive_rate": None, "recall": None}
    if threshold is not None:
        confusion = at_threshold(labels, scores, threshold, outside)
        figures |= {
            "threshold": float(threshold),
            "false_positive_rate": confusion["false_positive_rate"],
            "recall": confusion["recall"],
        }
        intervals |= _alarm_intervals(labels, (scores > threshold) | outside, draws)
    return figures | {
        f"{key}_ci": None if value is None else intervals.get(key) for key, value in figures.items()
    }


def by_image(
    labels: np.ndarray, scores: np.ndarray, images_of: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels and scores of images, each the largest of its tiles.

    Args:
        labels: `[N]`, 0 normal, 1 anomalous, of tiles.
        scores: float `[N]`.
        images_of: int `[N]`, the number of each tile's image, from 0 up, none left out; None if
            they are images already.

    Returns:
        Both `[M]`, for M images.
    """
    if images_of is None:
        return labels, scores
    order = np.argsort(images_of, kind="stable")
    starts = np.flatnonzero(np.diff(images_of[order], prepend=-1))
    return np.maximum.reduceat(labels[order], starts), np.maximum.reduceat(scores[order], starts)


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels as bool and scores as float64, both `[N]`."""
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be [N]")
    _refuse_not_finite("scores", scores)
    return labels, scores


def _checked_maps(masks: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns masks as bool, and maps, both `[N, H, W]`."""
    masks, maps = np.asarray(masks) != 0, np.asarray(maps)
    if masks.ndim == 4 and masks.shape[-1] == 1:
        masks = masks[..., 0]
    if maps.ndim != 3 or masks.shape != maps.shape:
        raise ValueError(f"masks {masks.shape} and maps {maps.shape} must both be [N, H, W]")
    _refuse_not_finite("map values", maps)
    return masks, maps


def _refuse_not_finite(name: str, values: np.ndarray) -> None:
    bad = sum(int(np.count_nonzero(~np.isfinite(values[part]))) for part in _parts(values))
    if bad:
        raise ValueError(f"{bad} of {values.size} {name} are NaN or infinite")


def _region_weights(masks: np.ndarray) -> np.ndarray:
    """Returns 1 / size of its region for every anomalous pixel, in the order of `maps[masks]`."""
    # Connect within an image only: the structure's first and last planes are empty.
    structure = np.zeros((3, 3, 3), int)
    structure[1] = EIGHT_NEIGHBOURS
    weights = []
    for part in _parts(masks):
        regions, _ = ndimage.label(masks[part], structure)
        region = regions[masks[part]]
        weights.append(1.0 / np.bincount(region)[region])
    return np.concatenate(weights)


def _parts(values: np.ndarray) -> Iterator[slice]:
    """Yields slices along the first axis that have `CHUNK` values at most, or one row each."""
    step = max(1, CHUNK // max(1, values[:1].size))
    for start in range(0, len(values), step):
        yield slice(start, start + step)


def _pixel_area(
    masks: np.ndarray, maps: np.ndarray, weights: np.ndarray, limit: float
) -> float | None:
    """Returns the area under the ROC of normal against weighted anomalous pixels.

    The curve rises at values of anomalous pixels only, and those are few: sorting the others, some
    images' at a time, and looking these up is exact, and 20 times as fast as
    `sklearn.metrics.roc_curve` (20 million pixels: 0.2 s against 4.9).
    """
    anomalous = maps[masks]
    normals = masks.size - anomalous.size
    if not normals or not anomalous.size:
        return None
    values, place = np.unique(anomalous, return_inverse=True)
    hits = np.cumsum(np.bincount(place, weights)[::-1])
    # Two points a value: just above it, and at it. A tie becomes a straight line between them.
    above, reached = np.zeros((2, values.size), np.int64)
    for part in _parts(maps):
        normal = np.sort(maps[part][~masks[part]])
        above += (normal.size - np.searchsorted(normal, values, "right"))[::-1]
        reached += (normal.size - np.searchsorted(normal, values, "left"))[::-1]
    false_alarms = np.stack([above, reached], axis=-1).ravel()
    found = np.stack([np.append(0, hits[:-1]), hits], axis=-1).ravel()
    # Both ends of the curve: nothing is called anomalous, everything is.
    false_alarms = np.concatenate([[0], false_alarms, [normals]])
    found = np.concatenate([[0], found, hits[-1:]])
    return float(_area(false_alarms / normals, found / hits[-1], limit))


def _area(x: np.ndarray, y: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Returns the trapezoidal area under y(x) for x up to the limit, divided by the limit.

    Args:
        x: `[..., T]`, rising along the last axis from 0 to 1.
        y: `[..., T]`.
        limit: in (0, 1]; the segment that crosses it is cut there.
    """
    width = np.diff(x, axis=-1)
    kept = np.diff(np.minimum(x, limit), axis=-1)
    part = np.divide(kept, width, out=np.zeros_like(width), where=width > 0)
    return np.sum(kept * (y[..., :-1] + np.diff(y, axis=-1) * part / 2), axis=-1) / limit


def _draws(labels: np.ndarray, bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Returns how often each draw takes each image: float32 `[bootstrap, N]`."""
    draws = np.zeros((bootstrap, labels.size), np.float32)
    for members in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        if members.size:
            uniform = np.full(members.size, 1 / members.size)
            draws[:, members] = rng.multinomial(members.size, uniform, size=bootstrap)
    return draws


def _interval(values: np.ndarray) -> list[float] | None:
    """Returns the 2.5 % and 97.5 % quantiles of the draws; None if a draw does not define it."""
    if not values.size or not np.all(np.isfinite(values)):
        return None
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def _image_intervals(labels: np.ndarray, scores: np.ndarray, draws: np.ndarray) -> dict:
    """Returns the intervals of `image_metrics`: one sort serves every draw."""
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
    curve = [_from_origin(false_alarms / normal), _from_origin(found / anomalous)]
    return {
        "image_auroc": _interval(_area(*curve)),
        "image_ap": _interval(np.sum(gained * found / called, axis=-1) / anomalous[:, 0]),
        "image_f1_max": _interval(np.max(2 * found / (called + anomalous), axis=-1)),
    }


def _pixel_intervals(masks: np.ndarray, maps: np.ndarray, draws: np.ndarray) -> dict:
    """Returns the intervals of `pixel_auroc` and `pixel_aupro` from a histogram of each image."""
    if not masks.any() or masks.all():
        return {}
    sample = maps.ravel()[:: max(1, maps.size // PIXEL_SAMPLE)]
    edges = np.unique(np.quantile(sample, np.linspace(0, 1, PIXEL_BINS + 1)[1:-1]))
    edges = edges.astype(maps.dtype)
    normal, anomalous, overlap = np.zeros((3, len(maps), edges.size + 1), np.float32)
    for i, (mask, values) in enumerate(zip(masks, maps, strict=True)):
        bins = edges.size - np.searchsorted(edges, values, "right")  # the most anomalous first
        weights = _region_weights(mask[None])
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
        "pixel_auroc": _interval(_area(false_alarms, curve(anomalous))),
        "pixel_aupro": _interval(_area(false_alarms, curve(overlap), AUPRO_LIMIT)),
    }


def _alarm_intervals(labels: np.ndarray, alarm: np.ndarray, draws: np.ndarray) -> dict:
    """Returns the intervals of the false-positive rate and the recall at the threshold."""
    return {
        key: _interval(draws[:, members] @ alarm[members].astype(np.float32) / members.sum())
        for key, members in (("false_positive_rate", ~labels), ("recall", labels))
        if members.any()
    }


def _from_origin(curve: np.ndarray) -> np.ndarray:
    """Returns the curve with the point 0 before it, where nothing is called anomalous."""
    return np.concatenate([np.zeros_like(curve[:, :1]), curve], axis=-1)
