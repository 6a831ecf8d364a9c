"""Joint: a map of errors, and the map of a network that was trained on synthetic defects, added.

The first is that of `cues` on tiles of a texture, that of `places` on whole parts. The two see
different defects: a broken weave reconstructs badly; a soft stain reconstructs well, and looks like
the defects that the network was shown. Where both see something, it counts twice.

With l the logits of the network, and statistics of normal images,

    marks = max(0, l - max(level, q_0.1(l))) / peak
    map   = cues + marks        score `joint`
    map   = places + marks      score `joint_places`

The level is the median logit over the pixels of the images given to `adapt`, in a run those of
training. The peak is the value that nine of ten of their maxima stay below, minus the level. Of new
images more may exceed 1. Below the level the logits say nothing: there the first map alone orders
the pixels.

A tile of noisier cloth or of another scale may look like a defect all over. As in `cues`, a defect
is a place that is worse than the rest of its tile: where more than nine tenths of a tile lie above
the level, the 0.1-quantile q_0.1(l) of the tile replaces it. This rule changed no threshold of the
six fabrics in `docs/results.md`: their good tiles are not like that.

Measured on whole parts, magnetic tile, 256 pixels, one run of `ganomaly_unet`: image AUROC, AP,
pixel AUROC and AUPRO. The sum was chosen by synthetic defects on held-out good images; the labels
were looked at beside them.

                      synthetic defects       labels
    places            .575 .549 .688 .413     .678 .750 .635 .474
    marks             .575 .548 .643 .363     .573 .667 .583 .601
    cues + marks      .565 .529 .604 .351     .520 .609 .600 .578
    places + marks    .602 .588 .701 .443     .693 .778 .644 .598
    their maximum     .586 .555 .688 .413     .659 .739 .636 .523

Another run of the same seed has .721 .786 .659 .586 by the labels, and its places .679 .753 .635
.476. On large uneven shades the sum is worse than places alone (`docs/results.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfgad.data.sampling import batched, spread
from tfgad.scores.cues import (
    ADAPT_IMAGES,
    LEVEL_QUANTILE,
    PEAK_QUANTILE,
    CuesScore,
    peak_by_tile,
    quantile,
    tiles_of,
)
from tfgad.scores.places import PlacesScore
from tfgad.scores.statistics_layer import StatisticsLayer

LEAST_PEAK = 1.0  # of logits, a factor of e in the odds: a network may be sure of every image


class LogitMaps(Protocol):
    """A network as a function: images float32 `[B, H, W, C]` to logits `[B, H, W]`."""

    def __call__(self, images: tf.Tensor, reconstruction: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the logits of defects; computes the reconstruction if it is needed and None."""


@keras.saving.register_keras_serializable("tfgad")
class Joint(StatisticsLayer):
    """Layer from a map of errors and logits to one anomaly map, standardised on normal images.

    Args:
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, name: str = "joint", **kwargs: Any):
        super().__init__(name, **kwargs)
        self.level = self._statistic("level", (), "zeros")
        self.peak = self._statistic("peak", (), "ones")
        self.built = True

    def call(self, of_errors: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Returns the anomaly map, `[B, H, W]`, from maps of that shape."""
        return of_errors + self.marks(logits)

    def marks(self, logits: tf.Tensor, below: bool = False) -> tf.Tensor:
        """Returns logits `[B, H, W]` of tiles above the level, in units of the peak.

        Args:
            logits: `[B, H, W]`.
            below: whether those below the level are negative; if not, they are 0.
        """
        of_tiles = quantile(logits[..., None], LEVEL_QUANTILE)[..., 0]
        above = (logits - tf.maximum(self.level, of_tiles)) / self.peak
        return above if below else tf.nn.relu(above)

    def adapt(self, logits: np.ndarray) -> None:
        """Estimates level and peak from the logits of normal images, `[N, H, W]`."""
        level = float(np.median(logits))
        peak = float(np.quantile(logits.max(axis=(1, 2)), PEAK_QUANTILE))
        self.level.assign(level)
        self.peak.assign(max(peak - level, LEAST_PEAK))


class JointScore:
    """The scores `joint` and `joint_places`: the largest value of the map of `Joint`, by tile.

    Args:
        joint: the layer.
        first: the score whose map the marks are added to, `cues` or `places`; its tiles are taken.
        logits: the network.
        channels: names, among the errors, of the reconstruction's channels; none if the network
            reads the image alone.
    """

    is_peak = True

    def __init__(
        self,
        joint: Joint,
        first: CuesScore | PlacesScore,
        logits: LogitMaps,
        channels: Sequence[str] = (),
    ):
        self.joint, self.first, self.logits, self.channels = joint, first, logits, tuple(channels)

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the reconstruction, if it is read, and the first's errors, `[N, h, w, K]`."""
        channels = [errors[name][..., None] for name in self.channels]
        return tf.concat([*channels, self.first.window_errors(windows, errors)], axis=-1)

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the map, blended over overlapping tiles, and its largest value as the score."""
        return peak_by_tile(images, errors, self.first.tile, self.map_of_tiles)

    def map_of_tiles(self, tiles: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
        """Returns the map `[N, h, w]` of tiles and their errors."""
        of_errors = self.first.map_of_tiles(tiles, errors[..., len(self.channels) :])
        return self.joint(of_errors, self._logits(tiles, errors))

    def _logits(self, tiles: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
        return self.logits(tiles, errors[..., : len(self.channels)] if self.channels else None)

    def adapt(self, normals: tf.data.Dataset, size: int) -> None:
        """Adapts the layer to the logits of normal images.

        Args:
            normals: images float32 `[H, W, C]`, unbatched; larger ones than tiles are cut.
            size: number of images.
        """
        logits = []
        for images in batched(spread(normals, size, ADAPT_IMAGES)):
            tiles = tf.constant(tiles_of(images, self.first.tile))
            logits.append(self.logits(tiles).numpy())
        self.joint.adapt(np.concatenate(logits))


class MarksScore(JointScore):
    """The largest value of the network's own map alone."""

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the reconstruction; if the network reads the image alone, zeros."""
        if not self.channels:
            return tf.zeros_like(windows[..., :1])
        return tf.stack([errors[name] for name in self.channels], axis=-1)

    def map_of_tiles(self, tiles: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
        """Returns the map `[N, h, w]` of tiles."""
        return self.joint.marks(self._logits(tiles, errors))
