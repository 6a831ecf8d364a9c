"""Models saved before methods had a `Config`: `saved_before/` holds a small one of each kind.

They were fitted to twelve images of noise, and scored the first two of them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfgad

FOLDER = Path(__file__).parent / "saved_before"
SAVED = json.loads((FOLDER / "scores.json").read_text())


@pytest.fixture(scope="module")
def noise():
    noise = np.random.default_rng(0).normal(0, 0.3, (12, 24, 24, 1))
    return noise.clip(-1, 1).astype("float32")


@pytest.mark.slow
@pytest.mark.parametrize("method", SAVED)
def test_a_model_of_before_scores_as_it_did(method, noise, tmp_path):
    model = tfgad.load_model(FOLDER / f"{method}.keras")
    expected = SAVED[method]
    assert int(model.step) == expected["step"]
    assert float(model.calibration.threshold) == pytest.approx(expected["threshold"], rel=1e-6)
    for score, values in expected["scores"].items():
        # Other processors sum in another order.
        np.testing.assert_allclose(model.anomaly(noise[:2], score)["score"], values, rtol=1e-3)

    model.save(tmp_path / "again.keras")
    again = tfgad.load_model(tmp_path / "again.keras")
    ours, theirs = (each.anomaly(noise[:2])["score"] for each in (model, again))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("method", ["fanogan", "cgan"])
def test_a_model_of_before_is_trained_on(method, noise):
    model = tfgad.load_model(FOLDER / f"{method}.keras")
    before = [weights.numpy() for weights in model.weights_of(model.roles[0])]
    assert model.stage == model.stages[0]  # files of before do not hold it
    batch = tf.constant(noise[:4])
    model.train_step((batch, tf.constant([0, 1, 0, 1])) if model.labelled else batch)
    after = model.weights_of(model.roles[0])
    assert any(np.any(a.numpy() != b) for a, b in zip(after, before, strict=True))
    assert int(model.step) == SAVED[method]["step"] + 1
