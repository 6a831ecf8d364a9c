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


def test_both_players_go_down_the_paper_s_losses(build_small, images):
    weights = {"adversarial_weight": 2.0, "contextual_weight": 30.0, "encoder_weight": 3.0}
    model = build_small("ganomaly", **weights)
    rate = 0.001
    model.compile(generator=keras.optimizers.SGD(rate), critic=keras.optimizers.SGD(rate))
    x = tf.constant(images[:4, :32, :32])
    with tf.GradientTape(persistent=True) as tape:
        generator_loss, critic_loss = losses_of(model, x)
    losses = {"generator": generator_loss, "critic": critic_loss}
    expected = {
        role: [
            (w, w.numpy() - rate * gradient.numpy())
            for w, gradient in zip(
                model.weights_of(role), tape.gradient(loss, model.weights_of(role)), strict=True
            )
        ]
        for role, loss in losses.items()
    }

    model.train_step(x)
    for moves in expected.values():
        for weight, value in moves:
            np.testing.assert_allclose(weight, value, rtol=1e-4, atol=1e-5, err_msg=weight.path)


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
