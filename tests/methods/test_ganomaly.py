import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError
from tfgad.networks import fully_convolutional


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
    reconstruction = model.reconstruct(x).numpy()
    np.testing.assert_allclose(reconstruction, model.decoder(model.encoder(x)), atol=1e-6)
    expected = np.square(x - reconstruction).mean(axis=(1, 2, 3))
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


@pytest.fixture(scope="module")
def paper():
    return tfgad.build("ganomaly/paper", (32, 32, 1), width=4)


def test_paper_has_the_authors_networks_and_constants(paper):
    networks = paper.networks()
    assert set(networks) == {"encoder", "decoder", "second_encoder", "critic"}
    for network in networks.values():
        assert {weight.name for weight in network.trainable_weights} == {"kernel", "gamma", "beta"}
    assert paper.encoder.output_shape == paper.decoder.input_shape == (None, 100)
    assert paper.config.reinitialize_below == 1e-5
    for optimizer in paper.optimizer_by_role.values():
        constants = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        assert constants == (0.5, 0.999, 1e-8)


def test_paper_trains(paper, images):
    windows = tf.constant(images[:4, :32, :32])
    for _ in range(2):
        logs = paper.train_step(windows)
        assert all(np.isfinite(value) for value in logs.values())
    assert np.isfinite(paper.anomaly(windows)["score"]).all()


@pytest.mark.parametrize("side", [28, 32, 64])
def test_paper_takes_the_whole_image(side):
    model = tfgad.build("ganomaly/paper", (side, side, 3), width=2, latent_dim=4)
    assert model.window == (side, side, 3)
    assert model.encoder.output_shape == (None, 4)


def test_images_that_the_paper_s_networks_do_not_take_are_refused():
    with pytest.raises(UsageError, match=r"image size '52x52'.*multiples of 16"):
        tfgad.build("ganomaly/paper", (52, 52, 1), width=2)


def trained_critic(images, below, steps=1):
    """A small model of the paper after some steps, in graphs as `fit` runs them."""
    model = tfgad.build("ganomaly/paper", (32, 32, 1), width=4, reinitialize_below=below)
    step = tf.function(model.train_step)
    for _ in range(steps):
        step(tf.constant(images[:4, :32, :32]))
    return model


@pytest.mark.slow
def test_the_discriminator_starts_anew_below_a_loss(images):
    """Its weights are those of `initial_weights`; nothing else is changed."""
    always, never = (trained_critic(images, below) for below in (1e3, 1e-9))
    seed = tf.constant([always.seed, 0], tf.int64)
    initial = fully_convolutional.initial_weights(always.critic, seed)
    trained = never.critic.trainable_weights
    for weight, value, other in zip(always.critic.trainable_weights, initial, trained, strict=True):
        np.testing.assert_array_equal(weight, value)
        assert np.any(weight.numpy() != other.numpy()), weight.path

    def others(model):
        networks = (model.encoder, model.decoder, model.second_encoder)
        variables = [weight for network in networks for weight in network.weights]
        for optimizer in model.optimizer_by_role.values():
            variables += optimizer.variables
        return [variable.numpy() for variable in (*variables, *model.critic.non_trainable_weights)]

    for a, b in zip(others(always), others(never), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_discriminator_with_enough_loss_goes_on(images):
    never, off = (trained_critic(images, below, steps=2) for below in (1e-9, 0.0))
    for a, b in zip(never.critic.weights, off.critic.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_training_starts_the_discriminator_anew_alike(images, tmp_path):
    model = trained_critic(images, below=1e3)
    model.save(tmp_path / "model.keras")
    resumed = tfgad.load_model(tmp_path / "model.keras")
    before = model.critic.trainable_weights[0].numpy()
    for each in (model, resumed):
        each.train_step(tf.constant(images[:4, :32, :32]))
    for a, b in zip(model.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(before != model.critic.trainable_weights[0].numpy())  # by the step's own noise
