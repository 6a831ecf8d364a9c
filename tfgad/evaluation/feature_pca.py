"""PCA of features: the trivial detector of whole parts, on what a pretrained network sees.

EfficientNet-Lite0 was trained on photographs of a thousand kinds of things. Its features of a good
part lie near a linear subspace. A place of a part is scored by the squared distance of its features
from it. Nothing is trained but a principal component analysis.
"""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from tfgad.networks.efficientnet_lite0 import lite0, load_lite0_weights

STRIDES = ("stride_8", "stride_16", "stride_32")  # 40, 112 and 320 channels
VARIANCE = 0.97
SIDE = 256  # pixels; images are enlarged to it, for Lite0 was trained at 224
VECTORS = 50_000  # about as many fit the PCA, of all images alike; one of 256x256 pixels has 1,024
BATCH = 8


class FeaturePCA:
    """The residual of pretrained features after a principal component analysis.

    Features of the strides 8, 16 and 32 are resized to the grid of stride 8, side by side, each
    channel standardised. The components keep 97 % of the variance.

    Args:
        weights: the file that `load_lite0_weights` reads.
        seed: of the choice of training vectors.
    """

    def __init__(self, weights: str | Path, seed: int = 0):
        self.weights, self.seed = weights, seed

    def fit(self, images: np.ndarray) -> FeaturePCA:
        """Learns the components of float `[N, H, W, C]` in [-1, 1], and returns itself.

        Raises:
            UsageError: the weights cannot be read; images of neither 1 nor 3 channels.
        """
        self.network = self.build(images.shape[-1])
        self.features = tf.function(self._features, reduce_retracing=True)
        rng, per_image = np.random.default_rng(self.seed), math.ceil(VECTORS / len(images))
        vectors = []
        for batch in _batches(images):
            features = self.features(tf.constant(batch)).numpy()
            for places in features.reshape(len(batch), -1, features.shape[-1]):
                vectors.append(rng.permutation(places)[:per_image])
        some = np.concatenate(vectors)
        self.scaler = StandardScaler().fit(some)
        self.pca = PCA(VARIANCE, svd_solver="covariance_eigh").fit(self.scaler.transform(some))
        return self

    def build(self, channels: int) -> keras.Model:
        """Returns the network: from images `[B, H, W, channels]` to a list of features.

        The grid of the first is that of the map.
        """
        network = lite0((None, None, channels), STRIDES)
        load_lite0_weights(network, self.weights)
        return keras.Model(network.input, [network.output[name] for name in STRIDES])

    def maps(self, images: np.ndarray) -> np.ndarray:
        """Returns the mean square of the residual, resized to the images.

        Args:
            images: float `[N, H, W, C]` in [-1, 1].

        Returns:
            float32 `[N, H, W]`.
        """
        return np.concatenate([self._maps(batch) for batch in _batches(images)])

    def _maps(self, images: np.ndarray) -> np.ndarray:
        features = self.features(tf.constant(images)).numpy()
        vectors = self.scaler.transform(features.reshape(-1, features.shape[-1]))
        residual = vectors - self.pca.inverse_transform(self.pca.transform(vectors))
        grid = np.mean(residual**2, axis=1, dtype="float32").reshape(features.shape[:3])
        return tf.image.resize(grid[..., None], images.shape[1:3]).numpy()[..., 0]

    def _features(self, images: tf.Tensor) -> tf.Tensor:
        """Returns features `[N, h, w, K]` of images `[N, H, W, C]`; of Lite0 K is 472."""
        size = tf.cast(tf.shape(images)[1:3], tf.float32)
        larger = tf.maximum(1.0, SIDE / tf.reduce_max(size))
        images = tf.image.resize(images, tf.cast(tf.round(size * larger), tf.int32))
        features = self.network(images, training=False)
        grid = tf.shape(features[0])[1:3]
        return tf.concat([tf.image.resize(each, grid) for each in features], axis=-1)


def _batches(images: np.ndarray) -> list[np.ndarray]:
    images = np.asarray(images, np.float32)
    return [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
