"""Products: recognised from descriptions, with a threshold for each."""

import dataclasses
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist

from tfgad.cli import console
from tfgad.data.origins import Origins
from tfgad.errors import UsageError
from tfgad.scores.calibration import Calibration, logistic_scale
from tfgad.scores.per_product import PerProduct
from tfgad.scores.products import ANGLES, RADII, THUMBNAIL, Products, _bins
from tfgad.scores.rate_interval import rate_interval
from tfgad.scores.thresholds import threshold_from_normals, thresholds_from_normals
from tfgad.training.run import calibration_metadata

SIDE = 32
NAMES = ("across", "down", "part")


def stripes(count, seed=0):
    """Images of three products in turn: stripes across, stripes down, and a bright disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    disc = np.where(np.hypot(y - 16, x - 16) < 8, 0.6, -0.6)
    forms = [0.5 * np.sin(y * 1.5 + phase), 0.5 * np.sin(x * 1.5 + phase), disc + 0 * phase]
    products = np.arange(count) % 3
    images = np.choose(products[:, None, None], forms) + rng.normal(0, 0.05, (count, SIDE, SIDE))
    return images[..., None].clip(-1, 1).astype("float32"), products


@pytest.fixture(scope="module")
def layer():
    """A layer that knows the three products; nobody changes it."""
    layer = Products(NAMES, (SIDE, SIDE), 1)
    images, products = stripes(60)
    layer.adapt(layer.describe(images).numpy(), products)
    held, of_held = stripes(60, seed=1)
    layer.calibrate(layer.distances(layer.describe(held)).numpy(), of_held, 0.01)
    return layer


def test_a_description_is_a_thumbnail_and_the_power_of_bands(layer):
    images, _ = stripes(3)
    described = layer.describe(images).numpy()
    assert described.shape == (3, THUMBNAIL**2 + RADII * ANGLES)
    means = images.reshape(3, 8, 4, 8, 4).mean(axis=(2, 4))
    thumbnails = described[:, :64].reshape(3, 8, 8)
    assert np.corrcoef(thumbnails[2].ravel(), means[2].ravel())[0, 1] > 0.98
    spectra = described[:, 64:].reshape(3, RADII, ANGLES)
    ring = int(RADII * np.log2(1.5 / (2 * np.pi) * 32) / 4)  # 1.5 radians per pixel
    # The frequency of stripes across is along rows, a right angle; of those down it is 0.
    assert np.unravel_index(spectra[0].argmax(), (RADII, ANGLES)) == (ring, ANGLES // 2)
    assert np.unravel_index(spectra[1].argmax(), (RADII, ANGLES)) == (ring, 0)


def test_every_frequency_is_in_one_bin():
    bins, counts = _bins((20, 30))
    assert len(bins) == 20 * 16
    slow = np.sum(bins == RADII * ANGLES)
    assert bins[0] == RADII * ANGLES  # the mean
    assert counts.sum() + slow == len(bins)


def test_the_nearest_mean_is_the_product(layer):
    images, products = stripes(30, seed=2)
    described = layer.describe(images).numpy()
    inverse = layer.whitening.numpy() @ layer.whitening.numpy().T
    expected = cdist(described, layer.means.numpy(), "mahalanobis", VI=inverse)
    np.testing.assert_allclose(layer.distances(described), expected, rtol=1e-3)
    found, reasons = layer.recognise(images)
    np.testing.assert_array_equal(found, products)
    assert set(reasons.numpy()) == {b""}
    brighter = np.clip(images + 0.15, -1, 1)  # another lamp
    np.testing.assert_array_equal(layer.recognise(brighter)[0], products)


def test_images_unlike_the_products(layer):
    images, products = stripes(6, seed=3)
    noise = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 1)).astype("float32")
    assert layer.recognise(noise)[1].numpy().tolist() == 2 * [b"unlike every product"]
    given = layer.indices("across", 6)
    found, reasons = layer.recognise(images, given)
    assert found.numpy().tolist() == 6 * [0]
    expected = [b"" if product == 0 else b"unlike its product" for product in products]
    assert reasons.numpy().tolist() == expected
    mixed = layer.indices(["", "down", None, "", "", ""], 6)
    np.testing.assert_array_equal(layer.recognise(images, mixed)[0], products)


def test_an_image_of_tiles_has_their_mean_description(layer):
    tiles, _ = stripes(4)
    image = np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)], 0)[None]
    described = layer.describe(tiles).numpy()
    np.testing.assert_allclose(layer.describe(image)[0], described.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.describe(tiles[1:2])[0], described[1], rtol=1e-4, atol=1e-5)
    assert layer.describe(image[:, :40, :50]).shape == (1, described.shape[1])


def test_scores_and_maps_are_standardised(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.thresholds.assign([1.0, 2.0, 3.0])
    copy.scales.assign([0.5, 1.0, 2.0])
    scored = {"score": tf.constant([2.0, 2.0]), "map": tf.constant([[[1.0, 2.0]], [[3.0, 5.0]]])}
    found = copy.standardised(scored, tf.constant([0, 2]))
    assert found["score"].numpy().tolist() == [2.0, -0.5]
    assert found["map"].numpy().tolist() == [[[0.0, 2.0]], [[0.0, 1.0]]]
    assert found["product"].numpy().tolist() == [b"across", b"part"]


def test_unknown_products(layer):
    with pytest.raises(UsageError, match="did you mean 'across'"):
        layer.indices("acros", 2)
    with pytest.raises(UsageError, match="not one for each of 3 images"):
        layer.indices(["across", "down"], 3)


def test_before_it_is_adapted_nothing_is_recognised():
    new = Products(NAMES, (SIDE, SIDE), 1)
    assert new.indices("down", 1).numpy().tolist() == [1]
    with pytest.raises(UsageError, match="cannot recognise products; call `learn_products`"):
        new.indices(None, 1)
    with pytest.raises(UsageError, match="cannot recognise products"):
        per_product(new, None).fit(np.arange(60.0), 0.1)


def per_product(products, given, count=60):
    images, _ = stripes(count, seed=1)
    return PerProduct(Calibration(), products, products.describe(images).numpy(), given)


def test_each_product_has_the_threshold_of_its_own_scores(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    products = np.arange(60) % 3
    scores = np.random.default_rng(0).gumbel(size=60) * (1 + products) + 10.0 * products
    fitted = per_product(copy, products)
    found = fitted.fit(scores, 0.1)
    assert (found.value, found.n) == (0.0, 60)
    alarms, largest = 0, []
    for number, name in enumerate(NAMES):
        own = scores[products == number]
        expected = threshold_from_normals(own, 0.1)
        own_found = found.of_products[name]
        assert dataclasses.replace(own_found, interval=None) == expected
        assert own_found.interval == rate_interval(own, None, expected.value, 0.1)
        assert copy.thresholds.numpy()[number] == pytest.approx(expected.value)
        assert copy.scales.numpy()[number] == pytest.approx(logistic_scale(own))
        alarms += (own > expected.value).sum()
        others = thresholds_from_normals(own)
        largest.append((others - expected.value) / logistic_scale(own))
    calibration = fitted.calibration
    assert (float(calibration.threshold), float(calibration.scale)) == (0.0, 1.0)
    assert calibration.known_thresholds[0.1] == pytest.approx(0.0, abs=1e-6)
    values = list(calibration.known_thresholds.values())
    np.testing.assert_allclose(values, np.max(largest, axis=0), rtol=1e-5, atol=1e-5)
    standardised = (scores - copy.thresholds.numpy()[products]) / copy.scales.numpy()[products]
    assert (standardised > 1e-6).sum() == alarms


def test_the_product_with_fewest_images_limits_the_probability(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    products = np.repeat([0, 1, 2], [28, 28, 4])
    fitted = per_product(copy, products)
    scores = np.random.default_rng(0).gumbel(size=60)
    found = fitted.fit(scores, 0.1)
    assert float(fitted.calibration.largest_probability) == pytest.approx(5 / 6)
    shown = fitted.calibration(tf.constant([-1e6, 1e6]))["probability"]
    np.testing.assert_allclose(shown, [1 / 6, 5 / 6], rtol=1e-6)
    record = calibration_metadata(found, 0.1, "weave:twill+satin+plain")
    assert (record["effective_images"], record["fewest_effective_images"]) == (60, 4)
    said = console.rate_on_new_groups(record)
    assert said.endswith("no probability below 0.17 or above 0.83 is given")


def test_a_rate_per_image_counts_the_worst_tile_of_each(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    products = np.repeat([0, 1, 2], 20)
    scores = np.arange(60, dtype=float)
    origins = Origins.of_images([f"{number // 2}" for number in range(60)])
    found = per_product(copy, products).fit(scores, 0.1, origins, "image")
    assert [each.n for each in found.of_products.values()] == [10, 10, 10]
    assert found.n == 30


def test_too_few_images_of_a_product_are_one_line(layer, caplog):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    products = np.array(57 * [0] + 2 * [1] + [2])
    with pytest.raises(UsageError, match=r"product 'part': too few held-out good images \(1\)"):
        per_product(copy, products).fit(np.arange(60.0), 0.1)
    products[0] = 2
    with caplog.at_level(logging.WARNING):
        per_product(copy, products).fit(np.arange(60.0), 0.1)
    lines = [each for each in map(logging.LogRecord.getMessage, caplog.records) if "few" in each]
    assert len(lines) == 2
    assert lines[0].startswith("2 normal scores of down are too few for a false-positive rate")
    assert lines[1].startswith("2 normal scores of part are too few")


def test_products_that_are_not_given_are_recognised(layer, caplog):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    with caplog.at_level(logging.WARNING):
        found = per_product(copy, None).fit(np.arange(60.0), 0.2)
    assert [each.n for each in found.of_products.values()] == [20, 20, 20]
    assert "recognised: 20 of across, 20 of down, 20 of part" in caplog.text
