"""The base of `Detector` that knows normal images: their statistics, products and threshold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.core import checks
from tfgad.core.scorer import Scorer
from tfgad.data.origins import TILE, Origins
from tfgad.data.sampling import batched, spread
from tfgad.errors import UsageError
from tfgad.networks import precision
from tfgad.scores.calibration import Calibration, Threshold
from tfgad.scores.cues import Cues
from tfgad.scores.density import Density
from tfgad.scores.image_quality import ImageQuality
from tfgad.scores.places import Places
from tfgad.scores.product_calibration import standardise_by_product
from tfgad.scores.products import UNKNOWN, Products
from tfgad.scores.score import BY_PLACE, CUES, DENSITY, PLACES

QUALITY_IMAGES = 2048  # used for the quality statistics; of 128x128 pixels, 12 s on two cores


class Calibrated(Scorer):
    """Statistics of normal images, the threshold, and the decision by it; see `Detector`."""

    products: Products | None = None

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights of scoring: statistics of normal images, and the threshold."""
        if self.built:
            return
        for network in self.networks().values():
            precision.score_in_float32(network)
        if self.reconstructs:
            by_place, weights = self.score in BY_PLACE, self.term_weights()
            self.cues = Cues([len(term) for term in self.terms], None if by_place else weights)
            self.density = Density(sum(map(len, self.terms)) + 1 + self.code_dim)
            if by_place:
                self.places = Places(self.tile, self.window[2], weights)
        self.calibration = Calibration(name="calibration")
        self.image_quality = ImageQuality(self.tile, self.window[:2], self.window[2])
        if self.product_names:
            self.products = Products(self.product_names, self.tile, self.window[2])
        self.built = True

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function that `fit` calls for each batch; the threshold no longer holds."""
        if self.built:
            self._forget_threshold()
        return super().make_train_function(force)

    def _forget_threshold(self) -> None:
        """Makes the model one without a threshold, whose scores are about to change."""
        self.calibration.calibrated.assign(0.0)

    def _needs_adapt(self, score: str) -> bool:
        """Returns whether a score needs statistics of normal images that are not there yet."""
        if score == DENSITY:
            return not self.density.is_adapted
        if score in BY_PLACE:
            return self.score not in BY_PLACE or not self.places.is_adapted
        return score == CUES and not self.cues.is_adapted

    def _refuse_unadapted(self, score: str) -> None:
        if self._needs_adapt(score):
            hint = f"call `adapt` with the training images first, built with score={score}"
            raise UsageError("model", "not adapted", "knows no normal images", hint)

    def adapt(self, normals: Any, size: int | None = None) -> None:
        """Learns the statistics of normal images: of their quality, and those of scores.

        The threshold belongs to scores by the old statistics: call `calibrate` afterwards.

        Those of `density` it learns if that is the model's score, or the images are windows. If
        the model's score is `places` or `joint_places`, the statistics of places are learnt instead
        of those of `cues`.

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
        qualities = checks.joined([self._qualities(x) for x in batched(some)])
        self._forget_threshold()
        self.image_quality.adapt(qualities)
        if not self.reconstructs:
            return
        if self.score == DENSITY or normals.element_spec.shape[:2] == self.window[:2]:
            self._density_score().adapt(normals, size, self.descriptions)
        if self.score in BY_PLACE:
            self._places_score().adapt(normals, size, self.traced_errors(PLACES))
        else:
            self._cues_score().adapt(normals, size, self.traced_errors(CUES))
        self.predict_function = None  # which may score by the paper's score

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
        scores, qualities, levels, descriptions = [], [], [], []
        for batch in batched(normals):
            qualities.append(self._qualities(batch))
            scores.append(self.traced_anomaly(self.score)(batch)["score"].numpy())
            if self.products is None:
                levels.append(self.brightness(batch).numpy())
            else:
                descriptions.append(self.products.describe(batch).numpy())
        raw = checks.joined(scores)
        if self.products is None:
            threshold = self.calibration.fit(
                raw, false_positive_rate, origins, per, brightness=checks.joined(levels)
            )
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

    def prediction(
        self,
        images: Any,
        score: Any,
        product: Any = None,
        *,
        ignored: np.ndarray | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the decision of the calibrated model on images and their scores.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            score: float32 `[B]`, theirs.
            product: as for `anomaly`, and the same as there.
            ignored: as for `anomaly`, and the same as there.

        Returns:
            `probability` float32 `[B]`, `is_anomalous` bool `[B]`, and `reason` string `[B]`: why
            an image is unlike any normal one (`scores/image_quality.py`), empty where it is not.
            Such an image is anomalous with a probability of 1, whatever its score. Also
            `brightness` float32 `[B]`, which the drift test reads.

        Raises:
            UsageError: the model has no threshold; or a product or masks that `anomaly` refuses.
        """
        self.build()
        self.calibration.require_calibrated()
        images = self.filled_own(images, ignored)
        given = None if product is None else self.product_indices(product, len(images))
        return self.prediction_in_graph(images, score, given)

    @tf.function(reduce_retracing=True, autograph=False)
    def prediction_in_graph(
        self, images: tf.Tensor, score: tf.Tensor, given: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """`prediction` with `given` as for `by_product`: for graphs that are exported."""
        decision = self.calibration.with_reason(score, self._reasons(images, given))
        return {**decision, "brightness": self.brightness(images)}

    def brightness(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the mean grey level of each image, from 0 to 255, without its ignored pixels.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].

        Returns:
            float32 `[B]`.
        """
        filled = self.filled(tf.convert_to_tensor(images))
        return 127.5 * (1 + tf.reduce_mean(filled, axis=[1, 2, 3]))

    def reasons(
        self, images: Any, product: Any = None, *, ignored: np.ndarray | None = None
    ) -> tf.Tensor:
        """Returns why each image is unlike any normal one, string `[B]`; see `prediction`."""
        images = self.filled_own(images, ignored)
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

    # Several products

    def learn_products(self, normals: Any, products: np.ndarray) -> None:
        """Learns to recognise the products of normal images, of a model of several.

        Call `calibrate` afterwards: its limits belong to what was recognised before.

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
        self._forget_threshold()
        self.products.adapt(descriptions, products)
        self.predict_function = None  # which may have been refused

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

    def _require_products(self) -> None:
        """Raises UsageError if products are to be recognised before `learn_products`."""
        self.build()
        if self.products is not None:
            self.products.require_adapted()
