"""What a pretrained network sees of a part: the default for whole parts.

EfficientNet-Lite0, trained on photographs of a thousand kinds of things, turns an image into
feature maps. Its weights stay as they are. Two things are learnt from the maps:

- The score `regions` (`scores/regions.py`): a linear reconstruction of the features of each region,
  a principal component analysis, and how unusual its residual is at that place of the part. PCA of
  pretrained features, with the components of low variance as the evidence, is Rippel et al.'s
  (ICPR 2020), of means over the whole image. Here it is of means and standard deviations over
  regions of three sizes, and of single points. The map is lowered where the features are nearer to
  their mean over good images at the same place than those beside it.
- The score `marks`: a small head is trained to mark synthetic defects, which are added to good
  images (`data/synthetic_defects.py`) and seen through the network. It reads the feature maps f,
  and |f - mean f|, how far they are from their mean over good images at the same place. With m the
  mask, p the head's probabilities and p_t = m p + (1 - m)(1 - p), its loss is the focal loss (Lin
  et al. 2017)

      L = -E (1 - p_t)^γ log p_t

  A place of the head's grid, 8x8 pixels, is defective if a quarter of it is. Places that a defect
  covers in a smaller part are left out of E. On mirrored images, which training also shows, a
  place lies elsewhere: so the head learns not to rely on the deviations alone.

The default score `joint` is the largest value of the sum of both maps, each scaled so that at least
nine of ten training images stay below 1. Marks below the level of good images are negative: of two
such places, too, the one with the higher logit is the worse one. Without that, and with w_r = 2 for
points, the AUPRO of synthetic defects on held-out good images is .578 instead of .586 on magnetic
tile, .589 instead of .614 on denim taken for whole parts (with a head of 250 steps of 16 images);
the image AUROC is the same within .002.

The deviations, and a second 3x3 convolution in the head, were chosen by the image AUROC and the
AUPRO of `joint` on held-out good images with synthetic defects, of magnetic tile and of denim taken
for whole parts, and on the defects that denim is tested with; a head of each on the same batches:

                                        magnetic tile   denim         denim, its own
    features alone, one convolution     .684 .618       .865 .696     .983 .853
    a second convolution                .693 .634       .869 .700     .985 .850
    deviations                          .690 .616       .875 .708     .988 .852
    both                                .689 .617       .874 .715     .987 .850

Each is ahead somewhere, and both together are nowhere behind by more than .003 of the first row.

No paper describes the method, so there is no `feature_regions/paper`. There is no generator in it.
Tried on magnetic tile, one run each: an autoencoder and a GAN in place of the linear reconstruction
have an image AUROC of .881 and .878 by the score `regions`, where that has .901; GANomaly's
residual of the pixels, added, lowers .905 to .883 at equal weight and leaves it at .905 at a
quarter.

Read beside it: `networks/efficientnet_lite0.py`, `networks/defect_head.py`, `scores/regions.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from pydantic import Field
from pydantic.dataclasses import dataclass

from tfgad.core import Detector, checks, losses, register
from tfgad.core.settings import BatchSize, Score, StepCount, Stride, Width, Window
from tfgad.data.sampling import batched, spread
from tfgad.data.synthetic_defects import with_defects, with_random_light
from tfgad.errors import UsageError
from tfgad.networks import precision
from tfgad.networks.defect_head import defect_head
from tfgad.networks.efficientnet_lite0 import (
    MISSING,
    NAME,
    NOTICE,
    find_lite0_weights,
    lite0,
    load_lite0_weights,
)
from tfgad.networks.layers import Adam
from tfgad.networks.pretrained import IMAGENET, RANDOM, Weights
from tfgad.scores.cues import tiles_of
from tfgad.scores.joint import Joint
from tfgad.scores.place_statistics import symmetric
from tfgad.scores.regions import EARLIER_POINTS, GRID, POINTS, Regions, cells_of
from tfgad.scores.score import JOINT, MARKS, REGIONS, LargestErrorScore
from tfgad.scores.score import Score as ScoreOf

logger = logging.getLogger(__name__)

# Lite0 was trained at 224 pixels. By `regions` the image AUROC on magnetic tile is .890 at 384.
SIDE = 256  # pixels; images are resized to it, both sides
# 40, 112 and 320 channels. `regions` tells held-out good images of magnetic tile from the same with
# a synthetic defect with an AUROC of .681. It is .693 with the last blocks of all six stages from
# output stride 4 on, and .701 with all blocks; but then the components are larger than the network.
STRIDES = ("stride_8", "stride_16", "stride_32")
ADAPT_IMAGES = 512  # four megabytes each while statistics are estimated
EARLIER = 1  # of files without a version: their marks end at the level
PLACES = 3  # from which on the head sees how far features are from their mean at the place
LOCATED = 4  # from which on the map of regions is lowered where features are near to that mean
VERSION = 4
COVERED = 0.25  # share of a place of the head's grid from which on it is defective


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; `tfgad list feature_regions` prints them."""

    window: Window = 0
    weights: Annotated[
        Literal["imagenet", "random"],
        Field(description="of EfficientNet-Lite0; random ones have learnt nothing"),
    ] = "imagenet"
    maps: Annotated[
        int, Field(ge=1, le=3, description="feature maps, of output strides 8, 16 and 32")
    ] = 3
    pose: Annotated[
        Literal["fixed", "any"],
        Field(description="how parts lie; any: of a place only its distance from the edges counts"),
    ] = "fixed"
    width: Annotated[Width, Field(description="channels of the head's first layer")] = 128
    # Image AUROC of synthetic defects on held-out good images of magnetic tile and denim: .717 and
    # .776 after 250 steps of 16 images, .722 and .824 after 1,000 of 8. Of the defects that denim
    # is tested with: .978 and .987. After 500 of 8 images it is .718 on magnetic tile.
    batch_size: BatchSize = 8
    steps: Annotated[StepCount, Field(description="training steps of the head")] = 1000
    learning_rate: Annotated[
        float, Field(gt=0, description="of the head's Adam; it falls along a cosine")
    ] = 1e-3
    defects: Annotated[
        float, Field(gt=0, le=1, description="share of the images that have a defect")
    ] = 0.7
    gamma: Annotated[float, Field(ge=0, description="γ of the focal loss")] = 2.0
    score: Score = "auto"
    stride: Stride = 64


@register(
    "feature_regions",
    "pretrained features, and a head trained on synthetic defects",
    Config,
)
class FeatureRegions(Detector):
    """A frozen EfficientNet-Lite0, the residual of its features by region, and a head.

    Args:
        config: hyper-parameters.
        image_shape: `(height, width, channels)` of the windows: of the images, as a rule.
        pretrained: the description of the weights that a saved model holds.
        version: of the maps. A loaded model keeps its version, also after `adapt`, which learns
            today's statistics; a model that is trained anew has today's.
        **kwargs: `seed`, `score`, `stride`, `tile`; see `Detector`.
    """

    scores = {MARKS: ("marks",)}
    tile_scores = (JOINT, REGIONS)
    takes_xla = False  # it cannot turn images or resize them bicubically

    def __init__(
        self,
        config: Config,
        image_shape: tuple[int, int, int],
        *,
        pretrained: Mapping[str, str | None] | None = None,
        version: int = VERSION,
        **kwargs: Any,
    ):
        super().__init__(config, image_shape, **kwargs)
        self.description = dict(pretrained or {})
        self.strides = STRIDES[: config.maps]
        self.features = lite0((SIDE, SIDE, image_shape[2]), self.strides)
        channels = sum(maps.shape[-1] for maps in self.features.output.values())
        self.version = version
        self.head = defect_head(channels * (2 if version >= PLACES else 1), config.width)
        points = EARLIER_POINTS if version == EARLIER else POINTS
        self.regions, self.joint = Regions(channels, points), Joint()
        # Saved with the model: one that was loaded has its weights already.
        self.has_weights = self.add_weight((), "zeros", trainable=False, name="has_weights")
        if version >= PLACES:
            self.mean = self._fixed_weight("mean", channels)
            self.seen = self._fixed_weight("seen", 1)
        self.is_prepared = False
        self.is_square = self.window[0] == self.window[1]
        # Quarter turns of an image that is not square would be of other proportions.
        self.turns = (1, 2, 3) if config.pose == "any" and self.is_square else ()

    def _fixed_weight(self, name: str, channels: int) -> keras.Variable:
        """Returns a weight with numbers at each place, which the optimizer leaves as it is."""
        shape = (GRID, GRID, channels)
        return self.add_weight(shape, "zeros", trainable=False, name=name, dtype="float32")

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """Adam for the head."""
        config = self.config
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps)
        return {"head": Adam(rate)}

    def prepare(self) -> None:
        """Loads the pretrained weights.

        Raises:
            UsageError: they are not on this machine, or cannot be read.
        """
        if self.has_weights.numpy():
            self.is_prepared = True
            return
        weights = Weights(RANDOM, NAME)
        if self.config.weights == RANDOM:
            logger.warning("EfficientNet-Lite0's weights are random: it has learnt nothing")
        else:
            path = find_lite0_weights()
            if path is None:
                raise UsageError("weights", IMAGENET, *MISSING)
            weights = Weights.of_file(path, NAME)
            load_lite0_weights(self.features, path)
        self.description = weights.as_config("features")
        self.has_weights.assign(1.0)
        self.is_prepared = True

    @property
    def pretrained(self) -> dict[str, str | None]:
        """Name, network and digest of the weights that the model holds; empty before `prepare`."""
        return self.description

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the networks."""
        own = {"pretrained": self.description, "version": self.version}
        return {**super().get_config(), **own}

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments from a file's configuration, of whatever version."""
        return super().arguments({"version": EARLIER, **config})

    @property
    def notice(self) -> str:
        """The notice that the licence of the weights asks for."""
        return "" if self.config.weights == RANDOM else NOTICE

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """One update of the head on float32 `[B, h, w, C]` in [-1, 1]."""
        if not self.is_prepared:  # else the weights would come after the head
            hint = "call `prepare` before `train_step`, as `fit` does"
            raise UsageError("weights", self.config.weights, "are not loaded", hint)
        x, is_mirrored = self._random_view(self._square(images))
        x, masks = with_defects(x, self.seed_of("defects"), self.config.defects)
        x = with_random_light(x, self.seed_of("light"))
        on_grid = _on_grid(self.feature_maps(x))
        size = SIDE // GRID
        covered = tf.nn.avg_pool2d(masks, size, size, "VALID")
        defective = tf.cast(covered >= COVERED, tf.float32)
        good = tf.cast(covered == 0.0, tf.float32)
        counted = good + defective
        if self.version >= PLACES:
            self._update_mean(on_grid, good * (1.0 - is_mirrored))
        seen = self._with_deviations(on_grid)
        with tf.GradientTape() as tape:
            logits = self.head(seen, training=True)
            loss = losses.focal_loss(defective, logits, self.config.gamma, counted)
            focal = tf.reduce_mean(loss)
        self.minimize("head", focal, tape)
        return {"focal": focal}

    def _update_mean(self, on_grid: tf.Tensor, counted: tf.Tensor) -> None:
        """Moves the mean at each place to that of all features counted so far.

        Args:
            on_grid: features `[B, GRID, GRID, C]`.
            counted: 1 where they count, else 0, `[B, GRID, GRID, 1]`.
        """
        count = tf.reduce_sum(counted, axis=0)
        total = tf.reduce_sum(counted * (on_grid - self.mean), axis=0)
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            count, total = replica.all_reduce("sum", [count, total])
        self.seen.assign(self.seen + count)
        self.mean.assign(self.mean + total / tf.maximum(self.seen, 1.0))

    def _with_deviations(self, on_grid: tf.Tensor) -> tf.Tensor:
        """Returns features and how far each is from its mean at the place, `[B, h, w, 2 C]`."""
        if self.version < PLACES:
            return on_grid
        return tf.concat([on_grid, tf.abs(on_grid - self.mean)], axis=-1)

    def _random_view(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mirrors each image at random; where parts lie anyhow, turns the batch too.

        Returns:
            The images `[B, h, w, C]`, and float32 `[B, 1, 1, 1]`: 1 for those whose places lie
            elsewhere now, else 0; 0 for all where parts lie anyhow.
        """
        chances = self.random_uniform([tf.shape(images)[0], 2], "view")[:, :, None, None, None]
        mirrored = chances < 0.5
        images = tf.where(mirrored[:, 0], images[:, :, ::-1], images)
        images = tf.where(mirrored[:, 1], images[:, ::-1], images)
        if self.turns:
            turns = tf.random.stateless_uniform([], self.seed_of("turns"), 0, 4, tf.int32)
            images = tf.image.rot90(images, turns)
        any_way = self.config.pose == "any"
        is_mirrored = tf.cast(tf.reduce_any(mirrored, axis=1), tf.float32)
        return images, tf.zeros_like(is_mirrored) if any_way else is_mirrored

    def _square(self, images: tf.Tensor) -> tf.Tensor:
        """Resizes windows to `SIDE`, both sides; of larger ones nothing is skipped."""
        down, across = (max(1, side // SIDE) for side in self.window[:2])
        images = tf.nn.avg_pool2d(images, (down, across), (down, across), "SAME")
        return tf.image.resize(images, [SIDE, SIDE])

    def feature_maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The feature maps, `[B, h, w, c]` each, of images `[B, SIDE, SIDE, C]`."""
        maps = self.features(images, training=False)
        return [tf.cast(maps[name], tf.float32) for name in self.strides]

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The maps of both scores."""
        maps = self.feature_maps(self._square(images))
        logits = tf.image.resize(self._logits(maps), self.window[:2])[..., 0]
        mean = self.mean if self.version >= LOCATED else None
        regions = self.regions(cells_of(maps), _on_grid(maps), mean)[..., None]
        return {
            "regions": tf.image.resize(regions, self.window[:2])[..., 0],
            "marks": self.joint.marks(logits, below=self.version != EARLIER),
        }

    def _logits(self, maps: list[tf.Tensor]) -> tf.Tensor:
        """The head's logits, `[B, GRID, GRID, 1]`."""
        return self.head(self._with_deviations(_on_grid(maps)), training=False)

    def scored_by(self, score: str) -> ScoreOf:
        """The largest value of one map or of their sum."""
        names = {MARKS: ("marks",), REGIONS: ("regions",), JOINT: ("regions", "marks")}
        return LargestErrorScore(names[score])

    def adapt(self, normals: Any, size: int | None = None) -> None:
        """Also learns the statistics of the features and of the logits, after `Detector.adapt`."""
        self.prepare()
        super().adapt(normals, size)
        normals = self.normal_images(normals)
        size = checks.size_of(normals, size)
        sides = zip(normals.element_spec.shape[:2], self.window[:2], strict=True)
        per_image = math.prod(math.ceil(side / own) for side, own in sides)  # windows
        some = spread(normals, size, math.ceil(ADAPT_IMAGES / per_image))
        cells, points, views = [], [], []
        for batch in batched(some):
            windows = tf.constant(tiles_of(batch, self.window[:2]))
            of_batch, of_points, of_views = self._statistics_of(windows)
            cells.append(of_batch.numpy())
            points.append(of_points.numpy().astype("float16"))
            views.append([each.numpy() for each in of_views])
        per_view = [np.concatenate(each) for each in zip(*views, strict=True)]
        fixed, all_points = self.config.pose == "fixed", np.concatenate(points)
        self.regions.adapt(
            np.concatenate(cells), all_points, per_view, per_place=fixed, square=self.is_square
        )
        if self.version >= PLACES:  # exactly, of images without defects and in their own light
            mean = all_points.mean(0, dtype="float64")
            self.mean.assign(mean if fixed else symmetric(mean, self.is_square))
        self.joint.adapt(np.concatenate([self._logits_of(each) for each in points]))
        self.predict_function = None

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def _statistics_of(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Returns cells and points of windows, and cells of their other views."""
        square = self._square(images)
        views = [square[:, :, ::-1], square[:, ::-1]]
        views += [tf.image.rot90(square, turns) for turns in self.turns]
        maps = self.feature_maps(square)
        of_views = [cells_of(self.feature_maps(view)) for view in views]
        return cells_of(maps), _on_grid(maps), of_views

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def _logits_of(self, points: tf.Tensor) -> tf.Tensor:
        """Returns the head's logits `[B, GRID, GRID]` of points of `_statistics_of`."""
        seen = self._with_deviations(tf.cast(points, tf.float32))
        return self.head(seen, training=False)[..., 0]

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuses to score before `adapt`: there is no score that needs no statistics."""
        with tf.init_scope():  # not a tensor of the graph that is being traced
            self._refuse_unadapted(self.score)
        return super().__call__(images, *args, **kwargs)

    def _score_in_force(self) -> str:
        with tf.init_scope():
            self._refuse_unadapted(self.score)
        return self.score

    def _needs_adapt(self, score: str) -> bool:
        return not self.regions.is_adapted


def _on_grid(maps: list[tf.Tensor]) -> tf.Tensor:
    """Resizes feature maps to the head's grid, side by side: `[B, GRID, GRID, C]`."""
    return tf.concat([tf.image.resize(each, [GRID, GRID]) for each in maps], axis=-1)
