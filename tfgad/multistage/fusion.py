"""Stage 2 of the Multistage GAN: a patch with a defect becomes part of an image of fabric.

y is an image of fabric, x the same image with a defect drawn on it, or with a window blanked and
filled with a patch, and a the target. The fusing network T(x) replaces y where the mask has the
defect, with a soft rim around it: everything else stays y. T minimizes (Liu et al. 2020, stage 2)

    λ_r max(0, |a - T(x)| - m) + λ_f |φ(T(x)) - φ(a)|² / |φ(a)|² - λ_a E[log D(T(x))]

with |a - T(x)| the mean over the pixels that T may change, so that a change of up to m costs
nothing. φ are features of VGG19, or of VGG16. The paper divides by C·H·W, here it is by their own
size, which suits any weights of φ. D minimizes

    -½ E[log D(r)] - ½ E[log(1 - D(T(x)))] + λ E‖∇D(r)‖²      r real images with a defect

D sees the image with the mask of the defect as a further channel, and has a logit for each place: a
defect must be where the mask has one, and nowhere else.

The paper's target is always y, a real image with a defect, whatever was pasted. But a generated
defect is another one than y's, and a T that is rewarded for turning it into y learns to paint over
it. Here the target is y where the patch is y's own defect, displaced; and where it is a generated
defect on good fabric, the target is x within the mask.

Read beside it: `networks/defects.py`, the networks; `core/losses.py`; `pasting.py`, the examples.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import losses, settings
from tfgad.core.trained import Trained
from tfgad.multistage.painter_config import PainterConfig
from tfgad.networks import defects
from tfgad.networks.layers import Adam

TINY = 1e-3  # share of an image: a defect of nine pixels
RIM = 6  # pixels around the defect over which T(x) gives way to the fabric: about a yarn


@keras.saving.register_keras_serializable("tfgad")
class DefectFusion(Trained):
    """The fusing network T and its critic D.

    Args:
        config: hyper-parameters of the painter.
        channels: C of the images.
        phi: fixed network φ, images `[B, H, W, C]` to features.
        **kwargs: `seed` and `name`; see `Trained`.
    """

    def __init__(
        self, config: PainterConfig, channels: int, phi: keras.Model, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config, self.channels = config, channels
        self.fuser = defects.fuser(channels, config.fusion_width)
        self.critic = defects.patch_critic(channels, config.fusion_width)
        self.phi = phi

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """One Adam per trained network; betas as in stage 1."""
        rate = self.config.fusion_rate
        return {role: Adam(rate, beta_1=0.0, beta_2=0.99) for role in ("critic", "fuser")}

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One update of D and one of T.

        Args:
            batch: `images` are y and `aims` a, `[B, H, W, C]`; `pasted` are x with window and mask,
                `[B, H, W, C + 2]`; `real` are real images with a defect and its mask,
                `[B, H, W, C + 1]`. All are in [-1, 1].
        """
        y, a, pasted, real = (batch[name] for name in ("images", "aims", "pasted", "real"))
        fused = self.fused(y, pasted, training=True)
        with tf.GradientTape() as tape:
            real_logits = self.critic(real, training=True)
            fake_logits = self.critic(_with_mask(fused, pasted), training=True)
            critic_loss = losses.discriminator_loss(real_logits, fake_logits)
            r1 = losses.r1_penalty(self._logit, real)
            total = critic_loss + self.config.r1 * r1
        self.minimize("critic", total, tape)

        features = self.phi(a, training=False)
        with tf.GradientTape() as tape:
            fused = self.fused(y, pasted, training=True)
            distance = losses.mean_absolute(a, fused) / tf.maximum(_changeable(pasted), TINY)
            reconstruction = tf.reduce_mean(tf.maximum(distance - self.config.margin, 0.0))
            feature = losses.mean_square(features, self.phi(fused, training=False))
            feature = tf.reduce_mean(feature) / tf.reduce_mean(tf.square(features))
            fake_logits = self.critic(_with_mask(fused, pasted), training=True)
            adversarial = losses.non_saturating_generator_loss(fake_logits)
            total = (
                self.config.reconstruction * reconstruction
                + self.config.feature * feature
                + self.config.adversarial * adversarial
            )
        self.minimize("fuser", total, tape)
        return {
            "critic": critic_loss,
            "r1": r1,
            "reconstruction": reconstruction,
            "feature": feature,
            "adversarial": adversarial,
        }

    def _logit(self, images: tf.Tensor) -> tf.Tensor:
        """The mean logit of D over all places, `[B]`."""
        return tf.reduce_mean(self.critic(images, training=True), axis=1)

    def fused(self, y: tf.Tensor, pasted: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns T(x) on the defect and its rim, y elsewhere: `[B, H, W, C]` in [-1, 1]."""
        share = rim(tf.cast(pasted[..., -1:] > 0, y.dtype))
        return share * self.fuser(pasted, training=training) + (1.0 - share) * y

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the networks, φ among them."""
        return {
            **super().get_config(),
            "networks": self.networks(),
            "config": settings.as_dict(self.config),
            "channels": self.channels,
        }

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments from a file, also from one without `config`."""
        if "config" not in config:
            return _arguments_of_before(config)
        parsed = settings.parse(PainterConfig, config["config"], of="the painter")
        return {**config, "config": parsed, "phi": config["networks"]["phi"]}


def _arguments_of_before(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments from a file that holds networks and loss weights side by side."""
    networks = {name: saved[name] for name in ("fuser", "critic", "phi")}
    weights = ("margin", "reconstruction", "feature", "adversarial", "r1")
    return {
        "config": dataclasses.replace(PainterConfig(), **{name: saved[name] for name in weights}),
        "channels": networks["fuser"].output_shape[-1],
        "phi": networks["phi"],
        "networks": networks,
        "seed": saved["seed"],
        "name": saved["name"],
    }


def _with_mask(fused: tf.Tensor, pasted: tf.Tensor) -> tf.Tensor:
    return tf.concat([fused, pasted[..., -1:]], axis=-1)


def _changeable(pasted: tf.Tensor) -> tf.Tensor:
    """Returns the share of an image's pixels that T may change, `[B]`."""
    return tf.reduce_mean(rim(tf.cast(pasted[..., -1:] > 0, tf.float32)), axis=[1, 2, 3])


def rim(mask: tf.Tensor) -> tf.Tensor:
    """Returns masks `[B, H, W, 1]` of 0 and 1 with a rim that falls to 0 over `RIM` pixels."""
    side = 2 * RIM + 1
    grown = tf.nn.max_pool2d(mask, side, 1, "SAME")
    padded = tf.pad(grown, [[0, 0], [RIM, RIM], [RIM, RIM], [0, 0]])  # for equal means at edges
    share = tf.nn.avg_pool2d(padded, side, 1, "VALID")  # half at the border of what has grown
    return tf.maximum(mask, 2.0 * tf.maximum(share - 0.5, 0.0))


def paste(y: np.ndarray, patch: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """Returns x of an image whose window is filled with a patch.

    Args:
        y: image `[H, W, C]`.
        patch: `[side, side, C + 1]`, image and mask.
        window: `(row, column, side)`.

    Returns:
        x with window and mask, `[H, W, C + 2]`; see `with_window`.
    """
    filled = np.concatenate([y, np.full_like(y[..., :1], -1.0)], axis=-1)
    filled[inside(window)] = patch
    return with_window(filled, window)


def with_window(image: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """Inserts the channel of the window, 1 inside, between image and mask `[H, W, C + 1]`."""
    marked = np.zeros((*image.shape[:2], 1), "float32")
    marked[inside(window)] = 1.0
    return np.concatenate([image[..., :-1], marked, image[..., -1:]], axis=-1)


def inside(window: tuple[int, int, int]) -> tuple[slice, slice]:
    """Returns the rows and the columns of a window `(row, column, side)`."""
    row, column, side = window
    return slice(row, row + side), slice(column, column + side)


def build(config: PainterConfig, channels: int, phi: keras.Model, seed: int = 0) -> DefectFusion:
    """Makes a compiled `DefectFusion`, whose first weights follow the seed."""
    keras.utils.set_random_seed(seed)
    model = DefectFusion(config, channels, phi, seed=seed)
    model.compile()
    return model
