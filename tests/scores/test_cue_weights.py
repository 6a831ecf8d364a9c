"""The weights of the terms of `cues` and `places`: their setting, and what they do to the maps."""

import keras
import numpy as np
import pytest

import tfgad
from tfgad import methods
from tfgad.errors import UsageError
from tfgad.export.saved_model import export, metadata_of_model
from tfgad.inference.predictor import SavedModelPredictor
from tfgad.scores.cues import Cues
from tfgad.scores.places import Places

GROUPS = (1, 2)  # a term of one map, and one of two
PLACE = np.s_[:, 16:32, 16:32]


def normals(count, seed):
    """Returns images, and log-normal errors with a different level per image."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0, 0.2, (count, 48, 48, 1)).clip(-1, 1)
    level = rng.normal(0, 0.3, (count, 1, 1, 1))
    errors = np.exp(rng.normal(-4, 0.5, (count, 48, 48, 3)) + level)
    return images.astype("float32"), errors.astype("float32")


@pytest.fixture
def new():
    return normals(4, seed=1)


def cues_of(*weights):
    layer = Cues(GROUPS, weights or None)
    layer.adapt(*normals(16, seed=0))
    return layer


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("tone:-1", r"'tone:-1': -1 is not in \[0, 1000\]; give a number up to 1000; 0"),
        ("tone:nan", r"nan is not in \[0, 1000\]"),
        ("tone:inf", r"inf is not in \[0, 1000\]"),
        ("residual:2,tone:1001", r"1001 is not in \[0, 1000\]"),
        ("1,1,1,0", "is not of the form NAME:NUMBER,...; give names and weights, such as"),
        ("tone", "is not of the form"),
        ("tone:none", "is not of the form"),
        ("", "is not of the form"),
        ("tone:0,tone:1", "names tone twice"),
        (0, "cue_weights '0': is not of type str; give one like 'equal'"),
    ],
)
def test_a_wrong_setting_is_one_line(weights, message):
    with pytest.raises(UsageError, match=message) as error:
        methods.settings_of("ganomaly", {"cue_weights": weights})
    assert str(error.value).startswith(f"cue_weights {str(weights)!r}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "given", "terms"),
    [
        ("ganomaly", {}, "residual, features, latent, tone"),
        ("ganomaly_unet", {}, "residual, features, latent, tone"),
        ("egbad", {}, "residual, features, feature, tone"),
        ("anogan", {}, "residual, features, tone"),
        ("vae", {}, "residual, kl, tone"),
        ("ganomaly", {"score": "places"}, "residual, tone"),
        ("ganomaly_unet", {"score": "joint_places"}, "residual, tone"),
    ],
)
def test_another_name_is_answered_by_those_of_the_terms(build_small, method, given, terms):
    with pytest.raises(UsageError, match=f"'pixels' is no term .*; use some of: {terms}$"):
        build_small(method, cue_weights="pixels:2", **given)
    with pytest.raises(UsageError, match=f"turns all terms off; leave on one of: {terms}$"):
        build_small(method, cue_weights=terms.replace(",", ":0,") + ":0", **given)


@pytest.mark.parametrize(("method", "score"), [("dcgan", "critic"), ("ganomaly", "density")])
def test_weights_without_an_effect_are_refused(build_small, method, score):
    with pytest.raises(UsageError, match=f"has no effect on the score {score}; leave it out"):
        build_small(method, cue_weights="tone:0", score=score)


def test_equal_weights_are_the_default_and_those_of_errors_are_relative(new):
    default = cues_of()(*new).numpy()
    np.testing.assert_array_equal(cues_of(1.0, 1.0, 1.0)(*new), default)
    np.testing.assert_allclose(cues_of(3.0, 3.0, 1.0)(*new), default, rtol=1e-4, atol=1e-4)


def test_an_error_that_is_off_changes_nothing(new):
    images, errors = new
    layer = cues_of(1.0, 0.0, 1.0)
    before = layer(images, errors).numpy()
    errors[PLACE][..., 1:] *= 10
    np.testing.assert_array_equal(layer(images, errors), before)
    errors[PLACE][..., 0] *= 10
    assert np.all(np.max(layer(images, errors), axis=(1, 2)) > before.max(axis=(1, 2)))


def test_a_tone_that_is_off_is_not_computed_and_cuts_nothing_off(new, monkeypatch):
    monkeypatch.delattr(Cues, "tone")
    images, errors = new
    layer = cues_of(1.0, 1.0, 0.0)
    expected = layer.texture(layer.relative_errors(errors)) / layer.texture_peak
    np.testing.assert_array_equal(layer(images, errors), expected)
    assert np.min(expected) < 0


def test_without_errors_the_map_is_that_of_the_tone(new):
    images, errors = new
    layer = cues_of(0.0, 0.0, 1.0)
    assert layer.is_adapted
    np.testing.assert_array_equal(layer(images, errors), layer.tone(images) / layer.tone_peak)


def test_the_weight_of_the_tone_is_against_the_errors_together(new):
    images, errors = new
    images[PLACE] -= 0.9
    one, half = cues_of()(images, errors).numpy(), cues_of(1.0, 1.0, 0.5)(images, errors).numpy()
    peaks = one.max(axis=(1, 2))
    assert np.all(peaks > 3)
    np.testing.assert_allclose(half.max(axis=(1, 2)), peaks / 2, rtol=1e-5)


def test_weights_only_for_errors_that_say_nothing_of_places_are_refused():
    images, errors = normals(6, seed=0)
    errors[..., 0] = errors[:, :1, :1, 0]
    with pytest.raises(
        UsageError, match=r"1\.0, 0\.0, 1\.0.*leave only errors that do not vary within"
    ):
        Cues(GROUPS, (1.0, 0.0, 1.0)).adapt(images, errors)
    Cues(GROUPS).adapt(images, errors)


def test_a_layer_of_its_configuration_has_its_weights(new):
    for layer, arguments in ((cues_of(1.0, 0.0, 2.0), new), (places_of(0.0, 2.0), parts_of(new))):
        copy = keras.layers.deserialize(keras.layers.serialize(layer))
        copy.set_weights(layer.get_weights())
        np.testing.assert_array_equal(copy(*arguments), layer(*arguments))


def parts_of(new):
    images, errors = new
    return images, errors[..., :1]


def places_of(*weights):
    layer = Places((48, 48), 1, weights or None)
    layer.adapt(layer.values(*parts_of(normals(16, seed=0))).numpy())
    return layer


def test_a_term_of_places_that_is_off_changes_nothing(new):
    images, residuals = parts_of(new)
    default = places_of()(images, residuals).numpy()
    np.testing.assert_array_equal(places_of(1.0, 1.0)(images, residuals), default)
    without_tone, without_residual = places_of(1.0, 0.0), places_of(0.0, 2.0)
    maps = [layer(images, residuals).numpy() for layer in (without_tone, without_residual)]
    larger = np.maximum(maps[0], maps[1] / 2)
    corners = np.s_[:, ::47, ::47]  # elsewhere the larger of two cells is interpolated
    np.testing.assert_allclose(larger[corners], default[corners], rtol=1e-5)
    assert np.all(larger <= default + 1e-5)
    assert maps[0].min() < 0
    images[PLACE] -= 0.9
    np.testing.assert_array_equal(without_tone(images, residuals), maps[0])
    residuals[PLACE] *= 9
    again = without_residual(images, residuals).numpy()
    assert np.all(again.max(axis=(1, 2)) > maps[1].max(axis=(1, 2)))


@pytest.fixture(scope="module")
def model(build_small, images, know_normal_images):
    """A model of `joint`, whose map has that of `cues` in it, without the tone."""
    model = build_small("ganomaly_unet", cue_weights="tone:0")
    know_normal_images(model, images)
    return model


def test_weights_reach_the_score_and_are_those_of_the_saved_model(model, images, tmp_path):
    assert not np.any(model.cues.steepest_light)  # of the tone
    cues = model.anomaly(images, "cues")["map"].numpy()
    assert cues.min() < 0  # no tone has been compared with it
    model.save(tmp_path / "model.keras")
    loaded = tfgad.load_model(tmp_path / "model.keras")
    assert loaded.cue_weights == "tone:0"
    np.testing.assert_array_equal(loaded(images[:2])["map"], model(images[:2])["map"])


def test_a_model_of_equal_weights_is_saved_as_before(build_small):
    assert "cue_weights" not in build_small("ganomaly").get_config()
    same = build_small("ganomaly", cue_weights="equal", width=4)
    assert "cue_weights" not in same.get_config()


def test_the_metadata_of_an_exported_model_name_them(model):
    assert metadata_of_model(model, (48, 48, 1), resized=False)["cue_weights"] == "tone:0"


@pytest.mark.slow
def test_an_exported_model_scores_by_the_weights(model, images, tmp_path):
    form = {"image_shape": (48, 48, 1), "resized": False, "metadata": {}}
    version = export(model, tmp_path / "exported", **form)
    levels = np.round(127.5 * (images[:2] + 1)).astype("uint8")
    expected = model((levels / 127.5 - 1).astype("float32"))["score"]
    scores = [each["score"] for each in SavedModelPredictor(version).predict_batch(levels)]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
