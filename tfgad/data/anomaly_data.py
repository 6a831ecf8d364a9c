"""What every loader returns: normal images to learn from, and a test to be judged by."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class AnomalyData:
    """A data set for one-class learning.

    Attributes:
        spec: the spec that names it, such as `"weave:twill?size=128"`.
        image_shape: `(height, width, channels)` of every image; channels is 1 or 3.
        train: normal images, one at a time: float32 `[H, W, C]` in [-1, 1].
        calibration: normal images held out of training, same form; never from the test set.
        test: one dict at a time: `image` as above, `label` int32 (0 normal, 1 anomalous),
            `mask` uint8 `[H, W, 1]` (1 on the anomaly; all 0 where the set has no masks),
            `name` string (what to call it in a report).
        train_size, calibration_size, test_size: how many of each.
        has_masks: whether `mask` is ground truth, so that pixel metrics mean something.
        resized: whether whole images were resized to `image_shape`, and so a new image must be; if
            not, they are pieces at the camera's own resolution, and a new one is judged as it is.
        kinds: the names of the anomalies in the test set, where the set names them.
        skipped: files left out of it, each with its reason.
        classes: the names of the normal classes, where the set names them.
        train_labels: int32 `[train_size]`, the class of each image of `train` in order, by its
            place in `classes`; None where there are none.
    """

    spec: str
    image_shape: tuple[int, int, int]
    train: tf.data.Dataset
    calibration: tf.data.Dataset
    test: tf.data.Dataset
    train_size: int
    calibration_size: int
    test_size: int
    has_masks: bool
    resized: bool = False
    kinds: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    train_labels: np.ndarray | None = None
