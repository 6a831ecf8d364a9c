"""Image quality: limits of what good images look like, and why an image is outside of them.

A score that compares an image with itself, as `cues` does, calls a black image good: it has no
place that is worse than the rest. So a detector also learns from good images what is absolute in
them. An image outside of that is anomalous whatever its score:

- brightness, of the whole and of its darkest and brightest window;
- contrast, likewise;
- sharpness and spectrum: the shares of three octaves in the contrast;
- orientation of the texture, fine and coarse;
- skewness of the grey levels, which has the other sign in a negative;
- colour, where images have one.

What is noticed is coarse: a tile with less than half or more than twice the light, contrast or
sharpness of good ones, or a texture turned by a right angle. Slight blur or noise, dead pixels, and
another weave of the same scale may pass; that is left to the score.

Each is a statistic of a tile. Its limits lie around the median of the good images, on either side
at the largest of three distances:

1. `MARGIN` times the largest distance of a good image;
2. that of the prediction interval of a normal distribution (Student; Hahn 1969) which all
   statistics together leave on `RATE_SHARE` of the good images that the false-positive rate allows.
   It matters where the good images are few;
3. the tolerance in `STATISTICS`: one roll or one lamp differs from the next by more than the images
   of either differ from each other, and a blind camera differs by more than that.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from tfgad.data import tiling
from tfgad.scores.cues import gaussian_blur

# Of the false alarms that are allowed, those by quality may be a tenth, if statistics are normal.
RATE_SHARE = 0.1
# The largest distance of 500 Gaussian values is 3.0 deviations; 1.75 times that is left by one in
# ten million. Of 100 test tiles each of twill and satin none went beyond 1.2 times it.
MARGIN = 1.75
SIGMAS = (1.0, 2.0, 4.0)  # pixels; what lies between one blur and the next is an octave
GREY_LEVEL = 2 / 255  # of 8 bits, in [-1, 1]
ROUNDING = GREY_LEVEL**2 / 12  # variance of rounding to grey levels
FLAT_DEVIATION = 1.5 * GREY_LEVEL  # that of the sensor noise of a covered lens


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A statistic of a tile.

    Attributes:
        name: of the statistic.
        tolerance: how far from the median of good images it may lie in any case.
        below, above: the reason given for a tile on that side of the limits.
    """

    name: str
    tolerance: float
    below: str
    above: str


DARK, BRIGHT, DARK_AREA, BRIGHT_AREA = "too dark", "too bright", "dark area", "bright area"
FLAT, LOW, HIGH = "no texture", "too little contrast", "too much contrast"
BLURRED, NOISY = "out of focus", "too much noise"
TEXTURE, COLOUR = "other texture", "other colour"
# In their order: of several the first is given. The last is that of an image within the limits.
REASONS = (
    DARK, BRIGHT, DARK_AREA, BRIGHT_AREA, FLAT, LOW, HIGH, BLURRED, NOISY, TEXTURE, COLOUR, "",
)  # fmt: skip
# Tolerances. Brightness is a logit of the share of full scale; contrast and octaves are logs.
# All 1,381 good tiles of AITEX 03 stay within them; of AITEX 00 and 01 those of four and of one
# strip do not, which are of another weave or light than those learnt from.
TWICE, THRICE = math.log(2), math.log(3)
HALF_WAY = 0.5  # from no orientation, 0, to that along an axis, 1 or -1
SKEW, TINT = 0.25, 0.08  # third moment at unit variance; share of the range from grey to white
STATISTICS = (
    Statistic("brightness", TWICE, DARK, BRIGHT),
    Statistic("darkest window", THRICE, DARK_AREA, BRIGHT),
    Statistic("brightest window", THRICE, DARK, BRIGHT_AREA),
    Statistic("lowest contrast of a window", THRICE, LOW, HIGH),
    Statistic("contrast", TWICE, LOW, HIGH),
    Statistic("highest contrast of a window", THRICE, LOW, HIGH),
    Statistic("first octave", TWICE, BLURRED, NOISY),
    Statistic("second octave", TWICE, TEXTURE, TEXTURE),
    Statistic("third octave", TWICE, TEXTURE, TEXTURE),
    Statistic("fine orientation, across", HALF_WAY, TEXTURE, TEXTURE),
    Statistic("fine orientation, diagonal", HALF_WAY, TEXTURE, TEXTURE),
    Statistic("coarse orientation, across", HALF_WAY, TEXTURE, TEXTURE),
    Statistic("coarse orientation, diagonal", HALF_WAY, TEXTURE, TEXTURE),
    Statistic("skewness", SKEW, TEXTURE, TEXTURE),
)
LOWEST_CONTRAST = 3  # its place
OF_COLOUR = (
    Statistic("red less grey", TINT, COLOUR, COLOUR),
    Statistic("green less grey", TINT, COLOUR, COLOUR),
)


@keras.saving.register_keras_serializable("tfgad")
class ImageQuality(keras.layers.Layer):
    """Limits of what good images look like, as weights, and the reason why an image is outside.

    Until `adapt` has seen good images, and in a model saved before there was this layer, every
    image is within the limits.

    Args:
        tile: `(h, w)` of the pieces of an image whose statistics are taken.
        window: `(h, w)` of the parts of a tile whose brightness and contrast are taken.
        channels: 1 or 3.
    """

    def __init__(self, tile, window, channels, name="image_quality", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})
        self.tile, self.window, self.channels = tuple(tile), tuple(window), channels
        self.statistics = STATISTICS + (OF_COLOUR if channels == 3 else ())
        sides = [(each.below, each.above) for each in self.statistics]
        self.places = np.array([[REASONS.index(reason) for reason in side] for side in sides])
        count = len(self.statistics)
        self.median = self._weight("median", (count,), "zeros")
        self.deviation = self._weight("deviation", (count,), "zeros")
        self.seen = self._weight("seen", (2, count), "zeros")  # the least and the greatest
        self.tiles = self._weight("tiles", (), "zeros")  # how many `adapt` has seen
        unlimited = keras.initializers.Constant(np.inf)
        self.limits = self._weight("limits", (2, count), unlimited)  # distances below and above
        self.built = True

    def _weight(self, name, shape, initializer):
        return self.add_weight(shape, initializer, name=name, trainable=False, dtype="float32")

    def load_own_variables(self, store) -> None:
        """Loads the weights; a model saved before there was this layer has none and no limits."""
        if len(store.keys()):
            super().load_own_variables(store)

    @property
    def is_adapted(self) -> bool:
        """Whether there are limits."""
        return bool(np.isfinite(self.limits.numpy()).all())

    def call(self, images):
        """Returns the reason why each image is outside of the limits, string `[B]`, or `""`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1].
        """
        return tf.gather(tf.constant(REASONS), self.place(images))

    def place(self, images):
        """Returns the reason's place in `REASONS`, int32 `[B]`; the last is that of no reason.

        Tiles are looked at row by row, so that a large image takes the memory of one row.
        """
        images = tiling.pad_to_grid(images, self.tile, 1)
        starts = _starts(tf.shape(images)[1], self.tile[0])
        none = tf.fill([tf.shape(images)[0]], len(REASONS) - 1)

        def add_row(row, first):
            top = starts[row]
            of_tiles = self._place(self.of_tiles(images[:, top : top + self.tile[0]]))
            of_tiles = tf.reshape(of_tiles, [tf.shape(none)[0], -1])
            return row + 1, tf.minimum(first, tf.reduce_min(of_tiles, axis=1))

        rows = tf.shape(starts)[0]
        _, first = tf.while_loop(
            lambda row, first: row < rows, add_row, [0, none], parallel_iterations=1
        )
        return first

    def _place(self, values):
        """Returns the place of the first reason that holds for statistics `[N, K]`: int32 `[N]`."""
        distance = values - self.median
        outside = tf.stack([-distance > self.limits[0], distance > self.limits[1]], axis=2)
        none = len(REASONS) - 1
        first = tf.reduce_min(tf.where(outside, self.places, none), axis=[1, 2])
        is_flat = values[:, LOWEST_CONTRAST] < math.log(FLAT_DEVIATION + GREY_LEVEL)
        is_flat &= outside[:, LOWEST_CONTRAST, 0]
        return tf.cast(tf.where(is_flat, tf.minimum(first, REASONS.index(FLAT)), first), tf.int32)

    def adapt(self, values: np.ndarray) -> None:
        """Learns how good images spread, from the statistics `[N, K]` of their tiles."""
        self.median.assign(np.median(values, axis=0))
        self.deviation.assign(np.std(values, axis=0, ddof=1) if len(values) > 1 else values[0] * 0)
        self.seen.assign([values.min(axis=0), values.max(axis=0)])
        self.tiles.assign(len(values))

    def calibrate(self, values: np.ndarray, false_positive_rate: float) -> None:
        """Sets the limits, from what `adapt` has seen and from good images held out of it.

        Args:
            values: statistics `[N, K]` of tiles.
            false_positive_rate: the share of good tiles that may be called anomalous.
        """
        if not self.tiles.numpy():
            self.adapt(values)
        median, deviation, seen = (
            weight.numpy() for weight in (self.median, self.deviation, self.seen)
        )
        count, tolerance = float(self.tiles), [each.tolerance for each in self.statistics]
        below = np.maximum(median - seen[0], median - values.min(axis=0))
        above = np.maximum(seen[1] - median, values.max(axis=0) - median)
        left_out = RATE_SHARE * false_positive_rate / (2 * len(tolerance))
        student = stats.t.isf(left_out, max(count - 1, 1)) * math.sqrt(1 + 1 / count)
        least = np.maximum(student * deviation, tolerance)
        self.limits.assign([np.maximum(MARGIN * below, least), np.maximum(MARGIN * above, least)])

    def of_tiles(self, images):
        """Returns the statistics of images `[B, H, W, C]`: `[B * tiles, K]`.

        Tiles lie side by side; the last of a row and of a column ends where the image does.
        """
        tiles = tiling.pad_to_grid(images, self.tile, 1)
        for axis, side in zip((1, 2), self.tile, strict=True):
            starts = _starts(tf.shape(tiles)[axis], side)
            places = tf.reshape(starts[:, None] + tf.range(side), [-1])
            tiles = tf.gather(tiles, places, axis=axis)
        tiles = tiling.cut(tiles, self.tile, self.tile)
        tiles = tf.reshape(tiles, [-1, *self.tile, self.channels])
        grey = tf.reduce_mean(tiles, axis=-1, keepdims=True)
        blurred = [grey, *(gaussian_blur(grey, sigma) for sigma in SIGMAS)]
        mean, variance = tf.nn.moments(grey, [1, 2, 3])
        columns = [
            *self._of_windows(grey, mean, variance),
            *_octaves(blurred, variance),
            *_orientation(blurred[1]),
            *_orientation(blurred[-1]),
            _skewness(grey, mean, variance),
        ]
        if self.channels == 3:
            columns += [tf.reduce_mean(tiles[..., i] - grey[..., 0], axis=[1, 2]) for i in (0, 1)]
        return tf.stack(columns, axis=1)

    def _of_windows(self, grey, mean, variance):
        """Brightness and contrast of tiles and of the windows that lie side by side in them."""
        parts = tiling.cut(grey, self.window, self.window)
        means, variances = tf.nn.moments(parts, [3, 4, 5])
        brightness, contrast = _brightness(means), _contrast(variances)
        return (
            _brightness(mean),
            tf.reduce_min(brightness, axis=[1, 2]),
            tf.reduce_max(brightness, axis=[1, 2]),
            tf.reduce_min(contrast, axis=[1, 2]),
            _contrast(variance),
            tf.reduce_max(contrast, axis=[1, 2]),
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"tile": self.tile, "window": self.window, "channels": self.channels}
        return {**super().get_config(), **own}


def first_reason(reasons: Iterable[str]) -> str:
    """Returns the reason of an image from those of its parts: the first in their order."""
    return min(reasons, key=REASONS.index)


def _starts(length, tile: int):
    """Returns where tiles start along an axis that is no shorter; see `tiling.tile_starts`."""
    return tf.concat([tf.range(0, length - tile, tile), [length - tile]], axis=0)


def _brightness(mean):
    """Logit of the share of full scale; black and white are half a grey level from the ends."""
    share = tf.clip_by_value((mean + 1) / 2, GREY_LEVEL / 4, 1 - GREY_LEVEL / 4)
    return tf.math.log(share / (1 - share))


def _contrast(variance):
    return tf.math.log(tf.sqrt(variance) + GREY_LEVEL)


def _octaves(blurred, variance):
    """Logarithms of the shares of octaves in the deviation: 0 where there is only one."""
    for finer, coarser in itertools.pairwise(blurred):
        energy = tf.reduce_mean(tf.square(finer - coarser), axis=[1, 2, 3])
        yield 0.5 * tf.math.log((energy + ROUNDING) / (variance + ROUNDING))


def _orientation(images):
    """The structure tensor's anisotropy across and along the diagonals, each in [-1, 1]."""
    across = images[:, 1:-1, 2:] - images[:, 1:-1, :-2]
    down = images[:, 2:, 1:-1] - images[:, :-2, 1:-1]
    xx, yy, xy = (
        tf.reduce_mean(product, axis=[1, 2, 3])
        for product in (across * across, down * down, across * down)
    )
    return (xx - yy) / (xx + yy + ROUNDING), 2 * xy / (xx + yy + ROUNDING)


def _skewness(grey, mean, variance):
    standardised = (grey - mean[:, None, None, None]) / (tf.sqrt(variance) + GREY_LEVEL)[
        :, None, None, None
    ]
    return tf.reduce_mean(standardised**3, axis=[1, 2, 3])
