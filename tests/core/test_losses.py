"""The loss functions, checked against closed forms and NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfgad.core import losses


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


def test_gradient_penalty_is_differentiable_also_at_a_zero_gradient():
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


def test_discriminator_loss_is_finite_for_large_logits():
    assert losses.discriminator_loss(tf.constant([200.0]), tf.constant([200.0])) == 100.0


def test_one_sided_smoothing_leaves_the_label_of_generated_images():
    real, fake = np.float32([2, -1]), np.float32([0.5])
    p_real, p_fake = (1 / (1 + np.exp(-logits)) for logits in (real, fake))
    # Real images are labelled 0.9: the loss has a tenth of the other label's.
    of_real = -0.9 * np.log(p_real) - 0.1 * np.log(1 - p_real)
    expected = (of_real.mean() - np.log(1 - p_fake).mean()) / 2
    assert float(losses.discriminator_loss(real, fake, 0.1)) == pytest.approx(expected)


def test_discriminator_loss_equals_that_of_a_softmax_of_two_classes(rng):
    # Older code has two outputs, (real, fake), and their categorical cross-entropy.
    real, fake = (rng.normal(size=(5, 2)).astype("float32") for _ in range(2))
    p_real, p_fake = (tf.nn.softmax(outputs).numpy() for outputs in (real, fake))
    expected = (-np.log(p_real[:, 0]).mean() - np.log(p_fake[:, 1]).mean()) / 2
    loss = losses.discriminator_loss(*(outputs[:, 0] - outputs[:, 1] for outputs in (real, fake)))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_non_saturating_generator_loss_is_the_mean_negative_log_probability():
    fake = np.float32([2, -1, 0])
    expected = -np.log(1 / (1 + np.exp(-fake))).mean()
    assert float(losses.non_saturating_generator_loss(fake)) == pytest.approx(expected)


def test_non_saturating_generator_loss_has_a_gradient_at_low_logits():
    logit = tf.Variable([-50.0, 50.0])
    with tf.GradientTape() as tape:
        loss = losses.non_saturating_generator_loss(logit)
    # D(G(z)) - 1, of the mean of two; log(1 - D(G(z))) would have a gradient of e^-50 at the first.
    np.testing.assert_allclose(tape.gradient(loss, logit), [-0.5, 0], atol=1e-6)


def test_r1_penalty_of_a_linear_critic(rng):
    weight = rng.normal(size=(2, 3, 1)).astype("float32")
    images = tf.constant(rng.normal(size=(4, 2, 3, 1)), tf.float32)
    penalty = losses.r1_penalty(linear(weight), images)
    assert float(penalty) == pytest.approx(np.square(weight).sum(), rel=1e-5)


def test_r1_penalty_is_the_mean_over_images():
    # D(x) = ‖x‖² / 2 has the gradient x itself: 4 pixels of 3, 4 pixels of -1.
    images = tf.reshape(tf.repeat([3.0, -1.0], 4), (2, 2, 2, 1))
    penalty = losses.r1_penalty(lambda x: tf.reduce_sum(x**2, axis=[1, 2, 3]) / 2, images)
    assert float(penalty) == pytest.approx((4 * 9 + 4 * 1) / 2)


@pytest.mark.parametrize("shape", [(2, 4), (2, 2, 1, 2)])
def test_means_are_taken_per_image(shape):
    a = np.reshape(np.float32([1, 2, 3, 4, 0, 0, 0, 0]), shape)
    b = np.reshape(np.float32([1, 0, 3, 0, 0, 0, 0, -2]), shape)
    np.testing.assert_allclose(losses.mean_square(a, b), [(4 + 16) / 4, 4 / 4])
    np.testing.assert_allclose(losses.mean_absolute(a, b), [(2 + 4) / 4, 2 / 4])


@pytest.mark.parametrize("loss", [losses.mean_square, losses.mean_absolute])
def test_means_of_half_precision_are_float32(loss):
    a = tf.fill((1, 10_000), tf.cast(1.0, tf.bfloat16))  # a bfloat16 sum of ones ends at 256
    assert loss(a, tf.zeros_like(a)).dtype == tf.float32
    assert loss(a, tf.zeros_like(a)) == 1.0


def test_kl_of_gaussians_equals_the_closed_form():
    mean = tf.constant([[0.0, 0.0], [3.0, -1.0]])
    log_variance = tf.constant([[0.0, 0.0], [0.0, math.log(4.0)]])
    # ½ (9 + 1 - 1 - 0) + ½ (1 + 4 - 1 - log 4)
    expected = [0.0, 4.5 + 2.0 - math.log(2.0)]
    np.testing.assert_allclose(losses.kl_to_standard_normal(mean, log_variance), expected)


def test_kl_of_a_narrow_gaussian_equals_a_numerical_integral():
    mean, deviation = 0.7, 0.2
    z = np.linspace(mean - 8 * deviation, mean + 8 * deviation, 20_001)
    log_q = -0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation)
    integrand = np.exp(log_q) / np.sqrt(2 * np.pi) * (log_q + 0.5 * z**2)
    kl = losses.kl_to_standard_normal([[mean]], [[2 * math.log(deviation)]])
    assert float(kl[0]) == pytest.approx(np.sum(integrand) * (z[1] - z[0]), rel=1e-5)


def test_bernoulli_nll_of_black_white_and_grey_pixels():
    x = tf.reshape(tf.constant([-1.0, 1.0, 0.0, 1.0]), (1, 1, 2, 2))
    y = tf.reshape(tf.constant([-0.5, 0.5, 0.5, -0.5]), (1, 1, 2, 2))
    # Probabilities of white ¼, ¾, ¾, ¼; two channels per pixel.
    grey = -0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)
    expected = [[[-2 * math.log(3 / 4), grey - math.log(1 / 4)]]]
    np.testing.assert_allclose(losses.bernoulli_nll(x, y), expected, rtol=1e-5)


def test_bernoulli_nll_of_saturated_outputs_and_its_gradient_are_finite():
    x = tf.reshape(tf.constant([1.0, -1.0, 1.0, -1.0]), (4, 1, 1, 1))
    before_tanh = tf.reshape(tf.constant([-30.0, 30.0, 30.0, -8.0]), (4, 1, 1, 1))
    with tf.GradientTape() as tape:
        tape.watch(before_tanh)
        nll = losses.bernoulli_nll(x, tf.tanh(before_tanh))
    worst = -math.log(0.5e-6)
    np.testing.assert_allclose(nll[:, 0, 0], [worst, worst, 0, 0], atol=1e-3)
    assert np.isfinite(tape.gradient(nll, before_tanh)).all()


def test_bernoulli_nll_equals_the_cross_entropy_of_logits():
    logits = np.linspace(-8, 8, 17).astype("float32").reshape(-1, 1, 1, 1)
    t = np.float32(0.3)
    expected = tf.nn.sigmoid_cross_entropy_with_logits(t * tf.ones_like(logits), logits)
    nll = losses.bernoulli_nll(2 * t - 1, tf.tanh(logits / 2))
    np.testing.assert_allclose(nll, expected[..., 0], rtol=2e-3)


def test_gaussian_nll_is_the_log_of_the_density():
    x = tf.reshape(tf.constant([0.5, -1.0, 0.0, 1.0]), (1, 1, 2, 2))
    y = tf.reshape(tf.constant([0.0, -1.0, 0.4, 1.0]), (1, 1, 2, 2))
    log_peak = -math.log(0.2 * math.sqrt(2 * math.pi))
    expected = [[[0.25 / 0.08 - 2 * log_peak, 0.16 / 0.08 - 2 * log_peak]]]
    np.testing.assert_allclose(losses.gaussian_nll(x, y, 0.2), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (losses.wasserstein_critic_loss, [(4,), (4,)]),
        (losses.wasserstein_generator_loss, [(4,)]),
        (losses.discriminator_loss, [(4,), (3,)]),
        (losses.non_saturating_generator_loss, [(4,)]),
        (losses.mean_square, [(2, 5), (2, 5)]),
        (losses.mean_absolute, [(2, 5), (2, 5)]),
        (losses.kl_to_standard_normal, [(2, 5), (2, 5)]),
        (losses.bernoulli_nll, [(2, 3, 3, 1), (2, 3, 3, 1)]),
        (lambda x, y: losses.gaussian_nll(x, y, 0.2), [(2, 3, 3, 1), (2, 3, 3, 1)]),
        (lambda x: losses.r1_penalty(cubed, x), [(2, 3, 3, 1)]),
        (
            lambda x, y, e: losses.gradient_penalty(cubed, x, y, e),
            [(2, 3, 3, 1), (2, 3, 3, 1), (2, 1, 1, 1)],
        ),
    ],
)
def test_losses_of_half_precision_inputs_are_computed_in_float32(rng, loss, shapes):
    half = [tf.cast(tf.tanh(rng.normal(size=shape)), tf.bfloat16) for shape in shapes]
    value = loss(*half)
    assert value.dtype == tf.float32
    exact = loss(*(tf.cast(each, tf.float32) for each in half))
    np.testing.assert_array_equal(value, exact)


def cubed(x):
    """A critic whose gradient is 3x²."""
    return tf.reduce_sum(x**3, axis=[1, 2, 3])


@pytest.mark.parametrize("loss", [losses.wasserstein_generator_loss, losses.discriminator_loss])
def test_means_of_many_half_precision_logits_are_exact(loss):
    # Of 1000 logits of 1 and one of 9: in bfloat16 the mean 1.008 would be 1.
    logits = tf.cast([1.0] * 1000 + [9.0], tf.bfloat16)
    wide = np.float64(logits)
    if loss is losses.wasserstein_generator_loss:
        assert float(loss(logits)) == pytest.approx(-wide.mean(), rel=1e-6)
    else:
        both = np.log1p(np.exp(-wide)).mean() + np.log1p(np.exp(wide)).mean()
        assert float(loss(logits, logits)) == pytest.approx(both / 2, rel=1e-6)


def test_lambda_of_r1_is_a_quarter_of_gamma_beside_the_discriminator_s_loss(rng):
    # Twice ours is Mescheder's: E[-log D(x)] + E[-log(1 - D(y))] + γ/2 · E‖∇D(x)‖² with γ = 4λ.
    weight = rng.normal(size=(2, 3, 1)).astype("float32")
    x, y = (tf.constant(rng.normal(size=(4, 2, 3, 1)), tf.float32) for _ in range(2))
    d, gamma = linear(weight), 10.0
    ours = losses.discriminator_loss(d(x), d(y)) + gamma / 4 * losses.r1_penalty(d, x)
    of_real, of_fake = np.log1p(np.exp(-d(x).numpy())), np.log1p(np.exp(d(y).numpy()))
    theirs = of_real.mean() + of_fake.mean() + gamma / 2 * np.square(weight).sum()
    assert float(2 * ours) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_gradient_where_the_network_is_certain(gamma):
    logits = tf.constant([40.0, -200.0, -1.0])[None, :, None, None]
    masks = tf.constant([1.0, 0.0, 1.0])[None, :, None, None]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.focal_loss(masks, logits, gamma)
    gradient = tape.gradient(loss, logits).numpy().ravel()
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[:2], 0, atol=1e-12)
    assert gradient[2] < 0
