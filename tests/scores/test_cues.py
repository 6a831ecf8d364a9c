"""Properties of `Cues` that hold for any values of its constants."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgad.data import warping
from tfgad.errors import UsageError
from tfgad.scores.cues import Cues, blurred_plane, gaussian_blur, plane, quantile

ERRORS = 3
PLACE = np.s_[24:48, 32:56]  # position of a defect in images of 80x96 pixels
ROWS, COLUMNS = np.mgrid[-1:1:80j, -1:1:96j].astype("float32")
RAMP = (0.8 * ROWS - 0.6 * COLUMNS)[..., None]


def normals(count, seed=0):
    """Returns images, and log-normal errors with a different level per image."""
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


def test_maximum_of_a_normal_image_is_about_one(cues, new):
    peaks = np.max(cues(*new), axis=(1, 2))
    assert 0.6 < np.median(peaks) < 1.6
    assert peaks.max() < 2.5


def test_stain_is_found_by_tone_alone(cues, new):
    images, errors = new
    before = cues(images, errors).numpy()
    images[0][PLACE] -= 0.6
    after = cues(images, errors).numpy()
    assert after[0].max() > 2 * before[0].max()
    assert after[0][PLACE].max() == after[0].max()
    np.testing.assert_array_equal(after[1:], before[1:])


@pytest.fixture(scope="module")
def cues_of_uneven_light():
    layer = Cues((1, 1, 1))
    images, errors = normals(24)
    steepness = np.linspace(-0.4, 0.4, 24, dtype="float32")[:, None, None, None]
    layer.adapt(0.3 * images + steepness * RAMP, errors)
    return layer


def test_light_that_falls_off_as_on_normal_images_is_no_defect(cues_of_uneven_light, new):
    images = 0.3 * new[0]
    tones = cues_of_uneven_light.tone(images).numpy()
    lit = cues_of_uneven_light.tone(images + 0.35 * RAMP)
    np.testing.assert_allclose(lit, tones, atol=tones.max() / 2)
    assert np.ptp(0.35 * RAMP) > 10 * tones.max()


def test_a_shade_steeper_than_on_any_normal_image_is_found(cues, cues_of_uneven_light, new):
    images, errors = 0.3 * new[0], new[1]
    for layer, steepness in ((cues, 0.3), (cues_of_uneven_light, 0.8)):
        before = np.max(layer(images, errors), axis=(1, 2))
        after = np.max(layer(images + steepness * RAMP, errors), axis=(1, 2))
        assert (after > 3 * before).all()


def test_a_large_stain_is_not_taken_for_light(cues_of_uneven_light):
    rows, columns = np.mgrid[:80, :96]
    stain = (rows - 50) ** 2 + (columns - 20) ** 2 < 32**2  # a third of the image
    assert 0.25 < stain.mean() < 0.4
    images = np.where(stain, -0.3, 0.0).astype("float32")[None, ..., None]
    errors = np.full((1, 80, 96, ERRORS), 1e-2, "float32")
    anomaly_map = cues_of_uneven_light(images, errors)[0].numpy()
    assert np.median(anomaly_map[stain]) > max(5, 2 * np.median(anomaly_map[~stain]))


def test_plane_is_that_of_least_squares():
    maps = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype("float32")
    rows, columns = np.mgrid[-1:1:7j, -1:1:5j]
    design = np.stack([np.ones(35), rows.ravel(), columns.ravel()], axis=1)
    flat = maps.transpose(1, 2, 0, 3).reshape(35, 6)
    fitted = design[:, 1:] @ np.linalg.lstsq(design, flat, rcond=None)[0][1:]
    expected = fitted.reshape(7, 5, 2, 3).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(plane(tf.constant(maps)), expected, atol=1e-6)


def test_blurred_plane_is_the_blur_of_the_plane():
    maps = np.random.default_rng(0).normal(size=(2, 40, 31, 3)).astype("float32")
    expected = gaussian_blur(plane(tf.constant(maps)), 8.0)
    np.testing.assert_allclose(blurred_plane(tf.constant(maps)), expected, atol=1e-6)


def test_a_file_of_before_a_plane_was_subtracted_keeps_its_map(cues, new):
    stored = {str(i): weight for i, weight in enumerate(cues.get_weights()[:-1])}
    before = Cues((1, 1, 1))
    before.load_own_variables(stored)
    assert float(before.steepest_light) == 0.0
    assert float(cues.steepest_light) > 0.0
    images, _ = new
    blurred = gaussian_blur(tf.constant(images), 8.0)
    tone = np.abs(blurred - quantile(blurred, 0.5))[..., 0]
    np.testing.assert_allclose(before.tone(images), tone, rtol=1e-6)


def test_light_and_dark_stains_have_the_same_score(cues):
    images = np.zeros((2, 80, 96, 1), "float32")
    images[0][PLACE], images[1][PLACE] = 0.6, -0.6
    errors = np.full((2, 80, 96, ERRORS), 1e-2, "float32")
    light, dark = np.max(cues(images, errors), axis=(1, 2))
    assert light == pytest.approx(dark, rel=1e-3)


def test_large_local_errors_are_found_without_tone(cues, new):
    images, errors = new
    before = cues(images, errors).numpy()
    errors[0][PLACE] *= 5
    after = cues(images, errors).numpy()
    assert after[0].max() > 1.5 * before[0].max()
    assert after[0][PLACE].max() == after[0].max()


def test_uniformly_larger_errors_score_less_than_local_ones(cues, new):
    images, errors = new
    rough_place = errors.copy()
    for each in rough_place:
        each[PLACE] *= 3
    local = np.max(cues(images, rough_place), axis=(1, 2))
    everywhere = np.max(cues(images, 3 * errors), axis=(1, 2))
    assert (everywhere < local).all()


def test_map_does_not_depend_on_the_rest_of_the_batch(cues, new):
    images, errors = new
    together = cues(images, errors).numpy()
    for i in (0, 3):
        alone = cues(images[i : i + 1], errors[i : i + 1])[0]
        np.testing.assert_allclose(alone, together[i], rtol=1e-5, atol=1e-5)


def test_terms_have_equal_weights_for_any_number_of_maps():
    layer = Cues((1, 3))
    deviations = tf.constant([[[[6.0, 1.0, 2.0, 3.0]]]])
    np.testing.assert_allclose(layer.texture(deviations), [[[(6 + 2) / 2]]], rtol=1e-6)


def test_map_of_a_flat_image_without_errors_is_finite(cues):
    flat = np.zeros((1, 80, 96, 1), "float32")
    assert np.isfinite(cues(flat, np.zeros((1, 80, 96, ERRORS), "float32"))).all()


def test_normal_images_without_any_difference_are_refused():
    flat = np.zeros((2, 48, 48, 1), "float32")
    with pytest.raises(UsageError, match="errors that are everywhere the same"):
        Cues((1,)).adapt(flat, flat)


def test_layer_is_restored_from_config_and_weights(cues, new):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cues))
    assert again.get_config() == cues.get_config()
    assert not again.trainable_weights
    again.set_weights(cues.get_weights())
    np.testing.assert_array_equal(again(*new), cues(*new))


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 1.0])
def test_quantile_is_taken_per_map(q):
    rng = np.random.default_rng(0)
    maps = np.stack([rng.permutation(4096).reshape(64, 64) * k for k in (1, -2, 3)], axis=-1)
    maps = tf.constant(np.stack([maps, maps + 1e4]), tf.float32)
    spread = np.quantile(maps, q, axis=(1, 2), keepdims=True)
    # It is computed from a sample of the pixels: within a twentieth of the range.
    range_of_maps = np.ptp(maps.numpy(), axis=(1, 2), keepdims=True)
    np.testing.assert_array_less(abs(quantile(maps, q) - spread) / range_of_maps, 0.05)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("depth", [1, 3])
def test_blur_equals_that_of_scipy(sigma, depth, monkeypatch):
    maps = np.random.default_rng(0).normal(size=(2, 30, 41, depth)).astype("float32")
    radius = round(3 * sigma)
    expected = ndimage.gaussian_filter(
        maps, (0, sigma, sigma, 0), mode="reflect", radius=(0, radius, radius, 0)
    )
    of_any_size = tf.function(gaussian_blur).get_concrete_function(
        tf.TensorSpec([None, None, None, depth]), sigma
    )
    np.testing.assert_allclose(of_any_size(tf.constant(maps)), expected, atol=1e-6)
    np.testing.assert_allclose(gaussian_blur(tf.constant(maps), sigma), expected, atol=1e-6)
    monkeypatch.setattr(warping, "LONGEST_PRODUCT", 0)
    np.testing.assert_allclose(gaussian_blur(tf.constant(maps), sigma), expected, atol=1e-6)


def test_an_error_that_is_constant_within_tiles_is_not_used():
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.1, (6, 32, 32, 1)).astype("float32")
    errors = rng.uniform(0.5, 2.0, (6, 32, 32, 2)).astype("float32")
    errors[..., 1] = rng.uniform(0.5, 2.0, (6, 1, 1))  # one number per window, which is the tile
    cues, alone = Cues((1, 1)), Cues((1,))
    cues.adapt(images, errors)
    alone.adapt(images, errors[..., :1])
    errors[..., 1] *= np.linspace(1.0, 2.0, 32)[:, None]  # where windows of a larger image overlap
    both, one = cues(images, tf.constant(errors)), alone(images, tf.constant(errors[..., :1]))
    np.testing.assert_allclose(both, one, atol=1e-4)
