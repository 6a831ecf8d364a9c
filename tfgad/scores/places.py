"""Places: where a part reconstructs worse, or is lighter or darker, than good parts do there.

On parts that lie alike each place has an error and a tone of its own: an edge reconstructs badly on
every good part, and the lamp shades every one in the same way. So both are compared with those of
good parts at the same place. With x an image, p a place,

    r    = (log(blur(residual)) - mean_p) / deviation_p
    t    = |blur(x) - median(blur(x)) - mean_p| / deviation_p      mean over channels
    map  = max(w_r r / peak_r, w_t t / peak_t)

The median over the image takes off that a photograph is lighter or darker as a whole. Mean and
deviation are taken over good images, in cells of 4 pixels and over neighbouring cells, since parts
never lie alike to the pixel. A peak is the value that nine of ten maxima over good images stay
below. The weights w are 1, or those of the setting `cue_weights` (`cue_weights.py`); a term of
weight 0 is left out.

Measured on magnetic tile, 128 pixels, GANomaly, one run: image AUROC .722, by the residual alone
.717, the tone alone .645; `cues` has .497. Errors of the critic's features and of the code, as in
`cues`, are worth less there than the pixels' (.54 to .68).

The map of a network that was trained on synthetic defects can be added (`joint.py`). At 256 pixels,
in one run of `ganomaly_unet`, that raises the image AUROC from .678 to .693 and the AUPRO from .474
to .598.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.data.sampling import batched, spread
from tfgad.data.warping import gaussian_blur
from tfgad.scores.cues import FLOOR, PEAK_QUANTILE, TONE_SIGMA, peak_by_tile, quantile, tiles_of
from tfgad.scores.regions import check_vary
from tfgad.scores.statistics_layer import StatisticsLayer

CELL = 4  # pixels along the side of a cell
RESIDUAL_SIGMA = 2.0  # pixels; 1, 3 and 5 give .725, .704 and .674 on magnetic tile
CELL_SIGMA = 1.0  # cells, of the blur of mean and deviation
LEAST_SHARE = 0.5  # of the median deviation over the places, for one that hardly varies
LEAST_DEVIATION = 1e-3  # where good images are nearly copies of each other
LEAST_PEAK = 1e-3  # above 0, which stands for no statistics
ADAPT_IMAGES = 256


@keras.saving.register_keras_serializable("tfgad")
class Places(StatisticsLayer):
    """Layer from images and residuals to an anomaly map, standardised by place on normal images.

    Args:
        size: `(H, W)` of the images.
        channels: of the images.
        term_weights: of the residual and of the tone; None: 1 each.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        term_weights: Sequence[float] | None = None,
        name: str = "places",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        self.term_weights = tuple(term_weights or (1.0, 1.0))
        self.size, self.channels = (size[0], size[1]), channels
        cells = tuple(-(-side // CELL) for side in self.size)
        # The residual's, and the tone's of each channel.
        self.mean = self._statistic("mean", (*cells, 1 + channels), "zeros")
        self.deviation = self._statistic("deviation", (*cells, 1 + channels), "ones")
        self.peaks = self._statistic("peaks", (2,), "zeros")  # 0: not adapted
        self.built = True

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has set the statistics, here or before the model was saved."""
        return bool(np.all(self.peaks.numpy() > 0))

    def call(self, images: tf.Tensor, residuals: tf.Tensor) -> tf.Tensor:
        """Returns the anomaly map `[B, H, W]`.

        Args:
            images: float32 `[B, H, W, C]` in [-1, 1], of `size`.
            residuals: float32 `[B, H, W, 1]`, not negative.
        """
        parts = tf.unstack(self.parts(self.values(images, residuals)) / self.peaks, axis=-1)
        weighted = [w * part for w, part in zip(self.term_weights, parts, strict=True) if w]
        largest = functools.reduce(tf.maximum, weighted)
        return tf.image.resize(largest[..., None], self.size)[..., 0]

    def values(self, images: tf.Tensor, residuals: tf.Tensor) -> tf.Tensor:
        """Returns the logarithm of the blurred residual and the tones in cells, `[B, h, w, 1 + C]`.

        The arguments are those of `call`.
        """
        logarithms = tf.math.log(gaussian_blur(residuals, RESIDUAL_SIGMA) + FLOOR)
        tones = gaussian_blur(images, TONE_SIGMA)
        both = tf.concat([logarithms, tones - quantile(tones, 0.5)], axis=-1)
        return tf.nn.avg_pool2d(both, CELL, CELL, "SAME")

    def parts(self, values: tf.Tensor) -> tf.Tensor:
        """Returns r and t in cells, `[B, h, w, 2]`, of what `values` returned."""
        standard = (values - self.mean) / self.deviation
        tone = tf.reduce_mean(tf.abs(standard[..., 1:]), axis=-1)
        return tf.stack([standard[..., 0], tone], axis=-1)

    def adapt(self, values: np.ndarray) -> None:
        """Estimates the statistics from what `values` returned of normal images, `[N, h, w, K]`.

        Raises:
            UsageError: fewer than two images, or images that are all alike.
        """
        check_vary(values)
        mean, square = (
            gaussian_blur(each[None], CELL_SIGMA)[0].numpy()
            for each in (values.mean(0), np.square(values).mean(0))
        )
        # With the differences between neighbours in it: an edge may lie a little beside its place.
        deviation = np.sqrt(np.maximum(square - np.square(mean), 0.0))
        least = np.maximum(LEAST_SHARE * np.median(deviation, axis=(0, 1)), LEAST_DEVIATION)
        self.mean.assign(mean)
        self.deviation.assign(np.maximum(deviation, least))
        maxima = np.max(self.parts(values), axis=(1, 2))
        peaks = np.quantile(maxima, PEAK_QUANTILE, axis=0)
        self.peaks.assign(np.maximum(peaks, LEAST_PEAK))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        own = {"size": self.size, "channels": self.channels, "term_weights": self.term_weights}
        return {**super().get_config(), **own}


class PlacesScore:
    """The score `places`: the largest value of the map that `Places` computes.

    Args:
        places: the layer.
    """

    is_peak = True

    def __init__(self, places: Places):
        self.places, self.tile = places, places.size

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the residual, `[N, h, w, 1]`."""
        return errors["residual"][..., None]

    def __call__(self, images: tf.Tensor, errors: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the map and its largest value.

        A part has the size of the training images. A larger image is scored in tiles of that size,
        each as if it were a part.
        """
        return peak_by_tile(images, errors, self.tile, self.map_of_tiles)

    def map_of_tiles(self, tiles: tf.Tensor, errors: tf.Tensor) -> tf.Tensor:
        """Returns the map `[N, h, w]` of tiles and their errors."""
        return self.places(tiles, errors)

    def adapt(
        self, normals: tf.data.Dataset, size: int, errors_of: Callable[[tf.Tensor], tf.Tensor]
    ) -> None:
        """Adapts the layer to normal images; the arguments are those of `CuesScore.adapt`."""
        values = []
        for batch in batched(spread(normals, size, ADAPT_IMAGES)):
            images, errors = (tiles_of(each, self.tile) for each in (batch, errors_of(batch)))
            values.append(self.places.values(images, errors).numpy())
        self.places.adapt(np.concatenate(values))
