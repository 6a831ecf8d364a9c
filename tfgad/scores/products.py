"""Several products of one model: the product of an image, and a threshold for each.

Raw scores of two products differ. So the score and the map of an image of product p are
standardised,

    (value - t_p) / s_p

with t_p the threshold of the raw scores of held-out good images of p at the asked false-positive
rate, and s_p their `logistic_scale`. For every product, the threshold is then 0 and the scale 1.

The product is given, or recognised from a description of the whole image
(`image_description.py`). With μ_p the mean of good training images of p, and Σ the covariance
within products (Ledoit, Wolf 2004) and of changes of light, contrast and focus, an image x is of
the product with the smallest

    d_p(x)² = (x - μ_p)ᵀ Σ⁻¹ (x - μ_p)

This is linear discriminant analysis with equal priors. An image is unlike p if d_p is above the
limit of p, from held-out good images. One that is unlike every product is anomalous, and so is one
that is unlike the product that is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.covariance import LedoitWolf

from tfgad.errors import UsageError, nearest
from tfgad.scores.image_description import describe, length, tolerances
from tfgad.scores.statistics_layer import StatisticsLayer
from tfgad.scores.thresholds import thresholds_from_normals
from tfgad.scores.tile_statistics import GREY_LEVEL, UNLIKE_ALL, UNLIKE_ITS

# Share of the allowed false alarms that being unlike the product may cause.
RATE_SHARE = 0.1
# The limit is at least this times the largest distance of a held-out good image, as in
# `image_quality.py`. Three fabrics of AITEX (00, 01, 03): beside those that are out of the limits
# of quality, 18 % of the good test tiles are beyond the level of `RATE_SHARE`, since the strips of
# a fabric differ, 4.3 % are beyond 1.75 times the largest distance, and 2.2 % beyond 2.5 times:
# these are nearly all of strips that have another weave. Of three weaves of 64x64 pixels, tiles of
# one that was not trained on are all beyond 1.75 times the distance, but as few as 5 % beyond 2.5.
# More margin finds fewer strangers, but keeps the false-positive rate: so 2.5.
MARGIN = 2.5
UNKNOWN = -1  # in place of the index of a product: it is recognised


@keras.saving.register_keras_serializable("tfgad")
class Products(StatisticsLayer):
    """Layer that knows the products of a model: recognises them, and standardises their scores.

    Args:
        names: of the products, two or more.
        tile: `(h, w)` of the tiles that are described.
        channels: 1 or 3.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        names: Sequence[str],
        tile: Sequence[int],
        channels: int,
        name: str = "products",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        height, width = tile
        self.names, self.tile, self.channels = tuple(names), (height, width), channels
        count, size = len(self.names), length(channels)
        self.thresholds = self._statistic("thresholds", (count,), "zeros")
        self.scales = self._statistic("scales", (count,), "ones")
        self.means = self._statistic("means", (count, size), "zeros")
        # Of descriptions, so that Euclidean distances are those of Mahalanobis.
        self.whitening = self._statistic("whitening", (size, size), "zeros")
        infinite = keras.initializers.Constant(np.inf)
        self.limits = self._statistic("limits", (count,), infinite)
        form = tf.TensorSpec([None, None, None, channels], tf.float32)  # traced once, for any size
        self._traced = tf.function(
            lambda images: describe(images, self.tile), [form], autograph=False
        )
        self.built = True

    @property
    def is_adapted(self) -> bool:
        """Whether the products can be recognised."""
        with tf.init_scope():  # not a tensor of the graph that is being traced
            return bool(np.any(self.whitening.numpy()))

    def indices(self, products: Any, count: int) -> tf.Tensor:
        """Returns the index of each image's product, int32 `[count]`; -1 for one to recognise.

        Args:
            products: the name of all images' product, or a name for each; None or `""` to
                recognise it.
            count: number of images.

        Raises:
            UsageError: a product that the model does not know, or not one for each image.
        """
        given = [products] * count if products is None or isinstance(products, str) else products
        if len(given) != count:
            problem = f"are not one for each of {count} images"
            raise UsageError("products", len(given), problem, "give the product of each image")
        known = {name: index for index, name in enumerate(self.names)} | {
            None: UNKNOWN,
            "": UNKNOWN,
        }
        for name in given:
            if name not in known:
                hint = nearest(str(name), self.names)
                raise UsageError("product", name, "is not one that the model knows", hint)
        numbers = [known[name] for name in given]
        if UNKNOWN in numbers:
            self.require_adapted()
        return tf.constant(numbers, tf.int32, [count])

    def checked_numbers(self, products: Any, count: int, known: bool = True) -> np.ndarray:
        """Returns the product of each good image, int `[count]`, as an index of `names`.

        Args:
            products: int `[count]`.
            count: number of images.
            known: every product occurs; if not, -1 stands for one to recognise.

        Raises:
            UsageError: not one whole number for each image, another number, or a product without
                images.
        """
        numbers = np.asarray(products)
        if numbers.shape != (count,) or not np.issubdtype(numbers.dtype, np.integer):
            problem = f"are not one whole number for each of {count} images"
            hint = "give the index of each image's product"
            raise UsageError("products", f"{numbers.dtype} {numbers.shape}", problem, hint)
        least = 0 if known else UNKNOWN
        outside = numbers[(numbers < least) | (numbers >= len(self.names))]
        if outside.size:
            hint = f"give {least} to {len(self.names) - 1}"
            raise UsageError("products", outside[0], "is the index of no product", hint)
        missing = set(range(len(self.names))) - set(numbers.tolist()) if known else ()
        if missing:
            hint = "give good images of every product"
            raise UsageError("product", self.names[min(missing)], "has no images", hint)
        return numbers

    def require_adapted(self) -> None:
        """Raises UsageError if the products cannot be recognised yet."""
        if not self.is_adapted:
            hint = "call `learn_products` with the training images first, or give the product"
            raise UsageError("model", "not adapted", "cannot recognise products", hint)

    def describe(self, images: Any) -> tf.Tensor:
        """Returns the descriptions of images float32 `[B, H, W, C]` in [-1, 1]: `[B, K]`."""
        return self._traced(images)

    def distances(self, descriptions: tf.Tensor) -> tf.Tensor:
        """Returns d_p of descriptions `[B, K]` for each product: `[B, P]`."""
        centred = descriptions[:, None] - self.means[None]
        return tf.norm(tf.einsum("bpk,kl->bpl", centred, self.whitening.value), axis=-1)

    def recognise(
        self, images: tf.Tensor, given: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the index of each image's product, and why it is like none.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            given: int32 `[B]`, -1 where the product is to be recognised; None for all.

        Returns:
            int32 `[B]`, and string `[B]`: a reason of `tile_statistics.REASONS`, or `""`.

        Raises:
            UsageError: all are to be recognised, before `adapt`.
        """
        if given is None:
            self.require_adapted()
        distances = self.distances(self.describe(images))
        nearest_one = tf.argmin(distances, axis=1, output_type=tf.int32)
        given = tf.fill(tf.shape(nearest_one), UNKNOWN) if given is None else given
        product = tf.where(given >= 0, given, nearest_one)
        unlike = distances > self.limits
        unlike_its = tf.gather(unlike, product, batch_dims=1) & (given >= 0)
        unlike_all = tf.reduce_all(unlike, axis=1) & (given < 0)
        reason = tf.where(unlike_its, UNLIKE_ITS, tf.where(unlike_all, UNLIKE_ALL, ""))
        return product, reason

    def name_of(self, product: tf.Tensor) -> tf.Tensor:
        """Returns the names of indices int32 `[B]`: string `[B]`."""
        return tf.gather(tf.constant(self.names), product)

    def numbers(self) -> dict[str, tf.Tensor]:
        """Returns the names, and the threshold and scale of their raw scores, each `[P]`."""
        return {
            "products": tf.constant(self.names),
            "product_thresholds": tf.identity(self.thresholds.value),
            "product_scales": tf.identity(self.scales.value),
        }

    def standardised(self, scored: dict[str, tf.Tensor], product: tf.Tensor) -> dict[str, Any]:
        """Returns `score` `[B]` and `map` `[B, H, W]` standardised, and the name of `product`."""
        threshold, scale = (tf.gather(each, product) for each in (self.thresholds, self.scales))
        return {
            "score": (scored["score"] - threshold) / scale,
            "map": (scored["map"] - threshold[:, None, None]) / scale[:, None, None],
            "product": self.name_of(product),
        }

    def adapt(self, descriptions: np.ndarray, products: np.ndarray) -> None:
        """Learns to recognise the products.

        Args:
            descriptions: `[N, K]`, of good images.
            products: int `[N]`, the product of each; every product occurs.
        """
        means = np.stack([descriptions[products == p].mean(0) for p in range(len(self.names))])
        within = descriptions - means[products]
        # What differs by less than a grey level, or by rounding, tells nothing.
        deviation = np.maximum(within.std(axis=0), GREY_LEVEL)
        covariance = LedoitWolf(assume_centered=True).fit(within / deviation).covariance_
        tolerance = tolerances(self.channels) / deviation
        precision = np.linalg.inv(covariance + tolerance.T @ tolerance)
        self.means.assign(means)
        self.whitening.assign(np.linalg.cholesky(precision) / deviation[:, None])

    def calibrate(
        self, distances: np.ndarray, products: np.ndarray, false_positive_rate: float
    ) -> None:
        """Sets the limits of the distances.

        Args:
            distances: `[N, P]`, of held-out good images, two or more of each product.
            products: int `[N]`, the product of each.
            false_positive_rate: of the detector; see `RATE_SHARE`.
        """
        rate = [RATE_SHARE * false_positive_rate]
        of_each = [distances[products == p, p] for p in range(len(self.names))]
        levels = [thresholds_from_normals(each, rate)[0] for each in of_each]
        least = [MARGIN * each.max() for each in of_each]
        self.limits.assign(np.maximum(levels, least))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"names": self.names, "tile": self.tile, "channels": self.channels}
        return {**super().get_config(), **own}


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a model's products.

    Raises:
        UsageError: one text, fewer than two names, an empty name, or one twice.
    """
    hint = 'give two or more names, such as ["bolt", "nut"]'
    if isinstance(names, str):
        raise UsageError("products", names, "is one text", hint)
    found = tuple(names)
    if len(found) < 2:
        raise UsageError("products", ", ".join(map(str, found)), "are fewer than two", hint)
    for name in found:
        if not isinstance(name, str) or not name:
            raise UsageError("products", repr(name), "is no name", hint)
        if found.count(name) > 1:
            raise UsageError("products", name, "is there twice", "name each once")
    return found
