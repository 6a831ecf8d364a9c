import math

import keras
import numpy as np
import pytest

from tfgad import recipes
from tfgad.core.detector import CUES, DENSITY
from tfgad.errors import UsageError
from tfgad.recipes import METHODS, RECIPES, build, settings_of


def first_weights(model):
    return np.concatenate([w.numpy().ravel() for w in model.weights])


def test_every_method_has_its_paper_s_recipe_with_the_same_settings():
    for method in METHODS:
        paper = RECIPES[f"{method}/paper"].settings
        assert RECIPES[method].settings.keys() == paper.keys()
        assert paper["score"] != "auto"


@pytest.mark.parametrize(
    ("method", "published"),
    [
        ("gan", {"learning_rate": 2e-4, "beta_1": 0.5, "latent_dim": 100, "dropout": 0.2}),
        ("dcgan", {"learning_rate": 2e-4, "beta_1": 0.5, "width": 64, "dropout": 0.3}),
        ("wgan", {"d_steps": 5, "clip": 0.01, "learning_rate": 5e-5}),
        ("wgan_gp", {"d_steps": 5, "penalty": 10, "learning_rate": 1e-4, "beta_1": 0}),
        ("fanogan", {"kappa": 1, "encoding": "izi_f", "encoder_learning_rate": 5e-5}),
        ("vae", {"optimizer": "adagrad", "batch_size": 100, "likelihood": "bernoulli", "beta": 1}),
        ("ganomaly", {"adversarial_weight": 1, "contextual_weight": 50, "encoder_weight": 1}),
    ],
)
def test_published_settings_are_the_papers(method, published):
    assert published.items() <= RECIPES[f"{method}/paper"].settings.items()


@pytest.mark.parametrize("method", RECIPES)
def test_recipes_make_compiled_models_with_their_settings(method):
    settings = RECIPES[method].settings
    small = {"width": 4, "classes": 2}
    model = build(method, (64, 64, 1), **{k: v for k, v in small.items() if k in settings})
    assert model.stride == settings["stride"]
    for role, optimizer in model.optimizers.items():
        rate = settings.get(f"{role}_learning_rate", settings["learning_rate"])
        assert float(optimizer.learning_rate) == pytest.approx(rate)
        assert len(optimizer.variables) > 2  # built, so that they are restored
    for name in {
        "d_steps",
        "g_steps",
        "r1",
        "smoothing",
        "penalty",
        "kappa",
        "contextual_weight",
    } & settings.keys():
        assert getattr(model, name) == settings[name]


def test_windows_are_no_larger_than_the_image():
    small = {"width": 4, "latent_dim": 4, "stride": 8}
    assert build("ganomaly", (128, 64, 3), **small).window == (32, 32, 3)
    assert build("ganomaly", (24, 48, 1), **small).window == (24, 32, 1)
    assert build("ganomaly", (64, 32, 1), window=0, **small).window == (64, 32, 1)


@pytest.mark.parametrize("method", ["anogan", "fanogan", "ganomaly", "vae"])
def test_whole_images_are_scored_by_density_and_larger_ones_by_cues(method):
    small = {"width": 4, "latent_dim": 4, "window": 32}
    assert build(method, (32, 32, 1), **small).score == DENSITY
    assert build(method, (64, 64, 1), **small).score == CUES
    own = next(iter(build(method, (64, 64, 1), **small).scores))
    assert build(method, (64, 64, 1), score=own, **small).score == own


@pytest.mark.parametrize("method", ["dcgan", "wgan"])
def test_what_cannot_reconstruct_is_scored_by_its_critic(method):
    small = {"width": 4, "latent_dim": 4, "window": 32, "score": "auto"}
    assert build(method, (32, 32, 1), **small).score == "critic"


def test_the_seed_makes_the_weights():
    same, again, other = (
        first_weights(build("ganomaly", (32, 32, 1), seed=seed, width=4)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(same, again)
    assert np.any(same != other)


def test_settings_take_the_recipe_s_types():
    settings = settings_of("ganomaly", {"width": "16", "learning_rate": "1e-3", "steps": 7})
    assert (settings["width"], settings["learning_rate"], settings["steps"]) == (16, 1e-3, "7")
    assert settings.keys() == {*RECIPES["ganomaly"].settings, *recipes.COMMON}
    assert RECIPES["ganomaly"].settings["steps"] != "7"


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("ganomali", {}, "method 'ganomali'.*did you mean 'ganomaly'"),
        ("ganomaly", {"widht": 8}, "setting 'widht'.*did you mean 'width'"),
        ("ganomaly", {"kappa": 1}, "is not one of ganomaly"),
        ("ganomaly", {"width": "broad"}, "width 'broad'.*int"),
        ("ganomaly", {"learning_rate": "x"}, "learning_rate 'x'.*float"),
        ("ganomaly", {"stride": 0}, "stride '0'.*too small"),
        ("ganomaly", {"width": -4}, "width '-4'.*too small"),
        ("ganomaly", {"learning_rate": -1e-3}, "learning_rate '-0.001'.*too small"),
        ("ganomaly", {"learning_rate": "nan"}, "learning_rate 'nan': is not finite"),
        ("ganomaly", {"learning_rate": math.inf}, "learning_rate 'inf': is not finite"),
        ("ganomaly", {"learning_rate": 10**400}, "is not of type float"),
        ("ganomaly", {"learning_rate": 0}, "learning_rate '0.0'.*above 0"),
        ("fanogan", {"encoder_learning_rate": 0.0}, "encoder_learning_rate.*above 0"),
        ("anogan", {"critic_learning_rate": 0.0}, "critic_learning_rate.*above 0"),
        ("anogan", {"search_rate": "0"}, "search_rate.*above 0"),
        ("ganomaly", {"width": None}, "width 'None': is not of type int"),
        ("ganomaly", {"learning_rate": None}, "learning_rate 'None': is not of type float"),
        ("ganomaly", {"steps": None}, "steps 'None': is not of type str"),
        ("ganomaly", {"width": math.inf}, "width 'inf': is not of type int"),
        ("ganomaly", {"width": math.nan}, "width 'nan': is not of type int"),
        ("ganomaly", {"width": 2.7}, "width '2.7': is not of type int"),
        ("ganomaly", {"width": [8]}, "is not of type int"),
        ("ganomaly", {"jitter": -0.1}, "jitter '-0.1'.*at least 0"),
        ("dcgan", {"dropout": 1.0}, "dropout '1.0'.*less than 1"),
        ("gan", {"smoothing": 1}, "smoothing '1.0'.*less than 1"),
        ("gan", {"beta_1": 1}, "beta_1 '1.0'.*less than 1"),
        ("gan", {"beta_2": 1.5}, "beta_2 '1.5'.*less than 1"),
        ("gan", {"beta_2": -0.5}, "beta_2 '-0.5'.*at least 0"),
        ("anogan", {"tolerance": 1}, "tolerance '1.0'.*less than 1"),
        ("anogan", {"feature_weight": 1.01}, "feature_weight '1.01'.*at most 1"),
        ("wgan_gp", {"penalty": math.inf}, "penalty 'inf': is not finite"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(method, given, message):
    with pytest.raises(UsageError, match=message) as error:
        recipes.settings_of(method, given)
    assert "\n" not in str(error.value)


def test_settings_at_the_end_of_their_range_are_taken():
    ends = {"feature_weight": 1, "tolerance": 0, "beta_1": 0, "window": 0, "width": 1.0}
    assert ends.items() <= settings_of("anogan", ends).items()
    assert settings_of("cgan", {"classes": 0})["classes"] == 0


def test_the_recipes_own_settings_are_within_their_ranges():
    for method, recipe in RECIPES.items():
        assert settings_of(method, recipe.settings) == {**recipes.COMMON, **recipe.settings}


def test_jitter_changes_no_model():
    small = {"width": 4, "latent_dim": 4}
    plain, moved = (build("ganomaly", (32, 32, 1), jitter=j, **small) for j in (0.0, 1.0))
    assert plain.get_config().keys() == moved.get_config().keys()
    np.testing.assert_array_equal(first_weights(plain), first_weights(moved))


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((16, 16, 1), {}, "too small"),
        ((64, 64, 2), {}, "neither grey nor colour"),
        ((64, 64, 1), {"score": "latnet"}, "did you mean 'latent'"),
        ((64, 64, 1), {"encoder_optimizer": "adan"}, "did you mean 'adam'"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused(shape, settings, message):
    with pytest.raises(UsageError, match=message):
        build("fanogan", shape, width=4, **settings)


def test_half_precision_is_the_networks_alone(half_precision):
    model = build("ganomaly", (32, 32, 1), width=4, latent_dim=4, precision="bfloat16")
    layer = model.encoder.layers[1]
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
    for network in (model.encoder, model.decoder):
        assert network.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # of whatever is built next


def test_an_unknown_precision_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'bfloat16'"):
        build("ganomaly", (32, 32, 1), width=4, precision="bfloat")
