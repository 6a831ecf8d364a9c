"""Cues: several error maps and the tone of an image, combined into one anomaly map.

A defect shows in more than one way. An image here is a tile: larger ones are scored tile by tile.
There are two cues:

- Texture: the reconstruction fails in pixels, in the critic's features, fine and coarse, or in the
  latent code.
- Tone: a stain is darker than the cloth around it. Within one window it is merely a dark window,
  which the networks reconstruct without error. So the blurred image is compared with the median
  tone of the whole image. Light that falls off across the image, as on some normal images, is no
  defect: it is a plane that explains nearly all of the tones, and is subtracted.

With k one of K error maps, all of one image, and q the quantiles over its pixels:

    r_k     = log(blur(error_k)) - q_0.1(log(blur(error_k)))        relative error
    texture = Σ_k w_k (r_k - mean_k) / deviation_k
    t       = blur(x) - s blur(plane(x))
    tone    = |t - q_0.5(t)|                                        mean over channels
    map     = max(texture / texture_peak, w_tone tone / tone_peak)

`adapt` estimates mean, deviation and peaks on normal images. The errors of normal cloth are nearly
log-normal, so their logarithms are standardised. The terms pixels, features and code have equal
weights in w, which add up to 1, and w_tone is 1, unless the setting `cue_weights` gives others
(`cue_weights.py`). A term of weight 0 is left out; without any error the map is that of the tone.

Cloth varies: where one roll is hairier or one image noisier, errors are larger everywhere, and that
is no defect. A defect is a place that is worse than the rest of its image. So each image's own
level is subtracted. It is a low quantile, as a defect that covers most of the image would raise a
median.

A peak is the value that the maximum over the image stays below in nine of ten normal images. The
map is the larger of the two cues: a stain without reconstruction error is found by its tone alone.
On cloth in uneven light, where tone says little, its peak is large and texture decides.

plane(x) is the plane of least squares of each channel, less its mean. s is one number per image: 0
if the blurred plane explains less than 0.7 of the variance of blur(x), as with a stain; 1 from 0.8
on, and linear between. The variance is that over the pixels, averaged over the channels. A plane
that is steeper than those of all images given to `adapt` is scaled down to the steepest of them, so
that a shade that no normal image has is found. `examples/benchmarks/tone.py` measures what that
adds: the pixel AUROC by tone of discs on good tiles of denim, basket and AITEX 03, in light that
falls off by up to a tenth towards a side, is 0.981, 0.941 and 0.956. Without subtraction it is
0.974, 0.923 and 0.937; with the whole plane of every image subtracted, 0.897, 0.877 and 0.886.

The choice of terms and constants is measured: `examples/benchmarks/cues.py` tries others on woven
fabric, plain and satin, with one seed. These are within 0.01 of the best in every figure there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.data import tiling
from tfgad.data.sampling import batch_size, batched, spread
from tfgad.data.warping import gaussian_blur
from tfgad.errors import UsageError
from tfgad.scores.cue_weights import SETTING
from tfgad.scores.statistics_layer import StatisticsLayer

LEVEL_QUANTILE = 0.1
PEAK_QUANTILE = 0.9
ERROR_SIGMA = 5.0  # pixels
TONE_SIGMA = 8.0  # pixels: wider than a yarn, so the weave is blurred away
# Shares of the variance of the tones: between them a plane becomes light. A step across the middle
# of an image, as between two halves, has 0.75. On good tiles with discs 0.8 and 0.9 were as good.
LIGHT_SHARES = (0.7, 0.8)
FLOOR = 1e-6  # in logarithms and divisions; a grey level of 8 bits, squared, is 6e-5
# Logarithms that deviate less are constant within tiles but for rounding, as those of an error
# without a location are where a tile is one window. Such a map says nothing of places and is not
# used: on larger images, where windows overlap, it does vary.
LEAST_DEVIATION, NOT_USED = 1e-3, 1e6
ADAPT_IMAGES = 128  # of 128x128 pixels they hold 6,000 windows at a stride of 16
GRID = 4  # quantiles are taken over every fourth pixel: blurred maps are smooth at that scale


@keras.saving.register_keras_serializable("tfgad")
class Cues(StatisticsLayer):
    """Layer from images and their error maps to one anomaly map, standardised on normal images.

    Args:
        groups: number of error maps of each term, in their order: `(1, 3, 1)` for pixels, three
            layers of features, and code. The maps within a term have the same weight.
        term_weights: of each of these terms, and last of the tone; None: 1 each.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        groups: Sequence[int],
        term_weights: Sequence[float] | None = None,
        name: str = "cues",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        self.groups = tuple(groups)
        self.term_weights = tuple(term_weights or (1.0,) * (len(groups) + 1))
        *of_errors, self.tone_weight = self.term_weights
        total = sum(of_errors) or 1.0
        shares = [w / (n * total) for n, w in zip(groups, of_errors, strict=True)]
        self.weights_of_maps = np.repeat(shares, groups)
        count = sum(groups)
        self.mean = self._statistic("mean", (count,), "zeros")
        self.deviation = self._statistic("deviation", (count,), "ones")
        self.texture_peak = self._statistic("texture_peak", (), "ones")
        self.tone_peak = self._statistic("tone_peak", (), "ones")
        # Standard deviation of the steepest plane of normal images; 0: no plane is subtracted.
        self.steepest_light = self._statistic("steepest_light", (), "zeros")
        self.built = True

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the weights; in a file without `steepest_light`, the last of them, it is 0."""
        if len(store.keys()) >= len(self.weights):
            super().load_own_variables(store)
            return
        for index, weight in enumerate(self.weights[:-1]):
            weight.assign(store[str(index)])
        self.steepest_light.assign(0.0)

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has set the statistics, here or before the model was saved."""
        return bool(np.any(self.mean.numpy()))

    def call(self, images: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
        """Returns the anomaly map `[B, H, W]`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            errors: float32 `[B, H, W, K]`, not negative.
        """
        cues = []
        if np.any(self.weights_of_maps):
            cues.append(self.texture(self.relative_errors(errors)) / self.texture_peak)
        if self.tone_weight:
            cues.append(self.tone_weight * self.tone(images) / self.tone_peak)
        return functools.reduce(tf.maximum, cues)

    def relative_errors(self, errors: tf.Tensor) -> tf.Tensor:
        """Logarithms of the blurred errors minus the level of their image, `[B, H, W, K]`."""
        logarithms = tf.math.log(gaussian_blur(errors, ERROR_SIGMA) + FLOOR)
        return logarithms - quantile(logarithms, LEVEL_QUANTILE)

    def texture(self, relative_errors: tf.Tensor) -> tf.Tensor:
        """Standardised relative errors, averaged over the terms, `[B, H, W]`."""
        deviations = (relative_errors - self.mean) / self.deviation
        return tf.linalg.matvec(deviations, tf.constant(self.weights_of_maps, tf.float32))

    def tone(self, images: tf.Tensor) -> tf.Tensor:
        """Absolute difference of the blurred image and its median tone, `[B, H, W]`."""
        tones = gaussian_blur(images, TONE_SIGMA)
        tones -= self.light(images, tones)
        return tf.reduce_mean(tf.abs(tones - quantile(tones, 0.5)), axis=-1)

    def light(self, images: tf.Tensor, tones: tf.Tensor) -> tf.Tensor:
        """Returns s blur(plane(x)), the light that falls off across each image, `[B, H, W, C]`.

        Args:
            images: x, float32 `[B, H, W, C]` in [-1, 1].
            tones: blur(x), of the same shape.
        """
        steepness = tf.sqrt(variance(plane(images))) + FLOOR
        planes = blurred_plane(images)
        explained = 1.0 - variance(tones - planes) / (variance(tones) + FLOOR)
        low, high = LIGHT_SHARES
        share = tf.clip_by_value((explained - low) / (high - low), 0.0, 1.0)
        return share * tf.minimum(1.0, self.steepest_light / steepness) * planes

    def adapt(self, images: np.ndarray, errors: np.ndarray) -> None:
        """Estimates the statistics from normal images and their errors, shaped as for `call`.

        Raises:
            UsageError: no error varies, neither within the images nor between them, or none that
                has a weight.
        """
        some = batch_size(images.shape[1:])
        batches = [slice(start, start + some) for start in range(0, len(images), some)]
        relative = np.concatenate([self.relative_errors(errors[b]).numpy() for b in batches])
        deviation = relative.std(axis=(0, 1, 2), dtype="float64")
        if not np.any(deviation > LEAST_DEVIATION):
            problem = "have errors that are everywhere the same"
            raise UsageError("normal images", len(images), problem, "give images that differ")
        weighted = self.weights_of_maps > 0
        if np.any(weighted) and not np.any(deviation[weighted] > LEAST_DEVIATION):
            problem = "leave only errors that do not vary within an image"
            hint = "give another error a weight above 0"
            raise UsageError(SETTING, ", ".join(map(str, self.term_weights)), problem, hint)
        self.mean.assign(relative.mean(axis=(0, 1, 2), dtype="float64"))
        self.deviation.assign(np.where(deviation > LEAST_DEVIATION, deviation, NOT_USED))
        self.texture_peak.assign(peak_of(self.texture(relative[b]) for b in batches))
        if not self.tone_weight:
            return
        variances = [np.max(variance(plane(images[b]))) for b in batches]
        self.steepest_light.assign(np.sqrt(max(variances)))
        self.tone_peak.assign(peak_of(self.tone(images[b]) for b in batches))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"groups": self.groups, "term_weights": self.term_weights}
        return {**super().get_config(), **own}


def peak_of(maps: Iterable[tf.Tensor]) -> float:
    """Returns the value that the maxima of maps `[B, H, W]`, in batches, rarely exceed."""
    maxima = np.concatenate([np.max(each, axis=(1, 2)) for each in maps])
    return max(float(np.quantile(maxima, PEAK_QUANTILE)), FLOOR)


def ramps_of(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns rows and columns from -1 to 1, of images' shape: `[1, H, 1, 1]`, `[1, 1, W, 1]`."""
    rows, columns = (tf.linspace(-1.0, 1.0, tf.shape(images)[axis]) for axis in (1, 2))
    return rows[None, :, None, None], columns[None, None, :, None]


def slopes_of(images: tf.Tensor) -> list[tf.Tensor]:
    """Returns the slopes of the plane of least squares of each channel, two of `[B, 1, 1, C]`."""
    # Row and column are uncorrelated on a grid of pixels, so each slope is that of one variable.
    return [
        tf.reduce_mean(images * ramp, axis=[1, 2], keepdims=True) / tf.reduce_mean(tf.square(ramp))
        for ramp in ramps_of(images)
    ]


def plane(images: tf.Tensor) -> tf.Tensor:
    """Returns the plane of least squares of each channel, less its mean, `[B, H, W, C]`."""
    down, across = (slope * r for slope, r in zip(slopes_of(images), ramps_of(images), strict=True))
    return down + across


def blurred_plane(images: tf.Tensor) -> tf.Tensor:
    """Returns `plane` blurred as tones are, and so bent at the edges, `[B, H, W, C]`."""
    # A blur is linear: that of two ramps serves all images and channels.
    shape = [1, tf.shape(images)[1], tf.shape(images)[2], 1]
    ramps = tf.concat([tf.broadcast_to(ramp, shape) for ramp in ramps_of(images)], axis=-1)
    ramps = tf.ensure_shape(ramps, [1, *images.shape[1:3], 2])
    down, across = tf.split(gaussian_blur(ramps, TONE_SIGMA), 2, axis=-1)
    slope_down, slope_across = slopes_of(images)
    return slope_down * down + slope_across * across


def variance(maps: tf.Tensor) -> tf.Tensor:
    """Returns the variance over the pixels, averaged over channels, `[B, 1, 1, 1]`."""
    of_channels = tf.math.reduce_variance(maps, axis=[1, 2], keepdims=True)
    return tf.reduce_mean(of_channels, axis=-1, keepdims=True)


def quantile(maps: tf.Tensor, q: float) -> tf.Tensor:
    """Returns the q-quantile over the pixels of each map: `[B, H, W, K]` to `[B, 1, 1, K]`."""
    values = maps[:, ::GRID, ::GRID]
    shape = tf.shape(values)
    values = tf.reshape(values, [shape[0], shape[1] * shape[2], maps.shape[-1]])
    rank = tf.cast(q * tf.cast(tf.shape(values)[1] - 1, tf.float32), tf.int32)
    # The largest of the rank + 1 smallest values; to sort all takes twice as long.
    smallest = tf.math.top_k(-tf.transpose(values, [0, 2, 1]), rank + 1, sorted=False).values
    return -tf.reduce_min(smallest, axis=-1)[:, None, None]


class CuesScore:
    """The score `cues`: the largest value of the map that `Cues` computes.

    The level of the errors and the median tone are taken per tile, which has the size of the
    calibration images. So a threshold holds for a long strip of cloth as for a tile of it.

    Args:
        cues: the layer.
        terms: names of the error maps, one group per term; see `Cues`.
        tile: `(h, w)`.
    """

    is_peak = True

    def __init__(self, cues: Cues, terms: Sequence[Sequence[str]], tile: tuple[int, int]):
        self.cues, self.tile = cues, tile
        self.names = tuple(name for term in terms for name in term)

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the errors of all terms, `[N, h, w, K]`."""
        return tf.stack([errors[name] for name in self.names], axis=-1)

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the map, blended over overlapping tiles, and its largest value as the score."""
        return peak_by_tile(images, errors, self.tile, self.map_of_tiles)

    def map_of_tiles(self, tiles: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
        """Returns the map `[N, h, w]` of tiles and their errors."""
        return self.cues(tiles, errors)

    def adapt(
        self, normals: tf.data.Dataset, size: int, errors_of: Callable[[tf.Tensor], tf.Tensor]
    ) -> None:
        """Adapts the layer to normal images.

        Args:
            normals: images float32 `[H, W, C]`, unbatched; larger ones than tiles are cut.
            size: number of images.
            errors_of: maps images `[B, H, W, C]` to their blended `window_errors`.
        """
        images, errors = [], []
        for batch in batched(spread(normals, size, ADAPT_IMAGES)):
            images.append(tiles_of(batch, self.tile))
            errors.append(tiles_of(errors_of(batch), self.tile))
        self.cues.adapt(np.concatenate(images), np.concatenate(errors))


def tiles_of(maps: tf.Tensor, tile: tuple[int, int]) -> np.ndarray:
    """Returns maps `[B, H, W, K]` as tiles side by side, `[N, h, w, K]`; see `pad_to_grid`.

    Args:
        maps: of images of any size.
        tile: `(h, w)`.
    """
    tiles = tiling.cut(tiling.pad_to_grid(maps, tile, 1), tile, tile)
    return tf.reshape(tiles, [-1, *tile, maps.shape[-1]]).numpy()


def peak_by_tile(
    images: tf.Tensor,
    errors: tf.Tensor,
    tile: tuple[int, int],
    map_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Returns `map`, blended over overlapping tiles, and its largest value as `score`.

    The last tiles of an image end flush with it, as those of calibration do.

    Args:
        images: float32 `[B, H, W, C]` in [-1, 1].
        errors: float32 `[B, H, W, K]`.
        tile: `(h, w)`.
        map_of: tiles of images and of errors to maps `[N, h, w]`.
    """
    channels = images.shape[-1]

    def of_tiles(tiles: tf.Tensor) -> tf.Tensor:
        return map_of(tiles[..., :channels], tiles[..., channels:])[..., None]

    both = tf.concat([images, errors], axis=-1)
    strides = tiling.half_stride(tile[0]), tiling.half_stride(tile[1])
    anomaly_map = tiling.by_window(both, tile, strides, of_tiles, flush=True)[..., 0]
    return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}
