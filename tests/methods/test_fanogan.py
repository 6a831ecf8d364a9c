import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError
from tfgad.methods import METHODS
from tfgad.networks.layers import BatchNormalization, RMSprop

KAPPA = 0.7


@pytest.fixture(scope="module")
def model(build_small, images):
    model = build_small("fanogan", kappa=KAPPA)
    model.adapt(tf.data.Dataset.from_tensor_slices(images[:, :32, :32]), len(images))
    return model


def mean_square(a, b):
    return np.square(np.asarray(a) - np.asarray(b)).reshape(len(a), -1).mean(axis=1)


def terms(model, x, training=False):
    """The paper's terms for each image of `[B, 32, 32, 1]`, by name."""

    def f(images):
        return model.critic(images, training=False)["features"][-1]

    z = model.encoder(x, training=training)
    generated = model.generator(z, training=False)
    logit = model.critic(x, training=False)["logit"].numpy()
    return {
        "residual": mean_square(x, generated),
        "feature": mean_square(f(x), f(generated)),
        "latent": mean_square(z, model.encoder(generated, training=False)),
        "critic": float(model.normal_logit) - logit,
    }


@pytest.mark.parametrize(
    ("score", "weights"),
    [
        ("residual", {"residual": 1, "feature": KAPPA}),
        ("latent", {"latent": 1}),
        ("latent_feature", {"latent": 1, "feature": KAPPA}),
        ("critic", {"critic": 1}),
    ],
)
def test_scores_of_a_window_are_the_paper_s(model, images, score, weights):
    x = images[:3, :32, :32]
    expected = sum(weight * terms(model, x)[term] for term, weight in weights.items())
    np.testing.assert_allclose(model.anomaly(x, score)["score"], expected, rtol=1e-4, atol=1e-6)


def test_reconstruction_is_the_generator_s_of_the_encoder_s(model, images):
    x = images[:2, :32, :32]
    expected = model.generator(model.encoder(x))
    np.testing.assert_allclose(model.reconstruct(x), expected, atol=1e-6)


@pytest.mark.parametrize("encoding", ["ziz", "izi", "izi_f"])
def test_the_second_stage_trains_the_encoder_alone_by_the_paper_s_loss(
    build_small, images, encoding
):
    model = build_small("fanogan", encoding=encoding, kappa=KAPPA)
    model.begin("encoder")
    assert model.images_per_step == model.config.batch_size
    x = tf.constant(images[:4, :32, :32])
    expected = encoder_loss(model, x)
    others = [*model.generator.weights, *model.critic.weights]
    frozen, moved = [[w.numpy() for w in ws] for ws in (others, model.encoder.weights)]

    assert float(model.train_step(x)["encoder"]) == pytest.approx(expected, rel=1e-4)
    for before, after in zip(frozen, others, strict=True):
        np.testing.assert_array_equal(before, after.numpy())
    for before, after in zip(moved, model.encoder.weights, strict=True):
        assert np.any(before != after.numpy()), after.path


def encoder_loss(model, x):
    if model.config.encoding == "ziz":
        z = model.random_normal([len(x), model.config.latent_dim], "encoder")
        generated = model.generator(z, training=False)
        return mean_square(model.encoder(generated, training=True), z).mean()
    found = terms(model, x, training=True)
    kappa = KAPPA if model.config.encoding == "izi_f" else 0
    return (found["residual"] + kappa * found["feature"]).mean()


def test_the_first_stage_leaves_the_encoder(build_small, images):
    model = build_small("fanogan")
    before = model.encoder.get_weights()
    model.train_step(tf.constant(images[:4, :32, :32]))
    for ours, theirs in zip(before, model.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_that_is_loaded_goes_on_in_the_stage_it_was_saved_in(build_small, images, tmp_path):
    model, x = build_small("fanogan"), images[:4, :32, :32]
    model.begin("encoder")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.images_per_step == model.images_per_step
    first = loaded.generator.get_weights()
    histories = [each.fit(x, batch_size=4, verbose=0).history for each in (model, loaded)]
    assert histories[0] == histories[1]
    for before, after in zip(first, loaded.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_unknown_encoding_is_refused_with_the_nearest(build_small):
    with pytest.raises(UsageError, match="did you mean 'izi_f'"):
        build_small("fanogan", encoding="izif")


@pytest.fixture(scope="module")
def paper():
    return tfgad.build("fanogan/paper", (64, 64, 1), width=4)


def test_paper_has_the_authors_networks_and_constants(paper):
    assert paper.wgan_gp.config.networks == "resnet"
    assert paper.critic.output["features"][-1].shape[1:] == (4, 4, 32)  # f(x), 4·4·8·width
    assert paper.encoder.output_shape == (None, 128)
    assert paper.encoder.layers[-1].activation is keras.activations.linear
    normalization = {
        (layer.momentum, layer.epsilon)
        for network in (paper.generator, paper.encoder)
        for layer in network.layers
        if isinstance(layer, BatchNormalization)
    }
    assert normalization == {(0.99, 1e-3)}
    optimizers = paper.optimizer_by_role
    assert {optimizers[role].epsilon for role in ("critic", "generator")} == {1e-8}
    encoder = optimizers["encoder"]
    assert type(encoder) is RMSprop
    assert (encoder.rho, encoder.epsilon, encoder.momentum) == (0.9, 1e-10, 0.0)


@pytest.mark.slow
def test_paper_trains_and_scores(paper, images):
    x = np.repeat(np.repeat(images[:10, :32, :32], 2, axis=1), 2, axis=2)
    for stage in paper.stages:
        paper.begin(stage)
        for _ in range(2):
            logs = paper.train_step(tf.constant(x))
            assert all(np.isfinite(value) for value in logs.values())
    assert int(paper.step) == 2 * len(paper.stages)
    scored = paper.anomaly(x[:2])
    z = paper.encoder(x[:2], training=False)
    generated = paper.generator(z, training=False)
    f_x, f_generated = (
        paper.critic(each, training=False)["features"][-1] for each in (x[:2], generated)
    )
    expected = mean_square(x[:2], generated) + mean_square(f_x, f_generated)
    np.testing.assert_allclose(scored["score"], expected, rtol=1e-4)


def test_settings_of_the_gan_are_those_of_the_same_name():
    config = METHODS["fanogan"].model.Config(width=7, d_steps=3, epsilon=1e-6, stride=8)
    of_gan = config.gan()
    names = ("networks", "latent_dim", "width", "batch_size", "learning_rate", "beta_1", "beta_2")
    for name in (*names, "epsilon", "d_steps", "g_steps", "penalty", "r1"):
        assert getattr(of_gan, name) == getattr(config, name), name
    assert of_gan.norm_epsilon == 1e-3  # of TensorFlow, in the authors' code too
