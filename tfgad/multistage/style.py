"""The style of a fabric: the Gram matrix of its features, and a short code of it.

Gatys et al. 2015 describe a texture by the correlations between the channels ψ of a convolutional
network, regardless of place. Liu et al. 2020 condition their defect generator on them:

    Gram = ψψᵀ / (C·H·W)        ψ `[C, H·W]`, C channels
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfgad.errors import UsageError
from tfgad.networks.vgg import grey_or_colour

# Any layer distinguishes fabrics: of patches of 64x64 of a weave that the components were not
# fitted to, 0.97 to 1.00 have their nearest neighbour among eight weaves in another tile of their
# own weave, for codes of 8, 16 or 32 numbers and random weights, from block1_conv1 to block4_conv1.
# This layer has a receptive field of ten pixels, two yarns, at a third of the cost of block4_conv1.
LAYER, CODE_DIM = "block2_conv1", 16
FARTHEST = 3.0  # standard deviations; beyond them a new fabric is unlike all of the training


@keras.saving.register_keras_serializable("tfgad")
class GramMatrix(layers.Layer):
    """ψψᵀ / (C·H·W) of features `[B, H, W, C]` of any size: `[B, C, C]` (Liu et al. 2020)."""

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the symmetric Gram matrices."""
        shape = ops.shape(features)
        psi = ops.reshape(features, (-1, shape[1] * shape[2], shape[3]))
        count = ops.cast(shape[1] * shape[2] * shape[3], psi.dtype)
        return ops.matmul(ops.transpose(psi, (0, 2, 1)), psi) / count


@keras.saving.register_keras_serializable("tfgad")
class GramCode(layers.Layer):
    """Codes `[B, d]` of Gram matrices `[B, C, C]`: their first principal components, whitened.

    A Gram matrix of 128 channels has 8,256 different numbers, more than there are patches to learn
    from. `adapt` fits the components; a code is clipped to three standard deviations.

    Args:
        size: d.
        name: of the layer.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, size: int = CODE_DIM, name: str = "gram_code", **kwargs: Any) -> None:
        super().__init__(name=name, **{"dtype": "float32", "trainable": False, **kwargs})
        self.size = size

    def build(self, shape: tuple[int, ...]) -> None:
        """Makes the weights for matrices of a size."""
        rows, columns = np.triu_indices(shape[-1])
        self.upper = rows * shape[-1] + columns
        count = len(self.upper)
        self.mean = self.add_weight((count,), "zeros", name="mean")
        self.components = self.add_weight((count, self.size), "zeros", name="components")

    def call(self, grams: tf.Tensor) -> tf.Tensor:
        """Returns the codes, in [-3, 3]."""
        code = ops.matmul(self._vectors(grams) - self.mean, self.components)
        return ops.clip(code, -FARTHEST, FARTHEST)

    def _vectors(self, grams: tf.Tensor) -> tf.Tensor:
        flat = ops.reshape(grams, (-1, grams.shape[-1] ** 2))
        return ops.take(flat, self.upper, axis=1)

    def adapt(self, grams: np.ndarray) -> None:
        """Fits the components to Gram matrices `[N, C, C]`.

        Raises:
            UsageError: fewer matrices than components.
        """
        from sklearn.decomposition import PCA

        if len(grams) <= self.size:
            hint = f"give more than {self.size}"
            raise UsageError("style patches", len(grams), "are too few for a code", hint)
        if not self.built:
            self.build(grams.shape)
        pca = PCA(self.size, whiten=True, random_state=0)
        pca.fit(np.asarray(self._vectors(ops.convert_to_tensor(grams))))
        self.mean.assign(pca.mean_)
        deviations = np.sqrt(np.maximum(pca.explained_variance_, np.finfo("float32").tiny))
        self.components.assign((pca.components_ / deviations[:, None]).T)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size}


def style_network(features: keras.Model, channels: int, size: int = CODE_DIM) -> keras.Model:
    """Makes the network from images to Gram matrix and style code.

    Args:
        features: VGG19 or VGG16 up to a layer; see `tfgad.networks.vgg.feature_extractor`.
        channels: 1 or 3.
        size: of the code, which is all zeros until its layer `gram_code` has been adapted.

    Returns:
        A model of images `[B, H, W, channels]` in [-1, 1], of any size, to `gram` `[B, C, C]` and
        `code` `[B, size]`.
    """
    images = keras.Input((None, None, channels), name="images")
    gram = GramMatrix(dtype="float32", name="gram")(grey_or_colour(features, channels)(images))
    return keras.Model(images, {"gram": gram, "code": GramCode(size)(gram)}, name="style")
