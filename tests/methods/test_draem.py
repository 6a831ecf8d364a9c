"""DRAEM: its losses, its map and its score."""

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.data.perlin import with_perlin_defects


@pytest.fixture(scope="module")
def model():
    return tfgad.build("draem", (48, 48, 1), width=4, unet_width=4)


def test_its_losses_are_those_of_the_repair_and_of_the_mask(model, images):
    x = tf.constant(images[:4])
    defective, masks = with_perlin_defects(x, model.seed_of("defects"), model.config.defects)
    restored, logits = model.outputs(defective, training=True)
    p, m = tf.sigmoid(logits).numpy(), masks.numpy()
    of_truth = m * p + (1 - m) * (1 - p)
    expected = {
        "ssim": 1 - np.mean(tf.image.ssim(x + 1, restored + 1, 2.0)),
        "square": np.mean((images[:4] - restored) ** 2),
        "focal": np.mean(-((1 - of_truth) ** 2) * np.log(of_truth)),
    }
    before = [w.numpy() for w in model.weights_of("networks")]
    logs = model.train_step(x)
    for name, value in expected.items():
        assert float(logs[name]) == pytest.approx(value, rel=1e-3), name
    for old, weight in zip(before, model.weights_of("networks"), strict=True):
        assert np.any(old != weight.numpy()), weight.path


def test_the_rate_falls_to_a_fifth_twice():
    model = tfgad.build("draem", (48, 48, 1), width=2, unet_width=2, steps=100)
    optimizer = model.optimizer_by_role["networks"]
    rates = []
    for step in (0, 79, 85, 95):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 2e-4, 4e-5], rtol=1e-5)


def test_its_score_is_the_largest_mean_of_the_map(images):
    model = tfgad.build("draem", (48, 48, 1), width=4, unet_width=4)
    assert model.score == "draem"
    probability = model.errors(images[:2])["anomaly"].numpy()
    answer = model.anomaly(images[:2])
    for image in range(2):
        inside = probability[image, 10:31, 4:25]
        np.testing.assert_allclose(answer["map"][image, 20, 14], inside.mean(), rtol=1e-4)
        corner = probability[image, :11, :11]  # no zeros beyond the edge
        np.testing.assert_allclose(answer["map"][image, 0, 0], corner.mean(), rtol=1e-4)
        assert float(answer["score"][image]) == float(np.max(answer["map"][image]))


def test_any_size_is_taken_and_the_reconstruction_is_an_image():
    model = tfgad.build("draem", (40, 72, 1), width=2, unet_width=2)
    assert np.abs(model.reconstruct(tf.zeros([2, 40, 72, 1]))).max() <= 1
