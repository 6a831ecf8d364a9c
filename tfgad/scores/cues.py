"""Several measures of what is wrong, made one by how normal images spread.

A defect shows in more than one way, each a cue:

- Texture. The reconstruction fails: in pixels, in the critic's features, fine and coarse, in the
  code. Errors of normal cloth are nearly log-normal, so their logarithms are standardised by the
  mean and deviation seen on normal images, and averaged: pixels, features and code count alike, as
  the three terms of the methods' objectives.
- Tone. A stain is darker than the cloth around it, but within one window it is merely a dark
  window, which the networks reconstruct without error. So the blurred image is compared with the
  median tone of the whole image.

Cloth is never the same twice: one roll is hairier, one image noisier, and its errors are larger
everywhere. That is no defect. A defect is a place worse than the rest of its own image. So each
image's own level is taken off its errors. It is read where the image is at its best, as a low
quantile, or else a defect over most of the image would pass for its level.

Texture and tone are scaled so that 1 is the highest point that nine of ten normal images stay
below. The map is the larger of the two: a stain without an error of texture is found by its tone
alone, and on cloth in uneven light, where tone says little, its scale is large and texture decides.

`examples/benchmarks/cues.py` tries other terms and constants on woven fabric. These lie within 0.01
of the best in every figure there, but for the code alone: it sees the defects of weave best, and
those of real cloth badly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfgad.data import tiling
from tfgad.data.sampling import batch_size, spread
from tfgad.scores.error_maps import gaussian_blur

LEVEL_QUANTILE = 0.1
PEAK_QUANTILE = 0.9
ERROR_SIGMA = 5.0  # pixels
TONE_SIGMA = 8.0  # pixels: wider than a yarn, so that the weave is blurred away
FLOOR = 1e-6  # under logarithms and divisions; an 8-bit step squared is 6e-5
ADAPT_IMAGES = 128  # of 128x128 pixels, they hold 6,000 windows at a stride of 16
GRID = 4  # levels are read at every fourth pixel: the maps are smooth at that scale


@keras.saving.register_keras_serializable("tfgad")
class Cues(keras.layers.Layer):
    """Images and their error maps to one anomaly map, standardised on normal images.

    Args:
        groups: how many of the K error maps stand for each term, in their order: `(1, 3, 1)` for
            pixels, three layers of features, and code. Terms weigh alike, and so do a term's maps.
    """

    def __init__(self, groups, name="cues", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})
        self.groups = tuple(groups)
        self.weights_of_maps = np.repeat([1 / (n * len(groups)) for n in groups], groups)
        count = sum(groups)
        self.mean = self._statistic("mean", (count,), "zeros")
        self.deviation = self._statistic("deviation", (count,), "ones")
        self.texture_peak = self._statistic("texture_peak", (), "ones")
        self.tone_peak = self._statistic("tone_peak", (), "ones")
        self.built = True

    def _statistic(self, name, shape, initializer):
        return self.add_weight(shape, initializer, name=name, trainable=False, dtype="float32")

    def call(self, images, errors):
        """Returns the anomaly map `[B, H, W]`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
            errors: float32 `[B, H, W, K]`, not negative.
        """
        texture = self.texture(self.relative_errors(errors)) / self.texture_peak
        return tf.maximum(texture, self.tone(images) / self.tone_peak)

    def relative_errors(self, errors):
        """Blurred logarithms of errors less each image's level: `[B, H, W, K]`."""
        logarithms = tf.math.log(gaussian_blur(errors, ERROR_SIGMA) + FLOOR)
        return logarithms - quantile(logarithms, LEVEL_QUANTILE)

    def texture(self, relative_errors):
        """Deviations above normal, averaged over the terms: `[B, H, W]`."""
        deviations = (relative_errors - self.mean) / self.deviation
        return tf.linalg.matvec(deviations, tf.constant(self.weights_of_maps, tf.float32))

    def tone(self, images):
        """Distance of the blurred image from its median tone: `[B, H, W]`."""
        tones = gaussian_blur(images, TONE_SIGMA)
        return tf.reduce_mean(tf.abs(tones - quantile(tones, 0.5)), axis=-1)

    def adapt(self, images, errors) -> None:
        """Learns how normal images spread, from numpy arrays shaped as for `call`."""
        relative = np.concatenate([self.relative_errors(e[None]).numpy() for e in errors])
        self.mean.assign(relative.mean(axis=(0, 1, 2), dtype="float64"))
        self.deviation.assign(np.maximum(relative.std(axis=(0, 1, 2), dtype="float64"), FLOOR))
        texture = [np.max(self.texture(r)) for r in relative]
        tone = [np.max(self.tone(x[None])) for x in images]
        self.texture_peak.assign(max(float(np.quantile(texture, PEAK_QUANTILE)), FLOOR))
        self.tone_peak.assign(max(float(np.quantile(tone, PEAK_QUANTILE)), FLOOR))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "groups": self.groups}


def quantile(maps, q: float):
    """The q-quantile of each of the maps `[B, H, W, K]`: `[B, 1, 1, K]`."""
    values = maps[:, ::GRID, ::GRID]
    shape = tf.shape(values)
    values = tf.reshape(values, [shape[0], shape[1] * shape[2], maps.shape[-1]])
    rank = tf.cast(q * tf.cast(tf.shape(values)[1] - 1, tf.float32), tf.int32)
    return tf.sort(values, axis=1)[:, rank][:, None, None]


class CuesScore:
    """The score `cues`: the largest value of the map that `Cues` makes of each tile.

    Level and tone are read per tile, of the size of the images of calibration: the threshold then
    means the same on a strip of cloth as on a tile of it.

    Args:
        cues: the layer.
        terms: the error maps that it reads, by name, in groups; see `Cues`.
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
        """Returns the map, blended from those of overlapping tiles, and its largest value."""
        channels = images.shape[-1]

        def map_of(tiles: tf.Tensor) -> tf.Tensor:
            return self.cues(tiles[..., :channels], tiles[..., channels:])[..., None]

        both = tf.concat([images, errors], axis=-1)
        stride = tiling.half_stride(self.tile)
        anomaly_map = tiling.by_window(both, self.tile, stride, map_of)[..., 0]
        return {"score": tf.reduce_max(anomaly_map, axis=[1, 2]), "map": anomaly_map}

    def adapt(
        self, normals: tf.data.Dataset, size: int, errors_of: Callable[[tf.Tensor], tf.Tensor]
    ) -> None:
        """Learns how the errors of normal images spread.

        Args:
            normals: images float32 `[H, W, C]`, one at a time.
            size: how many they are.
            errors_of: images `[B, H, W, C]` to `window_errors` blended over them.
        """
        images = np.stack(list(spread(normals, size, ADAPT_IMAGES).as_numpy_iterator()))
        batch = batch_size(images.shape[1:])
        batches = [images[i : i + batch] for i in range(0, len(images), batch)]
        errors = [errors_of(tf.constant(each)).numpy() for each in batches]
        self.cues.adapt(images, np.concatenate(errors))
