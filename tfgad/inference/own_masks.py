"""Images with a mask file of their own: what is white in it is ignored in this image alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.data.ignored import leave_out
from tfgad.data.ignored_files import at_size, read_mask, same_aspect
from tfgad.data.ignored_own import mirrored_into, with_margin
from tfgad.data.image_files import ImageError
from tfgad.data.pixels import LETTERBOX, resize, without_padding
from tfgad.files import printable
from tfgad.inference.predictor import Predictor, map_threshold, resize_map


def read_own(
    predictor: Predictor, image: Path, masks: Sequence[Path], shape: Sequence[int]
) -> np.ndarray:
    """Returns what the masks of an image ignore in it: bool `[H, W]`.

    Args:
        predictor: the model that is to score the image.
        image: the file, for errors.
        masks: its mask files.
        shape: `(H, W, ...)` of the image.

    Raises:
        ImageError: a mask cannot be read or has another aspect ratio; or, with the region
            that the model ignores, none of the image is left.
    """
    ignored = np.zeros(tuple(shape[:2]), bool)
    for path in masks:
        try:
            mask = read_mask(path)
        except ImageError as error:
            raise ImageError(
                image, f"has a mask {printable(path.name)} that {error.reason}"
            ) from error
        if not same_aspect(mask.shape, shape):
            name = printable(path.name)
            raise ImageError(image, f"differs in aspect ratio from its mask {name}")
        ignored |= at_size(mask, shape)
    if _leaves_nothing(predictor, ignored):
        raise ImageError(image, "has a mask that leaves nothing of it")
    return ignored


def _as_seen(predictor: Predictor, ignored: np.ndarray) -> np.ndarray:
    """Returns ignored pixels of a file, bool `[H, W]`, where the model sees them: bool `[h, w]`."""
    if not predictor.resized:
        return ignored
    shares = ignored[..., None].astype(np.float32)
    return resize(shares, predictor.image_shape[:2], predictor.fit)[..., 0] > 0


def _leaves_nothing(predictor: Predictor, ignored: np.ndarray) -> bool:
    """Returns whether the map of an image leaves out all of it, but for a letterbox's padding."""
    left_out_of_map = with_margin(_as_seen(predictor, ignored))
    if predictor.ignored is not None:
        left_out_of_map |= predictor.ignored
    if predictor.resized and predictor.fit == LETTERBOX:
        left_out_of_map = without_padding(left_out_of_map, ignored.shape)
    return bool(left_out_of_map.all())


def predict_ignoring(
    predictor: Predictor, images: np.ndarray, ignored: np.ndarray
) -> list[dict[str, Any]]:
    """Returns the predictions of images of which each has ignored pixels of its own.

    What is ignored is filled (`tfgad.data.ignored_own`) before the model sees the image. In the map
    it has the lowest value, with a margin. The score, where it is the largest value of the map, is
    that of the pixels that are left.

    Args:
        predictor: the model.
        images: as `Predictor.predict_images` takes them, `[B, H, W, C]`.
        ignored: bool `[B, H, W]`, of `read_own`.
    """
    filled = [mirrored_into(*each) for each in zip(images, ignored, strict=True)]
    regions = [_as_seen(predictor, each) for each in ignored]
    if predictor.resized:
        form = predictor.image_shape[:2], predictor.fit
        filled = [resize(image, *form) for image in filled]
    predictions = predictor.predict_images(np.stack(filled))
    is_peak = map_threshold(predictor, images.shape[1:]) is not None
    found = zip(predictions, regions, ignored, strict=True)
    return [_without(predictor, *each, is_peak=is_peak) for each in found]


def _without(
    predictor: Predictor,
    prediction: Mapping[str, Any],
    region: np.ndarray,
    ignored: np.ndarray,
    *,
    is_peak: bool,
) -> dict[str, Any]:
    """Returns a prediction without the region, its map at the size of `ignored`."""
    anomaly_map = _left_out(prediction["map"], with_margin(region))
    score = anomaly_map.max() if is_peak else prediction["score"]
    reason = prediction.get("reason", "")
    numbers = predictor.decide(score, reason)
    if predictor.resized:
        if predictor.fit == LETTERBOX:
            anomaly_map = without_padding(anomaly_map, ignored.shape)
        anomaly_map = _left_out(resize_map(anomaly_map, *ignored.shape), ignored)
    return {**prediction, "score": score, **numbers, "map": anomaly_map}


def _left_out(anomaly_map: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Returns `leave_out` of one map `[H, W]`."""
    return leave_out(tf.constant(anomaly_map[None]), ignored)[0].numpy()
