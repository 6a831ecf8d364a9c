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
from tfgad.scores.image_description import ANGLES, RADII, THUMBNAIL, _bins
from tfgad.scores.product_calibration import standardise_by_product
from tfgad.scores.products import Products
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
    for recognises in (lambda: new.indices(None, 1), lambda: new.recognise(stripes(3)[0])):
        with pytest.raises(UsageError, match="cannot recognise products; call `learn_products`"):
            recognises()
    with pytest.raises(UsageError, match="cannot recognise products"):
        standardised(new, np.arange(60.0), None, 0.1)


def standardised(products, scores, given, rate, **options):
    images, _ = stripes(len(scores), seed=1)
    distances = products.distances(products.describe(images)).numpy()
    return standardise_by_product(products, scores, distances, given, rate, **options)


def copied(layer):
    """A copy of a layer, that may be changed."""
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    return copy


def test_each_product_has_the_threshold_of_its_own_scores(layer):
    copy = copied(layer)
    products = np.arange(60) % 3
    scores = np.random.default_rng(0).gumbel(size=60) * (1 + products) + 10.0 * products
    found = standardised(copy, scores, products, 0.1)
    largest = []
    for number, name in enumerate(NAMES):
        own = scores[products == number]
        expected = threshold_from_normals(own, 0.1)
        of_product = found.of_products[name]
        assert of_product.interval == rate_interval(own, None, expected.value, 0.1)
        assert dataclasses.replace(of_product, interval=None) == expected
        assert copy.thresholds.numpy()[number] == pytest.approx(expected.value)
        assert copy.scales.numpy()[number] == pytest.approx(logistic_scale(own))
        others = thresholds_from_normals(own)
        largest.append((others - expected.value) / logistic_scale(own))
        in_units = (own - expected.value) / logistic_scale(own)
        np.testing.assert_allclose(found.scores[products == number], in_units)
    np.testing.assert_allclose(found.thresholds, np.max(largest, axis=0))
    calibration = Calibration()
    threshold = calibration.fit(
        found.scores, 0.1, thresholds=found.thresholds, effective=found.effective
    )
    assert (threshold.value, threshold.n, threshold.method) == (0.0, 60, "standardised by product")
    assert (float(calibration.threshold), float(calibration.scale)) == (0.0, 1.0)
    assert calibration.known_thresholds[0.1] == pytest.approx(0.0, abs=1e-6)


def test_the_probability_is_limited_by_the_product_with_the_fewest_images(layer):
    products = np.repeat([0, 1, 2], [30, 25, 5])
    found = standardised(copied(layer), np.arange(60.0), products, 0.1)
    assert found.effective == 5
    calibration = Calibration()
    calibration.fit(found.scores, 0.1, thresholds=found.thresholds, effective=found.effective)
    assert float(calibration.largest_probability) == pytest.approx(6 / 7)
    groups = np.repeat(["a", "b", "c", "d"], 15)  # products 0 and 2 are of two rolls, and of one
    found = standardised(copied(layer), np.arange(60.0), products, 0.1, origins=Origins(groups))
    each = found.of_products
    assert [of.interval.groups for of in each.values()] == [2, 2, 1]
    assert found.effective == each["part"].interval.effective == 1


def test_the_line_on_new_groups_names_the_limit_of_the_product_with_the_fewest_images(layer):
    products = np.repeat([0, 1, 2], [28, 28, 4])
    found = standardised(copied(layer), np.arange(60.0), products, 0.1)
    calibration = Calibration()
    given = {"thresholds": found.thresholds, "effective": found.effective}
    threshold = calibration.fit(found.scores, 0.1, **given)
    threshold = dataclasses.replace(threshold, of_products=found.of_products)
    record = calibration_metadata(threshold, 0.1, "weave:twill+satin+plain")
    assert (record["effective_images"], record["fewest_effective_images"]) == (60, 4)
    said = console.rate_on_new_groups(record)
    assert said.endswith("no score has a probability below 0.17 or above 0.83")


def test_a_rate_per_image_counts_the_worst_tile_of_each(layer):
    products = np.repeat([0, 1, 2], 20)
    scores = np.arange(60, dtype=float)
    origins = Origins.of_images([f"{number // 2}" for number in range(60)])
    found = standardised(copied(layer), scores, products, 0.1, origins=origins, per="image")
    assert [each.n for each in found.of_products.values()] == [10, 10, 10]
    worst = scores[:20].reshape(10, 2).max(axis=1)
    assert found.of_products["across"].value == threshold_from_normals(worst, 0.1).value
    fitted = Calibration().fit(found.scores, 0.1, origins, "image", found.thresholds)
    assert fitted.n == 30


def test_too_few_images_of_a_product_are_one_line(layer, caplog):
    products = np.array(57 * [0] + 2 * [1] + [2])
    with pytest.raises(UsageError, match=r"product 'part': too few held-out good images \(1\)"):
        standardised(copied(layer), np.arange(60.0), products, 0.1)
    products[0] = 2
    with caplog.at_level(logging.WARNING):
        standardised(copied(layer), np.arange(60.0), products, 0.1)
    lines = [each for each in map(logging.LogRecord.getMessage, caplog.records) if "few" in each]
    assert len(lines) == 2
    assert lines[0].startswith("2 normal scores of down are too few for a false-positive rate")
    assert lines[1].startswith("2 normal scores of part are too few")


def test_products_that_are_not_given_are_recognised(layer, caplog):
    with caplog.at_level(logging.WARNING):
        found = standardised(copied(layer), np.arange(60.0), None, 0.2)
    assert [each.n for each in found.of_products.values()] == [20, 20, 20]
    assert "recognised: 20 of across, 20 of down, 20 of part" in caplog.text
    caplog.clear()
    some = np.where(np.arange(60) < 30, 0, -1)  # what is given holds, though it is not so
    with caplog.at_level(logging.WARNING):
        found = standardised(copied(layer), np.arange(60.0), some, 0.2)
    assert [each.n for each in found.of_products.values()] == [40, 10, 10]
    assert "recognised: 10 of across, 10 of down, 10 of part" in caplog.text


@pytest.mark.parametrize(
    ("products", "line"),
    [
        (np.zeros(59, int), r"are not one whole number for each of 60 images"),
        (np.zeros(60), r"are not one whole number for each of 60 images"),
        (np.full(60, 3), r"products '?3'?: is the index of no product; give -1 to 2"),
        (np.full(60, -2), r"products '?-2'?: is the index of no product"),
    ],
)
def test_other_numbers_than_those_of_products_are_refused(layer, products, line):
    copy = copied(layer)
    with pytest.raises(UsageError, match=line):
        standardised(copy, np.arange(60.0), products, 0.1)
    np.testing.assert_array_equal(copy.thresholds, layer.thresholds)
