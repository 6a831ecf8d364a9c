import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.methods.vae import VAE, Config

LOG_2PI = np.log(2 * np.pi)


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("vae")


def fixed(mean, log_variance, grey, **settings):
    """A VAE whose encoder and decoder answer the same to everything: worked by hand."""
    images = keras.Input((4, 4, 1))
    code = keras.layers.Dense(
        4, kernel_initializer="zeros", bias_initializer=constant([*mean, *log_variance])
    )(keras.layers.Flatten()(images))
    z = keras.Input((2,))
    flat = keras.layers.Dense(
        16, kernel_initializer="zeros", bias_initializer=keras.initializers.Constant(grey)
    )(z)
    model = VAE(Config(latent_dim=2, **settings), (32, 32, 1))
    model.window = (4, 4, 1)
    model.encoder = keras.Model(images, code)
    model.decoder = keras.Model(z, keras.layers.Reshape((4, 4, 1))(flat))
    return model


def constant(values):
    return lambda shape, dtype=None: tf.constant(values, dtype or "float32")


def test_the_score_is_the_bound_of_a_case_worked_by_hand():
    # KL: ½ (1 + 1 - 1 - 0) + ½ (0 + ¼ - 1 - log ¼). Pixels: twelve black ones and four white ones
    # under the probability ¾ of white.
    model = fixed([1.0, 0.0], [0.0, np.log(0.25)], grey=0.5, beta=2.0)
    x = np.full((1, 4, 4, 1), -1, "float32")
    x[:, 0] = 1
    kl = 0.5 + 0.5 * (0.25 - 1 + np.log(4))
    nll = -12 * np.log(0.25) - 4 * np.log(0.75)
    errors = {name: error.numpy() for name, error in model.errors(x).items()}
    np.testing.assert_allclose(errors["kl"], [2 * kl], rtol=1e-5)
    np.testing.assert_allclose(errors["nll"].mean(), nll, rtol=1e-5)
    # A black or white pixel has no entropy of its own.
    np.testing.assert_allclose(errors["excess"], errors["nll"], atol=1e-3)
    np.testing.assert_allclose(errors["nll"][0, 0], -16 * np.log(0.75), rtol=1e-5)
    np.testing.assert_allclose(errors["residual"][0, :2, 0], [0.25, 2.25], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_score_is_taken_at_the_mean_in_nats_a_window(build_small, images, likelihood):
    model = build_small("vae", likelihood=likelihood, sigma=0.3, beta=3.0)
    x = images[:3, :32, :32]
    mean, log_variance = np.split(model.encoder(x, training=False).numpy(), 2, axis=1)
    y = model.decoder(mean, training=False).numpy()
    np.testing.assert_allclose(model.reconstruct(x), y, atol=1e-6)
    t, p = (1 + x) / 2, (1 + y) / 2
    of_pixels = {
        "bernoulli": -t * np.log(p) - (1 - t) * np.log(1 - p),
        "gaussian": (x - y) ** 2 / (2 * 0.3**2) + np.log(0.3) + LOG_2PI / 2,
    }
    nll = of_pixels[likelihood].sum(axis=(1, 2, 3))
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    np.testing.assert_allclose(model.anomaly(x, "elbo")["score"], nll + 3 * kl, rtol=1e-4)
    np.testing.assert_allclose(model.anomaly(x, "kl")["score"], 3 * kl, rtol=1e-4)
    best = {
        "bernoulli": -t * np.log(t) - (1 - t) * np.log(1 - t),
        "gaussian": np.full_like(x, np.log(0.3) + LOG_2PI / 2),
    }
    excess = nll - best[likelihood].sum(axis=(1, 2, 3)) + 3 * kl
    np.testing.assert_allclose(model.anomaly(x, "excess")["score"], excess, rtol=1e-4)
    residual = np.square(x - y).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(model.anomaly(x, "residual")["score"], residual, rtol=1e-4)


def test_the_score_is_the_same_whenever_it_is_asked(model, images):
    first = model.anomaly(images[:3], "elbo")["score"].numpy()
    model.step.assign_add(1)
    again = model.anomaly(images[:3], "elbo")["score"].numpy()
    model.step.assign_sub(1)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_step_goes_down_the_bound_as_it_is_written(build_small, images, likelihood):
    model = build_small("vae", likelihood=likelihood, sigma=0.5, beta=4.0, seed=2)
    rate = 1e-5
    model.compile({"autoencoder": keras.optimizers.SGD(rate)})
    x = tf.constant(images[:4, :32, :32])
    epsilon = model.random_normal((4, model.config.latent_dim), "posterior")
    weights = model.weights_of("autoencoder")
    with tf.GradientTape() as tape:
        code = model.encoder(x, training=True)
        mean, log_variance = code[:, : model.config.latent_dim], code[:, model.config.latent_dim :]
        y = model.decoder(mean + tf.sqrt(tf.exp(log_variance)) * epsilon, training=True)
        if likelihood == "bernoulli":
            t, p = (1 + x) / 2, (1 + y) / 2
            nll = -t * tf.math.log(p) - (1 - t) * tf.math.log(1 - p)
        else:
            nll = (x - y) ** 2 / (2 * 0.5**2) + np.log(0.5) + LOG_2PI / 2
        kl = (mean**2 + tf.exp(log_variance) - 1 - log_variance) / 2
        bound = (tf.reduce_sum(nll) + 4 * tf.reduce_sum(kl)) / 4
    gradients = tape.gradient(bound, weights)
    before = [weight.numpy() for weight in weights]

    logs = model.train_step(x)
    assert float(logs["loss"]) == pytest.approx(float(bound), rel=1e-4)
    assert float(logs["nll"] + 4 * logs["kl"]) == pytest.approx(float(bound), rel=1e-4)
    for weight, first, gradient in zip(weights, before, gradients, strict=True):
        scale = np.abs(gradient).max() + 1e-3
        moved = (first - weight.numpy()) / (rate * scale)
        np.testing.assert_allclose(moved, gradient / scale, atol=0.02, err_msg=weight.path)


def test_the_prior_of_the_weights_draws_them_to_zero(build_small, images):
    def moved(decay):
        model = build_small("vae", networks="kingma", width=5, weight_decay=decay)
        model.compile({"autoencoder": keras.optimizers.SGD(1e-3)})
        before = [weight.numpy() for weight in model.weights_of("autoencoder")]
        logs = model.train_step(tf.constant(images[:4, :32, :32]))
        return before, [weight.numpy() for weight in model.weights_of("autoencoder")], logs

    before, free, bound = moved(0.0)
    _, drawn, bound_with_prior = moved(10.0)
    # The gradient of ½‖θ‖² is θ.
    for first, without, with_prior in zip(before, free, drawn, strict=True):
        np.testing.assert_allclose(without - with_prior, 1e-3 * 10 * first, atol=1e-6)
    assert float(bound["loss"]) == float(bound_with_prior["loss"])


def test_every_step_draws_another_code(build_small, images):
    model = build_small("vae")
    model.compile({"autoencoder": keras.optimizers.SGD(0.0)})
    x = tf.constant(images[:4, :32, :32])
    first, second = (float(model.train_step(x)["nll"]) for _ in range(2))
    assert first != second


def test_cues_look_at_pixels_and_code_alike(model):
    assert model.terms == (("residual",), ("kl",))
    np.testing.assert_array_equal(model.cues.weights_of_maps, [0.5, 0.5])


def test_samples_are_images_that_the_seed_decides(model):
    first = model.sample(3, seed=1).numpy()
    assert first.shape == (3, 32, 32, 1)
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, model.sample(3, seed=1))
    assert np.any(first != model.sample(3, seed=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "bernouli"}, "did you mean 'bernoulli'"),
        ({"sigma": 0.0}, "sigma '0.0'.*above 0"),
        ({"optimizer": "adan"}, "did you mean 'adam'"),
    ],
)
def test_what_is_no_vae_is_refused(build_small, settings, message):
    with pytest.raises(UsageError, match=message):
        build_small("vae", **settings)
