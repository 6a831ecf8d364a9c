"""The interval of a threshold's false-positive rate counts groups, and holds the rate."""

import math

import numpy as np
import pytest
from scipy import stats

from tfgad.scores import rate_interval as intervals
from tfgad.scores.rate_interval import rate_interval
from tfgad.scores.thresholds import threshold_from_normals


def test_clopper_pearson_has_the_published_values():
    """Those of Newcombe, Statistics in Medicine 17, 1998, table I, method 5."""
    for (positives, count), published in {
        (81, 263): (0.2527, 0.3676),
        (15, 148): (0.0578, 0.1617),
        (0, 20): (0.0000, 0.1684),
        (1, 29): (0.0009, 0.1776),
    }.items():
        found = intervals.clopper_pearson(positives, count)
        assert found == pytest.approx(published, abs=5.1e-5)
    assert intervals.clopper_pearson(0, 2) == pytest.approx((0, 1 - 0.025**0.5))
    assert intervals.clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1))


def test_intraclass_correlation_of_shrout_and_fleiss():
    """Their table 1 of four judges and six targets: ICC(1, 1) is 0.17 (Psych. Bull. 86, 1979)."""
    table = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9]])
    table = np.concatenate([table, [[6, 2, 4, 7]]]).astype(float)
    values, groups = table.ravel(), np.repeat(np.arange(6), 4)
    assert intervals.intraclass_correlation(values, groups) == pytest.approx(0.166, abs=5e-4)
    # Their F is 11.24 / 6.26; the upper limit by F(18, 5).
    limit = 11.24 / 6.26 * stats.f.ppf(0.95, 18, 5)
    assert intervals.intraclass_correlation(values, groups, 0.95) == pytest.approx(
        (limit - 1) / (limit + 3), abs=1e-3
    )


def test_intraclass_correlation_of_known_extremes():
    groups = np.repeat(np.arange(5), 4)
    assert intervals.intraclass_correlation(groups.astype(float), groups) == 1
    assert intervals.intraclass_correlation(np.tile([0.0, 1, 2, 3], 5), groups) == 0
    assert intervals.intraclass_correlation(np.arange(20.0), groups * 0) == 1
    assert intervals.intraclass_correlation(np.ones(20), groups) == 1


def test_correlation_of_exceedances_is_that_of_two_gaussian_variables():
    assert intervals.correlation_of_exceedances(0, 0.01) == 0
    assert intervals.correlation_of_exceedances(1, 0.01) == 1
    # Sheppard 1899: at the median it is 2 / pi asin(rho).
    assert intervals.correlation_of_exceedances(0.5, 0.5) == pytest.approx(1 / 3)
    for correlation, rate in ((0.2, 0.05), (0.7, 0.01)):
        level = stats.norm.isf(rate)
        both = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]])
        expected = (both.cdf([-level, -level]) - rate**2) / (rate * (1 - rate))
        found = intervals.correlation_of_exceedances(correlation, rate)
        assert found == pytest.approx(expected, abs=1e-5)


def test_independent_images_count_in_full():
    scores = np.random.default_rng(0).normal(size=200)
    threshold = threshold_from_normals(scores, 0.05).value
    interval = rate_interval(scores, None, threshold, 0.05)
    assert interval.images == interval.groups == interval.effective == 200
    above = int(np.sum(scores > threshold))
    assert (interval.low, interval.high) == intervals.clopper_pearson(above, 200)
    assert interval.at_most == interval.high
    again = rate_interval(scores, [f"image {i}" for i in range(200)], threshold, 0.05)
    assert again == interval


def test_images_that_are_copies_within_groups_count_as_their_groups():
    scores = np.repeat(np.random.default_rng(0).normal(size=6), 30)
    interval = rate_interval(scores, np.repeat(np.arange(6), 30), scores.max(), 0.01)
    assert interval.effective == pytest.approx(6)
    assert (interval.low, interval.high) == pytest.approx((0, 1 - 0.025 ** (1 / 6)))


def test_one_group_counts_as_one_image():
    scores = np.random.default_rng(0).normal(size=42)
    interval = rate_interval(scores, ["a"] * 42, scores.max(), 0.01)
    assert (interval.groups, interval.effective) == (1, pytest.approx(1))
    assert interval.at_most == pytest.approx(0.975)
    assert (interval.low, interval.high) == pytest.approx((0, 0.975))


def test_groups_may_differ_in_size_and_order():
    rng = np.random.default_rng(1)
    groups = np.repeat(["b", "a", "c", "d"], [3, 40, 11, 1])
    scores = rng.normal(size=55) + (groups == "a")
    interval = rate_interval(scores, groups, np.sort(scores)[-3], 0.05)
    order = rng.permutation(55)
    again = rate_interval(scores[order], groups[order], np.sort(scores)[-3], 0.05)
    assert again.high == pytest.approx(interval.high)
    assert 1 <= interval.effective < 55
    with pytest.raises(ValueError, match="55 scores but 54 groups"):
        rate_interval(scores, groups[1:], 0.0, 0.05)


def test_as_many_groups_as_needed_keep_the_rate_below_twice_the_asked_one():
    for rate in (0.01, 0.05, 0.3, 0.6):
        count = intervals.images_needed(rate, 2 * rate)
        assert intervals.clopper_pearson(rate * count, count)[1] <= 2 * rate
        if count > 1:
            assert intervals.clopper_pearson(rate * (count - 1), count - 1)[1] > 2 * rate
    scores = np.repeat(np.random.default_rng(0).normal(size=6), 30)
    interval = rate_interval(scores, np.repeat(np.arange(6), 30), scores.max(), 0.05)
    assert interval.groups_needed == intervals.images_needed(0.05, 0.1)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("groups", [2, 5, 20])
def test_the_interval_holds_the_rate_of_groups_with_random_shifts(shift, groups):
    """Of 200 draws 183 or more hold it: with 95 % they would in 97 of 100 such tests."""
    rng, rate, held, members = np.random.default_rng(3), 0.05, 0, np.repeat(range(groups), 30)
    for _ in range(200):
        scores = (shift * rng.normal(size=(groups, 1)) + rng.normal(size=(groups, 30))).ravel()
        threshold = threshold_from_normals(scores, rate).value
        interval = rate_interval(scores, members, threshold, rate)
        held += interval.low <= stats.norm.sf(threshold / math.hypot(1, shift)) <= interval.high
    assert held >= 183


def test_rare_groups_are_within_what_is_at_most():
    """One group in ten lies higher: five groups often hold none of them."""
    rng, rate, held, members = np.random.default_rng(3), 0.05, 0, np.repeat(range(5), 30)
    for _ in range(200):
        is_high = rng.random((5, 1)) < 0.1
        scores = (2.0 * is_high + rng.normal(size=(5, 30))).ravel()
        threshold = threshold_from_normals(scores, rate).value
        found = 0.9 * stats.norm.sf(threshold) + 0.1 * stats.norm.sf(threshold - 2)
        held += found <= rate_interval(scores, members, threshold, rate).at_most
    assert held >= 190


def test_counted_as_independent_the_rate_of_shifted_groups_is_missed():
    rng, rate, held = np.random.default_rng(3), 0.05, 0
    for _ in range(200):
        scores = (rng.normal(size=(5, 1)) + rng.normal(size=(5, 30))).ravel()
        threshold = threshold_from_normals(scores, rate).value
        interval = rate_interval(scores, None, threshold, rate)
        held += interval.low <= stats.norm.sf(threshold / math.sqrt(2)) <= interval.high
    assert held < 150
