"""Several measures of what is wrong, made one by how normal images spread.

A defect shows in more than one way, each a cue:

- Texture. The reconstruction fails, in pixels and in the critic's features, fine and coarse. Errors
  of normal cloth are nearly log-normal, so their logarithms are standardised by the mean and
  deviation seen on normal images, and averaged.
- Tone. A stain is darker than the cloth around it, but within one window it is merely a dark
  window, which the networks reconstruct without error. So the blurred image is compared with the
  median tone of the whole image.

Cloth is never the same twice: one roll is hairier, one image noisier, and its errors are larger
everywhere. That is no defect. A defect is a place worse than the rest of its own image. So part
of each image's own level, read where the image is at its best (a low quantile, so that a defect
over most of the image does not pass for its level), is taken off the texture cues.

Texture and tone are scaled so that 1 is the highest point of a typical normal image. The map is
the larger of the two: a stain without error of texture is found by tone alone, and on cloth in
uneven light, where tone says little, its scale is large and texture decides.
"""

import keras
import numpy as np
import tensorflow as tf

LEVEL_QUANTILE = 0.1
LEVEL_SHARE = 0.75
ERROR_SIGMA = 5.0  # pixels
TONE_SIGMA = 8.0  # pixels: wider than a yarn, so that the weave is blurred away
FLOOR = 1e-6  # under logarithms and divisions; an 8-bit step squared is 6e-5
GRID = 4  # levels are read at every fourth pixel: the maps are smooth at that scale


@keras.saving.register_keras_serializable("tfgad")
class Cues(keras.layers.Layer):
    """Images and their error maps to one anomaly map, standardised on normal images.

    Args:
        count: K, the number of error maps.
        error_sigma, tone_sigma: of the blurs, in pixels.
        level_share: how much of an image's own level is taken off, from 0 (none) to 1 (all).
    """

    def __init__(
        self,
        count,
        error_sigma=ERROR_SIGMA,
        tone_sigma=TONE_SIGMA,
        level_share=LEVEL_SHARE,
        name="cues",
        **kwargs,
    ):
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})
        self.count, self.level_share = count, level_share
        self.error_sigma, self.tone_sigma = error_sigma, tone_sigma
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
        """Blurred logarithms of errors less part of each image's level: `[B, H, W, K]`."""
        logarithms = tf.math.log(gaussian_blur(errors, self.error_sigma) + FLOOR)
        return logarithms - self.level_share * quantile(logarithms, LEVEL_QUANTILE)

    def texture(self, relative_errors):
        """Deviations above normal, averaged over the errors: `[B, H, W]`."""
        return tf.reduce_mean((relative_errors - self.mean) / self.deviation, axis=-1)

    def tone(self, images):
        """Distance of the blurred image from its median tone: `[B, H, W]`."""
        tones = gaussian_blur(images, self.tone_sigma)
        return tf.reduce_mean(tf.abs(tones - quantile(tones, 0.5)), axis=-1)

    def adapt(self, images, errors) -> None:
        """Learns how normal images spread, from numpy arrays shaped as for `call`."""
        relative = np.concatenate([self.relative_errors(e[None]).numpy() for e in errors])
        self.mean.assign(relative.mean(axis=(0, 1, 2), dtype="float64"))
        self.deviation.assign(np.maximum(relative.std(axis=(0, 1, 2), dtype="float64"), FLOOR))
        texture = [np.max(self.texture(r)) for r in relative]
        tone = [np.max(self.tone(x[None])) for x in images]
        self.texture_peak.assign(max(float(np.median(texture)), FLOOR))
        self.tone_peak.assign(max(float(np.median(tone)), FLOOR))

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("count", "error_sigma", "tone_sigma", "level_share")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def quantile(maps, q: float):
    """The q-quantile of each of the maps `[B, H, W, K]`: `[B, 1, 1, K]`."""
    values = maps[:, ::GRID, ::GRID]
    shape = tf.shape(values)
    values = tf.reshape(values, [shape[0], shape[1] * shape[2], maps.shape[-1]])
    rank = tf.cast(q * tf.cast(tf.shape(values)[1] - 1, tf.float32), tf.int32)
    return tf.sort(values, axis=1)[:, rank][:, None, None]


def gaussian_blur(maps, sigma: float):
    """Blurs `[B, H, W, K]` over H and W by a Gaussian of `sigma` pixels, edges mirrored.

    The kernel ends at three sigma; no image may be smaller than that.
    """
    radius = round(3 * sigma)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype("float32")
    taps /= taps.sum()
    depth = maps.shape[-1]
    down = np.tile(taps[:, None, None, None], [1, 1, depth, 1])
    across = down.transpose(1, 0, 2, 3)
    edge = [radius, radius]
    maps = tf.pad(maps, [[0, 0], edge, edge, [0, 0]], "SYMMETRIC")
    for kernel in (down, across):
        maps = tf.nn.depthwise_conv2d(maps, kernel, [1, 1, 1, 1], "VALID")
    return maps
