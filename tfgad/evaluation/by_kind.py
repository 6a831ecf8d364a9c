"""Figures of each kind of anomaly, for images and for tiles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tfgad.evaluation.metrics import image_metrics
from tfgad.evaluation.units import Units
from tfgad.scores.verdicts import GOOD

# Figure of a kind -> its name in tables.
KIND_FIGURES = {
    "images": "images",
    "image_auroc": "image AUROC",
    "image_recall": "images found",
    "tiles": "tiles",
    "tile_auroc": "tile AUROC",
    "tile_recall": "tiles found",
}


def by_kind(counted: Iterable[Units], threshold: float) -> dict[str, dict[str, Any]]:
    """Returns for each kind how many there are, and how well they are found.

    Args:
        counted: the images of a test set, its tiles, or both.
        threshold: a score.

    Returns:
        Kind -> figures, each named for what it counts: `images`, their number; `image_auroc`,
        against all good images (None if there are none); `image_recall`, the share that is called
        anomalous at the threshold. Of tiles `tiles`, `tile_auroc` and `tile_recall`.
    """
    figures: dict[str, dict[str, Any]] = {}
    for units in counted:
        alarms, good = units.alarms(threshold), ~units.labels
        for kind in sorted(set(units.kinds) - {GOOD}):
            of_kind = units.kinds == kind
            both = of_kind | good
            auroc = image_metrics(of_kind[both], units.scores[both])["image_auroc"]
            figures.setdefault(str(kind), {}).update(
                {
                    f"{units.name}s": int(of_kind.sum()),
                    f"{units.name}_auroc": auroc,
                    f"{units.name}_recall": float(alarms[of_kind].mean()),
                }
            )
    return figures
