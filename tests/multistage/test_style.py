"""Gram matrices by hand, and their codes."""

import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.multistage.style import GramCode, GramMatrix, style_network
from tfgad.networks.vgg import feature_extractor


def test_gram_matrix_by_hand():
    """Two places, two channels: ψ = [[1, 3], [2, 0]] over C·H·W = 4."""
    features = np.array([[[[1.0, 2.0], [3.0, 0.0]]]], "float32")  # [1, 1, 2, 2]
    expected = np.array([[10.0, 2.0], [2.0, 4.0]]) / 4
    np.testing.assert_allclose(GramMatrix()(features)[0], expected)


def test_gram_matrix_does_not_see_where():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 4, 6, 3)).astype("float32")
    shuffled = rng.permutation(features.reshape(24, 3)).reshape(features.shape)
    np.testing.assert_allclose(GramMatrix()(features), GramMatrix()(shuffled), rtol=1e-5)


def test_codes_are_white_and_bounded():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(200, 4, 4)).astype("float32")
    grams = roots @ roots.transpose(0, 2, 1)
    code = GramCode(3)
    code.adapt(grams)
    codes = code(grams).numpy()
    assert codes.shape == (200, 3)
    assert np.abs(codes).max() <= 3.0
    np.testing.assert_allclose(codes.std(axis=0), 1.0, atol=0.15)  # the clipping takes a little
    assert np.abs(code(100 * grams).numpy()).max() <= 3.0


def test_too_few_matrices_are_refused():
    with pytest.raises(UsageError, match="too few"):
        GramCode(3).adapt(np.ones((3, 4, 4), "float32"))


def test_style_network_is_saved_whole(tmp_path):
    features, _ = feature_extractor("block2_conv1", "random")
    network = style_network(features, 1, size=2)
    images = np.random.default_rng(0).uniform(-1, 1, (6, 32, 32, 1)).astype("float32")
    network.get_layer("gram_code").adapt(network(images)["gram"].numpy())
    network.save(tmp_path / "style.keras")
    loaded = keras.saving.load_model(tmp_path / "style.keras")
    np.testing.assert_allclose(loaded(images)["code"], network(images)["code"], atol=1e-5)
    assert network(images[:, :20])["gram"].shape == (6, 128, 128)  # any size
