"""Regions: how far the features of each region of a part are from those of good parts there.

A pretrained network turns an image into feature maps. The image has 8x8 cells; a region is a square
of 1, 2, 4 or 8 cells a side, at every cell. A region R is described by the mean and the standard
deviation of every channel F within it, each standardised over good images,

    v_R = [mean_R F, deviation_R F]

Descriptions of good regions lie near a linear subspace, whatever their place. With P the projection
onto the principal components that hold 97 % of their variance, r the side of a region, p its place,

    e_R   = log(mean((v_R - P v_R)²))
    z_R   = (e_R - mean_p) / deviation_p
    map   = Σ_r z_R / peak

Components of low variance tell anomalies from good images best (Rippel et al. 2021, who describe
the whole image by means). Deviations see what means do not, a change of texture. Magnetic tile,
image AUROC, one run: means alone .886, both .905; regions of 1, 2, 4 and 8 cells .888, .892, .898
and .867.

Places differ: some vary on good parts. So e_R is standardised by place. Its mean and deviation
are those of images that the components were not fitted to, by turns: of the others the residuals
are too small. The peak is the value that nine of ten maxima of the map stay below, in the same
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.scores.cues import PEAK_QUANTILE

CELLS = 8  # along a side
SIDES = (1, 2, 4, 8)  # of regions, in cells
GRID = 32  # values along a side of the map
VARIANCE = 0.97  # as the PCA of features that is a trivial detector
VECTORS = 20_000  # at most, that components are fitted to; drawn from all places
FOLDS = 5  # a fifth of the images at a time is left out
FLOOR = 1e-9  # of mean squares in logarithms
VARIANCE_FLOOR = 1e-12  # within a region; it is 0 where a region has one value of a coarse map
# Of the mean deviation of all descriptions over good images: what deviates less is constant but for
# rounding, and is not used.
LEAST_DEVIATION, NOT_USED = 1e-4, 1e12
# Of the median deviation over the places: a place that hardly varies on the good images there are
# may vary a little more on others.
LEAST_SHARE = 0.5
LEAST_SPREAD = 1e-3  # of logarithms: good images that are nearly copies of each other
LEAST_PEAK = 1e-3  # above 0, which stands for no statistics


@keras.saving.register_keras_serializable("tfgad")
class Regions(keras.layers.Layer):
    """Layer from the moments of cells to a map of residuals, standardised on normal images.

    Args:
        channels: of all feature maps together.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, channels: int, name: str = "regions", **kwargs: Any):
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})
        self.channels = channels
        size = 2 * channels
        self.mean, self.deviation, self.components = [], [], []
        self.place_mean, self.place_deviation = [], []
        for side in SIDES:
            places = (CELLS - side + 1,) * 2
            self.mean.append(self._statistic(f"mean_{side}", (size,), "zeros"))
            self.deviation.append(self._statistic(f"deviation_{side}", (size,), "ones"))
            # As many columns as components are kept; the others are 0.
            components = self._statistic(f"components_{side}", (size, size), "zeros")
            self.components.append(components)
            self.place_mean.append(self._statistic(f"place_mean_{side}", places, "zeros"))
            self.place_deviation.append(self._statistic(f"place_deviation_{side}", places, "ones"))
        self.peak = self._statistic("peak", (), "zeros")  # 0: not adapted
        self.built = True

    def _statistic(self, name: str, shape: tuple[int, ...], initializer: str) -> keras.Variable:
        return self.add_weight(shape, initializer, name=name, trainable=False, dtype="float32")

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has set the statistics, here or before the model was saved."""
        return float(self.peak) > 0

    def call(self, cells: tf.Tensor) -> tf.Tensor:
        """Returns the map `[B, GRID, GRID]`; nine of ten normal images stay below 1.

        Args:
            cells: float32 `[B, CELLS, CELLS, 2 C]`, of `cells_of`.
        """
        total = tf.zeros([tf.shape(cells)[0], GRID, GRID])
        for index, side in enumerate(SIDES):
            errors = self._log_residual(index, descriptions(cells, side))
            total += _over_grid(self._standardised(index, errors))
        return total / self.peak

    def _log_residual(self, index: int, vectors: tf.Tensor) -> tf.Tensor:
        """Returns e_R, `[..., ]`, of descriptions v_R `[..., 2 C]` before they are standardised."""
        standard = (vectors - self.mean[index]) / self.deviation[index]
        explained = tf.tensordot(standard, self.components[index], 1)
        residual = tf.reduce_mean(tf.square(standard), -1)
        residual -= tf.reduce_sum(tf.square(explained), -1) / standard.shape[-1]
        return tf.math.log(tf.maximum(residual, 0.0) + FLOOR)

    def _standardised(self, index: int, errors: tf.Tensor) -> tf.Tensor:
        """Returns z_R of e_R `[B, places, places]`."""
        return (errors - self.place_mean[index]) / self.place_deviation[index]

    def adapt(self, cells: np.ndarray, views: Sequence[np.ndarray] = (), per_place: bool = True):
        """Estimates the statistics from normal images.

        Args:
            cells: of N images, `[N, CELLS, CELLS, 2 C]`.
            views: of the same images mirrored or turned, in the same form: the components are
                fitted to these, too.
            per_place: whether e_R is standardised by place; if not, over all places alike.

        Raises:
            UsageError: fewer than two images, or images that are all alike.
        """
        if len(cells) < 2:
            hint = "give at least 2, better some hundreds"
            raise UsageError("normal images", len(cells), "are too few", hint)
        if not np.any(np.ptp(cells, axis=0)):
            hint = "give images that differ"
            raise UsageError("normal images", len(cells), "are all alike", hint)
        total = tf.zeros([len(cells), GRID, GRID])
        for index, side in enumerate(SIDES):
            vectors = [descriptions(each, side).numpy() for each in (cells, *views)]
            held_out = np.empty(vectors[0].shape[:3], np.float32)
            for fold in np.array_split(np.arange(len(cells)), min(FOLDS, len(cells))):
                self._fit(index, [np.delete(each, fold, axis=0) for each in vectors])
                held_out[fold] = self._log_residual(index, vectors[0][fold])
            self._fit(index, vectors)
            axes = 0 if per_place else None
            mean, deviation = held_out.mean(axes), held_out.std(axes)
            least = max(LEAST_SHARE * np.median(deviation), LEAST_SPREAD)
            deviation = np.maximum(deviation, least)
            self.place_mean[index].assign(np.broadcast_to(mean, held_out.shape[1:]))
            self.place_deviation[index].assign(np.broadcast_to(deviation, held_out.shape[1:]))
            total += _over_grid(self._standardised(index, held_out))
        peak = np.quantile(np.max(total, axis=(1, 2)), PEAK_QUANTILE)
        self.peak.assign(max(peak, LEAST_PEAK))

    def _fit(self, index: int, vectors: Sequence[np.ndarray]) -> None:
        """Fits mean, deviation and components to descriptions `[N, places, places, 2 C]`."""
        # Imported here: predictions do not need scikit-learn.
        from sklearn.decomposition import PCA

        rows = np.concatenate([each.reshape(-1, each.shape[-1]) for each in vectors])
        if len(rows) > VECTORS:
            rows = rows[np.random.default_rng(0).choice(len(rows), VECTORS, replace=False)]
        mean, deviation = rows.mean(0, dtype="float64"), rows.std(0, dtype="float64")
        deviation = np.where(deviation > LEAST_DEVIATION * deviation.mean(), deviation, NOT_USED)
        standard = ((rows - mean) / deviation).astype("float32")
        solver = "covariance_eigh" if len(rows) > rows.shape[1] else "full"  # the faster one
        # One description, as of the whole of one image, has no variance.
        kept = PCA(VARIANCE, svd_solver=solver).fit(standard).components_ if len(rows) > 1 else []
        components = np.zeros(self.components[index].shape, np.float32)
        components[:, : len(kept)] = np.transpose(kept)
        self.mean[index].assign(mean)
        self.deviation[index].assign(deviation)
        self.components[index].assign(components)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "channels": self.channels}


def cells_of(maps: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns mean and mean square of feature maps in each cell, `[B, CELLS, CELLS, 2 C]`.

    Args:
        maps: float32 `[B, h, w, c]` each; h and w are multiples of `CELLS`.
    """

    def in_cells(values: tf.Tensor) -> tf.Tensor:
        size = values.shape[1] // CELLS, values.shape[2] // CELLS
        return tf.nn.avg_pool2d(values, size, size, "VALID")

    moments = [*map(in_cells, maps), *(in_cells(tf.square(each)) for each in maps)]
    return tf.concat(moments, axis=-1)


def descriptions(cells: tf.Tensor, side: int) -> tf.Tensor:
    """Returns v_R before it is standardised, `[B, places, places, 2 C]`.

    Args:
        cells: of `cells_of`.
        side: of the regions, in cells.
    """
    mean, square = tf.split(tf.nn.avg_pool2d(cells, side, 1, "VALID"), 2, axis=-1)
    variance = tf.maximum(square - tf.square(mean), VARIANCE_FLOOR)
    return tf.concat([mean, tf.sqrt(variance)], axis=-1)


def _over_grid(values: tf.Tensor) -> tf.Tensor:
    """Interpolates values at the centres of regions, `[B, places, places]`: `[B, GRID, GRID]`.

    Beyond the centres next to an edge the value is that of the nearest.
    """
    places = values.shape[1]
    centres = (np.arange(places) + (CELLS - places + 1) / 2) * (GRID / CELLS) - 0.5
    weights = np.stack([np.interp(np.arange(GRID), centres, row) for row in np.eye(places)], 1)
    weights = tf.constant(weights, tf.float32)
    return tf.einsum("gp,bpq,hq->bgh", weights, values, weights)
