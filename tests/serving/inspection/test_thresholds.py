"""Thresholds at other false-positive rates, and the verdicts there."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfgad import training
from tfgad.inference.scoring import Verdict
from tfgad.serving.inspection.thresholds import at_threshold, thresholds_of


def test_probability_and_map_follow_the_threshold():
    image = np.zeros((2, 2, 1), "float32")
    forms = {"image": image, "map": image[..., 0], "path": Path("a.png")}
    numbers = {"score": 3.0, "probability": 0.1, "is_anomalous": False}
    metadata = {"scale": 0.5}
    verdict = at_threshold(Verdict(**forms, **numbers, map_threshold=9.0, scale=0.5), 2.0, metadata)
    assert verdict.probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert verdict.is_anomalous
    assert verdict.map_threshold == 2.0
    verdict = Verdict(**forms, **numbers, map_threshold=None, scale=0.5)
    assert at_threshold(verdict, 2.0, metadata).map_threshold is None
    of_few = {**metadata, "largest_probability": 0.8}
    assert at_threshold(verdict, 2.0, of_few).probability == pytest.approx(0.8)
    assert at_threshold(verdict, 9.0, of_few).probability == pytest.approx(0.2)


@pytest.fixture(scope="module")
def model(fitted, tmp_path_factory):
    """A copy of the exported model that may be calibrated again."""
    path = tmp_path_factory.mktemp("copy") / "model.keras"
    fitted("ganomaly").save(path)
    return training.load_model(path)


@pytest.mark.parametrize("rate", [0.0001, 0.0125, 0.1, 0.2])
def test_exported_thresholds_equal_those_of_calibration_at_their_rate(
    model, images, predictor, rate
):
    model.calibrate(tf.data.Dataset.from_tensor_slices(images), rate)
    assert thresholds_of(predictor.metadata)[rate] == float(model.calibration.threshold)


def test_the_models_own_rate_is_included_in_order():
    metadata = {"false_positive_rate": 0.03, "threshold": 2.5}
    known = {**metadata, "thresholds": [[0.01, 3.0], [0.2, 1.0]]}
    assert list(thresholds_of(known).items()) == [(0.01, 3.0), (0.03, 2.5), (0.2, 1.0)]


def test_an_older_model_has_no_other_thresholds():
    assert thresholds_of({"false_positive_rate": 0.03, "threshold": 2.5}) == {}
