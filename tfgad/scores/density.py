"""Density: a score of whole windows, from a Gaussian mixture over their errors and latent code.

It is the likelihood of a window's errors and latent code under a Gaussian mixture that is fitted to
normal windows. A window is one vector

    v = [log of the errors, log of the window's contrast, z, what z becomes when encoded again]

and the score is -log p(v) up to a constant; `Density` has the formula.

A paper's score uses one error, such as that of the pixels, but the size of an error depends on the
image: thick strokes reconstruct worse than thin ones, so the thin strokes of a 1 have smaller
errors than a normal 8. An image may also reconstruct well from a code that no normal image has. The
density sees both.

The idea is that of DAGMM (Zong et al. 2018, eq. 3 to 6), which trains its networks and the mixture
together. Here the networks are trained by their own paper, and the mixture is fitted afterwards.
Measured with the digit 8 of MNIST as normal and other digits of the training split as anomalies:
AUROC 0.961 by this score and 0.924 by its own for GANomaly, 0.967 and 0.908 for a VAE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.data import tiling
from tfgad.data.sampling import batched, spread
from tfgad.errors import UsageError
from tfgad.scores.cues import FLOOR
from tfgad.scores.error_maps import mean_of_map, over_window
from tfgad.scores.score import MeanErrorScore
from tfgad.scores.statistics_layer import StatisticsLayer

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

COMPONENTS = 10  # at most: one more than the 9 normal classes of leave-one-out on MNIST
ROWS_PER_DIMENSION = 8  # vectors per component and dimension; with fewer, fewer components are used
# Ledoit and Wolf's shrinkage below which the covariance counts as singular; of 8,000 vectors it is
# about 0.001.
NO_SHRINKAGE = 1e-9
NO_DEVIATION = 1e-6  # relative, about the resolution of float32
ADAPT_WINDOWS = 8192  # a digit of MNIST has at most 7,000; with 2,340 GANomaly loses 0.018 on 8s
REGULARISATION = 0.1  # added to the variances of the whitened vectors, which are 1


@keras.saving.register_keras_serializable("tfgad")
class Density(StatisticsLayer):
    """Negative log-likelihood of vectors under a Gaussian mixture, in nats: `[B, K]` to `[B]`.

    Component m has a matrix A_m, a vector b_m and a number c_m, with Σ exp(c_m) = 1:

        -log Σ_m exp(c_m - ½ ‖A_mᵀ (v - μ) / σ - b_m‖²)

    The constants are shifted so that the result is never negative. It is 0 until `adapt` has fitted
    the mixture.

    Args:
        size: K.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, size: int, name: str = "density", **kwargs: Any):
        super().__init__(name, **kwargs)
        self.size = size
        self.mean = self._statistic("mean", (size,), "zeros")
        self.deviation = self._statistic("deviation", (size,), "ones")
        self.factors = self._statistic("factors", (COMPONENTS, size, size), "zeros")
        self.offsets = self._statistic("offsets", (COMPONENTS, size), "zeros")
        uniform = keras.initializers.Constant(-np.log(COMPONENTS))
        self.constants = self._statistic("constants", (COMPONENTS,), uniform)
        self.built = True

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has fitted the mixture, also before the model was saved."""
        return bool(np.any(self.factors.numpy()))

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """Returns the negative log-likelihood `[B]`, at least 0."""
        standard = (vectors - self.mean) / self.deviation
        distances = [
            tf.reduce_sum(tf.square(tf.matmul(standard, factor) - offset), axis=1)
            for factor, offset in zip(
                tf.unstack(self.factors), tf.unstack(self.offsets), strict=True
            )
        ]
        return -tf.reduce_logsumexp(self.constants - tf.stack(distances, axis=1) / 2, axis=1)

    def adapt(self, vectors: np.ndarray) -> None:
        """Fits the mixture to vectors `[N, K]` of normal images.

        The vectors are standardised, then whitened by a covariance with the shrinkage of Ledoit and
        Wolf (2004), so that one regularisation suits every method. Dimensions that do not vary are
        ignored.

        Raises:
            UsageError: fewer than two vectors, vectors that are all alike, or values that are not
                finite.
        """
        # Imported here: predictions do not need scikit-learn.
        from sklearn.covariance import LedoitWolf, shrunk_covariance
        from sklearn.mixture import GaussianMixture

        vectors = _checked(vectors)
        mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        varies = deviation > NO_DEVIATION * (1 + np.abs(mean))
        if not varies.any():
            hint = "give images that differ"
            raise UsageError("normal images", len(vectors), "are all alike", hint)
        deviation = np.where(varies, deviation, 1.0)
        standard = ((vectors - mean) / deviation)[:, varies]
        estimate = LedoitWolf(assume_centered=True).fit(standard)
        precision = estimate.precision_
        if estimate.shrinkage_ < NO_SHRINKAGE:  # of two vectors, or copies of two, it is singular
            shrunk = shrunk_covariance(estimate.covariance_, 1 / len(vectors))
            precision = np.linalg.inv(shrunk)
        whitening = np.linalg.cholesky(precision)
        count = min(COMPONENTS, max(1, len(vectors) // (ROWS_PER_DIMENSION * self.size)))
        mixture = GaussianMixture(count, reg_covar=REGULARISATION, random_state=0)
        mixture.fit(standard @ whitening)
        self.mean.assign(mean)
        self.deviation.assign(deviation)
        self._assign_components(whitening, mixture, varies)

    def _assign_components(
        self, whitening: np.ndarray, mixture: GaussianMixture, varies: np.ndarray
    ) -> None:
        """Sets A, b and c from the mixture; dimensions that do not vary, bool `[K]`, stay 0."""
        factors, offsets = np.zeros(self.factors.shape), np.zeros(self.offsets.shape)
        constants = np.full(COMPONENTS, -np.inf)  # of unused components
        for m, cholesky in enumerate(mixture.precisions_cholesky_):
            factors[m][np.ix_(varies, varies)] = whitening @ cholesky
            offsets[m][varies] = mixture.means_[m] @ cholesky
            constants[m] = np.log(mixture.weights_[m]) + np.log(np.diag(cholesky)).sum()
        self.factors.assign(factors)
        self.offsets.assign(offsets)
        self.constants.assign(constants - np.logaddexp.reduce(constants))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size}


class DensityScore(MeanErrorScore):
    """The score `density`: negative log-likelihood of a window's errors and latent code.

    The map of a window is proportional to its residual, and its mean is the score of the window.

    Args:
        density: the layer.
        terms: names of the error maps whose means are used, one group per term.
        window: `(h, w, C)`.
    """

    def __init__(self, density: Density, terms: Sequence[Sequence[str]], window: Sequence[int]):
        super().__init__(("density",), window[:2])
        height, width, channels = window
        self.density, self.shape = density, (height, width, channels)
        self.terms = tuple(name for term in terms for name in term)

    def vectors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the vectors `[N, K]` of windows `[N, h, w, C]`: errors, contrast and code.

        Args:
            windows: float32 in [-1, 1].
            errors: what the method's `errors` returns for them.
        """
        means = [mean_of_map(errors[name]) for name in self.terms]
        contrast = tf.math.reduce_variance(windows, axis=[1, 2, 3])
        logarithms = tf.math.log(tf.stack([*means, contrast], axis=1) + FLOOR)
        codes = [errors["code"]] if "code" in errors else []
        return tf.concat([logarithms, *codes], axis=1)

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns maps `[N, h, w, 1]` proportional to the residual; their mean is the score."""
        residual = errors["residual"]
        share = (residual + FLOOR) / over_window(mean_of_map(residual) + FLOOR, self.shape)
        density = self.density(self.vectors(windows, errors))
        return (share * over_window(density, self.shape))[..., None]

    def adapt(
        self, normals: tf.data.Dataset, size: int, vectors_of: Callable[[tf.Tensor], tf.Tensor]
    ) -> None:
        """Fits the mixture to the non-overlapping windows of normal images.

        Args:
            normals: images float32 `[H, W, C]`, unbatched.
            size: number of images.
            vectors_of: maps windows `[N, h, w, C]` to their `vectors`.
        """
        height, width = normals.element_spec.shape[:2]
        per_image = max(1, height // self.shape[0]) * max(1, width // self.shape[1])
        images = spread(normals, size, math.ceil(ADAPT_WINDOWS / per_image))
        vectors = [vectors_of(self.side_by_side(each)).numpy() for each in batched(images)]
        self.density.adapt(np.concatenate(vectors))

    def side_by_side(self, images: tf.Tensor) -> tf.Tensor:
        """Cuts images `[B, H, W, C]` into windows `[N, h, w, C]` that do not overlap."""
        size = self.shape[:2]
        padded = tiling.pad_to_grid(images, size, math.gcd(*size))
        return tf.reshape(tiling.cut(padded, size, stride=size), [-1, *self.shape])


def _checked(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors as float64 `[N, K]`; see the errors of `Density.adapt`."""
    vectors = np.asarray(vectors, "float64")
    if len(vectors) < 2:
        hint = "give at least 2 normal images, better some hundreds"
        raise UsageError("normal images", len(vectors), "are too few to fit their density", hint)
    bad = int(np.count_nonzero(~np.isfinite(vectors)))
    if bad:
        hint = "train again with a smaller learning rate, or look for broken images"
        raise UsageError("errors of normal images", f"{bad} values", "are NaN or infinite", hint)
    return vectors
