"""Thresholds per tile and per image, with the groups that the scores come from."""

import keras
import numpy as np
import pytest

from tfgad.data.origins import Origins, joined
from tfgad.errors import UsageError
from tfgad.scores.calibration import Calibration, largest_of_images, logistic_scale
from tfgad.scores.thresholds import threshold_from_normals, thresholds_from_normals


def scores_of(images, tiles=6):
    """Scores of tiles in a mixed order, and their origins: two images a roll."""
    rng = np.random.default_rng(0)
    image = rng.permutation(np.repeat(np.arange(images), tiles))
    scores = rng.normal(size=images * tiles).astype(np.float32)
    return scores, Origins(image // 2, np.array([f"{i}.png" for i in image]), "roll")


def test_an_image_has_the_largest_score_of_its_tiles():
    scores = np.array([3.0, 1, 7, 2, 5])
    origins = Origins(np.array([0, 1, 0, 1, 2]), np.array(["b", "a", "b", "a", "c"]))
    largest, of_images = largest_of_images(scores, origins)
    assert largest.tolist() == [2, 7, 5]
    assert of_images.groups.tolist() == [1, 0, 2]
    assert of_images.images is None
    whole = Origins(np.arange(5))
    assert largest_of_images(scores, whole) == (pytest.approx(scores), whole)


def test_per_image_the_rate_is_a_share_of_images():
    scores, origins = scores_of(200)
    layer = Calibration()
    threshold = layer.fit(scores, 0.1, origins, "image")
    largest, _ = largest_of_images(scores, origins)
    assert threshold.n == 200
    assert threshold.value == threshold_from_normals(largest, 0.1).value
    assert np.sum(largest > threshold.value) == 19  # the 20th largest is the threshold
    assert (threshold.interval.images, threshold.interval.groups) == (200, 100)
    assert layer.per == "image"
    assert layer.scale.numpy() == pytest.approx(logistic_scale(largest))  # not of tiles
    expected = thresholds_from_normals(largest).astype(np.float32)
    np.testing.assert_array_equal(list(layer.known_thresholds.values()), expected)


def test_per_tile_groups_change_the_interval_and_not_the_threshold():
    scores, origins = scores_of(200)
    layer = Calibration()
    threshold = layer.fit(scores, 0.1, origins)
    alone = Calibration().fit(scores, 0.1)
    assert (threshold.value, threshold.n) == (alone.value, 1200)
    assert (threshold.interval.groups, alone.interval.groups) == (100, 1200)
    assert threshold.interval.high > alone.interval.high
    assert layer.per == "tile"


def test_wrong_arguments_are_named():
    scores, origins = scores_of(4)
    with pytest.raises(UsageError, match="neither tile nor image"):
        Calibration().fit(scores, 0.1, origins, "strip")
    with pytest.raises(UsageError, match="one for each of 23 images"):
        Calibration().fit(scores[1:], 0.1, origins)
    with pytest.raises(UsageError, match="one for each of 3 images"):
        Calibration().fit(scores[:3], 0.1, Origins(np.arange(3), np.arange(2)))


def test_per_image_is_saved_and_older_files_have_it_per_tile(tmp_path, monkeypatch):
    def saved(path):
        inputs = keras.Input((), dtype="float32")
        model = keras.Model(inputs, Calibration()(inputs))
        model.layers[-1].fit(*scores_of(20)[:1], 0.1, scores_of(20)[1], "image")
        model.save(path)
        return keras.saving.load_model(path).layers[-1]

    assert saved(tmp_path / "new.keras").per == "image"

    def save_first_five_weights(layer, store):
        for index, weight in enumerate(layer.weights[:5]):
            store[str(index)] = weight

    monkeypatch.setattr(Calibration, "save_own_variables", save_first_five_weights)
    older = saved(tmp_path / "old.keras")
    assert older.is_calibrated
    assert older.known_thresholds
    assert older.per == "tile"


def test_origins_of_streams_one_after_another():
    first, second = Origins(np.array(["a"]), np.array(["1"]), "strip"), Origins(np.array(["b"]))
    both = joined([first, first])
    assert (both.groups.tolist(), both.images.tolist(), both.kind) == (
        ["a"] * 2,
        ["1"] * 2,
        "strip",
    )
    assert joined([first, second]).images is None
    assert joined([first, None]) is None
    assert joined([None, None]) is None
    assert first.at([0, 0]).images.tolist() == ["1", "1"]
