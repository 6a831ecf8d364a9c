import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError
from tfgad.methods import settings_of
from tfgad.methods.anogan import AnoGAN, Config

SEARCH = {"search_steps": 5, "search_rate": 0.1}


@pytest.fixture(scope="module")
def model(build_small, images):
    """With random weights, which a search can invert as well as trained ones."""
    model = build_small("anogan", start="pool", pool=4, **SEARCH)
    model.adapt(tf.data.Dataset.from_tensor_slices(images[:, :32, :32]), len(images))
    return model


@pytest.mark.slow
def test_the_score_is_the_paper_s_loss_at_the_code_found(model, images):
    x = images[:3, :32, :32]
    found = model.find(tf.constant(x))
    generated = model.generator(found["latent"], training=False).numpy()

    def f(images):
        return model.critic(images, training=False)["features"][-1].numpy()

    pixels = np.abs(x - generated).sum(axis=(1, 2, 3))
    features = np.abs(f(x) - f(generated)).sum(axis=(1, 2, 3))
    expected = 0.9 * pixels + 0.1 * features
    np.testing.assert_allclose(model.anomaly(x, "loss")["score"], expected, rtol=1e-3)
    np.testing.assert_allclose(model.anomaly(x, "pixels")["score"], 0.9 * pixels, rtol=1e-3)
    np.testing.assert_allclose(model.reconstruct(x), generated, atol=1e-4)


def test_the_search_comes_closer_than_its_start(model, images):
    curve = model.find(tf.constant(images[:4, :32, :32]))["curve"].numpy()
    assert len(curve) == SEARCH["search_steps"] + 1
    assert (curve[-1] < curve[0]).all()


def test_without_an_encoder_there_is_one_stage(model):
    assert model.stages == ("gan",)
    assert set(model.roles) == {"critic", "generator"}
    assert model.encoder is None


def test_without_an_encoder_its_steps_are_left_out():
    for name, steps in {"pool": "2000", "encoder": "2000+1500"}.items():
        assert settings_of("anogan", {"start": name}).as_dict()["steps"] == steps


def test_with_an_encoder_the_search_starts_from_its_code(build_small, images):
    model = build_small("anogan", start="encoder", **SEARCH)
    assert model.stages == ("gan", "encoder")
    x = tf.constant(images[:2, :32, :32])
    generated = model.generator(model.encoder(x, training=False), training=False)
    features = [model.critic(y, training=False)["features"][-1] for y in (x, generated)]
    first = 0.9 * np.abs(x - generated).sum(axis=(1, 2, 3))
    first += 0.1 * np.abs(features[0] - features[1]).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(model.find(x)["curve"][0], first, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["pool", "encoder"])
def test_either_is_saved_and_loaded(build_small, images, tmp_path, start):
    model = build_small("anogan", start=start, distance="huber", **SEARCH)
    model.save(tmp_path / "model.keras")
    loaded = tfgad.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config
    assert loaded.stages == model.stages
    x = images[:2, :32, :32]
    ours, theirs = model.anomaly(x, "loss"), loaded.anomaly(x, "loss")
    np.testing.assert_array_equal(ours["score"], theirs["score"])


def test_any_generator_and_critic_can_be_searched(fitted, images):
    trained = fitted("wgan_gp")
    model = AnoGAN(Config(latent_dim=8, start="pool", search_steps=3, pool=4), trained.window)
    model.generator, model.critic = trained.generator, trained.critic
    predicted = model.anomaly(images[:2, :32, :32], "loss")
    assert np.isfinite(predicted["score"]).all()
    np.testing.assert_array_equal(
        model.generator.get_weights()[0], trained.generator.get_weights()[0]
    )


def test_the_first_stage_trains_the_gan_the_second_the_encoder(build_small, images):
    model = build_small("anogan", start="encoder", **SEARCH)
    x = tf.constant(images[:4, :32, :32])
    for stage, moving in (("gan", ("generator", "critic")), ("encoder", ("encoder",))):
        model.begin(stage)
        before = {name: getattr(model, name).get_weights() for name in model.networks()}
        model.train_step(x)
        for name, weights in before.items():
            same = all(map(np.array_equal, weights, getattr(model, name).get_weights()))
            assert same == (name not in moving), (stage, name)


def test_an_unknown_start_is_refused_with_the_nearest(build_small):
    with pytest.raises(UsageError, match="did you mean 'encoder'"):
        build_small("anogan", start="encode")


def test_restarts_beside_an_encoder_are_refused(build_small):
    with pytest.raises(UsageError, match=r"restarts '2'.*one start"):
        build_small("anogan", start="encoder", restarts=2)


@pytest.mark.parametrize(("r1", "normalised"), [(0.0, True), (1.0, False)])
def test_the_critic_is_normalised_unless_r1_is_an_image_s_own(build_small, r1, normalised):
    kinds = {type(layer).__name__ for layer in build_small("anogan", r1=r1).critic.layers}
    assert ("BatchNormalization" in kinds) == normalised


def test_a_wrong_option_of_the_search_is_refused_when_the_model_is_made(build_small):
    with pytest.raises(UsageError, match="distance 'l3'"):
        build_small("anogan", distance="l3")


def test_the_configuration_names_the_options(model):
    config = keras.saving.serialize_keras_object(model)["config"]
    assert config["config"]["search_steps"] == SEARCH["search_steps"]
