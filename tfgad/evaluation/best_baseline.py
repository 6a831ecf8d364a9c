"""The model beside the best of the trivial detectors: is it better, and may that be chance?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from tfgad.evaluation.baselines import NAMES
from tfgad.evaluation.intervals import draw_images, drawn_ranking, interval
from tfgad.evaluation.units import Units

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"


def beside_the_best(
    units: Units, baselines: Mapping[str, np.ndarray], *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any] | None:
    """Compares the AUROC of a model with that of the best trivial detector.

    The interval of the difference is that of a paired bootstrap: both are computed of the same
    draws of groups of images, see `intervals`.

    Args:
        units: the images or tiles that are counted, with the model's scores.
        baselines: trivial detector -> its scores of them, float `[M]`.
        bootstrap: draws.
        seed: of the draws.

    Returns:
        `name` of the best trivial detector; its `image_auroc`; the `difference`, that of the model
        minus that; its 95 % interval `difference_ci`, None if a draw has one class only; and the
        `verdict`: whether the model is `"better"` or `"worse"`, or that is `"undecided"`, for the
        interval holds 0. None if only one class occurs.
    """
    if not baselines or np.unique(units.labels).size < 2:
        return None
    aurocs = {
        name: float(roc_auc_score(units.labels, scores)) for name, scores in baselines.items()
    }
    best = max(aurocs, key=lambda name: aurocs[name])
    difference = float(roc_auc_score(units.labels, units.scores)) - aurocs[best]
    draws = draw_images(units.labels, bootstrap, np.random.default_rng(seed), units.groups)
    own, other = (
        drawn_ranking(units.labels, scores, draws)["image_auroc"]
        for scores in (units.scores, baselines[best])
    )
    found = interval(own - other)
    verdict = UNDECIDED
    if found is not None and not found[0] <= 0 <= found[1]:
        verdict = BETTER if difference > 0 else WORSE
    return {
        "name": best,
        "image_auroc": aurocs[best],
        "difference": difference,
        "difference_ci": found,
        "verdict": verdict,
    }


def sentence(found: Mapping[str, Any], unit: str) -> str:
    """Returns the comparison as one line.

    Args:
        found: what `beside_the_best` returns.
        unit: `"image"` or `"tile"`, what the AUROC counts.
    """
    gap, rival, ends = found["difference"], found["image_auroc"], found["difference_ci"]
    start = "better than" if gap > 0 else "worse than" if gap < 0 else "no better than"
    line = f"{start} {NAMES[found['name']]}: {unit} AUROC {rival + gap:.3f} against {rival:.3f}"
    if ends is None:
        return f"{line}; the test images are too few to tell whether that is chance"
    chance = ", which may be chance" if found["verdict"] == UNDECIDED else ""
    return f"{line} (difference {ends[0]:+.3f} to {ends[1]:+.3f}{chance})"
