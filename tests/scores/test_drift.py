"""The drift test: known values, silence without drift, and what it notices."""

import numpy as np
import pytest
from scipy import stats

from tfgad.scores import drift
from tfgad.scores.drift import BRIGHTNESS, CalibrationScores, DriftTest

CALIBRATION_IMAGES = 100


def calibration(rng, images=CALIBRATION_IMAGES, groups=None):
    return CalibrationScores.of(rng.normal(size=images), groups)


def images_until_drift(test, scores):
    """Number of scores that are read until the test shows drift; None if it never does."""
    for start in range(0, len(scores), 5):
        test.add(scores[start : start + 5])
        if test.drift:
            return start + 5
    return None


def with_defects(rng, scores, share):
    """The scores, of which a share is replaced by those of obvious defects."""
    return np.where(rng.random(scores.shape) < share, 50.0, scores)


def test_ranks_of_known_scores():
    seen = CalibrationScores.of(np.arange(101.0))
    found = seen.ranks(np.array([-1, 0, 25, 50, 99.5, 100, 101, np.inf]))
    expected = np.array([0, 0.5, 25.5, 50.5, 100, 100.5, 101, 101]) / 101
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_of_equal_scores_one_half_is_below():
    seen = CalibrationScores.of(np.ones(40))
    np.testing.assert_allclose(seen.ranks(np.array([0, 1, 2])), [0, 0.5, 1])
    half = CalibrationScores.of(np.repeat([0.0, 1.0], 50))
    np.testing.assert_allclose(half.ranks(np.array([0.0, 1.0])), [0.25, 0.75], atol=0.01)


def test_lower_scores_have_the_p_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    seen, recent = rng.normal(size=101), rng.normal(-0.5, 1, 60)
    expected = stats.mannwhitneyu(recent, seen, method="asymptotic", use_continuity=False)
    found = drift.compare(CalibrationScores.of(seen), recent)
    assert found.rank == pytest.approx(expected.statistic / (60 * 101), abs=2e-3)
    assert found.p == pytest.approx(expected.pvalue, rel=0.1)
    assert found.images == 60


def test_higher_scores_have_a_larger_p_since_some_may_be_of_defects():
    seen = CalibrationScores.of(np.arange(101.0))
    low, high = np.linspace(0, 70, 60), np.linspace(30, 100, 60)
    lower, higher = drift.compare(seen, low), drift.compare(seen, high)
    assert 0.5 - lower.rank == pytest.approx(higher.rank - 0.5, abs=1e-6)
    assert lower.p < higher.p / 2


def test_few_scores_are_not_compared_and_nan_is_left_out():
    seen = CalibrationScores.of(np.arange(101.0))
    assert drift.compare(seen, np.arange(drift.LEAST - 1)) is None
    assert drift.compare(seen, np.full(100, np.nan)) is None
    scores = np.linspace(0, 100, 30)
    with_nan = drift.compare(seen, np.append(scores, [np.nan] * 9))
    assert with_nan == drift.compare(seen, scores)


@pytest.mark.parametrize("images", [20, 100, 1000])
@pytest.mark.parametrize("share", [0, drift.DEFECTIVE])
def test_a_single_comparison_keeps_its_level(images, share):
    rng = np.random.default_rng(images)
    found = []
    for _ in range(1500):
        scores = with_defects(rng, rng.normal(size=100), share)
        found.append(drift.compare(calibration(rng, images), scores).p)
    for level in (0.01, 0.05):
        deviation = (level * (1 - level) / len(found)) ** 0.5
        assert np.mean(np.array(found) < level) < level + 3 * deviation


def test_the_levels_add_up_to_the_alarms_per_image():
    tests_per_image = {window: drift.STEPS / window for window in drift.WINDOWS}
    total = sum(tests_per_image[window] * drift.level_of(window) for window in drift.WINDOWS)
    assert total * len(drift.QUANTITIES) == pytest.approx(drift.FALSE_DRIFT)
    assert 5000 * drift.FALSE_DRIFT <= 0.01


@pytest.mark.parametrize("share", [0, drift.DEFECTIVE])
def test_five_thousand_images_without_drift_raise_no_alarm(share):
    """Ten streams, each with a calibration of its own; more than none has a chance of 0.1."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        scores = with_defects(rng, rng.normal(size=5000), share)
        assert images_until_drift(DriftTest(calibration(rng)), scores) is None


@pytest.mark.parametrize(("shift", "most"), [(-2, 40), (2, 40), (-1, 200), (1, 200)])
def test_a_shift_is_noticed(shift, most):
    rng = np.random.default_rng(2)
    for _ in range(10):
        test = DriftTest(calibration(rng))
        assert images_until_drift(test, rng.normal(size=437)) is None
        assert images_until_drift(test, rng.normal(shift, 1, 400)) <= most
        assert (test.drift.rank > 0.5) == (shift > 0)
        assert test.drift.p < drift.level_of(test.drift.images)


def test_a_small_shift_is_noticed_with_many_calibration_images_only():
    rng = np.random.default_rng(3)
    scores = rng.normal(-0.4, 1, 1000)
    assert images_until_drift(DriftTest(calibration(rng, 25)), scores) is None
    assert images_until_drift(DriftTest(calibration(rng, 2000)), scores) < 500


def test_the_alarm_ends_when_the_scores_are_as_before():
    rng = np.random.default_rng(4)
    test = DriftTest(calibration(rng))
    test.add(rng.normal(-2, 1, 60))
    assert test.drift
    assert test.rank < 0.3
    test.add(rng.normal(size=500))
    assert test.drift is None
    assert test.rank == pytest.approx(0.5, abs=0.25)


def test_the_result_does_not_depend_on_how_the_stream_is_cut():
    rng = np.random.default_rng(5)
    seen, scores = calibration(rng), rng.normal(-1.2, 1, 200)
    whole, single = DriftTest(seen), DriftTest(seen)
    whole.add(scores)
    for score in scores:
        single.add([score])
    assert whole.drift == single.drift
    assert whole.drift is not None


def test_there_is_no_rank_before_there_are_enough_scores():
    test = DriftTest(calibration(np.random.default_rng(0)))
    test.add([9.0] * (drift.LEAST - 1))
    assert test.rank is None
    test.add([9.0])
    assert test.rank == 1


def test_groups_count_as_the_independent_scores():
    rng = np.random.default_rng(6)
    scores = rng.normal(size=1000)
    recent = rng.normal(-0.5, 1, 100)
    alone = drift.compare(CalibrationScores.of(scores), recent)
    grouped = drift.compare(CalibrationScores.of(scores, groups=8), recent)
    assert grouped.rank == alone.rank
    assert alone.p < 0.001 < grouped.p
    eight = CalibrationScores(CalibrationScores.of(scores).quantiles, images=8)
    assert grouped.p == pytest.approx(drift.compare(eight, recent).p, rel=0.2)


def test_numbers_that_a_model_stores():
    seen = CalibrationScores.of(np.arange(50.0), groups=7, brightness=np.arange(70.0, 120))
    again = CalibrationScores.from_numbers(seen.as_numbers())
    np.testing.assert_array_equal(again.quantiles, seen.quantiles)
    np.testing.assert_array_equal(again.brightness, seen.brightness)
    assert (again.images, again.groups) == (50, 7)
    unknown = CalibrationScores.from_numbers(CalibrationScores.of(np.arange(50.0)).as_numbers())
    assert unknown.groups is unknown.brightness is None
    missing = {**seen.as_numbers(), "quantiles": np.full(101, np.nan)}
    assert CalibrationScores.from_numbers(missing) is None
    assert CalibrationScores.from_numbers({}) is None


def test_too_few_groups_for_any_drift_are_named():
    low = [-1e9] * 25
    for groups, images, needed in ((3, 25, 6), (5, 25, 6), (6, None, 7)):
        seen = CalibrationScores.of(np.arange(200.0), groups)
        line = drift.too_few(seen, images)
        assert f"set on {groups} groups of images; " in line
        assert line.endswith(f"needs at least {needed}")
    assert drift.notice(CalibrationScores.of(np.arange(200.0), 3), low).startswith("no drift test")
    # With the number that the line names, the most unlikely scores do show drift.
    assert "are lower than" in drift.notice(CalibrationScores.of(np.arange(200.0), 6), low)
    for groups, drifts in ((6, False), (7, True)):
        test = DriftTest(CalibrationScores.of(np.arange(200.0), groups))
        test.add([-1e9] * 400)
        assert bool(test.drift) == drifts
    assert drift.too_few(CalibrationScores.of(np.arange(200.0))) == ""


def test_notice_of_scores_that_have_drifted():
    seen = CalibrationScores.of(np.arange(101.0))
    low, high = np.linspace(0, 40, 120), np.linspace(60, 100, 120)
    assert drift.notice(seen, low) == (
        "the scores of these 120 images are lower than in calibration (p < 0.0005): "
        "check light, focus and exposure, then calibrate again"
    )
    assert drift.notice(seen, high) == (
        "the scores of these 120 images are higher than in calibration (p < 0.0005): "
        "unless more than 5% are defective, check light, focus and exposure, then calibrate again"
    )
    assert drift.notice(seen, np.linspace(0, 100, 120)) == ""
    assert drift.notice(seen, low[:10]) == ""


def lit(rng, lamp=1.0, count=100, share=0.0):
    """Mean grey levels of images under a lamp, of which some are defective, dark or bright."""
    levels = lamp * rng.normal(100, 4, count)
    return np.where(rng.random(count) < share, rng.choice([0.0, 255.0], count), levels)


def with_brightness(rng):
    return CalibrationScores.of(rng.normal(size=100), brightness=lit(rng))


@pytest.mark.parametrize(("lamp", "change"), [(0.8, "darker"), (1.25, "brighter")])
def test_another_light_is_noticed_by_the_brightness(lamp, change):
    rng = np.random.default_rng(7)
    for _ in range(10):
        test = DriftTest(with_brightness(rng), BRIGHTNESS)
        assert images_until_drift(test, lit(rng, count=437)) is None
        assert images_until_drift(test, lit(rng, lamp, 50)) <= 40
        assert f"the last 25 images are {change}" in drift.advice([test.drift], "the last")


@pytest.mark.parametrize("lamp", [0.95, 1, 1.05])
def test_light_within_the_tolerance_and_defects_of_any_brightness_raise_no_alarm(lamp):
    rng = np.random.default_rng(8)
    for _ in range(10):
        stream = lit(rng, lamp, 2000, drift.DEFECTIVE)
        assert images_until_drift(DriftTest(with_brightness(rng), BRIGHTNESS), stream) is None


def test_both_changes_are_told_in_one_line():
    seen = CalibrationScores.of(np.arange(101.0), brightness=np.linspace(90, 110, 101))
    low, dark = np.linspace(0, 40, 120), np.linspace(70, 80, 120)
    told = drift.notice(seen, low, dark)
    assert told == (
        "the scores of these 120 images are lower than in calibration (p < 0.0005), and these 120 "
        "images are darker than in calibration (p < 0.0005): check light, focus and exposure, then "
        "calibrate again"
    )
    assert drift.notice(seen, np.linspace(0, 100, 120), dark).startswith(
        "these 120 images are dark"
    )
    assert drift.notice(seen, np.linspace(0, 100, 120)) == ""  # of unknown brightness
    of_before = CalibrationScores.of(np.arange(101.0))
    assert drift.notice(of_before, np.linspace(0, 100, 120), dark) == ""
    with pytest.raises(ValueError, match="brightness"):
        drift.compare(of_before, dark, None, BRIGHTNESS)
