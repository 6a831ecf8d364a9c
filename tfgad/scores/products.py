"""Several products of one model: the product of an image, and a threshold for each.

Raw scores of two products differ. So the score and the map of an image of product p are
standardised,

    (value - t_p) / s_p

with t_p the threshold of the raw scores of held-out good images of p at the asked false-positive
rate, and s_p their `logistic_scale`. For every product, the threshold is then 0 and the scale 1.

The product is given, or recognised from a description of the whole image: a thumbnail of 8x8
pixels, which tells parts apart, and the logarithm of its mean power in 8 half octaves by 6
orientations, which tells textures apart. Of an image of several tiles it is the mean of their
descriptions. With μ_p the mean of good training images of p, and Σ the covariance within products
(Ledoit, Wolf 2004) and of changes of light, contrast and focus, an image x is of the product with
the smallest

    d_p(x)² = (x - μ_p)ᵀ Σ⁻¹ (x - μ_p)

This is linear discriminant analysis with equal priors. An image is unlike p if d_p is above the
limit of p, from held-out good images. One that is unlike every product is anomalous, and so is one
that is unlike the product that is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.covariance import LedoitWolf

from tfgad.data import tiling
from tfgad.errors import UsageError, nearest
from tfgad.scores.image_quality import starts_of
from tfgad.scores.statistics_layer import StatisticsLayer
from tfgad.scores.thresholds import thresholds_from_normals
from tfgad.scores.tile_statistics import GREY_LEVEL, ROUNDING, UNLIKE_ALL, UNLIKE_ITS

THUMBNAIL = 8  # pixels of a side
RADII, ANGLES = 8, 6  # bins of the spectrum
LEAST_RADIUS = 1 / 32  # cycles per pixel; slower ones are in the thumbnail
# Share of the allowed false alarms that being unlike the product may cause.
RATE_SHARE = 0.1
# The limit is at least this times the largest distance of a held-out good image, as in
# `image_quality.py`. Three fabrics of AITEX (00, 01, 03): beside those that are out of the limits
# of quality, 18 % of the good test tiles are beyond the level of `RATE_SHARE`, since the strips of
# a fabric differ, 4.3 % are beyond 1.75 times the largest distance, and 2.2 % beyond 2.5 times:
# these are nearly all of strips that have another weave. Of three weaves of 64x64 pixels, tiles of
# one that was not trained on are all beyond 1.75 times the distance, but as few as 5 % beyond 2.5.
MARGIN = 1.75
# Light, contrast and focus may vary more than they did among the training images. A third of the
# tolerances of `tile_statistics.py` is taken for a deviation: twice the light from a middle grey,
# and twice the contrast, as the logarithm of power; for focus, between the middle and the ends of
# the spectrum. Without them, 24 and 6.7 % of these tiles are beyond.
LIGHT, CONTRAST = 0.11, 0.46
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
        count, length = len(self.names), THUMBNAIL**2 * channels + RADII * ANGLES
        self.thresholds = self._statistic("thresholds", (count,), "zeros")
        self.scales = self._statistic("scales", (count,), "ones")
        self.means = self._statistic("means", (count, length), "zeros")
        # Of descriptions, so that Euclidean distances are those of Mahalanobis.
        self.whitening = self._statistic("whitening", (length, length), "zeros")
        infinite = keras.initializers.Constant(np.inf)
        self.limits = self._statistic("limits", (count,), infinite)
        form = tf.TensorSpec([None, None, None, channels], tf.float32)  # traced once, for any size
        self._traced = tf.function(self._describe, [form], autograph=False)
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

    def _describe(self, images: tf.Tensor) -> tf.Tensor:
        """Returns what `describe` does.

        Rows of tiles are described one after another, so a large image needs the memory of one row.
        """
        images = tiling.pad_to_grid(images, self.tile, 1)
        rows, columns = (starts_of(tf.shape(images)[i + 1], self.tile[i]) for i in (0, 1))
        places = tf.reshape(columns[:, None] + tf.range(self.tile[1]), [-1])

        def add_row(row: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            strip = images[:, rows[row] : rows[row] + self.tile[0]]
            tiles = tiling.cut(tf.gather(strip, places, axis=2), self.tile, self.tile)
            described = self._describe_tiles(tf.reshape(tiles, [-1, *self.tile, self.channels]))
            of_image = tf.reshape(described, [tf.shape(total)[0], -1, total.shape[1]])
            return row + 1, total + tf.reduce_mean(of_image, axis=1)

        count = tf.shape(rows)[0]
        none = tf.zeros([tf.shape(images)[0], self.means.shape[1]])
        _, total = tf.while_loop(
            lambda row, _: row < count, add_row, [0, none], parallel_iterations=1
        )
        return total / tf.cast(count, tf.float32)

    def _describe_tiles(self, tiles: tf.Tensor) -> tf.Tensor:
        """Returns the thumbnails and the spectra of tiles `[N, *tile, C]`: `[N, K]`."""
        size = [THUMBNAIL, THUMBNAIL]
        thumbnails = tf.image.resize(tiles, size, antialias=True)
        grey = tf.reduce_mean(tiles, axis=-1)
        grey -= tf.reduce_mean(grey, axis=[1, 2], keepdims=True)
        power = tf.square(tf.abs(tf.signal.rfft2d(grey * _window(self.tile))))
        bins, counts = _bins(self.tile)
        flat = tf.transpose(tf.reshape(power, [-1, bins.size]))
        sums = tf.math.unsorted_segment_sum(flat, tf.constant(bins), counts.size + 1)[:-1]
        # White noise of a variance has that in every bin, whatever the size of the tile.
        density = sums / (np.maximum(counts, 1)[:, None] * np.square(_window(self.tile)).sum())
        spectra = tf.math.log(tf.transpose(density) + ROUNDING)
        return tf.concat([tf.reshape(thumbnails, [-1, THUMBNAIL**2 * self.channels]), spectra], 1)

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
        tolerance = self._tolerances() / deviation
        precision = np.linalg.inv(covariance + tolerance.T @ tolerance)
        self.means.assign(means)
        self.whitening.assign(np.linalg.cholesky(precision) / deviation[:, None])

    def _tolerances(self) -> np.ndarray:
        """Returns changes of a description by one deviation of light, contrast and focus."""
        pixels, length = THUMBNAIL**2 * self.channels, self.means.shape[1]
        rings = np.repeat(np.linspace(-1, 1, RADII), ANGLES)
        changes = np.zeros((3, length))
        changes[0, :pixels] = LIGHT
        changes[1, pixels:] = CONTRAST
        changes[2, pixels:] = CONTRAST * rings
        return changes

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


def _window(tile: tuple[int, int]) -> np.ndarray:
    """Returns Hann's window for a tile, float32 `[h, w]`: without it edges count as texture."""
    rows, columns = (np.hanning(side + 2)[1:-1] for side in tile)
    return np.outer(rows, columns).astype(np.float32)


def _bins(tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bin of each value of `rfft2d`, flat, and the number of values in each bin.

    The bins are `RADII` equal steps of the logarithm of the frequency, up to 0.5 cycles per pixel,
    by `ANGLES` orientations. Slower values are in one more bin.
    """
    y, x = np.fft.fftfreq(tile[0])[:, None], np.fft.rfftfreq(tile[1])[None]
    radius = np.hypot(y, x)
    octaves = math.log2(0.5 / LEAST_RADIUS)
    steps = RADII * np.log2(np.maximum(radius, LEAST_RADIUS) / LEAST_RADIUS) / octaves
    ring = np.minimum(steps.astype(int), RADII - 1)
    # Bins are centred at the axes, where the yarns of a weave are.
    angle = np.arctan2(y, x) % np.pi
    sector = np.round(angle / np.pi * ANGLES).astype(int) % ANGLES
    bins = np.where(radius < LEAST_RADIUS, RADII * ANGLES, ring * ANGLES + sector).ravel()
    counts = np.bincount(bins, minlength=RADII * ANGLES)[: RADII * ANGLES]
    return bins.astype(np.int32), counts.astype(np.float32)
