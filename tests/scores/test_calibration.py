"""Calibration: probabilities, and the layer that stores threshold and scale."""

import keras
import numpy as np
import pytest
from scipy import stats

from tfgad.data.origins import Origins
from tfgad.errors import UsageError
from tfgad.scores import calibration
from tfgad.scores.calibration import RATES


def test_probability_is_half_at_the_threshold_and_monotonic():
    scores = np.linspace(-1e6, 1e6, 1001)
    values = calibration.probability(scores, threshold=scores[600], scale=2000.0)
    assert values[600] == 0.5
    assert np.all(np.diff(values) >= 0)
    assert 0 <= values[0] < 1e-200
    assert values[-1] == 1


def test_logistic_scale_of_logistic_and_of_equal_scores():
    scores = stats.logistic(scale=3).rvs(20_000, random_state=0)
    assert calibration.logistic_scale(scores) == pytest.approx(3, rel=0.03)
    assert calibration.logistic_scale(np.array([0, 0, 0, 0, 10.0])) == 4.0
    assert calibration.logistic_scale(np.ones(5)) == 1.0


def test_layer_agrees_with_the_functions():
    scores = np.random.default_rng(0).normal(size=200).astype(np.float32)
    layer = calibration.Calibration()
    threshold = layer.fit(scores, 0.02)
    outputs = layer(scores)
    expected = calibration.probability(scores, threshold.value, calibration.logistic_scale(scores))
    assert keras.ops.convert_to_numpy(outputs["probability"]) == pytest.approx(expected, abs=1e-6)
    alarms = keras.ops.convert_to_numpy(outputs["is_anomalous"])
    np.testing.assert_array_equal(alarms, scores > threshold.value)
    assert alarms.sum() == 3  # the score at the threshold is no alarm
    assert float(layer.false_positive_rate) == pytest.approx(0.02)


@pytest.mark.parametrize(("count", "largest"), [(2, 0.75), (8, 0.9), (19, 20 / 21), (20, 1.0)])
def test_few_images_limit_the_probability_and_decide_as_before(count, largest):
    layer = calibration.Calibration()
    threshold = layer.fit(np.arange(float(count)), 0.1).value
    scores = np.array([-1e4, threshold - 1e-3, threshold, threshold + 1e-3, 1e4], np.float32)
    outputs = layer(scores)
    probability = keras.ops.convert_to_numpy(outputs["probability"])
    assert probability[[0, -1]] == pytest.approx([1 - largest, largest], abs=1e-7)
    assert probability[1:4] == pytest.approx(0.5, abs=1e-2)
    alarms = keras.ops.convert_to_numpy(outputs["is_anomalous"])
    assert alarms.tolist() == [False, False, False, True, True]
    outside = layer.decide(scores[:1], True)
    assert float(outside["probability"][0]) == 1  # an image unlike any good one, as with many
    layer.fit(np.arange(100.0), 0.1)
    assert float(layer.largest_probability) == 1


def test_images_of_one_group_support_little_more_than_one_image():
    scores = np.repeat([0.0, 1.0, 5.0], 40) + np.random.default_rng(0).normal(0, 0.01, 120)
    layer = calibration.Calibration()
    layer.fit(scores, 0.05, Origins(np.repeat(["a", "b", "c"], 40)))
    assert float(layer.largest_probability) < 5 / 6  # as if of three images


def test_require_calibrated_refuses_a_layer_that_is_not_fitted():
    layer = calibration.Calibration()
    assert not layer.is_calibrated
    with pytest.raises(UsageError, match="tfgad calibrate"):
        layer.require_calibrated()
    layer.fit(np.arange(10.0), 0.2)
    layer.require_calibrated()


def test_calibration_is_saved_with_the_model(tmp_path):
    inputs = keras.Input((), dtype="float32")
    model = keras.Model(inputs, calibration.Calibration()(inputs))
    model.layers[-1].fit(np.arange(100.0), 0.05)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].is_calibrated
    scores = np.array([0.0, 94.0, 95.0, 200.0], np.float32)
    for key, values in model.predict(scores, verbose=0).items():
        np.testing.assert_array_equal(values, loaded.predict(scores, verbose=0)[key])


def saved_layer(path):
    inputs = keras.Input((), dtype="float32")
    model = keras.Model(inputs, calibration.Calibration()(inputs))
    model.layers[-1].fit(np.arange(100.0), 0.05)
    model.save(path)


def test_layer_stores_the_thresholds_at_other_rates(tmp_path):
    saved_layer(tmp_path / "model.keras")
    kept = keras.saving.load_model(tmp_path / "model.keras").layers[-1].known_thresholds
    assert tuple(kept) == RATES
    assert [kept[rate] for rate in (0.01, 0.05, 0.2)] == [99.0, 95.0, 80.0]  # ranks 100, 96, 81
    for rate, threshold in kept.items():
        again = calibration.Calibration()
        again.fit(np.arange(100.0), rate)
        assert float(again.threshold) == threshold


def test_model_saved_without_thresholds_at_other_rates_loads(tmp_path, monkeypatch):
    def save_first_four_weights(layer, store):
        for index, weight in enumerate(layer.weights[:4]):
            store[str(index)] = weight

    with monkeypatch.context() as then:
        then.setattr(calibration.Calibration, "save_own_variables", save_first_four_weights)
        saved_layer(tmp_path / "model.keras")
    layer = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert layer.is_calibrated
    assert float(layer.threshold) == 95.0
    assert layer.known_thresholds == {}
    layer.fit(np.arange(100.0), 0.05)
    assert layer.known_thresholds[0.05] == 95.0


def test_layer_stays_float32_in_mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = calibration.Calibration()
    finally:
        keras.config.set_dtype_policy(policy)
    layer.fit(np.linspace(1000, 1001, 50), 0.1)
    outputs = layer(np.array([1000.9, 1000.95], np.float32))
    assert keras.backend.standardize_dtype(outputs["probability"].dtype) == "float32"
    assert float(layer.threshold) == pytest.approx(1000.918, abs=1e-3)
    assert keras.ops.convert_to_numpy(outputs["is_anomalous"]).tolist() == [False, True]
