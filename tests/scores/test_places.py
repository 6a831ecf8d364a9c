"""Errors and tones compared with those of good parts at the same place."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad import training
from tfgad.errors import UsageError
from tfgad.scores.places import Places
from tfgad.training import loop

SIZE = 64


def parts(count, seed):
    """Images of a part with a bright left half, and residuals that are large at its edge."""
    rng = np.random.default_rng(seed)
    images = np.where(np.arange(SIZE) < SIZE // 2, 0.5, -0.3) + rng.normal(0, 0.02, (count, 1, 1))
    images = np.broadcast_to(images, (count, SIZE, SIZE)) + rng.normal(0, 0.1, (count, SIZE, SIZE))
    scale = np.where(np.abs(np.arange(SIZE) - SIZE // 2) < 4, 0.1, 0.001)
    residuals = scale * rng.gamma(2, 1, (count, SIZE, SIZE))
    return images[..., None].astype("float32"), residuals[..., None].astype("float32")


@pytest.fixture(scope="module")
def places():
    layer = Places((SIZE, SIZE), 1)
    layer.adapt(layer.values(*parts(40, 0)).numpy())
    return layer


def test_nine_of_ten_good_parts_stay_below_1(places):
    for name, seed, low, high in (("same", 0, 0.75, 0.95), ("new", 1, 0.6, 1.0)):
        below = places(*parts(40, seed)).numpy().max(axis=(1, 2)) < 1
        assert low <= below.mean() <= high, name


def test_an_edge_that_always_reconstructs_badly_is_no_finding(places):
    images, residuals = parts(40, 2)
    maps = places.parts(places.values(images, residuals)).numpy()[..., 0]
    edge = maps[:, :, SIZE // 8 - 1 : SIZE // 8 + 1]
    assert abs(edge.mean() - maps.mean()) < 1
    residuals[:, 8:16, 8:16] = 0.05  # half of the edge's, where errors are a fiftieth
    scored = places(images, residuals).numpy()
    assert np.all(scored.max(axis=(1, 2)) > 1)
    row, column = np.unravel_index(np.argmax(scored.mean(0)), (SIZE, SIZE))
    assert 6 <= row <= 17
    assert 6 <= column <= 17


def test_a_shade_is_found_by_its_tone_and_the_usual_one_is_not(places):
    images, residuals = parts(40, 3)
    usual = places.parts(places.values(images, residuals)).numpy()[..., 1]
    lighter = places.parts(places.values(images + 0.3, residuals)).numpy()[..., 1]
    np.testing.assert_allclose(lighter, usual, atol=1e-3)  # the median takes it off
    images[:, 40:, 40:] += 0.3
    shaded = places(images, residuals).numpy()
    assert np.all(shaded.max(axis=(1, 2)) > 1)
    assert np.argmax(shaded.mean(0)) // SIZE >= 32


@pytest.mark.parametrize(("count", "problem"), [(1, "are too few"), (3, "are all alike")])
def test_images_that_say_nothing_of_variation_are_refused(count, problem):
    layer = Places((SIZE, SIZE), 1)
    assert not layer.is_adapted
    values = np.repeat(layer.values(*parts(1, 0)).numpy(), count, axis=0)
    with pytest.raises(UsageError, match=f"normal images '{count}': {problem}"):
        layer.adapt(values)


def test_two_parts_that_are_nearly_copies_have_finite_statistics():
    layer, values = Places((SIZE, SIZE), 1), Places((SIZE, SIZE), 1).values(*parts(1, 0)).numpy()
    layer.adapt(np.concatenate([values, values + 1e-6]))
    assert layer.is_adapted
    assert np.all(np.isfinite(layer(*parts(2, 1))))


def test_a_layer_of_its_configuration_takes_its_weights(places):
    copy = keras.layers.deserialize(keras.layers.serialize(places))
    copy.set_weights(places.get_weights())
    np.testing.assert_array_equal(copy(*parts(2, 4)), places(*parts(2, 4)))


def test_a_model_must_be_built_with_it(build_small, images):
    model = build_small("ganomaly")
    model.adapt(images)
    with pytest.raises(UsageError, match=r"not adapted.*built with score=places"):
        model.anomaly(images, "places")


def test_a_run_on_resized_images_scores_by_it(tmp_path, write_parts):
    spec = f"folder:{write_parts()}?size=48"
    small = {"steps": "2", "width": "4", "latent_dim": "4", "batch_size": "4"}
    run = training.train("ganomaly", spec, tmp_path / "run", settings=small)
    assert run.model.score == run.config["score"] == "places"
    assert run.config["settings"]["score"] == "auto"
    again = training.train("ganomaly", spec, tmp_path / "run", settings=small, resume=True)
    assert again.model.score == "places"
    images = np.random.default_rng(0).uniform(-1, 1, (2, 48, 48, 1)).astype("float32")
    np.testing.assert_array_equal(run.model(images)["map"], again.model(images)["map"])
    larger = run.model.anomaly(np.concatenate([images, images], axis=2))
    assert larger["map"].shape == (2, 48, 96)
    asked = training.train(
        "ganomaly", spec, tmp_path / "other", settings={**small, "score": "cues"}
    )
    assert asked.model.score == "cues"


def test_a_resumed_run_keeps_the_score_that_it_was_started_with(tmp_path, write_parts, monkeypatch):
    """The default of before: its file has the statistics of that."""
    arguments = "ganomaly", f"folder:{write_parts()}?size=48", tmp_path / "run"
    small = {"steps": "1", "width": "4", "latent_dim": "4", "batch_size": "4"}
    with monkeypatch.context() as before:
        before.setattr(loop, "default_score", lambda _: "cues")
        training.train(*arguments, settings=small)
    run = training.train(*arguments, settings={**small, "steps": "2"}, resume=True)
    assert run.model.score == run.config["score"] == "cues"


@pytest.mark.slow
def test_with_a_unet_beside_it_the_marks_are_added(tmp_path, write_parts):
    small = {"steps": "1+1", "width": "4", "unet_width": "2", "latent_dim": "4", "batch_size": "4"}
    spec = f"folder:{write_parts()}?size=48"
    run = training.train("ganomaly_unet", spec, tmp_path / "run", settings=small)
    assert run.model.score == run.config["score"] == "joint_places"
    assert run.config["settings"]["score"] == "auto"


@pytest.fixture
def write_parts(tmp_path):
    """A function that writes twelve good images of a part, and returns their folder."""

    def write():
        folder = tmp_path / "parts" / "train" / "good"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for number in range(12):
            pixels = rng.integers(0, 256, (60, 52, 1)).astype("uint8")
            tf.io.write_file(str(folder / f"{number}.png"), tf.io.encode_png(pixels))
        return tmp_path / "parts"

    return write


def test_tfgad_lists_it_among_the_scores():
    with pytest.raises(UsageError, match="places"):
        tfgad.build("ganomaly", (64, 64, 1), score="place")
