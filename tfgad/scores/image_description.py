"""Descriptions of images by which products are recognised: a thumbnail and a spectrum.

The thumbnail of 8x8 pixels tells parts apart. The logarithm of the mean power in 8 half octaves by
6 orientations tells textures apart. Of an image of several tiles it is the mean of their
descriptions.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tfgad.data import tiling
from tfgad.scores.tile_statistics import ROUNDING

THUMBNAIL = 8  # pixels of a side
RADII, ANGLES = 8, 6  # bins of the spectrum
LEAST_RADIUS = 1 / 32  # cycles per pixel; slower ones are in the thumbnail
# Light, contrast and focus may vary more than they did among the training images. A third of the
# tolerances of `tile_statistics.py` is taken for a deviation: twice the light from a middle grey,
# and twice the contrast, as the logarithm of power; for focus, between the middle and the ends of
# the spectrum. Without them, of the tiles of AITEX that `products.py` counts 24 % are beyond
# 1.75 times the largest distance, and 6.7 % beyond 2.5 times.
LIGHT, CONTRAST = 0.11, 0.46


def length(channels: int) -> int:
    """Returns K, the length of the description of an image of 1 or 3 channels."""
    return THUMBNAIL**2 * channels + RADII * ANGLES


def describe(images: tf.Tensor, tile: tuple[int, int]) -> tf.Tensor:
    """Returns the descriptions of images, `[B, K]`, as tensors alone.

    Rows of tiles are described one after another, so a large image needs the memory of one row.

    Args:
        images: float32 `[B, H, W, C]` in [-1, 1], of known C.
        tile: `(h, w)` of the tiles that are described.
    """
    channels = images.shape[-1]
    images = tiling.pad_to_grid(images, tile, 1)
    rows, columns = (tiling.starts_of(tf.shape(images)[i + 1], tile[i]) for i in (0, 1))
    places = tf.reshape(columns[:, None] + tf.range(tile[1]), [-1])

    def add_row(row: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        strip = images[:, rows[row] : rows[row] + tile[0]]
        tiles = tiling.cut(tf.gather(strip, places, axis=2), tile, tile)
        described = _describe_tiles(tf.reshape(tiles, [-1, *tile, channels]), tile)
        of_image = tf.reshape(described, [tf.shape(total)[0], -1, total.shape[1]])
        return row + 1, total + tf.reduce_mean(of_image, axis=1)

    count = tf.shape(rows)[0]
    none = tf.zeros([tf.shape(images)[0], length(channels)])
    _, total = tf.while_loop(lambda row, _: row < count, add_row, [0, none], parallel_iterations=1)
    return total / tf.cast(count, tf.float32)


def _describe_tiles(tiles: tf.Tensor, tile: tuple[int, int]) -> tf.Tensor:
    """Returns the thumbnails and the spectra of tiles `[N, *tile, C]`: `[N, K]`."""
    size = [THUMBNAIL, THUMBNAIL]
    thumbnails = tf.image.resize(tiles, size, antialias=True)
    grey = tf.reduce_mean(tiles, axis=-1)
    grey -= tf.reduce_mean(grey, axis=[1, 2], keepdims=True)
    power = tf.square(tf.abs(tf.signal.rfft2d(grey * _window(tile))))
    bins, counts = _bins(tile)
    flat = tf.transpose(tf.reshape(power, [-1, bins.size]))
    sums = tf.math.unsorted_segment_sum(flat, tf.constant(bins), counts.size + 1)[:-1]
    # White noise of a variance has that in every bin, whatever the size of the tile.
    density = sums / (np.maximum(counts, 1)[:, None] * np.square(_window(tile)).sum())
    spectra = tf.math.log(tf.transpose(density) + ROUNDING)
    return tf.concat([tf.reshape(thumbnails, [-1, THUMBNAIL**2 * tiles.shape[-1]]), spectra], 1)


def tolerances(channels: int) -> np.ndarray:
    """Returns changes of a description by one deviation of light, contrast and focus: `[3, K]`."""
    pixels = THUMBNAIL**2 * channels
    rings = np.repeat(np.linspace(-1, 1, RADII), ANGLES)
    changes = np.zeros((3, length(channels)))
    changes[0, :pixels] = LIGHT
    changes[1, pixels:] = CONTRAST
    changes[2, pixels:] = CONTRAST * rings
    return changes


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
