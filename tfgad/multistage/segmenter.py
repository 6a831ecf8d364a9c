"""Stage 3 of the Multistage GAN: DeepLab V3 (Chen et al. 2017) segments defects.

The network gives logits p(x) per pixel. It minimizes the cross-entropy in which a defective pixel
counts 9 times and any other pixel once (Liu et al. 2020),

    L = -E[9 m log σ(p) + (1 - m) log(1 - σ(p))]      m the mask of the defects

which raises the logits by log 9. The anomaly map is p - log 9, the log-odds that a pixel is
defective, slightly smoothed; the anomaly score is its largest value.

Read beside it: `networks/deeplab.py`, the network; `core/losses.py`.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfgad.core import losses
from tfgad.core.detector import Detector
from tfgad.data import tiling
from tfgad.data.warping import gaussian_blur
from tfgad.errors import UsageError
from tfgad.multistage.segmenter_config import SegmenterConfig
from tfgad.networks import deeplab
from tfgad.networks.layers import Adam
from tfgad.networks.pretrained import Weights

DEFECT = "defect"  # name of the error and of the score
DEFECT_WEIGHT = 9.0  # of a defective pixel in the loss (Liu et al. 2020)
EVEN_ODDS = 0.0  # log-odds of a pixel that is as likely defective as not
SMOOTH_SIGMA = 1.0  # pixels, of the map: a single pixel is no defect


@keras.saving.register_keras_serializable("tfgad")
class Segmenter(Detector):
    """DeepLab V3 as a detector that is trained on defects.

    Its threshold is set on good images, as that of every detector. Pixels are marked at even odds
    (`pixel_threshold`), as DeepLab's are by the likelier class: the threshold depends on the few
    good images with the largest scores, and differs by several nats between trainings that mark
    nearly the same pixels at even odds (`examples/benchmarks/multistage.py` reports both).

    Args:
        config: hyper-parameters.
        image_shape: `(H, W, C)` of the training images, and of the windows on larger ones.
        network: images `[B, h, w, C]` to logits `[B, h, w, 1]` (`tfgad.networks.deeplab`).
        **kwargs: `seed`, `stride`, `tile`; see `Detector`.
    """

    Config = SegmenterConfig
    scores = {DEFECT: (DEFECT,)}
    labelled = True
    pixel_threshold = EVEN_ODDS

    def __init__(
        self,
        config: SegmenterConfig,
        image_shape: tuple[int, int, int],
        *,
        network: keras.Model,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, image_shape, **kwargs)
        self.network = network

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """Adam at a constant rate."""
        return {"network": Adam(self.config.learning_rate)}

    def train_step(self, batch: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update on images `[B, h, w, C]` in [-1, 1] and masks uint8 `[B, h, w, 1]`."""
        images, masks = batch
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            loss = losses.weighted_cross_entropy(masks, logits, DEFECT_WEIGHT)
        self.minimize("network", loss, tape)
        return {"loss": loss, "iou": batch_iou(masks, logits)}

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The log-odds of each pixel."""
        return {DEFECT: self.network(images, training=False)[..., 0] - math.log(DEFECT_WEIGHT)}

    def scored_by(self, score: str) -> DefectScore:
        """Returns the only score, see `DefectScore`."""
        return DefectScore()

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments from a file, which holds the network."""
        config = super().arguments(config)
        return {**config, "network": config["networks"]["network"]}


class DefectScore:
    """The largest log-odds of a defect; the map is smoothed by `SMOOTH_SIGMA`."""

    is_peak = True

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the log-odds of windows, `[N, h, w, 1]`."""
        return errors[DEFECT][..., None]

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `score` `[B]` and `map` `[B, H, W]` of log-odds `[B, H, W, 1]`."""
        anomaly_map = gaussian_blur(errors, SMOOTH_SIGMA)[..., 0]
        return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}


def batch_iou(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns the intersection over union of masks and marked pixels in a whole batch. Scalar."""
    true, marked = tf.cast(masks, tf.bool), logits > 0
    intersection = tf.reduce_sum(tf.cast(true & marked, tf.float32))
    union = tf.reduce_sum(tf.cast(true | marked, tf.float32))
    return tf.math.divide_no_nan(intersection, union)


def build(
    config: SegmenterConfig,
    image_shape: tuple[int, int, int],
    seed: int = 0,
    weights: str | None = None,
) -> tuple[Segmenter, Weights | None]:
    """Makes a compiled `Segmenter`.

    Args:
        config: hyper-parameters.
        image_shape: `(H, W, C)` of the training images, and of the windows on larger ones.
        seed: of weights and training.
        weights: of ResNet-50, see `tfgad.networks.pretrained`; or of Lite0, a file or `random`.

    Returns:
        The model, and its backbone's weights; None for the small backbone, whose weights are
        random.

    Raises:
        UsageError: weights for the small backbone, none for Lite0, or weights that cannot be had.
    """
    keras.utils.set_random_seed(seed)
    source = None
    if config.backbone == "resnet50":
        network, source = deeplab.resnet50(image_shape, weights=weights)
    elif config.backbone == "lite0":
        network, source = deeplab.lite0(image_shape, width=config.width, weights=weights)
    elif weights is None:
        network = deeplab.small(image_shape, width=config.width)
    else:
        hint = "give --set backbone=lite0 or backbone=resnet50 too"
        raise UsageError("backbone weights", weights, "are not of the small backbone", hint)
    stride = tiling.half_stride(math.gcd(*image_shape[:2]))
    model = Segmenter(config, image_shape, network=network, stride=stride, seed=seed)
    model.compile()
    return model, source
