"""Metrics of scores and maps on a labelled test set, with bootstrap intervals.

A score or map value is higher where it is more anomalous; only its order counts. An image is
called anomalous when its score is strictly above the threshold. A figure that the test set does
not define (one class only, no masks) is None, which JSON can hold, never NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from tfgad.data.anomaly_data import IMAGE
from tfgad.evaluation.intervals import (
    draw_images,
    drawn_alarms,
    drawn_pixels,
    drawn_ranking,
    interval,
)
from tfgad.evaluation.pixel_metrics import pixel_aupro, pixel_auroc, refuse_not_finite

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


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """Returns the metrics of the order of the scores.

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


def segmentation(masks: np.ndarray, marked: np.ndarray) -> dict[str, float | None]:
    """Returns the metrics of marked pixels against defective ones, over all images together.

    Args:
        masks: 1 on defects, `[N, H, W]` or `[N, H, W, 1]`.
        marked: whether a pixel is called defective, of as many pixels.

    Returns:
        `iou`, common over joint area of the defects; `mean_iou`, its mean with that of the
        background, if a pixel is or is called background; `pixel_precision`, `pixel_recall` and
        their harmonic mean `f_measure`. None where nothing is defective or, for the precision,
        where nothing is marked.
    """
    true, marked = np.asarray(masks, bool).ravel(), np.asarray(marked, bool).ravel()
    hits = int(np.count_nonzero(true & marked))
    false, missed = int(np.count_nonzero(marked)) - hits, int(np.count_nonzero(true)) - hits
    none = len(true) - hits - false - missed
    if hits + missed == 0:
        return dict.fromkeys(SEGMENTATION_NAMES)
    iou = hits / (hits + false + missed)
    background = none + false + missed
    return {
        "iou": iou,
        "mean_iou": (iou + none / background) / 2 if background else iou,
        "pixel_precision": hits / (hits + false) if hits + false else None,
        "pixel_recall": hits / (hits + missed),
        "f_measure": 2 * hits / (2 * hits + false + missed),
    }


def at_threshold(
    labels: np.ndarray, scores: np.ndarray, threshold: float, outside: np.ndarray | None = None
) -> dict[str, float | int | None]:
    """Returns the confusion matrix at a threshold: scores strictly above it are called anomalous.

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
    groups: np.ndarray | None = None,
    outside: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns every figure of a test set with its 95 % bootstrap interval, ready for JSON.

    A bootstrap draw takes as many groups of images as there are, with replacement, see
    `intervals`; the pixel figures follow the same drawn images. Their intervals come from maps
    binned once into 2,000 quantiles, one histogram per image; the figures themselves are exact.

    Args:
        labels: int `[N]`, 0 normal, 1 anomalous.
        scores: float `[N]`.
        masks: `[N, H, W]` or `[N, H, W, 1]`, non-zero on the anomaly; None without ground truth.
        maps: float `[N, H, W]`; None if there are none.
        threshold: the calibrated score; None if there is none.
        masked: bool `[N]`, whether the mask of each is known; the pixel figures are of those whose
            mask is. All if not given.
        images_of: int `[N]`, from 0 up, the image that each is a tile of. Images are then
            counted, see `by_image`, and drawn with all of their tiles.
        groups: int `[N]`, from 0 up, the group of each, such as the strip that a tile was cut from
            or the part that several images show. Groups are drawn whole. If not given, each is a
            group of its own. The tiles of an image are in one group.
        outside: bool `[N]`, whether each is called anomalous whatever its score, because it is
            unlike any good image. It counts for the figures at the threshold; none if not given.
        ignored: bool `[H, W]`, pixels that the pixel figures leave out, marked or not.
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
    groups = np.arange(count) if groups is None else np.asarray(groups)
    _, groups = by_image(labels, groups, images_of)
    outside = np.zeros(count, bool) if outside is None else np.asarray(outside, bool)
    _, outside = by_image(labels, outside, images_of)
    labels, scores = by_image(labels, scores, images_of)
    draws = of_pixels = draw_images(labels, bootstrap, np.random.default_rng(seed), groups)
    figures = image_metrics(labels, scores)
    figures |= {"pixel_auroc": None, "pixel_aupro": None}
    drawn = drawn_ranking(labels, scores, draws)
    if masks is not None and maps is not None and masked.any():
        if len(maps) != count:
            raise ValueError(f"{count} scores but {len(maps)} maps")
        if not masked.all():  # else a draw might hold no defect with a mask
            masks, maps = np.asarray(masks)[masked], np.asarray(maps)[masked]
            kept, images_of = np.unique(images_of[masked], return_inverse=True)
            _, of_kept = np.unique(groups[kept], return_inverse=True)
            of_pixels = draw_images(labels[kept], bootstrap, np.random.default_rng(seed), of_kept)
        figures["pixel_auroc"] = pixel_auroc(masks, maps, ignored)
        figures["pixel_aupro"] = pixel_aupro(masks, maps, ignored=ignored)
        drawn |= drawn_pixels(masks, maps, of_pixels[:, images_of], ignored)
    figures |= {"threshold": threshold, "false_positive_rate": None, "recall": None}
    if threshold is not None:
        confusion = at_threshold(labels, scores, threshold, outside)
        figures |= {
            "threshold": float(threshold),
            "false_positive_rate": confusion["false_positive_rate"],
            "recall": confusion["recall"],
        }
        drawn |= drawn_alarms(labels, (scores > threshold) | outside, draws)
    return figures | {
        f"{key}_ci": interval(drawn[key]) if key in drawn else None for key in figures
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
    refuse_not_finite("scores", scores)
    return labels, scores
