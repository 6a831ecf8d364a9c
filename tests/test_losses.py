import math

import numpy as np
import pytest
import tensorflow as tf

from tfgad import losses


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def linear(weight):
    """D(x) = w·x, whose gradient is w everywhere."""
    return lambda x: tf.reduce_sum(x * weight, axis=[1, 2, 3])


def test_wasserstein_losses_are_differences_of_means():
    real, fake = tf.constant([1.0, 3.0]), tf.constant([2.0, 4.0])
    assert losses.wasserstein_critic_loss(real, fake) == 1.0
    assert losses.wasserstein_generator_loss(fake) == -3.0


def test_gradient_penalty_of_a_linear_critic(rng):
    weight = rng.normal(size=(2, 3, 1)).astype("float32")
    real, fake = (tf.constant(rng.normal(size=(4, 2, 3, 1)), tf.float32) for _ in range(2))
    epsilon = tf.constant(rng.random((4, 1, 1, 1)), tf.float32)
    penalty = losses.gradient_penalty(linear(weight), real, fake, epsilon)
    assert float(penalty) == pytest.approx((np.linalg.norm(weight) - 1) ** 2, rel=1e-5)


def test_gradient_penalty_is_taken_between_real_and_fake():
    # D(x) = ‖x‖² / 2 has the gradient x itself.
    real, fake = tf.fill((2, 2, 2, 1), 3.0), tf.fill((2, 2, 2, 1), -1.0)
    epsilon = tf.reshape([0.25, 0.5], (2, 1, 1, 1))  # x̂ is 0 everywhere, or 1 everywhere
    penalty = losses.gradient_penalty(
        lambda x: tf.reduce_sum(x**2, axis=[1, 2, 3]) / 2, real, fake, epsilon
    )
    assert float(penalty) == pytest.approx(((0 - 1) ** 2 + (2 - 1) ** 2) / 2, abs=1e-5)


def test_gradient_penalty_moves_the_critic_even_from_a_zero_gradient():
    images = tf.ones((2, 2, 2, 1))
    for start in (0.0, 2.0):
        weight = tf.Variable(tf.fill((2, 2, 1), start))
        with tf.GradientTape() as tape:
            penalty = losses.gradient_penalty(linear(weight), images, images, 0.5)
        # The derivative of (‖w‖ - 1)² is 2 (‖w‖ - 1) w / ‖w‖; ‖w‖ is 4.
        expected = 2 * (4 - 1) * start / 4
        np.testing.assert_allclose(tape.gradient(penalty, weight), expected, rtol=1e-5)


def test_discriminator_loss_of_an_undecided_discriminator_is_log_2():
    loss = losses.discriminator_loss(tf.zeros(3), tf.zeros(5))
    assert float(loss) == pytest.approx(math.log(2))


def test_discriminator_loss_is_the_cross_entropy():
    real, fake = np.float32([2, -1]), np.float32([0.5])
    probability_real, probability_fake = (1 / (1 + np.exp(-logits)) for logits in (real, fake))
    expected = (-np.log(probability_real).mean() - np.log(1 - probability_fake).mean()) / 2
    assert float(losses.discriminator_loss(real, fake)) == pytest.approx(expected)


def test_discriminator_loss_is_finite_for_a_certain_discriminator():
    assert losses.discriminator_loss(tf.constant([200.0]), tf.constant([200.0])) == 100.0


@pytest.mark.parametrize("shape", [(2, 4), (2, 2, 1, 2)])
def test_means_are_taken_over_each_image_alone(shape):
    a = np.reshape(np.float32([1, 2, 3, 4, 0, 0, 0, 0]), shape)
    b = np.reshape(np.float32([1, 0, 3, 0, 0, 0, 0, -2]), shape)
    np.testing.assert_allclose(losses.mean_square(a, b), [(4 + 16) / 4, 4 / 4])
    np.testing.assert_allclose(losses.mean_absolute(a, b), [(2 + 4) / 4, 2 / 4])


@pytest.mark.parametrize("loss", [losses.mean_square, losses.mean_absolute])
def test_means_of_half_precision_are_float32(loss):
    a = tf.fill((1, 10_000), tf.cast(1.0, tf.bfloat16))  # bfloat16 counts ones up to 256 only
    assert loss(a, tf.zeros_like(a)).dtype == tf.float32
    assert loss(a, tf.zeros_like(a)) == 1.0
