"""VGG19 as a fixed feature extractor φ (Simonyan and Zisserman 2015), by which texture is compared.

Where its ImageNet weights cannot be had it is given random ones of a fixed seed: random
convolutions too carry what a texture is (Ustyuzhaninov et al. 2017), though not what an object is.
"""

import math
from pathlib import Path

import keras
from keras import layers

from tfgad.errors import UsageError, nearest
from tfgad.networks.pretrained import RANDOM, pretrained

RANDOM_SEED = 0
# Blue, green and red of ImageNet's mean image, which its weights expect to be taken off.
IMAGENET_MEAN = (103.939, 116.779, 123.68)


def feature_extractor(layer: str, weights: str | Path | None = None):
    """Returns φ up to a layer, and the name of the weights it has.

    Args:
        layer: the last layer, such as `block2_conv1`, of `keras.applications.VGG19`.
        weights: a file of them, `imagenet` or `random`; see `tfgad.networks.pretrained`.

    Returns:
        The network, images `[B, H, W, C]` in [-1, 1] with C 1 or 3, of any size, to features
        `[B, h, w, c]` float32; and `imagenet`, `random` or the name of the file.

    Raises:
        UsageError: there is no such layer, or the weights cannot be had or are not VGG19's.
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
    """φ for images of some channels in [-1, 1]: grey counts as three equal colours."""
    images = keras.Input((None, None, channels), name="images")
    colour = images if channels == 3 else layers.Concatenate()([images] * 3)
    return keras.Model(images, features(Preprocessing(dtype="float32")(colour)), name="phi")


@keras.saving.register_keras_serializable("tfgad")
class Preprocessing(layers.Layer):
    """RGB in [-1, 1] to what VGG19 was trained on: BGR in [0, 255] less the mean."""

    def call(self, images):
        """Returns `[B, H, W, 3]`."""
        blue_green_red = (images[..., ::-1] + 1.0) * 127.5
        return blue_green_red - keras.ops.convert_to_tensor(IMAGENET_MEAN)


def _randomise(network: keras.Model) -> None:
    """Gives each convolution normal weights that keep the size of what passes (He et al. 2015)."""
    for number, layer in enumerate(network.layers):
        for variable in layer.trainable_weights:
            if len(variable.shape) == 4:
                deviation = math.sqrt(2.0 / math.prod(variable.shape[:3]))
                seed = RANDOM_SEED + number
                variable.assign(keras.random.normal(variable.shape, stddev=deviation, seed=seed))
