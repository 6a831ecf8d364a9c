"""The contract of every method: a Keras model fitted to normal images that scores others."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import checks, legacy, settings
from tfgad.core.trained import Trained
from tfgad.data import ignored as ignoring
from tfgad.data import ignored_own, tiling
from tfgad.data.origins import TILE, Origins
from tfgad.data.sampling import batched, spread
from tfgad.errors import UsageError, nearest
from tfgad.networks import precision
from tfgad.scores.calibration import Calibration, Threshold
from tfgad.scores.cues import Cues, CuesScore
from tfgad.scores.density import Density, DensityScore
from tfgad.scores.image_quality import ImageQuality
from tfgad.scores.places import Places, PlacesScore
from tfgad.scores.product_calibration import standardise_by_product
from tfgad.scores.products import UNKNOWN, Products, check_names
from tfgad.scores.score import CUES, DENSITY, PLACES, MeanErrorScore, Score, margins_of

logger = logging.getLogger(__name__)

QUALITY_IMAGES = 2048  # used for the quality statistics; of 128x128 pixels, 12 s on two cores


class Detector(Trained):
    """A one-class detector: fitted to normal images, it gives any image a score and a map.

    A method derives from it. Beside what `Trained` asks for, it states

    - `scores`: the scores that it has, each the sum of some errors, `{name: (error, ...)}`; the
      first is its default;
    - `errors(windows)`: the error of each window, by name. An error is a map `[N, h, w]`, whose
      mean is the error of the window, or a number `[N]` without a location in the window.

    A method that reconstructs images states besides

    - `reconstruction(windows)`: the reconstructions, `[N, h, w, C]` in [-1, 1];
    - `terms`: the names of the errors that the scores `cues` and `density` read, in groups of
      equal weight, `residual` among them. They are not negative;
    - `code_dim`: the length of `code` `[N, code_dim]`, which is then one of `errors`: what the
      networks know of a window beside the errors, such as its latent code.

    A method that makes further scores itself, in `scored_by`, states their names in `tile_scores`.
    The first is then its default; of a method that reconstructs, on images larger than the window.

    A method that marks pixels as defective states `pixel_threshold`, the value of the map above
    which it does.

    A method that learns from labels sets `labelled`: its `train_step` takes `(images, labels)`.

    Networks take images of one size, the window. An image of that size has the mean of its errors
    as score. A larger one is scored window by window (`tfgad.data.tiling`): the maps of the windows
    are blended, and the score is the largest value of the map. Scoring is in inference mode and in
    float32, always.

    Args:
        config: the hyper-parameters of the method, a `Config` of its module.
        image_shape: `(height, width, channels)` of the windows.
        seed: of all randomness in training.
        score: one of `scores`, `cues`, `density`, `places`, or `auto`: of a method that
            reconstructs, `density` where windows are whole images, and the first of `tile_scores`
            or else `cues` where images are larger; of others the first of `tile_scores` or else of
            `scores`. That of `config`, if not given. A run on resized images has `places` instead
            of `cues`.
        stride: of the windows on larger images, in pixels; where it does not divide a side, the
            divisor next to it is taken (`tiling.strides_of`). That of `config`, if not given.
        tile: `(height, width)` of the images that the threshold is set on; the window's, if not
            given. The false-positive rate is that of a tile.
        ignored: bool `[height, width]` of the tile, true where pixels are ignored on every image:
            images of the tile's size are filled there (`tfgad.data.ignored`) before anything else
            sees them, and maps and scores leave it out. Images of other sizes are refused then.
            Windows that are smaller than the tile have to be cut from images that `filled` returns.
        products: names of the products, if it is one model for several; see
            `tfgad.scores.products`.
        name: of the model.

    Raises:
        UsageError: a score that the method does not have, a region that is not one of the tile, or
            products that are not two or more names.

    Examples:
        >>> model = tfgad.build("ganomaly", (32, 32, 1))
        >>> model.fit(images, batch_size=model.images_per_step)  # float32 [N, 32, 32, 1] in [-1, 1]
        >>> model.adapt(images)
        >>> model.calibrate(held_out, false_positive_rate=0.01)
        >>> model.predict(others)["score"]                       # float32 [N]
    """

    scores: ClassVar[dict[str, tuple[str, ...]]]
    tile_scores: ClassVar[tuple[str, ...]] = ()
    terms: tuple[tuple[str, ...], ...] = ()
    code_dim: int = 0
    labelled: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = False
    pixel_threshold: ClassVar[float | None] = None
    products: Products | None = None

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
        name: str | None = None,
    ):
        super().__init__(seed=seed, name=name)
        self.config = config
        height, width, channels = image_shape
        self.window = (height, width, channels)
        self.tile = (tile[0], tile[1]) if tile else (height, width)
        self.ignored = None if ignored is None else ignoring.check_region(ignored, self.tile)
        defaults = settings.Common()
        self.stride: int = stride if stride else getattr(config, "stride", defaults.stride)
        self.score = self._known(score or str(getattr(config, "score", defaults.score)))
        self.product_names = check_names(products) if products else ()

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.reconstructs = cls.reconstruction is not Detector.reconstruction

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

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights of scoring: statistics of normal images, and the threshold."""
        if self.built:
            return
        for network in self.networks().values():
            precision.score_in_float32(network)
        if self.reconstructs:
            self.cues = Cues([len(term) for term in self.terms])
            self.density = Density(sum(map(len, self.terms)) + 1 + self.code_dim)
            if self.score == PLACES:
                self.places = Places(self.tile, self.window[2])
        self.calibration = Calibration(name="calibration")
        self.image_quality = ImageQuality(self.tile, self.window[:2], self.window[2])
        if self.product_names:
            self.products = Products(self.product_names, self.tile, self.window[2])
        self.built = True

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

    # Scoring

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks images, then calls `call`: Keras would wrap an error of that.

        Raises:
            UsageError: images that are not float32 or smaller than the window; or a model of
                several products that cannot recognise them yet. Images beyond [-1, 1], or NaN,
                raise TensorFlow's `InvalidArgumentError`.
        """
        if not isinstance(images, keras.KerasTensor):
            images = checks.images_in_range(images, self.window)
            self._check_size(images)
        self._require_products()
        return super().__call__(images, *args, **kwargs)

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns `score` `[B]` and `map` `[B, H, W]` of images, by the model's own score.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.
            training: has no effect.
        """
        score = self._score_in_force()
        scored = self.by_product(self.anomaly_in_graph(images, score), images, score)
        return {"score": scored["score"], "map": scored["map"]}

    def _score_in_force(self) -> str:
        """Returns the model's own score, or before `adapt` the paper's where its own needs that."""
        self.build()
        with tf.init_scope():  # not a tensor of the graph that is being traced
            if not self._needs_adapt(self.score):
                return self.score
        logger.warning(
            "%s scores by %s: call `adapt` with normal images first to score by %s",
            self.name,
            next(iter(self.scores)),
            self.score,
        )
        return next(iter(self.scores))

    def _needs_adapt(self, score: str) -> bool:
        """Returns whether a score needs statistics of normal images that are not there yet."""
        if score == DENSITY:
            return not self.density.is_adapted
        if score == PLACES:
            return self.score != PLACES or not self.places.is_adapted
        return score == CUES and not self.cues.is_adapted

    def anomaly(
        self,
        images: Any,
        score: str | None = None,
        product: Any = None,
        *,
        ignored: np.ndarray | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the anomaly score and map of images, after checks.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], each side at least the window's.
            score: another than the model's own; the calibration does not hold for it. If none is
                given before `adapt`, and the model's own needs that, the paper's.
            product: the name of the images' product, or of each; None where the model has one
                product, or is to recognise it.
            ignored: bool `[B, H, W]`, pixels of these images that are ignored beside those of the
                model; see `tfgad.data.ignored_own`.

        Returns:
            `score` float32 `[B]` and `map` float32 `[B, H, W]`, unbounded, higher is more
            anomalous; of a model of several products also the name of its `product`, string `[B]`.

        Raises:
            UsageError: images of another form, or that are not finite; a score that the method does
                not have, or that needs statistics of normal images before `adapt`; a product that
                the model does not know, or that it is to recognise before `learn_products`; or
                masks of another form, that leave nothing of an image, or for a model of several
                products.
        """
        if ignored is not None:
            if self.product_names:  # a filled place would look like another product
                hint = "score them with a model of one product"
                raise UsageError("ignored", "masks", "do not go with several products", hint)
            images = ignored_own.filled(images, ignored, self.ignored)
        images = checks.checked_images(images, self.window)
        self._check_size(images)
        given = self.product_indices(product, len(images))
        if score is None:
            score = self._score_in_force()
        else:
            score = self._known(score)
            self._refuse_unadapted(score)
        scored = self.by_product(self.traced_anomaly(score)(images), images, score, given)
        if ignored is None:
            return scored
        anomaly_map = ignoring.leave_out(scored["map"], ignored_own.with_margins(ignored))
        if self.scored_by(score).is_peak or tuple(images.shape[1:3]) != self.window[:2]:
            scored["score"] = tf.reduce_max(anomaly_map, axis=[1, 2])
        return {**scored, "map": anomaly_map}

    def product_indices(self, product: Any, count: int) -> tf.Tensor | None:
        """Returns the index of each image's product; see `Products.indices`.

        Args:
            product: as for `anomaly`. None gives None: each product is recognised.
            count: number of images.

        Raises:
            UsageError: a product that the model does not know, or not one for each image.
        """
        self.build()
        if product is None:
            return None
        if self.products is not None:
            return self.products.indices(product, count)
        if product:
            hint = "leave it out"
            raise UsageError("product", product, "but the model is of one product", hint)
        return None

    def by_product(
        self, scored: Any, images: tf.Tensor, score: str, given: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Standardises raw scores and maps by product; those of one product stay as they are.

        Args:
            scored: what `anomaly_in_graph` returns for the images.
            images: float32 `[B, H, W, C]` in [-1, 1].
            score: by which they are scored. Another than the model's own is not standardised.
            given: int32 `[B]`, the index of each image's product; -1 where it is to be recognised,
                None for all.

        Raises:
            UsageError: products are to be recognised before `learn_products`.
        """
        if self.products is None:
            return scored
        known = None if given is None else tf.get_static_value(given)
        if known is not None and np.all(known != UNKNOWN):
            product = given
        else:
            product, _ = self.products.recognise(self.filled(images), given)
        if score != self.score:
            return {**scored, "product": self.products.name_of(product)}
        return self.products.standardised(scored, product)

    def reconstruct(self, images: Any) -> tf.Tensor:
        """Returns the reconstructions of images: `[B, H, W, C]` in [-1, 1].

        Raises:
            UsageError: a method that reconstructs nothing, or images that `anomaly` refuses.
        """
        return self.reconstruct_in_graph(checks.checked_images(images, self.window))

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
            return PlacesScore(self.places)
        return MeanErrorScore(self.scores[score], self.window[:2])

    def _cues_score(self) -> CuesScore:
        return CuesScore(self.cues, self.terms, self.tile)

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

    # Statistics of normal images, and the threshold

    def adapt(self, normals: Any, size: int | None = None) -> None:
        """Learns the statistics of normal images: of their quality, and those of scores.

        Those of `density` it learns if that is the model's score, or the images are windows. If
        `places` is the model's score, its statistics are learnt instead of those of `cues`.

        Args:
            normals: images float32 `[N, H, W, C]`, or a dataset of them, one at a time; the
                training images will do.
            size: how many they are, of a dataset that does not know it.

        Raises:
            UsageError: images of another form, or that `anomaly` refuses; or an unknown `size`.
        """
        self.build()
        normals = self.normal_images(normals)
        size = checks.size_of(normals, size)
        some = spread(normals, size, QUALITY_IMAGES)
        self.image_quality.adapt(checks.joined([self._qualities(x) for x in batched(some)]))
        if not self.reconstructs:
            return
        if self.score == DENSITY or normals.element_spec.shape[:2] == self.window[:2]:
            self._density_score().adapt(normals, size, self.descriptions)
        if self.score == PLACES:
            score = PlacesScore(self.places)
            score.adapt(normals, size, self.traced_errors(PLACES))
        else:
            self._cues_score().adapt(normals, size, self.traced_errors(CUES))
        self.predict_function = None  # which may score by the paper's score

    def learn_products(self, normals: Any, products: np.ndarray) -> None:
        """Learns to recognise the products of normal images, of a model of several.

        Args:
            normals: images float32 `[N, H, W, C]`, or a dataset of them, one at a time; the
                training images will do.
            products: int `[N]`, the product of each, as an index of `product_names`; every product
                occurs.

        Raises:
            UsageError: a model of one product, images that `adapt` refuses, or other numbers.
        """
        self.build()
        if self.products is None:
            hint = "build it with the names of its products"
            raise UsageError("model", self.name, "is of one product", hint)
        described = map(self.products.describe, batched(self.normal_images(normals)))
        descriptions = checks.joined([each.numpy() for each in described])
        products = self.products.checked_numbers(products, len(descriptions))
        self.products.adapt(descriptions, products)
        self.predict_function = None  # which may have been refused

    def calibrate(
        self,
        normals: Any,
        false_positive_rate: float,
        *,
        origins: Origins | None = None,
        per: str = TILE,
        products: np.ndarray | None = None,
    ) -> Threshold:
        """Sets the threshold and the limits of quality from images held out of training.

        Args:
            normals: images float32 `[N, H, W, C]`, or a dataset of them, one at a time.
            false_positive_rate: the share of normal images that may be called anomalous.
            origins: the group of each image, such as `AnomalyData.calibration_origins`; None if the
                images have nothing to do with each other.
            per: `"tile"`: the rate is a share of `normals`. `"image"`: it is a share of the whole
                images that `origins` says they are tiles of.
            products: int `[N]`, the product of each image, as an index of `product_names`, of a
                model of several; -1 where it is to be recognised, None for all.

        Returns:
            The threshold, with the interval of its false-positive rate on images of new groups.

        Raises:
            UsageError: the score needs statistics of normal images, and `adapt` was not called; or
                images of another form, or that `anomaly` refuses; other numbers of `origins` or
                `products`; or of a model of several products `learn_products` was not called, or
                one of them has fewer than two images.
        """
        self.build()
        normals = self.normal_images(normals)
        self._refuse_unadapted(self.score)
        self._require_products()
        scores, qualities, descriptions = [], [], []
        for batch in batched(normals):
            qualities.append(self._qualities(batch))
            scores.append(self.traced_anomaly(self.score)(batch)["score"].numpy())
            if self.products is not None:
                descriptions.append(self.products.describe(batch).numpy())
        raw = checks.joined(scores)
        if self.products is None:
            threshold = self.calibration.fit(raw, false_positive_rate, origins, per)
        else:
            distances = self.products.distances(checks.joined(descriptions)).numpy()
            found = standardise_by_product(
                self.products, raw, distances, products, false_positive_rate, origins, per
            )
            threshold = self.calibration.fit(
                found.scores, false_positive_rate, origins, per, found.thresholds, found.effective
            )
            threshold = dataclasses.replace(threshold, of_products=found.of_products)
        self.image_quality.calibrate(checks.joined(qualities), false_positive_rate)
        return threshold

    def prediction(self, images: Any, score: Any, product: Any = None) -> dict[str, tf.Tensor]:
        """Returns the decision of the calibrated model on images and their scores.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            score: float32 `[B]`, theirs.
            product: as for `anomaly`, and the same as there.

        Returns:
            `probability` float32 `[B]`, `is_anomalous` bool `[B]`, and `reason` string `[B]`: why
            an image is unlike any normal one (`scores/image_quality.py`), empty where it is not.
            Such an image is anomalous with a probability of 1, whatever its score.

        Raises:
            UsageError: a product that `anomaly` refuses.
        """
        given = None if product is None else self.product_indices(product, len(images))
        return self.prediction_in_graph(images, score, given)

    @tf.function(reduce_retracing=True, autograph=False)
    def prediction_in_graph(
        self, images: tf.Tensor, score: tf.Tensor, given: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """`prediction` with `given` as for `by_product`: for graphs that are exported."""
        return self.calibration.with_reason(score, self._reasons(images, given))

    def reasons(self, images: Any, product: Any = None) -> tf.Tensor:
        """Returns why each image is unlike any normal one, string `[B]`; see `prediction`."""
        given = None if product is None else self.product_indices(product, len(images))
        return self._reasons(images, given)

    def _reasons(self, images: tf.Tensor, given: tf.Tensor | None) -> tf.Tensor:
        """Returns what `reasons` does, with `given` as for `by_product`."""
        images = self.filled(tf.convert_to_tensor(images))
        reasons = self.image_quality(images)
        if self.products is None:
            return reasons
        return tf.where(reasons == "", self.products.recognise(images, given)[1], reasons)

    @tf.function(reduce_retracing=True, autograph=False)
    def _statistics(self, images: tf.Tensor) -> tf.Tensor:
        return self.image_quality.tile_statistics(self.filled(images))

    def _qualities(self, images: tf.Tensor) -> np.ndarray:
        """Returns the quality's statistics of a batch of images, `[N, K]`, after checks."""
        return self._statistics(checks.checked_images(images, self.window)).numpy()

    def _require_products(self) -> None:
        """Raises UsageError if products are to be recognised before `learn_products`."""
        self.build()
        if self.products is not None:
            self.products.require_adapted()

    def _refuse_unadapted(self, score: str) -> None:
        if self._needs_adapt(score):
            hint = f"call `adapt` with the training images first, built with score={score}"
            raise UsageError("model", "not adapted", "knows no normal images", hint)

    # Saving

    def export(self, filepath: Any, *args: Any, input_signature: Any = None, **kwargs: Any) -> None:
        """Exports the model as Keras does: an endpoint from images to score and map, no decision.

        Images are float32 `[B, H, W, C]` in [-1, 1], of any size that `call` takes. What TensorFlow
        Serving is to load, which takes files and decides, `tfgad.export.saved_model` writes.

        Args:
            filepath: folder of the SavedModel.
            *args: see `keras.Model.export`.
            input_signature: of the endpoint, if it is to take other images.
            **kwargs: see `keras.Model.export`.

        Raises:
            UsageError: a model of several products that cannot recognise them yet.
        """
        self._require_products()
        images = tf.TensorSpec([None, None, None, self.window[2]], tf.float32, "images")
        signature = [images] if input_signature is None else input_signature
        super().export(filepath, *args, input_signature=signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments and the networks."""
        return {
            **super().get_config(),
            "networks": self.networks(),
            "config": settings.as_dict(self.config),
            "image_shape": self.window,
            "score": self.score,
            "stride": self.stride,
            "tile": self.tile,
            **({} if self.ignored is None else {"ignored": ignoring.as_text(self.ignored)}),
            **({"products": list(self.product_names)} if self.product_names else {}),
        }

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments from a file's configuration, of whatever version."""
        if "config" not in config:
            config = legacy.with_config(config, cls.Config)
        parsed = settings.parse(cls.Config, config["config"], cls.__name__)
        if "ignored" in config:
            config = {**config, "ignored": ignoring.from_text(config["ignored"])}
        return {**config, "config": parsed, "image_shape": tuple(config["image_shape"])}


def features_of(critic: keras.Model) -> tuple[str, ...]:
    """Returns the names of the feature errors of a critic that returns `features`."""
    return tuple(f"features_{level}" for level in range(len(critic.output["features"])))
