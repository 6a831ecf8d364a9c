"""Calibration: thresholds, tails, probabilities and the layer that stores them."""

import logging

import keras
import numpy as np
import pytest
from scipy import stats

from tfgad.errors import UsageError
from tfgad.scores import calibration
from tfgad.scores.calibration import RATES

DISTRIBUTIONS = {
    "normal": stats.norm(),
    "gumbel": stats.gumbel_r(),
    "log-normal": stats.lognorm(0.5),
    "student": stats.t(4),
}


@pytest.mark.parametrize(
    ("n", "rate", "rank"),
    [(99, 0.01, 99), (100, 0.01, 100), (199, 0.01, 198), (99, 0.07, 93), (9, 0.5, 5)],
)
def test_empirical_quantile_is_the_conformal_order_statistic(n, rate, rank):
    scores = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    threshold = calibration.threshold_from_normals(scores, rate)
    assert threshold == calibration.Threshold(rank, "empirical quantile", n)


def test_expected_false_positive_rate_is_at_most_the_target():
    rng = np.random.default_rng(0)
    rates = [
        stats.norm.sf(calibration.threshold_from_normals(rng.normal(size=150), 0.02).value)
        for _ in range(500)
    ]
    # 3 of 151 ranks are above the threshold: 0.0199 expected.
    assert np.mean(rates) == pytest.approx(3 / 151, abs=0.0015)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [30, 90])
def test_mean_false_positive_rate_of_the_tail_is_near_the_target(name, n):
    rng, distribution = np.random.default_rng(0), DISTRIBUTIONS[name]
    rates = [
        distribution.sf(
            calibration.threshold_from_normals(distribution.rvs(n, random_state=rng), 0.01).value
        )
        for _ in range(30)
    ]
    assert 0.002 < np.mean(rates) < 0.02


def test_tail_logs_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "tfgad"):
        threshold = calibration.threshold_from_normals(np.arange(50.0), 0.01)
    assert threshold.method == "generalised Pareto tail"
    assert threshold.value > 49
    assert "50 normal scores are too few for a false-positive rate of 0.01 (99" in caplog.text


@pytest.mark.parametrize("n", [20, 150, 20_000])
def test_thresholds_at_all_rates_equal_those_of_each_rate(n):
    scores = np.random.default_rng(0).gumbel(size=n)
    one_by_one = [calibration.threshold_from_normals(scores, rate).value for rate in RATES]
    assert calibration.thresholds_from_normals(scores).tolist() == one_by_one


def test_thresholds_at_all_rates_log_no_warning(caplog):
    with caplog.at_level(logging.WARNING, "tfgad"):
        calibration.thresholds_from_normals(np.arange(50.0))
    assert not caplog.text


def test_rates_range_from_1_in_10000_to_1_in_5_in_steps_of_a_quarter():
    assert (RATES[0], RATES[-1]) == (0.0001, 0.2)
    assert {0.001, 0.01, 0.02, 0.05, 0.1} <= set(RATES)
    steps = np.divide(RATES[1:], RATES[:-1])
    assert steps.min() > 1.23
    assert steps.max() < 1.29


def test_tail_scales_with_the_unit_of_the_scores():
    scores = np.random.default_rng(0).gumbel(size=60)
    value = calibration.threshold_from_normals(scores, 0.001).value
    tiny = calibration.threshold_from_normals(scores * 1e-6 + 5, 0.001).value
    assert tiny == pytest.approx(value * 1e-6 + 5, abs=1e-9)


def test_tail_of_equal_scores_is_their_value():
    assert calibration.threshold_from_normals(np.full(10, 3.0), 0.01).value == 3.0


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        ([1.0, 2.0], 0.0, "false-positive rate"),
        ([1.0, 2.0], 1.0, "false-positive rate"),
        ([1.0, 2.0], float("nan"), "false-positive rate"),
        ([], 0.1, "too few"),
        ([1.0], 0.1, "too few"),
        ([1.0, np.nan, np.inf], 0.1, "2 of 3"),
    ],
)
def test_invalid_scores_and_rates_are_refused(scores, rate, message):
    with pytest.raises(UsageError, match=message):
        calibration.threshold_from_normals(np.array(scores), rate)


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
