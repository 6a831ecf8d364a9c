"""A detector of several products: what it is built with, and what it refuses before it knows."""

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.data.origins import Origins
from tfgad.errors import UsageError
from tfgad.scores.drift import SCORE

NAMES = ("stripes", "noise")
SETTINGS = {"width": 4, "latent_dim": 4, "score": "residual"}


@pytest.fixture
def model():
    """A small detector of two products that has not learnt them."""
    model = tfgad.build("ganomaly", (32, 32, 1), products=NAMES, **SETTINGS)
    model.build()
    return model


@pytest.fixture(scope="module")
def images():
    """Ten images of each product, one after another."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, (20, 32, 32, 1))
    wave = 0.5 * np.sin(1.5 * np.arange(32) + rng.uniform(0, 6, (20, 1)))[:, None, :, None]
    products = np.repeat([0, 1], 10)
    return np.where(products[:, None, None, None] == 0, wave, noise).astype("float32"), products


@pytest.fixture(scope="module")
def learnt(images):
    """A calibrated detector of both products; nobody changes it."""
    model = tfgad.build("ganomaly", (32, 32, 1), products=NAMES, **SETTINGS)
    pixels, products = images
    model.adapt(pixels)
    model.learn_products(pixels, products)
    model.calibrate(pixels, 0.2, products=products)
    return model


@pytest.mark.parametrize(
    ("products", "line"),
    [
        ("bolt", "products 'bolt': is one text; give two or more names"),
        (["bolt"], "products 'bolt': are fewer than two"),
        (["bolt", "bolt"], "products 'bolt': is there twice"),
        (["bolt", ""], "is no name"),
        (["bolt", 3], "is no name"),
    ],
)
def test_names_that_are_not_two_or_more_are_refused(products, line):
    with pytest.raises(UsageError, match=line):
        tfgad.build("ganomaly", (32, 32, 1), products=products, **SETTINGS)


@pytest.mark.slow
def test_nothing_is_taken_for_the_first_product_before_they_are_learnt(model, images, tmp_path):
    pixels, products = images
    score = np.zeros(20, np.float32)
    model.adapt(pixels)
    refused = {
        "call": lambda: model(pixels),
        "predict": lambda: model.predict(pixels, verbose=0),
        "anomaly": lambda: model.anomaly(pixels),
        "some to recognise": lambda: model.anomaly(pixels[:2], product=["noise", None]),
        "by_product": lambda: model.by_product({}, tf.constant(pixels), model.score),
        "prediction": lambda: model.prediction(pixels, score),
        "reasons": lambda: model.reasons(pixels),
        "export": lambda: model.export(tmp_path / "exported", verbose=False),
        "calibrate": lambda: model.calibrate(pixels, 0.1, products=products),
    }
    for name, asks in refused.items():
        with pytest.raises(UsageError, match="cannot recognise products; call `learn_products`"):
            asks()
        assert not model.calibration.is_calibrated, name
    assert not (tmp_path / "exported").exists()
    given = model.anomaly(pixels, product="noise")
    assert set(given["product"].numpy()) == {b"noise"}

    model.learn_products(pixels, products)
    model.calibrate(pixels, 0.2, products=products)
    expected = [NAMES[each].encode() for each in products]
    found = model.anomaly(pixels)
    assert found["product"].numpy().tolist() == expected
    np.testing.assert_allclose(model(pixels)["score"], found["score"], rtol=1e-5, atol=1e-5)
    predicted = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(predicted["score"], found["score"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("products", "line"),
    [
        (np.zeros(19, int), "are not one whole number for each of 20 images"),
        (np.arange(20) % 3, "is the index of no product; give 0 to 1"),
        (np.full(20, -1), "is the index of no product; give 0 to 1"),
        (np.zeros(20, int), "product 'noise': has no images"),
    ],
)
def test_products_of_images_that_do_not_fit_are_refused(model, images, products, line):
    with pytest.raises(UsageError, match=line):
        model.learn_products(images[0], products)
    assert not model.products.is_adapted


def test_a_model_of_one_product_learns_none(images):
    model = tfgad.build("ganomaly", (32, 32, 1), **SETTINGS)
    with pytest.raises(UsageError, match="is of one product"):
        model.learn_products(*images)
    for asks in (model.anomaly, model.reasons):
        with pytest.raises(UsageError, match="the model is of one product"):
            asks(images[0], product="noise")


def test_a_given_product_holds_in_the_verdict_too(learnt, images):
    pixels, products = images
    found = learnt.anomaly(pixels, product="noise")
    reason = learnt.prediction(pixels, found["score"], product="noise")["reason"].numpy()
    assert set(reason[:10]) == {b"unlike its product"}
    assert set(reason[10:]) == {b""}
    np.testing.assert_array_equal(learnt.reasons(pixels, product="noise"), reason)
    own = [NAMES[each] for each in products]
    assert set(learnt.prediction(pixels, found["score"], own)["reason"].numpy()) == {b""}
    some = learnt.prediction(pixels, found["score"], 10 * ["noise"] + 10 * [None])["reason"]
    np.testing.assert_array_equal(some, reason)
    with pytest.raises(UsageError, match="did you mean 'noise'"):
        learnt.prediction(pixels, found["score"], product="nois")
    raw = learnt.traced_anomaly(learnt.score)(tf.constant(pixels))["score"].numpy()
    threshold, scale = learnt.products.thresholds.numpy()[1], learnt.products.scales.numpy()[1]
    np.testing.assert_allclose(found["score"], (raw - threshold) / scale, rtol=1e-5, atol=1e-5)


def test_a_rate_per_image_and_groups_are_those_of_each_product(learnt, images):
    pixels, products = images
    weights = learnt.get_weights()
    try:
        names = np.array([f"{number // 2}" for number in range(20)])
        rolls = np.array([f"{product}/{number // 4}" for number, product in enumerate(products)])
        threshold = learnt.calibrate(
            pixels, 0.4, origins=Origins(rolls, names), per="image", products=products
        )
        assert (threshold.n, threshold.interval.groups) == (10, 6)
        each = threshold.of_products.values()
        assert [(of.n, of.interval.groups) for of in each] == [(5, 3), (5, 3)]
        assert learnt.calibration.per == "image"
        assert learnt.calibration.seen.tested() == (SCORE,)  # products differ in brightness
        fewest = min(of.interval.effective for of in each)
        largest = float(learnt.calibration.largest_probability)
        assert largest == pytest.approx((fewest + 1) / (fewest + 2))
        alarms = learnt.anomaly(pixels)["score"].numpy() > 1e-4
        worst = alarms.reshape(10, 2).any(axis=1)
        assert worst.reshape(2, 5).sum(axis=1).tolist() == [
            1,
            1,
        ]  # of six, one of them new, two may be
    finally:
        learnt.set_weights(weights)
