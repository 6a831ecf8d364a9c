"""Thresholds: order statistics, and the extrapolated tail."""

import logging

import numpy as np
import pytest
from scipy import stats

from tfgad.errors import UsageError
from tfgad.scores import thresholds
from tfgad.scores.thresholds import RATES

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
    threshold = thresholds.threshold_from_normals(scores, rate)
    assert threshold == thresholds.Threshold(rank, "empirical quantile", n)


def test_expected_false_positive_rate_is_at_most_the_target():
    rng = np.random.default_rng(0)
    rates = [
        stats.norm.sf(thresholds.threshold_from_normals(rng.normal(size=150), 0.02).value)
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
            thresholds.threshold_from_normals(distribution.rvs(n, random_state=rng), 0.01).value
        )
        for _ in range(30)
    ]
    assert 0.002 < np.mean(rates) < 0.02


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [30, 99, 500])
def test_a_smaller_rate_never_has_a_lower_threshold(name, n):
    rng = np.random.default_rng(0)
    for _ in range(5):
        values = thresholds.thresholds_from_normals(DISTRIBUTIONS[name].rvs(n, random_state=rng))
        assert np.all(np.diff(values) <= 0)


def test_beyond_its_scores_a_threshold_is_at_least_the_largest():
    scores = np.append(np.random.default_rng(0).normal(size=98), 30.0)
    assert [thresholds.threshold_from_normals(scores, rate).value for rate in (0.01, 0.009)] == [
        30.0,
        30.0,
    ]


def test_tail_logs_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "tfgad"):
        threshold = thresholds.threshold_from_normals(np.arange(50.0), 0.01)
    assert threshold.method == "generalised Pareto tail"
    assert threshold.value > 49
    assert "50 normal scores are too few for a false-positive rate of 0.01 (99" in caplog.text


@pytest.mark.parametrize("n", [20, 150, 20_000])
def test_thresholds_at_all_rates_equal_those_of_each_rate(n):
    scores = np.random.default_rng(0).gumbel(size=n)
    one_by_one = [thresholds.threshold_from_normals(scores, rate).value for rate in RATES]
    assert thresholds.thresholds_from_normals(scores).tolist() == one_by_one


def test_thresholds_at_all_rates_log_no_warning(caplog):
    with caplog.at_level(logging.WARNING, "tfgad"):
        thresholds.thresholds_from_normals(np.arange(50.0))
    assert not caplog.text


def test_rates_range_from_1_in_10000_to_1_in_5_in_steps_of_a_quarter():
    assert (RATES[0], RATES[-1]) == (0.0001, 0.2)
    assert {0.001, 0.01, 0.02, 0.05, 0.1} <= set(RATES)
    steps = np.divide(RATES[1:], RATES[:-1])
    assert steps.min() > 1.23
    assert steps.max() < 1.29


def test_tail_scales_with_the_unit_of_the_scores():
    scores = np.random.default_rng(0).gumbel(size=60)
    value = thresholds.threshold_from_normals(scores, 0.001).value
    tiny = thresholds.threshold_from_normals(scores * 1e-6 + 5, 0.001).value
    assert tiny == pytest.approx(value * 1e-6 + 5, abs=1e-9)


def test_tail_of_equal_scores_is_their_value():
    assert thresholds.threshold_from_normals(np.full(10, 3.0), 0.01).value == 3.0


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        ([1.0, 2.0], 0.0, "false-positive rate"),
        ([1.0, 2.0], 1.0, "false-positive rate"),
        ([1.0, 2.0], float("nan"), "false-positive rate"),
        ([1.0, 2.0], 5e-324, "nearer to 0 or 1 than 1e-09"),
        ([1.0, 2.0], 1 - 1e-12, "nearer to 0 or 1 than 1e-09"),
        ([], 0.1, "too few"),
        ([1.0], 0.1, "too few"),
        ([1.0, np.nan, np.inf], 0.1, "2 of 3"),
    ],
)
def test_invalid_scores_and_rates_are_refused(scores, rate, message):
    with pytest.raises(UsageError, match=message):
        thresholds.threshold_from_normals(np.array(scores), rate)
