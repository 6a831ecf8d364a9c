"""Configurations with published networks, each trained for two steps on noise."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError
from tfgad.methods import settings_of

SMALL = {"width": 4, "latent_dim": 8, "search_steps": 2, "d_steps": 2, "long_d_steps": 5}
PUBLISHED = [
    "gan/paper",
    "gan/walkthrough",
    "dcgan/paper",
    "dcgan/walkthrough",
    "wgan/paper",
    "anogan/paper",
    "anogan/walkthrough",
    "vae/paper",
    "cgan/paper",
]


def small(method, **settings):
    known = settings_of(method)
    few = {name: value for name, value in SMALL.items() if name in known}
    few |= {"classes": 2} if method.startswith("cgan") else {}
    return tfgad.build(method, (32, 32, 1), **{**few, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("method", PUBLISHED)
def test_two_steps_have_finite_losses_and_the_model_is_saved(method, tmp_path):
    model = small(method)
    images = np.random.default_rng(0).uniform(-1, 1, (20, 32, 32, 1)).astype("float32")
    labels = np.arange(20, dtype="int32") % 2
    data = tf.data.Dataset.from_tensor_slices((images, labels) if model.labelled else images)
    batches = data.batch(20).repeat()
    history = model.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0).history
    assert history
    for name, losses in history.items():
        assert np.isfinite(losses).all(), name
    own = next(iter(model.scores))
    model.save(tmp_path / "model.keras")
    loaded = tfgad.load_model(tmp_path / "model.keras")
    scores = model.anomaly(images[:2], own)["score"].numpy()
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(loaded.anomaly(images[:2], own)["score"], scores)
    for role, optimizer in model.optimizer_by_role.items():
        assert loaded.optimizer_by_role[role].get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("method", "constants"),
    [
        # Radford et al. 2016, section 4; ε of their code.
        ("dcgan/paper", {"learning_rate": 2e-4, "beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-8}),
        ("dcgan/walkthrough", {"learning_rate": 1e-4, "beta_1": 0.9, "beta_2": 0.999}),
        ("wgan/paper", {"learning_rate": 5e-5, "rho": 0.99, "epsilon": 1e-16, "momentum": 0.0}),
        ("anogan/paper", {"learning_rate": 2e-4, "beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-8}),
        ("gan/walkthrough", {"learning_rate": 2e-4, "beta_1": 0.5, "beta_2": 0.999}),
        ("gan/paper", {"momentum": 0.5, "nesterov": False}),
        ("vae/paper", {"learning_rate": 0.01, "initial_accumulator_value": 0.1}),
    ],
)
def test_optimizers_have_the_published_constants(method, constants):
    for optimizer in small(method).optimizer_by_role.values():
        config = optimizer.get_config()
        for name, value in constants.items():
            assert config[name] == pytest.approx(value, rel=1e-6), name


def test_the_walkthrough_of_anogan_has_two_rates():
    optimizers = small("anogan/walkthrough").optimizer_by_role
    rates = {role: float(optimizer.learning_rate) for role, optimizer in optimizers.items()}
    assert rates == pytest.approx({"generator": 1e-4, "critic": 4e-4})
    for optimizer in optimizers.values():
        assert (optimizer.beta_1, optimizer.beta_2) == (0.0, 0.9)


def test_the_rate_of_goodfellow_s_sgd_falls_with_each_update():
    optimizer = small("gan/paper").optimizer_by_role["critic"]
    assert type(optimizer) is keras.optimizers.SGD
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    optimizer.iterations.assign(2000)  # batches of the authors' code
    assert float(optimizer.learning_rate) == pytest.approx(0.1 / 1.000004**2000, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("gan/paper", {"batch_size": 100, "d_steps": 1, "latent_dim": 100, "r1": 0}),
        ("gan/walkthrough", {"batch_size": 32, "d_steps": 5, "g_steps": 1, "dropout": 0.2}),
        ("dcgan/paper", {"window": 64, "width": 128, "batch_size": 128, "latent_dim": 100}),
        ("dcgan/walkthrough", {"width": 64, "batch_size": 256, "dropout": 0.3, "steps": 11_750}),
        ("wgan/paper", {"clip": 0.01, "d_steps": 5, "long_d_steps": 100, "batch_size": 64}),
        ("anogan/paper", {"width": 64, "search_steps": 500, "feature_weight": 0.1, "pool": 1}),
        ("anogan/walkthrough", {"latent_dim": 20, "width": 64, "window": 64, "r1": 0}),
        ("vae/paper", {"width": 500, "latent_dim": 20, "batch_size": 100, "beta": 1}),
    ],
)
def test_settings_are_the_published_ones(method, settings):
    assert settings.items() <= dict(settings_of(method)).items()


@pytest.mark.parametrize("method", ["gan", "dcgan", "wgan", "anogan", "vae"])
def test_published_networks_are_no_default(method):
    assert settings_of(method)["networks"] in ("small", "convolutional")
    with pytest.raises(UsageError, match=r"networks 'tutor'.*is not known"):
        small(method, networks="tutor")
