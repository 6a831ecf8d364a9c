"""VGG19 as a feature extractor: its weights, preprocessing and errors."""

import logging

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
    assert source == "random"
    assert "random ones are used instead" in caplog.text
    with pytest.raises(UsageError, match="cannot be downloaded"):
        vgg.feature_extractor("block1_conv1", "imagenet")


def test_weights_are_loaded_from_a_file(tmp_path):
    network = keras.applications.VGG19(include_top=False, weights=None)
    network.save_weights(tmp_path / "own.weights.h5")
    features, source = vgg.feature_extractor("block1_conv1", tmp_path / "own.weights.h5")
    assert source == "own.weights.h5"
    expected = network.get_layer("block1_conv1").get_weights()
    for ours, theirs in zip(
        features.get_layer("block1_conv1").get_weights(), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_of_another_network_are_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(UsageError, match="does not hold VGG19's weights"):
        vgg.feature_extractor("block1_conv1", tmp_path / "a.weights.h5")
    with pytest.raises(UsageError, match="is not there"):
        vgg.feature_extractor("block1_conv1", tmp_path / "b.weights.h5")


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
