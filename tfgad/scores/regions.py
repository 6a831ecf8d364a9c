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

Components of low variance tell anomalies from good images best (Rippel et al. 2020, who describe
the whole image by means). Deviations see what means do not, a change of texture: without them the
image AUROC on magnetic tile is .886 instead of .905 (one run, another split than in
`docs/results.md`). The whole image as a fourth region adds nothing to the AUROC of synthetic
defects on held-out good images there (.641), and lowers their pixel AUROC from .803 to .787.

Places differ: some vary on good parts. So e_R is standardised by place. Components leave smaller
residuals of the images that they were fitted to than of new ones. So the images are divided into
five parts, and mean and deviation are those of residuals that the components of the other four
parts leave. The peak is the value that nine of ten maxima of the map stay below, each image
standardised by the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.scores.cues import PEAK_QUANTILE
from tfgad.scores.statistics_layer import StatisticsLayer

CELLS = 8  # along a side
SIDES = (1, 2, 4)  # of regions, in cells
GRID = 32  # values along a side of the map
VARIANCE = 0.97  # as in the trivial detector of `evaluation/feature_pca.py`
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
class Regions(StatisticsLayer):
    """Layer from the moments of cells to a map of residuals, standardised on normal images.

    Args:
        channels: of all feature maps together.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, channels: int, name: str = "regions", **kwargs: Any):
        super().__init__(name, **kwargs)
        self.channels = channels
        size = 2 * channels
        self.mean, self.deviation, self.components = [], [], []
        self.place_mean, self.place_deviation = [], []
        for side in SIDES:
            places = (CELLS - side + 1,) * 2
            self.mean.append(self._statistic(f"mean_{side}", (size,), "zeros"))
            self.deviation.append(self._statistic(f"deviation_{side}", (size,), "ones"))
            # Columns beyond the components that are kept are 0.
            components = self._statistic(f"components_{side}", (size, size), "zeros")
            self.components.append(components)
            self.place_mean.append(self._statistic(f"place_mean_{side}", places, "zeros"))
            self.place_deviation.append(self._statistic(f"place_deviation_{side}", places, "ones"))
        self.peak = self._statistic("peak", (), "zeros")  # 0: not adapted
        self.built = True

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has set the statistics, here or before the model was saved."""
        return bool(self.peak.numpy() > 0)

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

    def adapt(
        self, cells: np.ndarray, views: Sequence[np.ndarray] = (), per_place: bool = True
    ) -> None:
        """Estimates the statistics from normal images.

        Args:
            cells: of N images, `[N, CELLS, CELLS, 2 C]`.
            views: of the same images mirrored or turned, in the same form: the components are
                fitted to these, too.
            per_place: whether e_R is standardised by place; if not, over all places alike.

        Raises:
            UsageError: fewer than two images, or images that are all alike.
        """
        check_vary(cells)
        total = tf.zeros([len(cells), GRID, GRID])
        folds = np.array_split(np.arange(len(cells)), min(FOLDS, len(cells)))
        for index, side in enumerate(SIDES):
            vectors = [descriptions(each, side).numpy() for each in (cells, *views)]
            errors = np.empty(vectors[0].shape[:3], np.float32)
            for fold in folds:
                others = np.delete(np.arange(len(cells)), fold)
                self._fit(index, vectors, others)
                errors[fold] = self._log_residual(index, vectors[0][fold])
            self._fit(index, vectors, np.arange(len(cells)))
            axes = 0 if per_place else (0, 1, 2)
            mean, deviation = errors.mean(axes), errors.std(axes)
            least = max(LEAST_SHARE * np.median(deviation), LEAST_SPREAD)
            self.place_mean[index].assign(np.broadcast_to(mean, errors.shape[1:]))
            deviations = np.broadcast_to(np.maximum(deviation, least), errors.shape[1:])
            self.place_deviation[index].assign(deviations)
            total += _over_grid(_left_one_out(errors, axes, least))
        peak = np.quantile(np.max(total, axis=(1, 2)), PEAK_QUANTILE)
        self.peak.assign(max(peak, LEAST_PEAK))

    def _fit(self, index: int, vectors: Sequence[np.ndarray], images: np.ndarray) -> None:
        """Fits mean, deviation and components to descriptions of some images.

        At most `VECTORS` of them are used, drawn at random.

        Args:
            index: of the side.
            vectors: descriptions `[N, places, places, 2 C]` of the images, and of their views.
            images: which of the N are used.
        """
        # Imported here: predictions do not need scikit-learn.
        from sklearn.decomposition import PCA

        shape = (len(vectors), len(images), *vectors[0].shape[1:3])
        drawn = np.arange(np.prod(shape))
        if len(drawn) > VECTORS:
            drawn = np.random.default_rng(0).choice(drawn, VECTORS, replace=False)
        view, image, down, across = np.unravel_index(drawn, shape)
        rows = np.empty((len(drawn), vectors[0].shape[-1]), np.float32)
        for number, each in enumerate(vectors):
            own = view == number
            rows[own] = each[images[image[own]], down[own], across[own]]
        mean, deviation = rows.mean(0, dtype="float64"), rows.std(0, dtype="float64")
        deviation = np.where(deviation > LEAST_DEVIATION * deviation.mean(), deviation, NOT_USED)
        standard = ((rows - mean) / deviation).astype("float32")
        solver = "covariance_eigh" if len(rows) > rows.shape[1] else "full"  # the faster one
        varies = np.any(np.ptp(standard, axis=0))  # the images of a fold may be all alike
        kept = PCA(VARIANCE, svd_solver=solver).fit(standard).components_ if varies else []
        components = np.zeros(self.components[index].shape, np.float32)
        components[:, : len(kept)] = np.transpose(kept)
        self.mean[index].assign(mean)
        self.deviation[index].assign(deviation)
        self.components[index].assign(components)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "channels": self.channels}


def check_vary(values: np.ndarray) -> None:
    """Raises UsageError if values `[N, ...]` of normal images say nothing of how images vary."""
    if len(values) < 2:
        hint = "give at least 2, better some hundreds"
        raise UsageError("normal images", len(values), "are too few", hint)
    if not np.any(np.ptp(values, axis=0)):
        raise UsageError("normal images", len(values), "are all alike", "give images that differ")


def _left_one_out(errors: np.ndarray, axes: Any, least: float) -> np.ndarray:
    """Standardises the e_R of each image by those of the others: `[N, places, places]`.

    Args:
        errors: e_R, `[N, places, places]`.
        axes: over which mean and deviation are taken.
        least: deviation.
    """
    standardised = np.empty_like(errors)
    for i, own in enumerate(errors):
        others = np.delete(errors, i, axis=0)
        standardised[i] = (own - others.mean(axes)) / np.maximum(others.std(axes), least)
    return standardised


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
