"""Stage 3 of the Multistage GAN: a network that marks the pixels of defects."""

import math
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import losses
from tfgad.core.detector import Detector
from tfgad.data import tiling
from tfgad.errors import UsageError, nearest
from tfgad.networks import deeplab
from tfgad.networks.layers import Adam
from tfgad.scores.error_maps import gaussian_blur
from tfgad.scores.score import DEFECT

DEFECT_WEIGHT = 9.0  # of a defective pixel, a sound one having 1 (Liu et al. 2020)
EVEN_ODDS = 0.0  # of the map: a pixel is as likely defective as not
BACKBONES = ("small", "resnet50")
SMOOTH_SIGMA = 1.0  # pixels, of the map: one pixel on its own is no defect


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of a segmenter's network and its training."""

    backbone: Annotated[Literal["small", "resnet50"], Field(description="of DeepLab")] = "small"
    width: Annotated[int, Field(ge=1, description="channels of the small backbone")] = 32
    learning_rate: Annotated[float, Field(gt=0, description="of Adam")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, description="images per step")] = 16


@keras.saving.register_keras_serializable("tfgad")
class Segmenter(Detector):
    """DeepLab V3 as a detector: it is trained on images whose defects are known.

    Its map is the log-odds that a pixel is defective, its score the largest of them. The loss,
    which counts a defective pixel nine times, raises the network's logits by log 9; the map is
    without that. The threshold of images is set from good ones as that of every detector. Pixels
    are marked at even odds, as DeepLab's are by the likelier class: where the threshold lies is
    decided by the few good images with the largest scores, and differs by several nats between
    trainings that mark nearly the same at even odds (`examples/benchmarks/multistage.py` has both).

    Args:
        config: hyper-parameters.
        image_shape: `(H, W, C)` of the windows.
        network: images `[B, h, w, C]` to logits `[B, h, w, 1]`; DeepLab with the small backbone, if
            not given (`tfgad.networks.deeplab`).
        **kwargs: `seed`, `stride`, `tile`; see `Detector`.
    """

    Config = Config
    scores = {DEFECT: (DEFECT,)}
    pixel_threshold = EVEN_ODDS
    labelled = True  # by masks

    def __init__(self, config, image_shape, *, network=None, **kwargs):
        super().__init__(config, image_shape, **kwargs)
        self.network = network or deeplab.small(image_shape, width=config.width)

    def optimizers(self):
        """One Adam."""
        return {"network": Adam(self.config.learning_rate)}

    def train_step(self, batch):
        """One step on pairs of images `[B, h, w, C]` and masks uint8 `[B, h, w, 1]`."""
        images, masks = batch
        with tf.GradientTape() as tape:
            logits = self.network(images, training=True)
            loss = losses.weighted_cross_entropy(masks, logits, DEFECT_WEIGHT)
        self.minimize("network", loss, tape)
        return {"loss": loss, "iou": batch_iou(masks, logits)}

    def errors(self, images):
        """The log-odds of each pixel."""
        return {DEFECT: self.network(images, training=False)[..., 0] - math.log(DEFECT_WEIGHT)}

    def scored_by(self, score):
        """The one score that a segmenter has."""
        return LogOdds()


class LogOdds:
    """The score `defect`: the largest log-odds of a pixel, a little smoothed."""

    is_peak = True

    def window_errors(self, windows, errors):
        """Returns the log-odds, `[N, h, w, 1]`."""
        return errors[DEFECT][..., None]

    def __call__(self, images, errors):
        """Returns the smoothed log-odds and the largest of them."""
        anomaly_map = gaussian_blur(errors, SMOOTH_SIGMA)[..., 0]
        return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}


def batch_iou(masks, logits):
    """What masks and marked pixels have in common, by what they are together: of a whole batch."""
    true, marked = tf.cast(masks, tf.bool), logits > 0
    common = tf.reduce_sum(tf.cast(true & marked, tf.float32))
    either = tf.reduce_sum(tf.cast(true | marked, tf.float32))
    return tf.math.divide_no_nan(common, either)


def build(
    image_shape, *, backbone, width, rate, seed=0, weights=None
) -> tuple[Segmenter, str | None]:
    """Makes a compiled `Segmenter`.

    Args:
        image_shape: `(H, W, C)` of the images to be judged, and of the windows on larger ones.
        backbone: `small` or `resnet50`.
        width: of the small one.
        rate: of Adam.
        seed: of weights and training.
        weights: of ResNet-50; see `tfgad.networks.pretrained`.

    Returns:
        The model, and the name of its backbone's weights; None of the small one, which begins anew.

    Raises:
        UsageError: no such backbone, or weights that it has not, or that cannot be had.
    """
    if backbone not in BACKBONES:
        raise UsageError("backbone", backbone, "is not known", nearest(backbone, BACKBONES))
    keras.utils.set_random_seed(seed)
    if backbone == "small":
        if weights is not None:
            hint = "give --set backbone=resnet50 too"
            raise UsageError("backbone weights", weights, "are not of the small backbone", hint)
        network, source = deeplab.small(image_shape, width=width), None
    else:
        network, source = deeplab.resnet50(image_shape, weights=weights)
    config = Config(backbone=backbone, width=width, learning_rate=rate)
    stride = tiling.half_stride(image_shape[:2])
    model = Segmenter(config, image_shape, network=network, stride=stride, seed=seed)
    model.compile()
    return model, source
