import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.methods import gan
from tfgad.scores.cues import gaussian_blur
from tfgad.scores.score import MAP_SIGMA

METHODS = ["gan", "dcgan"]  # one model, two kinds of networks
STILL = {"d_steps": 1, "dropout": 0.0}


def windows(images, count=4):
    return tf.constant(images[:count, :32, :32])


def cross_entropy(logits, label):
    """-t log D - (1 - t) log(1 - D) of each logit `[B]`, by Keras."""
    labels = tf.fill([len(logits), 1], label)
    return keras.losses.binary_crossentropy(labels, logits[:, None], from_logits=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("smoothing", "r1"), [(0.0, 0.0), (0.1, 0.5)])
def test_the_discriminator_goes_down_the_cross_entropy(
    build_small, images, assert_descent, method, smoothing, r1
):
    model = build_small(method, **STILL, smoothing=smoothing, r1=r1)
    x = windows(images)
    z = model.random_normal([4, model.config.latent_dim], "critic 0")
    generated = model.generator(z, training=True)
    slopes = []

    def loss():
        with tf.GradientTape() as inner:
            inner.watch(x)
            logit = model.critic(x, training=True)
        slopes.append(tf.reduce_sum(inner.gradient(logit, x) ** 2, axis=[1, 2, 3]))
        real = cross_entropy(logit, 1.0 - smoothing)
        fake = cross_entropy(model.critic(generated, training=True), 0.0)
        return tf.reduce_mean((real + fake) / 2 + r1 * slopes[0])

    logs = assert_descent(model, "critic", loss, x)
    assert ("r1" in logs) == (r1 > 0)
    if r1:
        np.testing.assert_allclose(logs["r1"], tf.reduce_mean(slopes[0]), rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_generator_wants_its_images_called_real(build_small, images, assert_descent, method):
    model = build_small(method, **STILL)

    def loss():
        z = model.random_normal([4, model.config.latent_dim], "generator 0")
        generated = model.generator(z, training=True)
        return tf.reduce_mean(cross_entropy(model.critic(generated, training=True), 1.0))

    assert_descent(model, "generator", loss, windows(images))


@pytest.mark.parametrize(("d_steps", "g_steps"), [(3, 2), (1, 3)])
def test_each_player_makes_its_steps(build_small, images, d_steps, g_steps):
    model = build_small("gan", d_steps=d_steps, g_steps=g_steps)
    assert model.images_per_step == d_steps * model.config.batch_size
    model.train_step(windows(images, 2 * d_steps))
    assert int(model.optimizer_by_role["critic"].iterations) == d_steps
    assert int(model.optimizer_by_role["generator"].iterations) == g_steps
    assert int(model.step) == 1


def test_each_update_of_the_discriminator_takes_its_own_part_and_codes(
    build_small, images, monkeypatch
):
    model = build_small("gan", d_steps=2)
    parts, purposes, part, draw = [], [], gan.part, model.random_normal
    monkeypatch.setattr(gan, "part", lambda *args: [parts.append(part(*args)), parts[-1]][1])
    monkeypatch.setattr(
        model, "random_normal", lambda *args: [purposes.append(args[1]), draw(*args)][1]
    )
    model.train_step(windows(images, 6))
    assert purposes == ["critic 0", "critic 1", "generator 0"]
    np.testing.assert_array_equal(np.concatenate(parts), windows(images, 6))
    first, second = (draw([3, 8], purpose) for purpose in purposes[:2])
    assert np.any(first != second)


def with_logit(model, logit):
    """Makes the discriminator answer with one logit, whatever it sees."""
    *_, kernel, bias = model.critic.trainable_weights
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([logit])


@pytest.mark.parametrize("logit", [-3.0, 0.0, 3.0, 20.0, 40.0])
def test_the_score_is_the_chance_of_being_generated(build_small, images, logit):
    model = build_small("gan")
    with_logit(model, logit)
    predicted = model.anomaly(windows(images, 2))
    # 1 - D(x) in float64. In float32 it would be 0 from a logit of 17 on: all good images alike.
    expected = 1 / (1 + np.exp(np.float64(logit)))
    np.testing.assert_allclose(predicted["score"], expected, rtol=1e-5)
    np.testing.assert_allclose(predicted["map"], expected, rtol=1e-5)


def test_scores_of_what_is_surely_generated_tie_at_1(build_small, images):
    # 1 - 2e-9 and 1 - 4e-18 are both 1 in float32: such images are anomalous alike.
    model = build_small("gan")
    for logit in (-20.0, -40.0):
        with_logit(model, logit)
        np.testing.assert_array_equal(model.anomaly(windows(images, 2))["score"], [1.0, 1.0])


def test_a_larger_image_scores_the_largest_of_its_blended_blurred_windows(build_small, images):
    model = build_small("gan", window=32, stride=16)
    # Four windows of a score each, weighed by a Hann bell where they overlap.
    bell = np.outer(np.hanning(34)[1:-1], np.hanning(34)[1:-1])
    total, weight = np.zeros((48, 48)), np.zeros((48, 48))
    scores = []
    for y, x in itertools.product((0, 16), (0, 16)):
        place = np.s_[y : y + 32, x : x + 32]
        scores.append(float(model.anomaly(images[0][place][None])["score"][0]))
        total[place] += bell * scores[-1]
        weight[place] += bell
    blended = total / weight
    assert blended[0, 0] == pytest.approx(scores[0])  # a corner has but one window
    expected = gaussian_blur(tf.constant(blended[None, ..., None], tf.float32), MAP_SIGMA)
    predicted = model.anomaly(images[:1])
    np.testing.assert_allclose(predicted["map"], expected[..., 0], rtol=1e-5)
    np.testing.assert_allclose(predicted["score"], np.max(expected), rtol=1e-5)
    # Below that of the worst window, which shares all but a corner with others.
    assert np.mean(scores) < float(predicted["score"][0]) < max(scores)
