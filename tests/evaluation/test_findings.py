"""What an evaluation says of its figures: baselines, false alarms, kinds, mistakes, table."""

import csv
import io

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data.anomaly_data import TILE, AnomalyData
from tfgad.evaluation import advice, best_baseline, false_alarms, gallery
from tfgad.evaluation.by_kind import by_kind
from tfgad.evaluation.predictions import TestPredictions
from tfgad.evaluation.scores_table import scores_table
from tfgad.evaluation.units import Units, units_of

THRESHOLD = 10.0
NONE = tf.data.Dataset.from_tensor_slices(np.zeros((0, 4, 4, 1), np.float32))


def units(labels, scores, groups=None, name="image"):
    labels = np.asarray(labels, bool)
    groups = np.arange(labels.size) if groups is None else np.asarray(groups)
    kinds = np.where(labels, "hole", "good")
    return Units(name, labels, np.asarray(scores, float), ~labels & False, groups, kinds)


# Beside the trivial detectors


def normal_and_shifted(shift, count=200, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count)
    return labels, rng.normal(size=2 * count) + shift * labels


def test_a_model_that_is_worse_than_the_best_is_called_worse():
    labels, scores = normal_and_shifted(0.2)
    strong, weak = normal_and_shifted(2, seed=1)[1], normal_and_shifted(1, seed=2)[1]
    found = best_baseline.beside_the_best(
        units(labels, scores), {"mean_deviation": weak, "patch_pca": strong}
    )
    assert (found["name"], found["verdict"]) == ("patch_pca", best_baseline.WORSE)
    low, high = found["difference_ci"]
    assert low < found["difference"] < high < 0
    line = best_baseline.sentence(found, "tile")
    assert line.startswith("worse than PCA of patches: tile AUROC 0.5")
    assert f"against {found['image_auroc']:.3f} (difference {low:+.3f} to {high:+.3f})" in line


def test_the_bootstrap_is_paired():
    """Two detectors that err alike differ by little; unpaired, their intervals would overlap."""
    labels, scores = normal_and_shifted(1)
    near = scores - 0.15 * labels
    found = best_baseline.beside_the_best(units(labels, near), {"patch_pca": scores})
    assert found["verdict"] == best_baseline.WORSE
    assert found["difference_ci"][1] - found["difference_ci"][0] < 0.02


def test_a_difference_that_may_be_chance_is_called_so():
    labels, scores = normal_and_shifted(1, count=20)
    other = normal_and_shifted(1, count=20, seed=3)[1]
    found = best_baseline.beside_the_best(units(labels, scores), {"patch_pca": other})
    assert found["verdict"] == best_baseline.UNDECIDED
    assert best_baseline.sentence(found, "image").endswith(", which may be chance)")
    alike = best_baseline.beside_the_best(units(labels, scores), {"patch_pca": scores})
    assert alike["difference_ci"] == [0, 0]
    assert best_baseline.sentence(alike, "image").startswith("no better than PCA of patches")


def test_groups_are_drawn_whole():
    labels, scores = normal_and_shifted(1)
    other = normal_and_shifted(0.7, seed=4)[1]
    single = best_baseline.beside_the_best(units(labels, scores), {"patch_pca": other})
    twice = units(*(np.tile(each, 2) for each in (labels, scores)), np.tile(np.arange(400), 2))
    double = best_baseline.beside_the_best(twice, {"patch_pca": np.tile(other, 2)})
    assert double["difference_ci"] == pytest.approx(single["difference_ci"], abs=1e-9)


def test_one_class_or_no_rival_compares_nothing():
    assert best_baseline.beside_the_best(units([0, 0], [1, 2]), {"patch_pca": np.ones(2)}) is None
    assert best_baseline.beside_the_best(units([0, 1], [1, 2]), {}) is None


def test_uneven_light_and_small_defects_are_named():
    masks = np.zeros((3, 8, 8, 1))
    masks[1, :2, :2] = masks[2, :2, :3] = 1
    data = AnomalyData("x", (8, 8, 1), NONE, NONE, NONE, 0, 0, 0, True, resized=True)
    assert advice._of_size(data, "patch_pca", masks) == [
        "size=16, if the files are larger (half of the defects cover at most 5 of 64 pixels), "
        "or tile=8, if it is a texture"
    ]
    figures = {name: {"image_auroc": a} for name, a in [("mean_deviation", 0.5), ("other", 0.7)]}
    assert advice._of_light(figures, "other") == []
    figures["mean_deviation_levelled"] = {"image_auroc": 0.66}
    (line,) = advice._of_light(figures, "mean_deviation_levelled")
    assert "has 0.660 instead of 0.500" in line


# False alarms


@pytest.mark.parametrize(
    ("alarms", "asked", "verdict", "start"),
    [
        (33, 0.01, "more", "more false alarms than asked for: asked 0.01, found 0.33 [0.2"),
        (0, 0.1, "fewer", "fewer false alarms than asked for: asked 0.1, found 0 [0, 0.036]"),
        (2, 0.01, "as asked", "false alarms: asked 0.01, found 0.02 [0.0"),
    ],
)
def test_the_rate_found_stands_beside_the_one_asked_for(alarms, asked, verdict, start):
    scores = np.where(np.arange(100) < alarms, THRESHOLD + 1, np.arange(100) / 100)
    found = false_alarms.rate_found(scores, np.zeros(100, bool), None, THRESHOLD, asked)
    assert (found["verdict"], found["normal"], found["groups"]) == (verdict, 100, 100)
    line = false_alarms.sentence({"image": found}, asked, "image")
    assert line.startswith(start)
    assert line.endswith("of 100 good images")


def test_the_interval_of_false_alarms_counts_groups():
    scores = np.repeat([0.0, 0.1, 0.2, THRESHOLD + 1], 25)
    alone = false_alarms.rate_found(scores, scores < 0, None, THRESHOLD, 0.01)
    groups = np.repeat(np.arange(4), 25)
    grouped = false_alarms.rate_found(scores, scores < 0, groups, THRESHOLD, 0.01)
    assert alone["verdict"] == "more"
    assert grouped["verdict"] == "as asked"
    line = false_alarms.sentence({"tile": grouped, "image": alone}, 0.01, "tile")
    assert "of 100 good tiles in 4 groups; 0.25 [" in line
    assert line.endswith("of 100 good whole images")


def test_images_unlike_any_good_one_are_false_alarms():
    outside = np.arange(10) < 3
    found = false_alarms.rate_found(np.zeros(10), outside, None, THRESHOLD, 0.01)
    assert found["false_positive_rate"] == 0.3


def test_without_good_images_nothing_is_known_of_false_alarms():
    found = false_alarms.rate_found(np.zeros(0), np.zeros(0, bool), None, THRESHOLD, 0.01)
    assert found["verdict"] is None
    line = false_alarms.sentence({"image": found}, 0.01, "image")
    assert line == "false alarms: unknown, for there is no good image"


# Kinds, mistakes, table


def tiles_of(rows, has_masks=True, reasons=None):
    """A data set of tiles and predictions for it, of rows (name of a tile, label, score)."""
    names, labels, scores = zip(*rows, strict=True)
    count = len(names)
    masks = np.zeros((count, 4, 4, 1), np.uint8)
    masks[np.array(labels) == 1, 0, 0] = 1
    data = AnomalyData(
        "x", (4, 4, 1), NONE, NONE, NONE, 0, 0, count, has_masks, kinds=("hole", "cut"), unit=TILE
    )
    predictions = TestPredictions(
        images=np.zeros((count, 4, 4, 1), np.float32),
        masks=masks,
        labels=np.array(labels, np.int32),
        names=list(names),
        scores=np.array(scores, np.float32),
        maps=np.zeros((count, 4, 4), np.float32),
        reasons=reasons or [""] * count,
        images_of=data.images_of(names),
    )
    return data, predictions


ROWS = [
    ("good/0.png/x0_y0", 0, 1.0),
    ("good/0.png/x4_y0", 0, 11.0),
    ("hole/1.png/x0_y0", 0, 2.0),
    ("hole/1.png/x4_y0", 1, 12.0),
    ("hole/2.png/x0_y0", 1, 3.0),
    ("hole/2.png/x4_y0", 1, 4.0),
    ("cut/3.png/x0_y4", 1, 20.0),
]


def test_kinds_are_counted_by_image_and_by_tile():
    data, predictions = tiles_of(ROWS)
    counted = units_of(predictions, data)
    assert counted["image"].kinds.tolist() == ["cut", "good", "hole", "hole"]
    assert counted["image"].scores.tolist() == [20, 11, 12, 4]
    assert counted["tile"].kinds.tolist() == ["good"] * 3 + ["hole"] * 3 + ["cut"]
    figures = by_kind(counted.values(), THRESHOLD)
    assert figures["hole"] == {
        "tiles": 3,
        "tile_auroc": pytest.approx(7 / 9),
        "tile_recall": pytest.approx(1 / 3),
        "images": 2,
        "image_auroc": 0.5,
        "image_recall": 0.5,
    }
    assert figures["cut"]["image_recall"] == figures["cut"]["tile_auroc"] == 1


def test_the_table_has_a_row_for_each_tile_with_its_place():
    reasons = ["too dark", *[""] * 6]
    data, predictions = tiles_of(ROWS, reasons=reasons)
    predictions.maps[3, 1:3, 2:] = 12
    predictions.maps[3, 0, 0] = 11
    text = scores_table(predictions, data, THRESHOLD, THRESHOLD)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["regions"] for row in rows] == ["0", "0", "0", "2", "0", "0", "0"]
    assert [rows[3][f"region_{key}"] for key in ("x", "y", "width", "height")] == list("2122")
    assert not rows[0]["region_x"]
    unknown = scores_table(predictions, data, THRESHOLD, None)
    assert {row["regions"] for row in csv.DictReader(io.StringIO(unknown))} == {""}
    assert [row["image"] for row in rows[:3]] == ["good/0.png", "good/0.png", "hole/1.png"]
    assert [rows[-1][key] for key in ("x", "y", "width", "height")] == ["0", "4", "4", "4"]
    assert [row["verdict"] for row in rows] == [
        *("defective", "defective", "good"),
        *("defective", "good", "good", "defective"),
    ]
    assert [row["label"] for row in rows[1:4]] == ["good", "good", "defective"]
    assert [row["kind"] for row in rows[1:4]] == ["good", "good", "hole"]
    assert rows[0]["reason"] == "too dark"
    assert float(rows[1]["score"]) == 11


def test_the_worst_mistakes_are_the_highest_good_and_the_lowest_missed():
    data, predictions = tiles_of(ROWS)
    counted = units_of(predictions, data)
    alarms, missed = gallery.worst(predictions, data, counted["tile"], THRESHOLD)
    assert (alarms.tolist(), missed.tolist()) == ([1], [4, 5])
    # Of an image that is missed as a whole, its worst tile.
    alarms, missed = gallery.worst(predictions, data, counted["image"], THRESHOLD)
    assert (alarms.tolist(), missed.tolist()) == ([1], [5])
    assert gallery.gallery(predictions, data, counted["tile"], THRESHOLD) is not None
    data, predictions = tiles_of(ROWS[:1] + ROWS[-1:])
    counted = units_of(predictions, data)
    assert gallery.gallery(predictions, data, counted["tile"], THRESHOLD) is None


def test_kinds_come_from_folders_or_from_the_data_set():
    data, _ = tiles_of(ROWS)
    assert data.kind_of("test/hole/1.png/x0_y0") == "hole"
    assert data.kind_of("elsewhere/1.png/x0_y0") == "anomalous"
