"""GANomaly and a U-Net beside it that is trained on synthetic defects: the default for textures.

It is the default for whole parts, too, where pretrained weights are missing.

Two networks look at an image, each for what the other does not see. GANomaly (`ganomaly.py`)
reconstructs good windows, and fails where a weave is broken. A U-Net (Ronneberger et al. 2015)
marks synthetic defects that were added to good tiles (`data/synthetic_defects.py`, or another of
`data/defect_sources.py`), and so sees spots, stains and shades that reconstruct well. The idea is
DRAEM's (Zavrtanik et al. 2021, `draem.py`), whose U-Net reads the reconstruction; here the two are
trained apart and their maps are joined afterwards.

With `unet_input=image+reconstruction` the U-Net reads tile, reconstruction and difference, as
DRAEM's does. On weaves its map is more exact; on AITEX there are more false alarms, probably
because good tiles of new strips reconstruct worse than those trained on (`docs/results.md`).

With m the mask of the synthetic defects and p the U-Net's probabilities, its loss is the focal loss
(Lin et al. 2017)

    L = -E (1 - p_t)^γ log p_t      p_t = m p + (1 - m)(1 - p)

Random gain, offset and unevenness of the light on all tiles teach it that light alone is no defect.

The score `joint` is the largest value of the joined map (`scores/joint.py`). On resized images of
whole parts a run is scored by `joint_places`, in which `places` replaces `cues`. On
magnetic tile, 256 pixels, one run, its image AUROC, AP, pixel AUROC and AUPRO are .693, .778, .644
and .598; those of `joint` are .520, .609, .600 and .578, those of `places` alone .678, .750, .635
and .474. No paper describes this method, so there is no `ganomaly_unet/paper`.

Read beside it: `ganomaly.py`; `networks/unet.py`. For the scores also `scores/joint.py`,
`scores/cues.py` and `scores/places.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, checks, losses, register
from tfgad.core.settings import BatchSize, LatentDim, Score, Stride, TwoStages, Width, Window
from tfgad.data import tiling
from tfgad.data.defect_sources import (
    NO_PAINTER,
    Painter,
    painter_of,
    sources_of,
    with_defects_of,
)
from tfgad.data.synthetic_defects import with_random_light
from tfgad.data.warping import gaussian_blur
from tfgad.errors import UsageError
from tfgad.methods import ganomaly
from tfgad.networks import precision
from tfgad.networks.layers import Adam
from tfgad.networks.unet import GRID, unet
from tfgad.scores.joint import Joint, JointScore, MarksScore
from tfgad.scores.score import BY_PLACE, CUES, JOINT, JOINT_PLACES, MARKS, PLACES
from tfgad.scores.score import Score as ScoreOf

# Pixels. On plain, satin, denim and basket the pixel AUROC of the U-Net's map is .958 to .989
# without a blur, .965 to .992 with it.
LOGIT_SIGMA = 2.0


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; `tfgad list ganomaly_unet` prints them."""

    window: Window = 32
    latent_dim: LatentDim = 64
    width: Annotated[Width, Field(description="channels of the encoders' first layer")] = 32
    batch_size: BatchSize = 64
    steps: Annotated[TwoStages, Field(description="steps of GANomaly and of the U-Net")] = (
        1500,
        1000,
    )
    learning_rate: Annotated[float, Field(gt=0, description="of GANomaly's optimizers")] = 2e-4
    beta_1: Annotated[float, Field(ge=0, lt=1, description="of GANomaly's optimizers")] = 0.5
    beta_2: Annotated[float, Field(ge=0, lt=1, description="of GANomaly's optimizers")] = 0.999
    unet_width: Annotated[Width, Field(description="channels of the U-Net's first layer")] = 16
    unet_input: Annotated[
        Literal["image", "image+reconstruction"],
        Field(description="of the U-Net: tiles, or also their reconstruction and absolute error"),
    ] = "image"
    unet_batch_size: Annotated[
        int, Field(ge=1, le=65_536, description="tiles per step of the U-Net")
    ] = 16
    unet_tile: Annotated[int, Field(ge=32, le=4096, description="largest side of these tiles")] = (
        128
    )
    unet_learning_rate: Annotated[
        float, Field(gt=0, description="of the U-Net's Adam; it falls along a cosine")
    ] = 3e-3  # on four weaves more synthetic defects are found than with 1e-3
    defects: Annotated[
        float, Field(gt=0, le=1, description="share of the U-Net's tiles that have a defect")
    ] = 0.7
    defect_source: Annotated[
        Literal["shapes", "perlin", "painter", "mix"],
        Field(description="of these defects; mix: for each tile one of them"),
    ] = "shapes"
    painter: Annotated[
        str, Field(description="folder that `tfgad synthesize train` wrote, or none")
    ] = NO_PAINTER
    gamma: Annotated[float, Field(ge=0, description="γ of the focal loss")] = 2.0
    score: Score = "auto"
    stride: Stride = 16

    def ganomaly(self) -> ganomaly.Config:
        """Returns the settings of GANomaly."""
        return ganomaly.Config(
            window=self.window,
            latent_dim=self.latent_dim,
            width=self.width,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
        )


@register(
    "ganomaly_unet",
    "GANomaly, and a U-Net trained on synthetic defects",
    Config,
)
class GANomalyUNet(Detector):
    """A GANomaly, and a U-Net that marks defects on tiles.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of GANomaly's windows.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    stages = ("ganomaly", "unet")
    scores = ganomaly.GANomaly.scores
    tile_scores = (JOINT, JOINT_PLACES, MARKS)
    takes_xla = False  # it cannot turn images or resize them bicubically

    def __init__(self, config: Config, image_shape: tuple[int, int, int], **kwargs: Any):
        super().__init__(config, image_shape, **kwargs)
        self.ganomaly = ganomaly.GANomaly(
            config.ganomaly(), image_shape, seed=self.seed, stride=self.stride
        )
        self.encoder, self.decoder = self.ganomaly.encoder, self.ganomaly.decoder
        self.second_encoder, self.critic = self.ganomaly.second_encoder, self.ganomaly.critic
        channels = image_shape[2] * (1 if config.unet_input == "image" else 3)
        self.unet = unet((None, None, channels), config.unet_width)
        self.joint = Joint()
        self.painter: Painter | None = None
        # What the scores `cues` and `density` read.
        self.terms, self.code_dim = self.ganomaly.terms, self.ganomaly.code_dim

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """Those of GANomaly, and Adam for the U-Net."""
        config = self.config
        rate = keras.optimizers.schedules.CosineDecay(config.unet_learning_rate, config.steps[1])
        return {**self.ganomaly.optimizers(), "unet": Adam(rate)}

    def assign_optimizers(self, optimizers: dict[str, keras.Optimizer]) -> None:
        """Takes the optimizers, and hands GANomaly its own."""
        super().assign_optimizers(optimizers)
        own = {role: each for role, each in optimizers.items() if role != "unet"}
        self.ganomaly.assign_optimizers(own)

    def networks_of(self, role: str) -> list[keras.Model]:
        """Those of GANomaly, and the U-Net."""
        return [self.unet] if role == "unet" else self.ganomaly.networks_of(role)

    @property
    def images_per_step(self) -> int:
        """Windows in the first stage, tiles in the second."""
        config = self.config
        return config.batch_size if self.stage == "ganomaly" else config.unet_batch_size

    @property
    def training_window(self) -> tuple[int, int, int]:
        """The window in the first stage; in the second the tile, or `unet_tile` of its sides."""
        return self.window if self.stage == "ganomaly" else self._unet_tile

    @property
    def _unet_tile(self) -> tuple[int, int, int]:
        height, width = (min(side, self.config.unet_tile) for side in self.tile)
        return height, width, self.window[2]

    def prepare(self) -> None:
        """Loads the painter, if the settings name one; raises the UsageErrors of `painter_of`."""
        if self.painter is None:
            source, folder = self.config.defect_source, self.config.painter
            self.painter = painter_of(source, folder, self._unet_tile)

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """The data sets that the painter was trained on."""
        return () if self.painter is None else self.painter.learnt_from

    def with_defects(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds synthetic defects to good tiles; returns images and masks of `with_defects_of`."""
        # Else `mix` would do without it.
        if self.config.painter != NO_PAINTER and self.painter is None:
            hint = "call `prepare` before `train_step`, as `fit` does"
            raise UsageError("painter", self.config.painter, "is not loaded", hint)
        sources = sources_of(self.config.defect_source, self.painter)
        seed, seed_of_source = self.seed_of("defects"), self.seed_of("source")
        return with_defects_of(sources, images, seed, seed_of_source, self.config.defects)

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step of the present stage on float32 `[B, h, w, C]` in [-1, 1]."""
        if self.stage == "ganomaly":
            return self.ganomaly.train_step(images)

        images, masks = self.with_defects(images)
        images = with_random_light(images, self.seed_of("light"))
        reconstruction = self._blended(images, self.reconstruction) if self._channels else None
        with tf.GradientTape() as tape:
            logits = self.logits(images, reconstruction, training=True)
            focal = tf.reduce_mean(losses.focal_loss(masks, logits, self.config.gamma))
        self.minimize("unet", focal, tape)
        return {"focal": focal}

    def logits(
        self, images: tf.Tensor, reconstruction: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """The U-Net's logits of a defect, `[B, H, W, 1]`.

        Args:
            images: `[B, H, W, C]`, of any size.
            reconstruction: G(x) blended over the windows, of the same shape, if it is known.
            training: whether batch statistics are used.
        """
        seen = images
        if self._channels:
            if reconstruction is None:
                reconstruction = self._blended(images, self.reconstruction)
            seen = with_difference(images, reconstruction)
        padded = tiling.pad_to_grid(seen, (GRID, GRID), GRID)
        logits = self.unet(padded, training=training)
        logits = tf.image.resize(logits, tf.shape(padded)[1:3])
        return logits[:, : tf.shape(images)[1], : tf.shape(images)[2]]

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def logit_maps(self, images: tf.Tensor, reconstruction: tf.Tensor | None = None) -> tf.Tensor:
        """`logits` in inference, blurred, `[B, H, W]`."""
        return gaussian_blur(self.logits(images, reconstruction), LOGIT_SIGMA)[..., 0]

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """G(x) of GANomaly."""
        return self.ganomaly.reconstruction(images)

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Those of GANomaly; where the U-Net reads it, also a map of each channel of G(x)."""
        errors, generated = self.ganomaly.errors_and_reconstruction(images)
        if self._channels:
            errors |= dict(zip(self._channels, tf.unstack(generated, axis=-1), strict=True))
        return errors

    @property
    def _channels(self) -> tuple[str, ...]:
        """The names among the errors of the channels of G(x); none if the U-Net reads x alone."""
        reads = self.config.unet_input == "image+reconstruction"
        return tuple(f"reconstruction_{i}" for i in range(self.window[2])) if reads else ()

    def scored_by(self, score: str) -> ScoreOf:
        """The scores of a detector, and `joint`, `joint_places` and `marks`."""
        if score == JOINT:
            return JointScore(self.joint, self._cues_score(), self.logit_maps, self._channels)
        if score == JOINT_PLACES:
            return JointScore(self.joint, self._places_score(), self.logit_maps, self._channels)
        if score == MARKS:
            return self._marks_score()
        return super().scored_by(score)

    def _marks_score(self) -> MarksScore:
        return MarksScore(self.joint, self._cues_score(), self.logit_maps, self._channels)

    def adapt(self, normals: Any, size: int | None = None) -> None:
        """Also learns the level and peak of the U-Net's logits, after `Detector.adapt`."""
        super().adapt(normals, size)
        normals = self.normal_images(normals)
        self._marks_score().adapt(normals, checks.size_of(normals, size))

    def _needs_adapt(self, score: str) -> bool:
        # Level and peak of the logits are learnt beside the statistics of one of the two.
        learnt = PLACES if self.score in BY_PLACE else CUES
        return super()._needs_adapt({JOINT: CUES, MARKS: learnt}.get(score, score))


def with_difference(x: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """Returns x, G(x) and |x - G(x)|, `[B, H, W, 3 C]`."""
    return tf.concat([x, reconstruction, tf.abs(x - reconstruction)], axis=-1)
