"""VGG19 as a fixed feature extractor φ (Simonyan and Zisserman 2015), by which texture is compared.

Its ImageNet weights are Keras's, or a file of them. Where neither can be had the same network is
given random weights of a fixed seed: random convolutions too carry what a texture is (Ustyuzhaninov
et al. 2017), though not what an object is. Which weights they are is logged and returned.
"""

import logging
import math
from pathlib import Path

import keras
from keras import layers

from tfgad.errors import UsageError, nearest

log = logging.getLogger(__name__)

IMAGENET, RANDOM = "imagenet", "random"
RANDOM_SEED = 0
# Blue, green and red of ImageNet's mean image, which its weights expect to be taken off.
IMAGENET_MEAN = (103.939, 116.779, 123.68)


def feature_extractor(layer: str, weights: str | Path | None = None):
    """Returns φ up to a layer, and the name of the weights it has.

    Args:
        layer: the last layer, such as `block2_conv1`, of `keras.applications.VGG19`.
        weights: a file of VGG19's weights without its top, as Keras publishes it; or `imagenet`,
            which Keras may have to download; or `random`. By default ImageNet's if they can be had,
            else random ones.

    Returns:
        The network, images `[B, H, W, C]` in [-1, 1] with C 1 or 3, of any size, to features
        `[B, h, w, c]` float32; and `imagenet`, `random` or the name of the file.

    Raises:
        UsageError: there is no such layer, or the weights cannot be had or are not VGG19's.
    """
    network, source = _with_weights(weights)
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


def _with_weights(weights):
    if weights in (None, IMAGENET):
        try:
            return _vgg19(IMAGENET), IMAGENET
        except Exception as error:  # Keras raises no narrower one where a download fails
            if weights == IMAGENET:
                mend = "give a file of them, or leave it out for random weights"
                raise UsageError("vgg weights", weights, "cannot be downloaded", mend) from error
            log.warning("VGG19's ImageNet weights cannot be had: random ones are used instead")
            weights = RANDOM
    if weights == RANDOM:
        return _randomised(_vgg19(None)), RANDOM
    return _from_file(Path(weights)), Path(weights).name


def _vgg19(weights):
    return keras.applications.VGG19(include_top=False, weights=weights)


def _randomised(network):
    """Gives each convolution normal weights that keep the size of what passes (He et al. 2015)."""
    for number, layer in enumerate(network.layers):
        for variable in layer.trainable_weights:
            if len(variable.shape) == 4:
                deviation = math.sqrt(2.0 / math.prod(variable.shape[:3]))
                seed = RANDOM_SEED + number
                variable.assign(keras.random.normal(variable.shape, stddev=deviation, seed=seed))
    return network


def _from_file(path: Path):
    mend = "give vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5 of keras.applications"
    if not path.is_file():
        raise UsageError("vgg weights", path, "is not there", mend)
    network = _vgg19(None)
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError("vgg weights", path, "does not hold VGG19's weights", mend) from error
    return network
