"""What to try where a trivial detector does as well as the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfgad import methods
from tfgad.core.settings import STEPS
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.options import Size
from tfgad.training import Run, choose_method

MOST = 4  # pieces of advice in a line


def what_to_try(
    run: Run,
    images: AnomalyData,
    baselines: Mapping[str, Mapping[str, Any]],
    best: str,
    masks: np.ndarray | None,
) -> str:
    """Returns what fits a run that is not better than a trivial detector, as one line.

    Args:
        run: the run.
        images: the data set that it was evaluated on.
        baselines: trivial detector -> its figures.
        best: the best of them.
        masks: `[N, H, W, 1]` of the test images; None without ground truth.
    """
    advice = [
        *_of_method(run, images),
        *_of_light(baselines, best),
        *_of_size(images, best, masks),
        *_of_score(run),
    ]
    return f"try {'; or '.join(advice[:MOST])}"


def _of_method(run: Run, images: AnomalyData) -> list[str]:
    """Returns advice on the method and its steps."""
    name, settings, advice = run.config["method"], run.config["settings"], []
    if name not in methods.names():
        return []  # a segmenter, which no setting of a method concerns
    default, reason = choose_method(images, settings)
    if name.partition("/")[0] != default:
        advice.append(f"{default}, the default method for {reason}")
    usual = methods.settings_of(name).as_dict()[STEPS]
    if _total(settings[STEPS]) < _total(usual):
        advice.append(f"--steps {usual}, the method's default (this run took {settings[STEPS]})")
    return advice


def _of_light(baselines: Mapping[str, Mapping[str, Any]], best: str) -> list[str]:
    """Returns advice on light, where a detector gains by subtracting each image's mean."""
    if best != "mean_deviation_levelled":
        return []
    level, own = (baselines[name]["image_auroc"] for name in ("mean_deviation", best))
    return [
        "the same light for all images (without each image's own brightness, mean deviation has "
        f"{own:.3f} instead of {level:.3f})"
    ]


def _of_size(images: AnomalyData, best: str, masks: np.ndarray | None) -> list[str]:
    """Returns advice on `size=` and `tile=`."""
    size = Size(*images.image_shape[:2])
    if not images.resized:
        return [f"size={size}, if the images show whole parts"] if best == "feature_pca" else []
    small = ""
    if masks is not None and (areas := np.count_nonzero(masks, axis=(1, 2, 3))).any():
        pixels, all_pixels = int(np.median(areas[areas > 0])), size.height * size.width
        small = f" (half of the defects cover at most {pixels} of {all_pixels} pixels)"
    larger = Size(2 * size.height, 2 * size.width)
    tile = min(size)
    return [f"size={larger}, if the files are larger{small}, or tile={tile}, if it is a texture"]


def _of_score(run: Run) -> list[str]:
    others = [each for each in run.model.score_names if each != run.model.score]
    return [f"--set score=NAME ({', '.join(others)})"] if others else []


def _total(steps: Any) -> int:
    """Returns the steps of all stages, of a number or `"600+1500"`."""
    return sum(map(int, str(steps).split("+")))
