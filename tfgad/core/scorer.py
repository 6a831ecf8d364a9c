"""The base of `Detector` that scores: what a method states, and the graphs that score by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfgad.core import checks, settings
from tfgad.core.trained import Trained
from tfgad.data import ignored as ignoring
from tfgad.data import ignored_own, tiling
from tfgad.errors import UsageError, nearest
from tfgad.networks import precision
from tfgad.scores.cue_weights import EQUAL, SETTING, TONE, names_of, weights_of
from tfgad.scores.cues import Cues, CuesScore
from tfgad.scores.density import Density, DensityScore
from tfgad.scores.places import Places, PlacesScore
from tfgad.scores.products import check_names
from tfgad.scores.score import (
    BY_PLACE,
    CUES,
    DENSITY,
    JOINT,
    PLACES,
    MeanErrorScore,
    Score,
    margins_of,
)


class Scorer(Trained):
    """What a method states of its errors, and the graphs that make scores and maps of them.

    `Detector` describes what a method states, and the arguments.
    """

    scores: ClassVar[dict[str, tuple[str, ...]]]
    tile_scores: ClassVar[tuple[str, ...]] = ()
    terms: tuple[tuple[str, ...], ...] = ()
    code_dim: int = 0
    labelled: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False
    pixel_threshold: ClassVar[float | None] = None
    # Statistics of normal images.
    cues: Cues
    density: Density
    places: Places

    def __init__(
        self,
        config: Any,
        image_shape: tuple[int, int, int],
        *,
        seed: int = 0,
        score: str | None = None,
        stride: int | None = None,
        tile: tuple[int, int] | None = None,
        ignored: np.ndarray | None = None,
        products: Sequence[str] = (),
        cue_weights: str = EQUAL,
        name: str | None = None,
    ):
        super().__init__(seed=seed, name=name)
        self.config = config
        height, width, channels = image_shape
        self.window = (height, width, channels)
        self.tile = (tile[0], tile[1]) if tile else (height, width)
        if self.tile[0] < height or self.tile[1] < width:
            hint = f"give at least {height}, {width}"
            raise UsageError("tile", self.tile, "is smaller than the window", hint)
        self.ignored = None if ignored is None else ignoring.check_region(ignored, self.tile)
        defaults = settings.Common()
        self.stride: int = stride if stride else getattr(config, "stride", defaults.stride)
        self.score = self._known(score or str(getattr(config, "score", defaults.score)))
        self.product_names = check_names(products) if products else ()
        self.cue_weights = cue_weights

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.reconstructs = cls.reconstruction is not Scorer.reconstruction

    def _known(self, score: str) -> str:
        """Returns the name of a score that the method has."""
        if score == "auto":
            if not self.reconstructs:
                return (*self.tile_scores, *self.scores)[0]
            return DENSITY if self.tile == self.window[:2] else (*self.tile_scores, CUES)[0]
        if score not in self.score_names:
            hint = nearest(score, self.score_names)
            raise UsageError("score", score, "is not one of this method", hint)
        return score

    @property
    def score_names(self) -> tuple[str, ...]:
        """The names of all scores that the method has."""
        of_maps = (CUES, DENSITY, PLACES) if self.reconstructs else ()
        return (*self.scores, *self.tile_scores, *of_maps)

    def term_weights(self) -> list[float] | None:
        """Returns the weights of errors and tone in `cues`, or in `places` if a model has that.

        A method that reconstructs nothing has neither: None.

        Raises:
            UsageError: `cue_weights` that do not fit the method, or have no effect on its score.
        """
        if self.cue_weights != EQUAL and self.score not in (CUES, JOINT, *BY_PLACE):
            problem = f"has no effect on the score {self.score}"
            raise UsageError(
                SETTING, self.cue_weights, problem, "leave it out, or use another score"
            )
        if self.reconstructs:
            errors = ["residual"] if self.score in BY_PLACE else names_of(self.terms)
            return weights_of(self.cue_weights, [*errors, TONE])
        return None

    @property
    def images_per_step(self) -> int:
        """How many images `train_step` takes at once."""
        return self.config.batch_size

    @property
    def training_window(self) -> tuple[int, int, int]:
        """`(h, w, C)` of the images that `train_step` takes in the present stage."""
        return self.window

    def errors(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the errors of windows `[N, h, w, C]` by name, `[N, h, w]` or `[N]` each."""
        raise NotImplementedError

    def reconstruction(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the reconstructions of windows: `[N, h, w, C]` in [-1, 1]."""
        hint = "use a method that does, such as ganomaly"
        raise UsageError("method", self.name, "reconstructs nothing", hint)

    def checked_batch(self, data: Any) -> Any:
        """Returns the images of a batch, with labels if the method is `labelled`; see `checks`."""
        batch = checks.checked_batch(data, self.training_window, self.labelled)
        if self.ignored is None or self.training_window[:2] != self.tile:
            return batch
        return (self.filled(batch[0]), batch[1]) if self.labelled else self.filled(batch)

    @property
    def pretrained(self) -> dict[str, str | None]:
        """Entries of a run's configuration for pretrained weights; see `Weights.as_config`."""
        return {}

    @property
    def notice(self) -> str:
        """The notice that goes where the model goes, of weights that are others' work."""
        return ""

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """Specs of data sets whose test images are used in training; complete after `prepare`."""
        return ()

    # Ignored pixels

    def filled(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images `[B, H, W, C]` with the ignored pixels filled, or as they are without any.

        Raises:
            UsageError: images of another size than the tile, if it is known and there are any.
        """
        self._check_size(images)
        return images if self.ignored is None else ignoring.fill(images, self.ignored)

    def filled_own(self, images: Any, ignored: np.ndarray | None) -> Any:
        """Returns images with the ignored pixels that each has for itself filled.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            ignored: bool `[B, H, W]`; None changes nothing. See `tfgad.data.ignored_own`.

        Raises:
            UsageError: masks of another form, that leave nothing of an image, or for a model of
                several products.
        """
        if ignored is None:
            return images
        if self.product_names:  # a filled place would look like another product
            hint = "score them with a model of one product"
            raise UsageError("ignored", "masks", "do not go with several products", hint)
        return ignored_own.filled(images, ignored, self.ignored)

    def _check_size(self, images: tf.Tensor) -> None:
        """Raises UsageError if there is a region, and images are known to have another size."""
        if self.ignored is not None and not images.shape[1:3].is_compatible_with(self.tile):
            hint = f"give images of {self.tile[0]}x{self.tile[1]} pixels"
            problem = "of another size than the model's ignored region"
            raise UsageError("images", "x".join(map(str, images.shape[1:3])), problem, hint)

    def left_out(self, maps: tf.Tensor) -> tf.Tensor:
        """Returns maps `[B, H, W]` with the lowest kept value on ignored pixels."""
        return maps if self.ignored is None else ignoring.leave_out(maps, self.ignored)

    def normal_images(self, normals: Any) -> tf.data.Dataset:
        """Returns a stream of filled images `[H, W, C]`; see `checks.normal_images`."""
        normals = checks.normal_images(normals)
        if self.ignored is None:
            return normals
        return normals.map(lambda image: self.filled(image[None])[0])

    # Graphs of scoring

    def traced_anomaly(self, score: str) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """Returns `anomaly_in_graph` by a score, traced once for images of any number and size.

        Outside of a graph alone.
        """
        return self.anomaly_in_graph.get_concrete_function(self._any_images(), score)

    def traced_errors(self, score: str) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns `error_maps` for a score: the graph that `anomaly_in_graph` then reads, too."""
        return self.error_maps.get_concrete_function(self._any_images(), score)

    def _any_images(self) -> tf.TensorSpec:
        return tf.TensorSpec([None, None, None, self.window[2]], tf.float32)

    @tf.function(reduce_retracing=True, autograph=False)
    def anomaly_in_graph(self, images: tf.Tensor, score: str) -> dict[str, tf.Tensor]:
        """`anomaly` without its checks: tensors alone, for graphs that are exported."""
        # Where TensorFlow knows the size it computes some constants beforehand, and rounds them
        # otherwise: an image's score must not depend on what sizes the model has seen before.
        any_size = [None, None, None, self.window[2]]
        images = self.filled(tf.compat.v1.placeholder_with_default(images, any_size))
        scored = self.scored_by(score)

        def of_block(block: tf.Tensor, trim: Any) -> tf.Tensor:
            result = scored(trim(block), trim(self.error_maps(block, score)))
            each = [result["map"]]
            if not scored.is_peak:  # the score of an image that is one window, and so one block
                each.append(tf.zeros_like(each[0]) + result["score"][:, None, None])
            return tf.stack(each, axis=-1)

        depth = 1 if scored.is_peak else 2
        maps = tiling.by_block(images, self._margins(score), depth, of_block)
        anomaly_map = self.left_out(maps[..., 0])
        largest = tf.reduce_max(anomaly_map, axis=[1, 2])
        if scored.is_peak:
            return {"score": largest, "map": anomaly_map}
        one_window = tf.reduce_all(tf.shape(images)[1:3] == self.window[:2])
        return {"score": tf.where(one_window, maps[:, 0, 0, 1], largest), "map": anomaly_map}

    def scored_by(self, score: str) -> Score:
        """Returns the score of a name, as an object that computes it."""
        if score == CUES:
            return self._cues_score()
        if score == DENSITY:
            return self._density_score()
        if score == PLACES:
            return self._places_score()
        return MeanErrorScore(self.scores[score], self.window[:2])

    def _cues_score(self) -> CuesScore:
        return CuesScore(self.cues, self.terms, self.tile)

    def _places_score(self) -> PlacesScore:
        return PlacesScore(self.places)

    def _density_score(self) -> DensityScore:
        return DensityScore(self.density, self.terms, self.window)

    def _margins(self, score: str | None) -> tuple[tiling.Margin, tiling.Margin]:
        return margins_of(self.window, self.tile, self.stride, score)

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def reconstruct_in_graph(self, images: tf.Tensor) -> tf.Tensor:
        """`reconstruct` without its checks."""

        def of_block(block: tf.Tensor, trim: Any) -> tf.Tensor:
            return trim(self._blended(block, self.reconstruction))

        images = self.filled(images)
        return tiling.by_block(images, self._margins(None), self.window[2], of_block)

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def error_maps(self, images: tf.Tensor, score: str) -> tf.Tensor:
        """Returns the errors that a score reads, of images `[B, H, W, C]`: `[B, H, W, K]`."""
        scored = self.scored_by(score)
        return self._blended(images, lambda x: scored.window_errors(x, self._error_maps_of(x)))

    def _error_maps_of(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `errors` of windows, each without a location as a flat map."""
        whole = [1, *self.window[:2]]
        return {
            name: tf.tile(error[:, None, None], whole) if len(error.shape) == 1 else error
            for name, error in self.errors(images).items()
        }

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def scores_of_windows(self, images: tf.Tensor, scores: tuple[str, ...]) -> dict[str, tf.Tensor]:
        """Returns several scores of windows `[N, h, w, C]`, `[N]` each, from errors taken once."""
        errors, found = self._error_maps_of(images), {}
        for score in scores:
            scored = self.scored_by(score)
            found[score] = scored(images, scored.window_errors(images, errors))["score"]
        return found

    @tf.function(reduce_retracing=True, autograph=False)
    @precision.scoring()
    def descriptions(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the vectors that `density` reads, of windows `[N, h, w, C]`: `[N, K]`."""
        return self._density_score().vectors(images, self._error_maps_of(images))

    def _blended(self, images: tf.Tensor, of_windows: Any) -> tf.Tensor:
        """Returns a function of windows, `[N, h, w, K]`, blended over images: `[B, H, W, K]`."""
        strides = tiling.strides_of(self.window[:2], self.stride)
        return tiling.by_window(images, self.window[:2], strides, of_windows)
