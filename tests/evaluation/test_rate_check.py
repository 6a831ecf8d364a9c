"""The check of a model on good images: false alarms, drift, image quality."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data.anomaly_data import IMAGE, TILE, AnomalyData
from tfgad.data.origins import Origins
from tfgad.evaluation.rate_check import GoodScores, check_rate, score_good_images
from tfgad.scores.drift import CalibrationScores

RNG = np.random.default_rng(0)
CALIBRATION = CalibrationScores.of(RNG.normal(size=300), brightness=RNG.normal(100, 5, 300))


def good(scores, groups=None, unit=IMAGE, reasons=None, lamp=1.0):
    names = np.array([str(i) for i in range(len(scores))])
    groups = names if groups is None else np.asarray(groups).astype(str)
    reasons = np.array([""] * len(scores) if reasons is None else reasons, str)
    images = names if unit == IMAGE else groups
    levels = lamp * np.random.default_rng(9).normal(100, 5, len(scores))
    return GoodScores(np.asarray(scores, float), reasons, images, groups, levels, unit)


def normal(count=100, seed=1):
    return np.random.default_rng(seed).normal(size=count)


def check(found, per=IMAGE, calibration=CALIBRATION):
    return check_rate(found, 3.0, 0.01, per, calibration)


def test_images_like_those_of_calibration_pass():
    found = check(good(normal()))
    assert (found["failed"], found["images"], found["reasons"]) == ([], 100, {})
    assert [line.partition(":")[0] for line in found["findings"]] == [
        *("false alarms", "drift", "image quality")
    ]
    assert "drift: none seen in 100 images" in found["findings"][1]


def test_more_false_alarms_fail_it():
    scores = normal()
    scores[:6] = 4
    found = check(good(scores))
    assert found["failed"] == ["false alarms"]
    assert found["false_alarms"]["interval"][0] > 0.01


def test_drift_fails_it_and_says_what_to_do():
    found = check(good(normal() - 1))
    assert found["failed"] == ["drift"]
    assert "of these 100 images are lower than in calibration (p < 0.0005)" in found["findings"][1]


def test_a_dimmed_lamp_fails_it_whatever_the_scores():
    found = check(good(normal(), lamp=0.8))
    assert found["failed"] == ["drift"]
    assert found["findings"][1] == (
        "drift: these 100 images are darker than in calibration (p < 0.0005): unless more than 5% "
        "are defective, check light, focus and exposure, then calibrate again"
    )
    assert found["drift"]["brightness"]["p"] < 0.0005 < found["drift"]["score"]["p"]
    assert check(good(normal(), lamp=0.96))["failed"] == []
    of_before = CalibrationScores.of(RNG.normal(size=300))
    found = check(good(normal(), lamp=0.8), calibration=of_before)
    assert (found["failed"], found["drift"]["brightness"]["p"]) == ([], None)
    assert "no drift test of the brightness: the model keeps none of" in found["findings"][1]


def test_a_blind_camera_fails_it():
    found = check(good(normal(), reasons=["too dark", "too dark", "out of focus", *[""] * 97]))
    assert found["failed"] == ["image quality"]
    assert found["false_alarms"]["false_positive_rate"] == 0.03
    line = "3 of 100 images are unlike any good one: 2 too dark, 1 out of focus"
    assert found["findings"][2] == f"image quality: {line}"


def test_few_images_are_not_tested_for_drift():
    found = check(good(normal(20) - 5))
    assert found["drift"]["score"]["p"] is found["drift"]["brightness"]["p"] is None
    assert found["findings"][1] == "no drift test: there are 20 images, and it needs 25"
    assert "calibrate it again" in check(good(normal()), calibration=None)["findings"][1]


def test_drift_counts_groups_and_not_tiles():
    """A few images whose tiles are alike are no drift; as many images as tiles would be."""
    shifts = np.repeat([1.0, 1.2, 0.8], 40)
    tiles = good(normal(120, seed=2) + shifts, np.repeat([0, 1, 2], 40), TILE)
    assert check(good(tiles.scores))["failed"] == ["drift"]
    found = check(tiles, per=TILE)
    untested = {"mean_rank": None, "p": None}
    assert found["drift"] == {"compared": 3, "score": untested, "brightness": untested}
    many = good(normal(120) - 2, np.repeat(np.arange(30), 4), TILE)
    assert check(many, per=TILE)["drift"]["compared"] == 30
    assert "of these 30 groups of images are lower" in check(many, per=TILE)["findings"][1]
    no_shift = good(normal(120), np.repeat(np.arange(30), 4), TILE)
    assert check(no_shift, per=TILE)["failed"] == []


def test_a_rate_per_image_counts_images_of_tiles():
    scores = np.zeros(120)
    scores[::10] = 5  # in 12 of 60 images
    found = check(good(scores, np.repeat(np.arange(60), 2), TILE))
    assert found["false_alarms"]["normal"] == found["images"] == 60
    assert found["false_alarms"]["false_positive_rate"] == 0.2


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="scores"):
        check(good([0.0, np.nan]))


def test_tiles_of_defective_images_are_left_out():
    images = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1) * np.ones((1, 4, 4, 1), np.float32)
    names = [f"{kind}.png/x{x}_y0" for kind in ("good", "hole", "other") for x in (0, 4)]
    test = {
        "image": images[2:],
        "label": np.array([0, 0, 0, 1, 0, 0]),
        "mask": np.zeros((6, 4, 4, 1), np.uint8),
        "name": names,
    }
    slices = tf.data.Dataset.from_tensor_slices
    data = AnomalyData(
        "x", (4, 4, 1), slices(images[:0]), slices(images[:2]), slices(test), 0, 2, 6, True,
        unit=TILE, test_groups={"good.png": "roll", "other.png": "roll"},
        calibration_origins=Origins.of_images(["held.png", "held.png"]),
    )  # fmt: skip
    seen = []
    found = score_good_images(
        lambda batch, products: (batch[:, 0, 0, 0], [""] * len(batch), 10 * batch[:, 0, 0, 0]),
        data,
        lambda name, done, total: seen.append((done, total)),
    )
    assert found.scores.tolist() == [0, 1, 2, 3, 6, 7]
    assert found.images.tolist() == ["held.png"] * 2 + ["good.png"] * 2 + ["other.png"] * 2
    assert found.groups.tolist() == ["held.png"] * 2 + ["roll"] * 4
    assert found.brightness.tolist() == [0, 10, 20, 30, 60, 70]
    assert found.defective == 1
    assert seen == [(2, 8), (8, 8)]
