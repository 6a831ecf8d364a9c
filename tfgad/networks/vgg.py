"""VGG19 as a fixed feature extractor φ for textures (Simonyan and Zisserman 2015).

If the ImageNet weights are not available, φ has random weights of a fixed seed. Features of random
convolutions represent textures too (Ustyuzhaninov et al. 2017), but not objects.
"""

from __future__ import annotations

import math
from pathlib import Path

import keras
import tensorflow as tf
from keras import layers

from tfgad.errors import UsageError, nearest
from tfgad.networks.pretrained import RANDOM, pretrained

RANDOM_SEED = 0
# Mean blue, green and red of ImageNet, subtracted from the inputs of the pretrained network.
IMAGENET_MEAN = (103.939, 116.779, 123.68)


def feature_extractor(layer: str, weights: str | Path | None = None) -> tuple[keras.Model, str]:
    """Returns φ up to a layer, and the name of its weights.

    Args:
        layer: name of the last layer in `keras.applications.VGG19`, such as `block2_conv1`.
        weights: a file, `imagenet` or `random`; see `tfgad.networks.pretrained`.

    Returns:
        The network, from preprocessed images `[B, H, W, 3]` of any size (see `grey_or_colour`) to
        features `[B, h, w, c]` float32; and `imagenet`, `random` or the name of the file.

    Raises:
        UsageError: the layer does not exist, or the weights are not available or not VGG19's.
    """
    network, source = pretrained(keras.applications.VGG19, weights)
    if source == RANDOM:
        _randomise(network)
    names = [each.name for each in network.layers[1:]]
    if layer not in names:
        raise UsageError("vgg layer", layer, "is not one of VGG19", nearest(layer, names))
    features = keras.Model(network.input, network.get_layer(layer).output, name="vgg19")
    features.trainable = False
    return features, source


def grey_or_colour(features: keras.Model, channels: int) -> keras.Model:
    """Returns φ for images `[B, H, W, channels]` in [-1, 1]; grey is repeated to three channels."""
    images = keras.Input((None, None, channels), name="images")
    colour = images if channels == 3 else layers.Concatenate()([images] * 3)
    return keras.Model(images, features(Preprocessing(dtype="float32")(colour)), name="phi")


@keras.saving.register_keras_serializable("tfgad")
class Preprocessing(layers.Layer):
    """Preprocessing of VGG19: from RGB in [-1, 1] to BGR in [0, 255] minus the mean."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Returns `[B, H, W, 3]`."""
        blue_green_red = (images[..., ::-1] + 1.0) * 127.5
        return blue_green_red - keras.ops.convert_to_tensor(IMAGENET_MEAN)


def _randomise(network: keras.Model) -> None:
    """Sets normal weights that preserve the variance of activations (He et al. 2015)."""
    for number, layer in enumerate(network.layers):
        for variable in layer.trainable_weights:
            if len(variable.shape) == 4:
                deviation = math.sqrt(2.0 / math.prod(variable.shape[:3]))
                seed = RANDOM_SEED + number
                variable.assign(keras.random.normal(variable.shape, stddev=deviation, seed=seed))
