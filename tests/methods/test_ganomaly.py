import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("ganomaly")


def test_latent_score_is_the_distance_of_the_two_codes(model, images):
    x = images[:3, :32, :32]
    z = model.encoder(x, training=False)
    again = model.second_encoder(model.decoder(z, training=False), training=False)
    expected = np.abs(z.numpy() - again.numpy()).mean(axis=1)
    np.testing.assert_allclose(model.anomaly(x, "latent")["score"], expected, rtol=1e-5)


def test_residual_score_is_the_error_of_the_reconstruction(model, images):
    x = images[:3, :32, :32]
    rebuilt = model.reconstruct(x).numpy()
    np.testing.assert_allclose(rebuilt, model.decoder(model.encoder(x)), atol=1e-6)
    expected = np.square(x - rebuilt).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(model.anomaly(x, "residual")["score"], expected, rtol=1e-5)


@pytest.mark.parametrize("r1", [0.0, 0.5])
def test_both_players_go_down_the_paper_s_losses(build_small, images, r1):
    weights = {"adversarial_weight": 2.0, "contextual_weight": 30.0, "encoder_weight": 3.0}
    model = build_small("ganomaly", **weights, r1=r1)
    rate = 0.001
    model.compile({role: keras.optimizers.SGD(rate) for role in model.roles})
    x = tf.constant(images[:4, :32, :32])
    with tf.GradientTape(persistent=True) as tape:
        generator_loss, critic_loss = losses_of(model, x)
        penalised = critic_loss + r1 * mean_square_slope(model, x)
    losses = {"generator": generator_loss, "critic": penalised}
    expected = {
        role: [
            (w, w.numpy() - rate * gradient.numpy())
            for w, gradient in zip(
                model.weights_of(role), tape.gradient(loss, model.weights_of(role)), strict=True
            )
        ]
        for role, loss in losses.items()
    }

    logs = model.train_step(x)
    for moves in expected.values():
        for weight, value in moves:
            np.testing.assert_allclose(weight, value, rtol=1e-4, atol=1e-5, err_msg=weight.path)
    np.testing.assert_allclose(logs["critic"], critic_loss, rtol=1e-5)


def test_r1_is_the_mean_of_each_image_s_own_slope(build_small, images):
    model = build_small("ganomaly", r1=0.5)
    x = tf.constant(images[:4, :32, :32])
    slopes = [float(mean_square_slope(model, x[i : i + 1])) for i in range(4)]
    assert min(slopes) > 0
    np.testing.assert_allclose(model.train_step(x)["r1"], np.mean(slopes), rtol=1e-4)


@pytest.mark.parametrize("r1", [0.0, 0.5])
def test_at_rates_of_0_only_statistics_of_batches_move(build_small, images, r1):
    model = build_small("ganomaly", r1=r1)
    model.compile({role: keras.optimizers.SGD(0.0) for role in model.roles})
    x = tf.constant(images[:4, :32, :32])
    before = [w.numpy() for w in model.weights]
    networks = (model.encoder, model.decoder, model.second_encoder, model.critic)
    statistics = {id(w) for network in networks for w in network.non_trainable_weights}
    assert bool(model.critic.non_trainable_weights) == (not r1)
    assert ("r1" in model.train_step(x)) == (r1 > 0)
    for weight, start in zip(model.weights, before, strict=True):
        # What is not known yet, as the thresholds of a model before its calibration, is NaN.
        moved = not np.array_equal(weight.numpy(), start, equal_nan=True)
        assert moved == (id(weight) in statistics or weight is model.step), weight.path


def mean_square_slope(model, x):
    """E‖∇D(x)‖², D the logit."""
    with tf.GradientTape() as inner:
        inner.watch(x)
        logit = model.critic(x, training=True)["logit"]
    return tf.reduce_mean(tf.reduce_sum(inner.gradient(logit, x) ** 2, axis=[1, 2, 3]))


def losses_of(model, x):
    """Eq. 1 to 4 with the weights 2, 30 and 3, and the discriminator's, as plainly as can be."""
    z = model.encoder(x, training=True)
    generated = model.decoder(z, training=True)
    again = model.second_encoder(generated, training=True)
    real, fake = model.critic(x, training=True), model.critic(generated, training=True)
    f_x, f_generated = real["features"][-1], fake["features"][-1]
    generator = (
        2.0 * tf.reduce_mean((f_x - f_generated) ** 2)
        + 30.0 * tf.reduce_mean(abs(x - generated))
        + 3.0 * tf.reduce_mean((z - again) ** 2)
    )
    # -log D(x) and -log(1 - D(G(x))), D the sigmoid of the logit.
    critic = tf.math.softplus(-real["logit"]) + tf.math.softplus(fake["logit"])
    return generator, 0.5 * tf.reduce_mean(critic)
