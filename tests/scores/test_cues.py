"""The properties of the cues; their constants may change with what is measured."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgad.scores.cues import Cues, gaussian_blur, quantile

ERRORS = 3
PLACE = np.s_[24:48, 32:56]  # of a defect in images of 80x96 pixels


def normals(count, seed=0):
    """Images, and log-normal errors whose level differs from image to image."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.2, (count, 80, 96, 1)).clip(-1, 1)
    level = rng.normal(0, 0.3, (count, 1, 1, 1))
    errors = np.exp(rng.normal(-4, 0.5, (count, 80, 96, ERRORS)) + level)
    return images.astype("float32"), errors.astype("float32")


@pytest.fixture(scope="module")
def cues():
    layer = Cues((1, 1, 1))
    layer.adapt(*normals(24))
    return layer


@pytest.fixture
def new():
    return normals(6, seed=1)


def test_highest_point_of_a_normal_image_is_about_one(cues, new):
    peaks = np.max(cues(*new), axis=(1, 2))
    assert 0.6 < np.median(peaks) < 1.6
    assert peaks.max() < 2.5


def test_a_stain_is_found_by_its_tone_alone(cues, new):
    images, errors = new
    before = cues(images, errors).numpy()
    images[0][PLACE] -= 0.6
    after = cues(images, errors).numpy()
    assert after[0].max() > 2 * before[0].max()
    assert after[0][PLACE].max() == after[0].max()
    np.testing.assert_array_equal(after[1:], before[1:])


def test_a_light_stain_counts_as_much_as_a_dark_one(cues):
    images = np.zeros((2, 80, 96, 1), "float32")
    images[0][PLACE], images[1][PLACE] = 0.6, -0.6
    errors = np.full((2, 80, 96, ERRORS), 1e-2, "float32")
    light, dark = np.max(cues(images, errors), axis=(1, 2))
    assert light == pytest.approx(dark, rel=1e-5)


def test_a_place_of_large_errors_is_found_without_tone(cues, new):
    images, errors = new
    before = cues(images, errors).numpy()
    errors[0][PLACE] *= 5
    after = cues(images, errors).numpy()
    assert after[0].max() > 1.5 * before[0].max()
    assert after[0][PLACE].max() == after[0].max()


def test_a_rougher_image_is_less_suspicious_than_a_rough_place(cues, new):
    images, errors = new
    rough_place = errors.copy()
    for each in rough_place:
        each[PLACE] *= 3
    local = np.max(cues(images, rough_place), axis=(1, 2))
    everywhere = np.max(cues(images, 3 * errors), axis=(1, 2))
    assert (everywhere < local).all()


def test_no_image_is_judged_by_its_company(cues, new):
    images, errors = new
    together = cues(images, errors).numpy()
    for i in (0, 3):
        alone = cues(images[i : i + 1], errors[i : i + 1])[0]
        np.testing.assert_allclose(alone, together[i], rtol=1e-5, atol=1e-5)


def test_terms_weigh_alike_however_many_maps_they_have():
    layer = Cues((1, 3))
    deviations = tf.constant([[[[6.0, 1.0, 2.0, 3.0]]]])
    np.testing.assert_allclose(layer.texture(deviations), [[[(6 + 2) / 2]]], rtol=1e-6)


def test_perfect_reconstructions_of_a_flat_image_are_finite(cues):
    flat = np.zeros((1, 80, 96, 1), "float32")
    assert np.isfinite(cues(flat, np.zeros((1, 80, 96, ERRORS), "float32"))).all()


def test_adapting_to_images_without_spread_is_finite():
    layer = Cues((1,))
    flat = np.zeros((2, 48, 48, 1), "float32")
    layer.adapt(flat, flat)
    assert np.isfinite(layer(flat, flat)).all()


def test_the_configuration_and_the_weights_make_the_same_layer(cues, new):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cues))
    assert again.get_config() == cues.get_config()
    assert not again.trainable_weights
    again.set_weights(cues.get_weights())
    np.testing.assert_array_equal(again(*new), cues(*new))


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 1.0])
def test_quantile_is_that_of_each_map(q):
    rng = np.random.default_rng(0)
    maps = np.stack([rng.permutation(4096).reshape(64, 64) * k for k in (1, -2, 3)], axis=-1)
    maps = tf.constant(np.stack([maps, maps + 1e4]), tf.float32)
    spread = np.quantile(maps, q, axis=(1, 2), keepdims=True)
    # Read from a sample of the pixels: within a twentieth of the range.
    range_of_maps = np.ptp(maps.numpy(), axis=(1, 2), keepdims=True)
    np.testing.assert_array_less(abs(quantile(maps, q) - spread) / range_of_maps, 0.05)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 8.0])
def test_blur_is_scipy_s(sigma):
    maps = np.random.default_rng(0).normal(size=(2, 30, 41, 2)).astype("float32")
    radius = round(3 * sigma)
    expected = ndimage.gaussian_filter(
        maps, (0, sigma, sigma, 0), mode="reflect", radius=(0, radius, radius, 0)
    )
    np.testing.assert_allclose(gaussian_blur(tf.constant(maps), sigma), expected, atol=1e-6)
