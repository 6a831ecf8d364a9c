"""Statistics of tiles that image quality limits, and the reasons given for values outside them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfgad.data import tiling
from tfgad.data.warping import gaussian_blur

SIGMAS = (1.0, 2.0, 4.0)  # pixels; the difference of two successive blurs is an octave
GREY_LEVEL = 2 / 255  # one step of 8 bits, in [-1, 1]
ROUNDING = GREY_LEVEL**2 / 12  # variance of rounding to grey levels
FLAT_DEVIATION = 1.5 * GREY_LEVEL  # standard deviation of the sensor noise behind a covered lens


@dataclasses.dataclass(frozen=True)
class Statistic:
    """Description of one statistic of tiles.

    Attributes:
        name: of the statistic.
        tolerance: least distance of the limits from the median of good images.
        below: the reason given for a tile below the limits.
        above: the reason given for a tile above the limits.
    """

    name: str
    tolerance: float
    below: str
    above: str


DARK, BRIGHT, DARK_AREA, BRIGHT_AREA = "too dark", "too bright", "dark area", "bright area"
FLAT, LOW, HIGH = "no texture", "too little contrast", "too much contrast"
BLURRED, NOISY = "out of focus", "too much noise"
TEXTURE, COLOUR = "other texture", "other colour"
UNLIKE_ALL, UNLIKE_ITS = "unlike every product", "unlike its product"  # see `products.py`
# By priority: the first of several reasons is given. The last stands for no reason.
REASONS = (
    DARK, BRIGHT, DARK_AREA, BRIGHT_AREA, FLAT, LOW, HIGH, BLURRED, NOISY, TEXTURE, COLOUR,
    UNLIKE_ALL, UNLIKE_ITS, "",
)  # fmt: skip
# Tolerances. Brightness is the logit of the share of full scale; contrast and octaves are logs.
# All 1,381 good tiles of AITEX 03 are within them. Tiles of four strips of AITEX 00 and of one of
# AITEX 01 are not: these have another weave or light than the strips of the training.
TWICE, THRICE = math.log(2), math.log(3)
HALF_WAY = 0.5  # between no orientation, 0, and orientation along an axis, 1 or -1
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
LOWEST_CONTRAST = 3  # index in `STATISTICS`
OF_COLOUR = (
    Statistic("red less grey", TINT, COLOUR, COLOUR),
    Statistic("green less grey", TINT, COLOUR, COLOUR),
)


def statistics_of(tiles: tf.Tensor, window: tuple[int, int]) -> tf.Tensor:
    """Returns the statistics of tiles, in the order of `STATISTICS` and `OF_COLOUR`: `[N, K]`.

    Args:
        tiles: float32 `[N, h, w, C]` in [-1, 1], C 1 or 3.
        window: `(h, w)` of the windows within a tile.
    """
    channels = tiles.shape[-1]
    grey = tf.reduce_mean(tiles, axis=-1, keepdims=True)
    blurred = [grey, *(gaussian_blur(grey, sigma) for sigma in SIGMAS)]
    mean, variance = tf.nn.moments(grey, [1, 2, 3])
    columns = [
        *_brightness_and_contrast(grey, mean, variance, window),
        *_octaves(blurred, variance),
        *_orientation(blurred[1]),
        *_orientation(blurred[-1]),
        _skewness(grey, mean, variance),
    ]
    if channels == 3:
        columns += [tf.reduce_mean(tiles[..., i] - grey[..., 0], axis=[1, 2]) for i in (0, 1)]
    return tf.stack(columns, axis=1)


def _brightness_and_contrast(
    grey: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, window: tuple[int, int]
) -> tuple[tf.Tensor, ...]:
    """The first six of `STATISTICS`, from windows side by side.

    The last of a row or column ends at the edge of the tile and may overlap the one before it.
    """
    parts = tiling.cut_to_edge(grey, window)
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


def _brightness(mean: tf.Tensor) -> tf.Tensor:
    """Logit of the share of full scale, which is clipped half a grey level from its ends."""
    share = tf.clip_by_value((mean + 1) / 2, GREY_LEVEL / 4, 1 - GREY_LEVEL / 4)
    return tf.math.log(share / (1 - share))


def _contrast(variance: tf.Tensor) -> tf.Tensor:
    """Logarithm of the standard deviation; one grey level is added, so that 0 is finite."""
    return tf.math.log(tf.sqrt(variance) + GREY_LEVEL)


def _octaves(blurred: Sequence[tf.Tensor], variance: tf.Tensor) -> Iterator[tf.Tensor]:
    """Logarithms of the octaves' shares in the standard deviation; 0 if there is only one."""
    for finer, coarser in itertools.pairwise(blurred):
        energy = tf.reduce_mean(tf.square(finer - coarser), axis=[1, 2, 3])
        yield 0.5 * tf.math.log((energy + ROUNDING) / (variance + ROUNDING))


def _orientation(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Anisotropy of the structure tensor, along the axes and along the diagonals, in [-1, 1]."""
    across = images[:, 1:-1, 2:] - images[:, 1:-1, :-2]
    down = images[:, 2:, 1:-1] - images[:, :-2, 1:-1]
    xx, yy, xy = (
        tf.reduce_mean(product, axis=[1, 2, 3])
        for product in (across * across, down * down, across * down)
    )
    return (xx - yy) / (xx + yy + ROUNDING), 2 * xy / (xx + yy + ROUNDING)


def _skewness(grey: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """Third moment of the standardised grey levels."""
    standardised = (grey - mean[:, None, None, None]) / (tf.sqrt(variance) + GREY_LEVEL)[
        :, None, None, None
    ]
    return tf.reduce_mean(standardised**3, axis=[1, 2, 3])
