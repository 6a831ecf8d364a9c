"""The models that come with the repository: complete, small, and what their cards say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import tensorflow as tf

from tfgad.data.pixels import to_uint8
from tfgad.export import warmup
from tfgad.inference.predictor import SavedModelPredictor
from tfgad.multistage.painter_export import METADATA

FOLDER = Path(__file__).parents[1] / "saved_models"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
PAINTER = "weaves_painter"
MOST_BYTES = 12 * 2**20  # 9 MB of weights; the graph decodes files and scores block by block
MOST_TOGETHER = 40_000_000  # bytes that everyone clones


@pytest.fixture(scope="module")
def tiles():
    """Test tiles of each weave by name, with their labels: half of them are good."""
    return {
        weave: [
            (row["image"], int(row["label"]))
            for row in tfgad.load(f"weave:{weave}?test=24&train=2&calibration=2").test.take(24)
        ]
        for weave in ("twill", "satin")
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_a_card_and_is_small(name):
    assert (FOLDER / name / "1" / "saved_model.pb").is_file()
    assert (FOLDER / name / "1" / warmup.FILE).is_file()
    card = (FOLDER / name / "README.md").read_text()
    command = "tfgad synthesize export" if name == PAINTER else "tfgad export"
    assert f"{command} runs/{name} saved_models/{name}" in card
    assert "library_name: keras" in card
    assert "## Limits" in card
    assert size_of(FOLDER / name) < MOST_BYTES


def test_all_together_are_small():
    assert len(NAMES) >= 8
    assert size_of(FOLDER) < MOST_TOGETHER


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_all_are_named_to_tf_serving_and_in_the_table():
    config = (FOLDER / "models.config").read_text()
    assert sorted(re.findall(r'name: "(\w+)"', config)) == NAMES
    assert sorted(re.findall(r"\]\((\w+)/README.md\)", (FOLDER / "README.md").read_text())) == NAMES


def test_the_painter_paints_most_kinds_on_a_fabric_it_has_not_seen(tiles):
    paint = tf.saved_model.load(str(FOLDER / PAINTER / "1")).signatures["paint"]
    metadata = json.loads((FOLDER / PAINTER / "1" / METADATA).read_text())
    good = to_uint8(np.stack([np.asarray(image) for image, label in tiles["twill"] if not label]))
    kinds = metadata["kinds"][: len(good)]
    images = good[: len(kinds)]
    seeds = tf.range(len(kinds), dtype=tf.int64)
    painted = paint(images=tf.constant(images), kind=tf.constant(kinds), seed=seeds)
    assert np.mean(painted["area"] > 0) > 0.7
    changed = np.abs(painted["images"].numpy().astype(int) - images)
    masks = painted["masks"].numpy() > 0
    assert changed[masks].mean() > 4 * changed[~masks].mean()


@pytest.mark.parametrize("name", [name for name in NAMES if name != PAINTER])
def test_a_model_scores_what_it_was_made_for(name, tiles):
    model = SavedModelPredictor(FOLDER / name / "1")
    data, of = name.split("_")[:2]
    if data == "mnist":
        noise = np.random.default_rng(0).uniform(-1, 1, (28, 28, 1)).astype("float32")
        prediction = model(noise)
        assert prediction["is_anomalous"]
        assert prediction["map"].shape == (28, 28)
        return
    scores = [(float(model(np.asarray(image))["score"]), label) for image, label in tiles[of]]
    good, defective = ([score for score, label in scores if label == kind] for kind in (0, 1))
    assert np.mean([each <= model.threshold for each in good]) > 0.8
    assert np.median(defective) > max(np.median(good), np.quantile(good, 0.9))
