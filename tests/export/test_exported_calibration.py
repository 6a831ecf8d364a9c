"""The quantiles of the calibration scores that an exported model stores."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.export.saved_model import CALIBRATION, METADATA, export
from tfgad.inference.predictor import SavedModelPredictor
from tfgad.scores.drift import LEVELS, SCORE

EARLIER = ("threshold", "scale", "false_positive_rate", "rates", "thresholds")
BEFORE_BRIGHTNESS = (*EARLIER, "quantiles", "calibration_images", "calibration_groups")


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    """An exported model: its folder, and what TensorFlow loads from it."""
    form = {"image_shape": (48, 48, 1), "resized": False, "metadata": {"method": "ganomaly"}}
    folder = export(fitted("ganomaly"), tmp_path_factory.mktemp("model"), **form)
    return folder, tf.saved_model.load(str(folder))


def test_an_exported_model_gives_them_out(exported, fitted, images):
    folder, loaded = exported
    outputs = loaded.signatures[CALIBRATION]()
    scores = fitted("ganomaly").anomaly(images)["score"].numpy()
    np.testing.assert_allclose(outputs["quantiles"], np.quantile(scores, LEVELS), rtol=1e-4)
    assert float(outputs["calibration_images"]) == len(images)
    assert float(outputs["calibration_groups"]) == 0

    levels = 127.5 * (1 + images.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(
        outputs["brightness_quantiles"], np.quantile(levels, LEVELS), rtol=1e-4
    )

    seen = SavedModelPredictor(folder, loaded).calibration_scores
    np.testing.assert_array_equal(seen.brightness, outputs["brightness_quantiles"])
    np.testing.assert_array_equal(seen.quantiles, outputs["quantiles"])
    assert (seen.images, seen.groups) == (len(images), None)
    assert "quantiles" not in (folder / METADATA).read_text()


def test_an_exported_model_of_before_loads_without_them(exported, monkeypatch):
    folder, loaded = exported
    outputs = loaded.signatures[CALIBRATION]()
    before = {name: outputs[name] for name in EARLIER}
    monkeypatch.setattr(loaded, "signatures", {**loaded.signatures, CALIBRATION: lambda: before})
    predictor = SavedModelPredictor(folder, loaded)
    assert predictor.calibration_scores is None
    assert predictor.threshold == float(outputs["threshold"])


def test_an_exported_model_of_before_the_brightness_has_its_scores_tested(exported, monkeypatch):
    folder, loaded = exported
    outputs = loaded.signatures[CALIBRATION]()
    before = {name: outputs[name] for name in BEFORE_BRIGHTNESS}
    monkeypatch.setattr(loaded, "signatures", {**loaded.signatures, CALIBRATION: lambda: before})
    assert SavedModelPredictor(folder, loaded).calibration_scores.tested() == (SCORE,)
