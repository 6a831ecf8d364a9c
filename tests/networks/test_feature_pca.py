"""PCA of features: what it finds, and when it is left out."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError
from tfgad.evaluation import baselines
from tfgad.evaluation.feature_pca import FeaturePCA
from tfgad.networks.efficientnet_lite0 import VARIABLE, find_lite0_weights

PARTS = "weave:plain?size=64&train=40&calibration=4&test=8"


@pytest.fixture(scope="module")
def parts():
    """A data set that passes for one of whole parts."""
    return dataclasses.replace(tfgad.load(PARTS), resized=True)


@pytest.fixture(scope="module")
def good(parts):
    return np.stack(list(parts.train.as_numpy_iterator()))


def test_what_no_good_image_has_is_found_where_it_is(lite0_file, good):
    detector = FeaturePCA(lite0_file).fit(good[:38])
    marked = good[38:].copy()
    marked[:, 8:24, 40:56] = 1.0
    maps = detector.maps(marked)
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == np.float32
    for each in maps:  # of a network with random weights
        row, column = np.unravel_index(each.argmax(), each.shape)
        assert 8 <= row < 24
        assert 40 <= column < 56
    np.testing.assert_allclose(detector.maps(marked[1:]), maps[1:], rtol=1e-3, atol=1e-4)


def test_the_residual_is_that_of_the_components(lite0_file, good):
    detector = FeaturePCA(lite0_file).fit(good[:8])
    features = detector.features(tf.constant(good[:1])).numpy()
    assert features.shape == (1, 32, 32, 40 + 112 + 320)
    z = (features.reshape(1024, -1) - detector.scaler.mean_) / detector.scaler.scale_
    centred = z - detector.pca.mean_
    inside = centred @ detector.pca.components_.T
    residual = (centred**2).sum(axis=1) - (inside**2).sum(axis=1)
    expected = tf.image.resize((residual / 472).reshape(1, 32, 32, 1), (64, 64))[..., 0]
    np.testing.assert_allclose(detector.maps(good[:1]), expected, rtol=1e-3, atol=1e-4)


def test_it_is_a_trivial_detector_of_parts_where_there_are_weights(lite0_file, parts, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(lite0_file))
    found = baselines.evaluate_baselines(parts, bootstrap=0)
    assert 0 <= found["baselines"]["feature_pca"]["image_auroc"] <= 1
    assert found["baselines_left_out"] == {}
    textures = baselines.evaluate_baselines(dataclasses.replace(parts, resized=False), bootstrap=0)
    assert "feature_pca" not in {**textures["baselines"], **textures["baselines_left_out"]}


def test_without_weights_it_is_named_as_left_out(parts, monkeypatch):
    monkeypatch.setattr(baselines, "find_lite0_weights", lambda: None)
    found = baselines.evaluate_baselines(parts, bootstrap=0)
    assert "feature_pca" not in found["baselines"]
    assert "tfgad[pretrained]" in found["baselines_left_out"]["feature_pca"]


def test_a_variable_that_names_no_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(UsageError, match="is no file"):
        find_lite0_weights()
