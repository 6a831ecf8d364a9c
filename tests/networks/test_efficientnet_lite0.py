"""EfficientNet-Lite0: sizes, dilation, and the weights of a file folded into convolutions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfgad.errors import UsageError
from tfgad.networks.efficientnet_lite0 import OUTPUTS, STRIDES, lite0, load_lite0_weights
from tfgad.networks.torch_file import read_torch_file

DAISY, PALACE = 985, 698  # classes of ImageNet


@pytest.fixture(scope="module")
def image():
    """A random grey image `[1, 64, 96, 1]`."""
    return np.random.default_rng(1).uniform(-1, 1, (1, 64, 96, 1)).astype("float32")


def test_the_weights_are_as_many_as_published():
    network = lite0((224, 224, 3), ("probabilities",))
    # A folded bias stands for the scale and the offset of batch normalisation.
    folded = [each for each in network.layers if each.weights and each.name != "probabilities"]
    biases = sum(layer.bias.shape[0] for layer in folded)
    assert biases == 21_008
    assert network.count_params() + biases == 4_652_008
    assert not network.trainable_weights


def test_each_output_has_its_stride_and_channels(image):
    outputs = lite0((None, None, 1), OUTPUTS)(image)
    assert list(outputs) == list(OUTPUTS)
    channels = dict(zip(STRIDES, (16, 24, 40, 112, 320), strict=True))
    for name, count in channels.items():
        stride = int(name.removeprefix("stride_"))
        assert outputs[name].shape == (1, 64 // stride, 96 // stride, count)
        np.testing.assert_array_equal(outputs[name], outputs[STRIDES[name]])
    assert outputs["stem"].shape == (1, 32, 48, 32)
    assert outputs["head"].shape == (1, 2, 3, 1280)
    mean = np.mean(outputs["head"], axis=(1, 2))
    np.testing.assert_allclose(outputs["pooled"], mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.sum(outputs["probabilities"]), 1.0, rtol=1e-5)


def test_layers_that_no_output_needs_are_left_out():
    network = lite0((64, 64, 1), ("stride_8",))
    assert network.get_layer("block_4")
    assert not any(layer.name.startswith("block_5") for layer in network.layers)


def test_grey_is_repeated_to_three_channels(lite0_file, image):
    grey, colour = (lite0((None, None, channels), ("stride_8",)) for channels in (1, 3))
    for network in (grey, colour):
        load_lite0_weights(network, lite0_file)
    of_colour = colour(np.repeat(image, 3, axis=-1))["stride_8"]
    np.testing.assert_allclose(grey(image)["stride_8"], of_colour, rtol=1e-5, atol=1e-5)


def test_batch_normalisation_is_folded_into_the_convolutions(lite0_file, lite0_tensors):
    """The first two layers, with the published preprocessing and batch normalisation."""
    rgb = np.random.default_rng(2).uniform(0, 255, (1, 16, 16, 3)).astype("float32")

    def normalised(x, name):
        layer = layers.BatchNormalization(epsilon=1e-3)
        layer.build(x.shape)
        parts = ("weight", "bias", "running_mean", "running_var")
        layer.set_weights([lite0_tensors[f"{name}.{part}"] for part in parts])
        return tf.nn.relu6(layer(x, training=False))

    kernel = lite0_tensors["_conv_stem.weight"].transpose(2, 3, 1, 0)
    x = tf.nn.conv2d((rgb - 127.0) / 128.0, kernel, 2, "SAME")
    x = normalised(x, "_bn0")
    network = lite0((16, 16, 3), ("stem", "block_0"))
    load_lite0_weights(network, lite0_file)
    outputs = network(rgb / 127.5 - 1.0)
    np.testing.assert_allclose(outputs["stem"], x, rtol=1e-4, atol=1e-5)
    kernel = lite0_tensors["_blocks.0._depthwise_conv.weight"].transpose(2, 3, 0, 1)
    x = normalised(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"), "_blocks.0._bn1")
    depthwise = keras.Model(network.input, network.get_layer("block_0_depthwise").output)
    np.testing.assert_allclose(depthwise(rgb / 127.5 - 1.0), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("output_stride", "finer"), [(16, 2), (8, 4), (4, 8)])
def test_dilation_keeps_the_features_and_adds_those_between(
    lite0_file, image, output_stride, finer
):
    strided, dilated = lite0((64, 96, 1)), lite0((64, 96, 1), output_stride=output_stride)
    for network in (strided, dilated):
        load_lite0_weights(network, lite0_file)
    dense, coarse = dilated(image)["stride_32"], strided(image)["stride_32"]
    assert dense.shape == (1, 64 // output_stride, 96 // output_stride, 320)
    # With TensorFlow's padding a convolution of stride 2 is centred on every second pixel.
    sampled = dense[:, finer - 1 :: finer, finer - 1 :: finer]
    np.testing.assert_allclose(sampled, coarse, rtol=1e-3, atol=1e-3)


def test_wrong_arguments_are_refused():
    with pytest.raises(UsageError, match="did you mean 'stride_16'"):
        lite0((64, 64, 1), ("stride16",))
    with pytest.raises(UsageError, match="give 1 or 3"):
        lite0((64, 64, 2))
    with pytest.raises(UsageError, match="give 4, 8, 16 or 32"):
        lite0((64, 64, 1), output_stride=2)


def test_a_file_of_another_network_is_refused(lite0_tensors, torch_files, tmp_path):
    network = lite0((64, 64, 1), ("stride_2",))
    before = network.get_weights()
    kernel = {"_blocks.0._depthwise_conv.weight": np.zeros((16, 1, 3, 3), "float32")}
    scale = np.full(32, np.nan, "float32")
    for changes, problem in (
        (kernel, "another shape for block_0_depthwise_conv"),
        ({"_blocks.0._bn1.weight": scale}, "is not finite in block_0_depthwise_conv"),
        ({"_bn0.bias": None}, "has no _bn0.bias"),
    ):
        tensors = {k: v for k, v in (lite0_tensors | changes).items() if v is not None}
        path = tmp_path / "other.pth"
        path.write_bytes(torch_files.legacy(*torch_files.contiguous(tensors)))
        with pytest.raises(UsageError, match=problem):
            load_lite0_weights(network, path)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.pretrained
def test_the_published_weights_name_what_a_picture_shows(lite0_weights):
    from sklearn.datasets import load_sample_images

    assert sum(
        each.size
        for name, each in read_torch_file(lite0_weights).items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ) == 4_652_008  # fmt: skip
    network = lite0((224, 224, 3), ("probabilities",))
    load_lite0_weights(network, lite0_weights)
    square = [picture[:, 106:533][:427] for picture in load_sample_images().images]  # of 427x640
    images = tf.image.resize(np.stack(square), (224, 224), antialias=True) / 127.5 - 1.0
    probabilities = network(images)["probabilities"].numpy()
    assert list(probabilities.argmax(axis=1)) == [PALACE, DAISY]
