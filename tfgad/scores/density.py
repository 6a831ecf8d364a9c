"""A score of whole windows: how unlikely, on normal images, is all that a method says of one.

A paper's score takes one thing that the method says, such as an error of pixels. But an error is
large or small only beside the rest: thick strokes reconstruct worse than thin ones, so that the
thin strokes of a 1 have smaller errors than a normal 8; and an image may reconstruct well from a
code that no normal image has. After Zong et al. 2018 (DAGMM, eq. 3 to 6), the errors and the code
are seen as one vector, whose density on normal images is a mixture of Gaussians:

    [log of the errors, log of the image's contrast, z, what z becomes when encoded again]

DAGMM trains its networks and the mixture together; here the networks are trained by their own
paper, and the mixture is fitted afterwards. With the digit 8 of MNIST normal and other digits of
the training split as anomalies, GANomaly's AUROC is 0.961 by this score and 0.924 by its own, a
VAE's 0.967 and 0.908.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfgad.data import tiling
from tfgad.data.sampling import batched, spread
from tfgad.errors import UsageError
from tfgad.scores.cues import FLOOR
from tfgad.scores.error_maps import mean_of_map, over_window
from tfgad.scores.score import MeanErrorScore

COMPONENTS = 10  # at most: the classes that leave-one-out on MNIST has, and one more
ROWS_PER_DIMENSION = 8  # that a component needs at least, or else there are fewer components
NO_DEVIATION = 1e-6  # relative, about what float32 resolves
ADAPT_WINDOWS = 8192  # a digit of MNIST has 7,000 at most; with 2,340 GANomaly loses 0.018 on 8s
REGULARISATION = 0.1  # added to the variances of whitened vectors, which are 1


@keras.saving.register_keras_serializable("tfgad")
class Density(keras.layers.Layer):
    """Vectors `[B, K]` to `[B]`: their negative log-likelihood under the fitted mixture, in nats.

    It is counted from a bound that no vector can pass, so that it is never negative. Component m
    has the matrix A_m, the vector b_m and the number c_m, with Σ exp(c_m) = 1:

        -log Σ_m exp(c_m - ½ ‖A_mᵀ (v - μ) / σ - b_m‖²)

    Until `adapt` has fitted it, it answers 0.

    Args:
        size: K.
    """

    def __init__(self, size: int, name="density", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})
        self.size = size
        self.mean = self._statistic("mean", (size,), "zeros")
        self.deviation = self._statistic("deviation", (size,), "ones")
        self.factors = self._statistic("factors", (COMPONENTS, size, size), "zeros")
        self.offsets = self._statistic("offsets", (COMPONENTS, size), "zeros")
        even = keras.initializers.Constant(-np.log(COMPONENTS))
        self.constants = self._statistic("constants", (COMPONENTS,), even)
        self.built = True

    def _statistic(self, name, shape, initializer):
        return self.add_weight(shape, initializer, name=name, trainable=False, dtype="float32")

    @property
    def is_adapted(self) -> bool:
        """Whether `adapt` has fitted it, here or before the model was saved."""
        return bool(np.any(self.factors.numpy()))

    def call(self, vectors):
        """Returns `[B]`, 0 or more."""
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

        The vectors are standardised, then whitened by a covariance that is shrunk as much as their
        number calls for (Ledoit and Wolf 2004), so that one regularisation fits every method. A
        number that is the same for all of them tells nothing and is left out.

        Raises:
            UsageError: fewer than two vectors, or some that are not finite.
        """
        # Imported where it is needed: who only judges does without.
        from sklearn.covariance import LedoitWolf
        from sklearn.mixture import GaussianMixture

        vectors = _checked(vectors)
        mean, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        varies = deviation > NO_DEVIATION * (1 + np.abs(mean))
        deviation = np.where(varies, deviation, 1.0)
        standard = ((vectors - mean) / deviation)[:, varies]
        precision = LedoitWolf(assume_centered=True).fit(standard).precision_
        whitening = np.linalg.cholesky(precision)
        count = min(COMPONENTS, max(1, len(vectors) // (ROWS_PER_DIMENSION * self.size)))
        mixture = GaussianMixture(count, reg_covar=REGULARISATION, random_state=0)
        mixture.fit(standard @ whitening)
        self.mean.assign(mean)
        self.deviation.assign(deviation)
        self._take(whitening, mixture, varies)

    def _take(self, whitening, mixture, varies) -> None:
        factors, offsets = np.zeros(self.factors.shape), np.zeros(self.offsets.shape)
        constants = np.full(COMPONENTS, -np.inf)  # of a component that is not used
        for m, cholesky in enumerate(mixture.precisions_cholesky_):
            factors[m][np.ix_(varies, varies)] = whitening @ cholesky
            offsets[m][varies] = mixture.means_[m] @ cholesky
            constants[m] = np.log(mixture.weights_[m]) + np.log(np.diag(cholesky)).sum()
        self.factors.assign(factors)
        self.offsets.assign(offsets)
        self.constants.assign(constants - np.logaddexp.reduce(constants))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size}


class DensityScore(MeanErrorScore):
    """The score `density`: the likelihood of a window's errors and latent code.

    Its map has the density of the window as its mean, and the form of the window's residual.

    Args:
        density: the layer.
        terms: the error maps whose means it reads, by name, in groups.
        window: `(h, w, C)`.
    """

    def __init__(self, density: Density, terms: Sequence[Sequence[str]], window: Sequence[int]):
        super().__init__(("density",), window[:2])
        self.density, self.shape = density, tuple(window)
        self.terms = tuple(name for term in terms for name in term)

    def vectors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the vectors `[N, K]` of windows `[N, h, w, C]`: errors, contrast and code."""
        means = [mean_of_map(errors[name]) for name in self.terms]
        contrast = tf.math.reduce_variance(windows, axis=[1, 2, 3])
        logarithms = tf.math.log(tf.stack([*means, contrast], axis=1) + FLOOR)
        return tf.concat([logarithms, errors["code"]], axis=1)

    def window_errors(self, windows: tf.Tensor, errors: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the density of each window as a map `[N, h, w, 1]` of its residual's form."""
        residual = errors["residual"]
        share = (residual + FLOOR) / over_window(mean_of_map(residual) + FLOOR, self.shape)
        density = self.density(self.vectors(windows, errors))
        return (share * over_window(density, self.shape))[..., None]

    def adapt(
        self, normals: tf.data.Dataset, size: int, vectors_of: Callable[[tf.Tensor], tf.Tensor]
    ) -> None:
        """Fits the mixture to windows that lie side by side in normal images.

        Args:
            normals: images float32 `[H, W, C]`, one at a time.
            size: how many they are.
            vectors_of: windows `[N, h, w, C]` to `vectors`.
        """
        height, width = normals.element_spec.shape[:2]
        per_image = max(1, height // self.shape[0]) * max(1, width // self.shape[1])
        images = spread(normals, size, math.ceil(ADAPT_WINDOWS / per_image))
        vectors = [vectors_of(self.side_by_side(each)).numpy() for each in batched(images)]
        self.density.adapt(np.concatenate(vectors))

    def side_by_side(self, images: tf.Tensor) -> tf.Tensor:
        """Cuts images `[B, H, W, C]` into windows `[N, h, w, C]` that touch."""
        size = self.shape[:2]
        padded = tiling.pad_to_grid(images, size, math.gcd(*size))
        return tf.reshape(tiling.cut(padded, size, stride=size), [-1, *self.shape])


def _checked(vectors) -> np.ndarray:
    """Returns the vectors as float64 `[N, K]`."""
    vectors = np.asarray(vectors, "float64")
    if len(vectors) < 2:
        hint = "give at least 2 normal images, better some hundreds"
        raise UsageError("normal images", len(vectors), "are too few for their density", hint)
    bad = int(np.count_nonzero(~np.isfinite(vectors)))
    if bad:
        hint = "train again with a smaller learning rate, or look for broken images"
        raise UsageError("errors of normal images", f"{bad} values", "are NaN or infinite", hint)
    return vectors
