import dataclasses
import math

import keras
import numpy as np
import pytest
from pydantic.dataclasses import dataclass

from tfgad import methods, processor
from tfgad.core import registry, settings
from tfgad.core.settings import Common
from tfgad.errors import UsageError
from tfgad.methods import METHODS, build, names, native_precision, settings_of
from tfgad.scores.score import CUES, DENSITY


def first_weights(model):
    return np.concatenate([w.numpy().ravel() for w in model.weights])


def test_every_method_has_its_published_configuration():
    for name, method in METHODS.items():
        if name in ("ganomaly_unet", "feature_regions"):  # that no paper describes
            assert list(method.configs) == ["default"]
            continue
        default, paper = method.configs["default"], method.configs["paper"]
        assert type(default) is type(paper) is method.model.Config
        assert settings_of(f"{name}/paper")["score"] != "auto"
        assert default == method.model.Config()


def test_every_whole_number_has_an_upper_bound():
    for config in (Common, *(method.model.Config for method in METHODS.values())):
        for each in settings.describe(config):
            assert not each.values.startswith("int") or " in [" in each.values, each


def test_every_setting_has_a_meaning():
    for method in METHODS.values():
        for each in settings.describe(method.model.Config):
            assert each.meaning, each.name


@pytest.mark.parametrize(
    ("method", "published"),
    [
        ("gan", {"learning_rate": 0.1, "momentum": 0.5, "latent_dim": 100, "batch_size": 100}),
        ("dcgan", {"learning_rate": 2e-4, "beta_1": 0.5, "width": 128, "dropout": 0}),
        ("wgan", {"d_steps": 5, "clip": 0.01, "learning_rate": 5e-5}),
        ("wgan_gp", {"d_steps": 5, "penalty": 10, "learning_rate": 1e-4, "beta_1": 0}),
        ("fanogan", {"kappa": 1, "encoding": "izi_f", "encoder_learning_rate": 5e-5}),
        ("vae", {"optimizer": "adagrad", "batch_size": 100, "likelihood": "bernoulli", "beta": 1}),
        ("ganomaly", {"adversarial_weight": 1, "contextual_weight": 50, "encoder_weight": 1}),
    ],
)
def test_published_settings_are_the_papers(method, published):
    assert published.items() <= dict(settings_of(f"{method}/paper")).items()


@pytest.mark.parametrize("method", names())
def test_models_have_the_settings_of_their_method(method):
    known = settings_of(method)
    small = {"width": 4, "classes": 2}
    small = {name: value for name, value in small.items() if name in known}
    model = build(method, (64, 64, 1), **small)
    assert model.stride == known["stride"]
    for role, optimizer in model.optimizer_by_role.items():
        rate = known.get(f"{role}_learning_rate", known["learning_rate"])
        assert float(optimizer.learning_rate) == pytest.approx(rate, rel=1e-4)
        assert len(optimizer.variables) > 2  # built, so that they are restored
    assert model.config == dataclasses.replace(known.config, **small)


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


def test_settings_take_the_type_of_their_field():
    parsed = settings_of("ganomaly", {"width": "16", "learning_rate": "1e-3", "steps": "7"})
    assert (parsed["width"], parsed["learning_rate"], parsed["steps"]) == (16, 1e-3, 7)
    own = {field.name for field in dataclasses.fields(METHODS["ganomaly"].model.Config)}
    assert set(parsed) == own | {field.name for field in dataclasses.fields(Common)}
    assert settings_of("ganomaly")["steps"] != 7
    assert settings_of("fanogan", {"steps": "7+8"})["steps"] == (7, 8)
    assert settings_of("fanogan", {"steps": "7+8"}).as_dict()["steps"] == "7+8"


def test_settings_written_as_json_are_read_as_the_same():
    for name in names():
        assert settings_of(name, settings_of(name).as_dict()) == settings_of(name)


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
        ("ganomaly", {"width": 1e26}, r"width '1e\+26'.*in \[1, 4096\]"),
        ("ganomaly", {"latent_dim": "99999999999"}, "is too large; give at most 65536"),
        ("fanogan", {"steps": "1+99999999999"}, "is too large; give at most 1000000000 each"),
        ("ganomaly", {"learning_rate": -1e-3}, "learning_rate '-0.001'.*too small"),
        ("ganomaly", {"learning_rate": math.nan}, "learning_rate 'nan': is not finite"),
        ("ganomaly", {"learning_rate": math.inf}, "learning_rate 'inf': is not finite"),
        ("ganomaly", {"learning_rate": 10**400}, "learning_rate.*is not of type float"),
        ("ganomaly", {"learning_rate": 0}, "learning_rate '0'.*above 0"),
        ("fanogan", {"encoder_learning_rate": 0.0}, "encoder_learning_rate.*above 0"),
        ("anogan", {"critic_learning_rate": 0.0}, "critic_learning_rate.*above 0"),
        ("anogan", {"search_rate": "0"}, "search_rate.*above 0"),
        ("ganomaly", {"width": None}, "width 'None': is not of type int"),
        ("ganomaly", {"learning_rate": None}, "learning_rate 'None': is not of type float"),
        ("ganomaly", {"steps": None}, "steps 'None': is not of type int"),
        ("ganomaly", {"steps": "600+1500"}, r"steps '600\+1500': is not of type int"),
        ("fanogan", {"steps": "600"}, r"steps '600': does not fit.*600\+1500"),
        ("fanogan", {"steps": "600+0"}, r"steps '600\+0': does not fit"),
        ("fanogan", {"steps": None}, "steps 'None': does not fit"),
        ("ganomaly", {"width": math.inf}, "width 'inf': is not of type int"),
        ("ganomaly", {"width": math.nan}, "width 'nan': is not of type int"),
        ("ganomaly", {"width": 2.7}, "width '2.7': is not of type int"),
        ("ganomaly", {"width": [8]}, "is not of type int"),
        ("ganomaly", {"width": True}, "width 'True': is not a number"),
        ("ganomaly", {"jitter": -0.1}, "jitter '-0.1'.*at least 0"),
        ("dcgan", {"dropout": 1.0}, "dropout '1.0'.*less than 1"),
        ("gan", {"smoothing": 1}, "smoothing '1'.*less than 1"),
        ("gan", {"beta_1": 1}, "beta_1 '1'.*less than 1"),
        ("gan", {"beta_2": 1.5}, "beta_2 '1.5'.*less than 1"),
        ("gan", {"beta_2": -0.5}, "beta_2 '-0.5'.*at least 0"),
        ("anogan", {"tolerance": 1}, "tolerance '1'.*less than 1"),
        ("anogan", {"feature_weight": 1.01}, "feature_weight '1.01'.*at most 1"),
        ("wgan_gp", {"penalty": math.inf}, "penalty 'inf': is not finite"),
        ("fanogan", {"encoding": "izif"}, "encoding 'izif'.*did you mean 'izi_f'"),
        ("ganomaly", {"precision": "bfloat"}, "precision 'bfloat'.*did you mean 'bfloat16'"),
    ],
)
def test_wrong_settings_are_refused_with_a_hint(method, given, message):
    with pytest.raises(UsageError, match=message) as error:
        methods.settings_of(method, given)
    assert "\n" not in str(error.value)


def test_settings_at_the_end_of_their_range_are_taken():
    ends = {"feature_weight": 1, "tolerance": 0, "beta_1": 0, "window": 0, "width": 1.0}
    assert ends.items() <= dict(settings_of("anogan", ends)).items()
    assert settings_of("cgan", {"classes": 0})["classes"] == 0


def test_jitter_changes_no_model():
    small = {"width": 4, "latent_dim": 4}
    plain, moved = (build("ganomaly", (32, 32, 1), jitter=j, **small) for j in (0.0, 1.0))
    assert plain.get_config().keys() == moved.get_config().keys()
    np.testing.assert_array_equal(first_weights(plain), first_weights(moved))


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((16, 16, 1), {}, "too small for the blur of anomaly maps; give at least 24x24"),
        ((64, 64, 2), {}, "neither grey nor colour"),
        ((64, 64, 1), {"score": "latnet"}, "did you mean 'latent'"),
        ((64, 64, 1), {"encoder_optimizer": "adan"}, "did you mean 'adam'"),
    ],
)
def test_what_no_model_can_be_made_of_is_refused(shape, given, message):
    with pytest.raises(UsageError, match=message):
        build("fanogan", shape, width=4, **given)


def test_half_precision_is_the_networks_alone(half_precision):
    model = build("ganomaly", (32, 32, 1), width=4, latent_dim=4, precision="bfloat16")
    layer = model.encoder.layers[1]
    assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")
    for network in (model.encoder, model.decoder):
        assert network.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"  # of whatever is built next


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_automatic_precision_is_that_of_the_processor(
    native, expected, monkeypatch, half_precision
):
    monkeypatch.setattr(processor, "has_bfloat16", lambda: native)
    model = build("ganomaly", (32, 32, 1), width=4, latent_dim=4, precision="auto")
    assert model.encoder.layers[1].compute_dtype == expected


@pytest.mark.parametrize("native", [False, None])
def test_native_precision_is_float32_unless_the_processor_is_known_to_have_another(
    native, monkeypatch
):
    monkeypatch.setattr(processor, "has_bfloat16", lambda: native)
    assert native_precision() == "float32"


@dataclass(frozen=True)
class Odd:
    """Settings of other types."""

    batch_size: int = 4
    steps: int = 2
    use_mask: bool = True
    betas: tuple[float, float] = (0.5, 0.9)


def test_settings_may_be_switches_and_pairs():
    parsed = settings.parse(Odd, {"use_mask": "false", "betas": (0.1, 0.2)}, "odd")
    assert (parsed.use_mask, parsed.betas) == (False, (0.1, 0.2))
    assert settings.parse(Odd, settings.as_dict(parsed), "odd") == parsed


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("a/b", Odd, "method 'a/b': is no name"),
        ("plain", dataclasses.make_dataclass("Plain", []), "has no setting batch_size"),
        ("second", Odd, "class 'GAN': is the class of gan"),
    ],
)
def test_a_method_that_would_not_work_is_not_registered(name, config, message):
    model = type("GAN", (METHODS["gan"].model,), {})
    with pytest.raises(UsageError, match=message):
        registry.register(name, "help", config, config())(model)
    assert name not in METHODS


def test_a_name_is_registered_once():
    config = METHODS["gan"].model.Config
    other = type("Other", (METHODS["gan"].model,), {})
    with pytest.raises(UsageError, match=r"method 'gan': is a method of tfgad\.methods\.gan"):
        registry.register("gan", "another", config, config())(other)
    assert METHODS["gan"].model is not other
