"""Regions: how far the features of each region of a part are from those of good parts there.

A pretrained network turns an image into feature maps. The image has 8x8 cells; a region is a square
of 1, 2 or 4 cells a side, at every cell. A region R is described by the mean and the standard
deviation of every channel F within it, each standardised over good images,

    v_R = [mean_R F, deviation_R F]

The finest regions are the 32x32 points of the feature maps themselves; a point is described by its
features alone. Descriptions of good regions lie near a linear subspace, whatever their place. With
P the projection onto the principal components that hold 97 % of their variance, r the size of a
region, p its place, w_r = 3 for points and 1 for the others,

    e_R   = log(mean((v_R - P v_R)²))
    z_R   = (e_R - mean_p) / deviation        points
    z_R   = (e_R - mean) / distance_p         larger regions, distance_p = √mean_p (e_R - mean)²
    map   = Σ_r w_r z_R / peak

Components of low variance tell anomalies from good images best (Rippel et al. 2020, who describe
the whole image by means). Deviations see what means do not, a change of texture: without them the
image AUROC on magnetic tile is .886 instead of .905 (one run, another split than in
`docs/results.md`). The whole image as a fourth region adds nothing to the AUROC of synthetic
defects on held-out good images there (.641), and lowers their pixel AUROC from .803 to .787.

Points show where a defect is. With w_r = 3 they are more than half of the map: on magnetic tile the
peak of the others was 7.9, that of the points alone 3.6 before they are weighted.

Places differ: some vary on good parts, and next to the edge the network sees its own padding. So
the residuals of points are compared with those of the same place; their deviation is the root mean
square of those of all places. Larger regions have one mean for all places, and the distance from it
by place. By image AUROC, pixel AUROC and AUPRO of synthetic defects on held-out good images, of the
sum with the map of the head (one run each):

                              magnetic tile      denim, as whole parts
    mean by place, all sizes  .722  .876  .612   .824  .946  .657
    points alone by place     .722  .879  .612   .825  .947  .662
    one mean, all sizes       .724  .882  .613   .816  .941  .645

A region does not say where in it the defect is, nor does a point, whose features are those of
pixels around it. So the map is lowered where the features f are nearer to their mean at the place
than those of points beside it. With d = mean(((f - mean_p) / deviation)²), over channels, and the
maximum over 9x9 points,

    map'  = min(map, map d / max d)

By image AUROC, pixel AUROC and AUPRO, of the sum with the map of the head, on the same two and on
the defects that denim is tested with (one run each; the labels of magnetic tile, looked at beside
them, are in `docs/results.md`):

                              magnetic tile      denim, as whole parts   denim, its own
    map                       .722  .891  .632   .878  .937  .709        .987  .958  .848
    map √(d / max d)          .723  .901  .653   .880  .943  .735        .987  .972  .892
    map d / max d             .724  .909  .667   .881  .946  .755        .986  .978  .916

Components leave smaller residuals of the images that they were fitted to than of new ones. So the
images are divided into five parts, and the statistics are those of residuals that the components of
the other four parts leave. The peak is the value that nine of ten maxima of the map, before it is
lowered, stay below, each image standardised by the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.scores.cues import PEAK_QUANTILE
from tfgad.scores.place_statistics import PlaceStatistics
from tfgad.scores.statistics_layer import StatisticsLayer

CELLS = 8  # along a side
SIDES = (1, 2, 4)  # of regions, in cells
GRID = 32  # values along a side of the map, and points along a side
POINT = 0  # stands for a point beside the sides
SIZES = (*SIDES, POINT)
POINTS, EARLIER_POINTS = 3.0, 2.0  # w_r of points, today and in files of an earlier version
VARIANCE = 0.97  # as in the trivial detector of `evaluation/feature_pca.py`
VECTORS = 20_000  # at most, that components are fitted to; drawn from all places
FOLDS = 5  # a fifth of the images at a time is left out
FLOOR = 1e-9  # of mean squares in logarithms
VARIANCE_FLOOR = 1e-12  # within a region; it is 0 where a region has one value of a coarse map
# Of the mean deviation of all descriptions over good images: what deviates less is constant but for
# rounding, and is not used.
LEAST_DEVIATION, NOT_USED = 1e-4, 1e12
LEAST_PEAK = 1e-3  # above 0, which stands for no statistics
NEAR = 9  # points along the side of a square; with 17 the image AUROC on denim is .008 lower


@keras.saving.register_keras_serializable("tfgad")
class Regions(StatisticsLayer):
    """Layer from moments of cells, and features of points, to a map of standardised residuals.

    Args:
        channels: of all feature maps together.
        points: w_r of points.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, channels: int, points: float = POINTS, name: str = "regions", **kwargs: Any):
        super().__init__(name, **kwargs)
        self.channels = channels
        self.size_weights = {**dict.fromkeys(SIDES, 1.0), POINT: points}  # w_r
        self.mean, self.deviation, self.components = [], [], []
        self.place_mean, self.place_deviation = [], []
        for side in SIZES:
            name, along, size = str(side), CELLS - side + 1, 2 * channels
            if side == POINT:
                name, along, size = "point", GRID, channels
            self.mean.append(self._statistic(f"mean_{name}", (size,), "zeros"))
            self.deviation.append(self._statistic(f"deviation_{name}", (size,), "ones"))
            # Columns beyond the components that are kept are 0.
            components = self._statistic(f"components_{name}", (size, size), "zeros")
            self.components.append(components)
            places = (along, along)
            self.place_mean.append(self._statistic(f"place_mean_{name}", places, "zeros"))
            self.place_deviation.append(self._statistic(f"place_deviation_{name}", places, "ones"))
        self.peak = self._statistic("peak", (), "zeros")  # 0: not adapted
        self.built = True

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has set the statistics, here or before the model was saved."""
        return bool(self.peak.numpy() > 0)

    def call(self, cells: tf.Tensor, points: tf.Tensor, mean: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the map `[B, GRID, GRID]`; at least nine of ten normal images stay below 1.

        Args:
            cells: float32 `[B, CELLS, CELLS, 2 C]`, of `cells_of`.
            points: float32 `[B, GRID, GRID, C]`, the features themselves.
            mean: of the points of normal images at each place, `[GRID, GRID, C]`. None leaves the
                map as it is.
        """
        total = tf.zeros([tf.shape(cells)[0], GRID, GRID])
        for index, side in enumerate(SIZES):
            vectors = points if side == POINT else descriptions(cells, side)
            errors = self._log_residual(index, vectors)
            total += self.size_weights[side] * _over_grid(self._standardised(index, errors))
        regions = total / self.peak
        if mean is None:
            return regions
        standard = (points - mean) / self.deviation[SIZES.index(POINT)]
        unusual = tf.reduce_mean(tf.square(standard), axis=-1, keepdims=True)
        largest = tf.nn.max_pool2d(unusual, NEAR, 1, "SAME")
        # A negative value stays as it is: it would be raised.
        return tf.minimum(regions, regions * (unusual / (largest + FLOOR))[..., 0])

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the statistics; those of a model saved before points counted are of sides alone."""
        if len(store) == len(self.weights):
            super().load_own_variables(store)
            return
        index = SIZES.index(POINT)
        of_each = self.mean, self.deviation, self.components, self.place_mean, self.place_deviation
        of_sides = [each[i] for i in range(len(SIDES)) for each in of_each]
        for number, weight in enumerate((*of_sides, self.peak)):
            weight.assign(store[str(number)])
        self.place_deviation[index].assign(np.full((GRID, GRID), np.inf))  # z_R is 0 then

    def _log_residual(self, index: int, vectors: tf.Tensor) -> tf.Tensor:
        """Returns e_R `[...]` of descriptions v_R `[..., K]` before they are standardised."""
        standard = (vectors - self.mean[index]) / self.deviation[index]
        explained = tf.tensordot(standard, self.components[index], 1)
        residual = tf.reduce_mean(tf.square(standard), -1)
        residual -= tf.reduce_sum(tf.square(explained), -1) / standard.shape[-1]
        return tf.math.log(tf.maximum(residual, 0.0) + FLOOR)

    def _standardised(self, index: int, errors: tf.Tensor) -> tf.Tensor:
        """Returns z_R of e_R `[B, places, places]`."""
        return (errors - self.place_mean[index]) / self.place_deviation[index]

    def adapt(
        self,
        cells: np.ndarray,
        points: np.ndarray,
        views: Sequence[np.ndarray] = (),
        per_place: bool = True,
        square: bool = True,
    ) -> None:
        """Estimates the statistics from normal images.

        Args:
            cells: of N images, `[N, CELLS, CELLS, 2 C]`.
            points: of the same images, `[N, GRID, GRID, C]`.
            views: cells of the same images mirrored or turned: the components of larger regions
                are fitted to these, too.
            per_place: whether the statistics that differ between places belong to each place. If
                not, no place is special but for its distance from the edges: places are alike that
                mirroring and turns map onto each other.
            square: whether the parts are; see `PlaceStatistics`.

        Raises:
            UsageError: fewer than two images, or images that are all alike.
        """
        check_vary(cells)
        total = tf.zeros([len(cells), GRID, GRID])
        for index, side in enumerate(SIZES):
            if side == POINT:
                vectors = [points]
            else:
                vectors = [descriptions(each, side).numpy() for each in (cells, *views)]
            errors = self._residuals_of_others(index, vectors)
            self._fit(index, vectors, np.arange(len(cells)))
            places = PlaceStatistics(
                errors, per_place, "deviation" if side == POINT else "mean", square
            )
            self.place_mean[index].assign(places.mean)
            self.place_deviation[index].assign(places.deviation)
            total += self.size_weights[side] * _over_grid(places.left_one_out())
        peak = np.quantile(np.max(total, axis=(1, 2)), PEAK_QUANTILE)
        self.peak.assign(max(peak, LEAST_PEAK))

    def _residuals_of_others(self, index: int, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """Returns e_R of each image, `[N, places, places]`, of components fitted without it."""
        images = np.arange(len(vectors[0]))
        errors = np.empty(vectors[0].shape[:3], np.float32)
        for fold in np.array_split(images, min(FOLDS, len(images))):
            self._fit(index, vectors, np.delete(images, fold))
            for image in fold:
                errors[image] = self._log_residual(index, np.float32(vectors[0][image]))
        return errors

    def _fit(self, index: int, vectors: Sequence[np.ndarray], images: np.ndarray) -> None:
        """Fits mean, deviation and components to descriptions of some images.

        At most `VECTORS` of them are used, drawn at random.

        Args:
            index: of the size.
            vectors: descriptions `[N, places, places, K]` of the images, and of their views.
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
        own = {"channels": self.channels, "points": self.size_weights[POINT]}
        return {**super().get_config(), **own}


def check_vary(values: np.ndarray) -> None:
    """Raises UsageError if values `[N, ...]` of normal images say nothing of how images vary."""
    if len(values) < 2:
        hint = "give at least 2, better some hundreds"
        raise UsageError("normal images", len(values), "are too few", hint)
    if not np.any(np.ptp(values, axis=0)):
        raise UsageError("normal images", len(values), "are all alike", "give images that differ")


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

    Beyond the centres next to an edge the value is that of the nearest. Points are the grid.
    """
    places = values.shape[1]
    if places == GRID:
        return tf.convert_to_tensor(values)
    centres = (np.arange(places) + (CELLS - places + 1) / 2) * (GRID / CELLS) - 0.5
    weights = np.stack([np.interp(np.arange(GRID), centres, row) for row in np.eye(places)], 1)
    weights = tf.constant(weights, tf.float32)
    return tf.einsum("gp,bpq,hq->bgh", weights, values, weights)
