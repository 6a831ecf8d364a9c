"""DRAEM (Zavrtanik et al., ICCV 2021): repair synthetic defects, and mark where they were.

Foreign textures replace parts of good images where Perlin noise is above a threshold
(`data/perlin.py`), I_a from I with mask M. An autoencoder learns to restore I from I_a, and a U-Net
to mark M, from I_a and the reconstruction I_r side by side (eq. 1 to 3):

    L_rec = λ (1 - SSIM(I, I_r)) + ‖I - I_r‖² / n      L_seg = focal loss of M, γ = 2
    L     = L_rec + L_seg

M_o is the U-Net's probability of a defect. The anomaly score is the largest value of M_o after a
mean filter (eq. 5), of 21x21 pixels in the authors' code.

`draem` has narrow networks for tiles of fabric; `draem/paper` has those of the authors' public
code. It differs from that code:

- the textures are the package's weaves, shifted in tone and contrast, not the Describable Textures
  with its list of augmentations;
- that code turns three of ten training images by up to a quarter, here none is turned; noise that
  is turned is mirrored beyond the edge, there it is 0;
- images are in [-1, 1] instead of [0, 1], which makes the squared error four times as large;
- the U-Net has one logit, which is the difference of the code's two; labels are not smoothed,
  there by 1e-5; Adam's ε is 1e-7, there 1e-8;
- neither the mean filter nor the SSIM is padded with zeros; the map is that after the filter, where
  the code takes its pixel figures before it.

Read beside it: `networks/draem.py`; `data/perlin.py`, the synthetic defects.
"""

from __future__ import annotations

from typing import Annotated, Any

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, losses, register
from tfgad.core.settings import BatchSize, Score, StepCount, Stride, Width, Window
from tfgad.data import tiling
from tfgad.data.perlin import with_perlin_defects
from tfgad.networks.draem import GRID, discriminative, reconstructive
from tfgad.networks.layers import Adam
from tfgad.scores.error_maps import pixel_errors
from tfgad.scores.score import DRAEM as DRAEM_SCORE
from tfgad.scores.score import Score as ScoreOf

MEAN_FILTER = 21  # pixels (the authors' code; the paper gives no size)


@dataclass(frozen=True)
class Config:
    """Hyper-parameters of DRAEM; `tfgad list draem` prints them."""

    window: Window = 128
    width: Annotated[Width, Field(description="channels of the autoencoder's first layer")] = 8
    unet_width: Annotated[Width, Field(description="channels of the U-Net's first layer")] = 8
    batch_size: BatchSize = 8
    steps: Annotated[StepCount, Field(description="training steps")] = 1500
    learning_rate: Annotated[
        float,
        Field(gt=0, description="of Adam; a fifth from 80 % of the steps on, and again from 90 %"),
    ] = 1e-3
    ssim_weight: Annotated[float, Field(ge=0, description="λ, of the SSIM")] = 1.0
    gamma: Annotated[float, Field(ge=0, description="γ of the focal loss")] = 2.0
    defects: Annotated[
        float, Field(gt=0, le=1, description="share of the images that have a defect")
    ] = 0.5
    score: Score = "draem"
    stride: Stride = 64


# Section 4 and the authors' code: 700 epochs. 25,000 steps are those of 286 images; a class of
# MVTec AD has 242 on average.
PAPER = Config(window=256, width=128, unet_width=64, steps=25_000, learning_rate=1e-4)


@register("draem", "repair and mark synthetic defects (Zavrtanik et al. 2021)", Config, PAPER)
class DRAEM(Detector):
    """A reconstructive and a discriminative network.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {DRAEM_SCORE: ("anomaly",)}
    terms = (("residual",),)
    takes_xla = False  # it cannot turn images or resize them bicubically

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        any_size = (None, None, image_shape[2])
        self.reconstructive = reconstructive(any_size, config.width)
        self.discriminative = discriminative(any_size, config.unet_width)

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam for both networks."""
        rate, steps = self.config.learning_rate, self.config.steps
        rates = keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps * 8 // 10, steps * 9 // 10], [rate, rate / 5, rate / 25]
        )
        return {"networks": Adam(rates)}

    def networks_of(self, role: str) -> list[keras.Model]:
        """Both."""
        return [self.reconstructive, self.discriminative]

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update on float32 `[B, h, w, C]` in [-1, 1]."""
        config = self.config
        defective, masks = with_perlin_defects(images, self.seed_of("defects"), config.defects)
        with tf.GradientTape() as tape:
            restored, logits = self.outputs(defective, training=True)
            # Of images from 0 to 2: its term of the means is not invariant to a shift.
            ssim = tf.reduce_mean(1.0 - tf.image.ssim(images + 1.0, restored + 1.0, max_val=2.0))
            square = tf.reduce_mean(losses.mean_square(images, restored))
            focal = tf.reduce_mean(losses.focal_loss(masks, logits, config.gamma))
            loss = config.ssim_weight * ssim + square + focal
        self.minimize("networks", loss, tape)
        return {"ssim": ssim, "square": square, "focal": focal}

    def outputs(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """I_r `[B, h, w, C]`, unbounded, and the logits of M_o `[B, h, w, 1]`."""
        padded = tiling.pad_to_grid(images, (GRID, GRID), GRID)
        restored = self.reconstructive(padded, training=training)
        logits = self.discriminative(tf.concat([padded, restored], -1), training=training)
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        return restored[:, :height, :width], logits[:, :height, :width]

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """I_r, cut to [-1, 1]."""
        return tf.clip_by_value(self.outputs(images, training=False)[0], -1.0, 1.0)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """M_o as `anomaly`, and the squared error of the reconstruction."""
        restored, logits = self.outputs(images, training=False)
        return {
            "anomaly": tf.sigmoid(logits)[..., 0],
            "residual": pixel_errors(images, restored),
        }

    def scored_by(self, score: str) -> ScoreOf:
        """The scores of a detector, and `draem`, the paper's."""
        return LargestMeanScore() if score == DRAEM_SCORE else super().scored_by(score)


class LargestMeanScore:
    """The largest mean of the map M_o over 21x21 pixels (eq. 5)."""

    is_peak = True

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns M_o of windows, `[N, h, w, 1]`."""
        return errors["anomaly"][..., None]

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the filtered map, and its largest value as the score."""
        mean = tf.nn.avg_pool2d(errors, MEAN_FILTER, 1, "SAME")[..., 0]
        return {"score": tf.reduce_max(mean, axis=[1, 2]), "map": mean}
