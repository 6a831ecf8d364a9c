"""The residual of features by region: moments, components, places."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.scores.place_statistics import LEAST_SHARE, PlaceStatistics
from tfgad.scores.regions import CELLS, GRID, POINTS, SIDES, Regions, cells_of, descriptions

CHANNELS = 6


def feature_maps(count, seed):
    """Maps `[count, 32, 32, 6]` of three channels, and sums of two of them."""
    own = np.random.default_rng(seed).normal(0, 1, (count, 32, 32, 3))
    own *= 1 + np.linspace(0, 1, 32)[:, None, None]  # the lower half varies more
    sums = [own[..., [0]] + own[..., [1]], own[..., [1]] - own[..., [2]], 2 * own[..., [0]]]
    return np.concatenate([own, *sums], -1).astype("float32")


def cells(maps):
    return cells_of([tf.constant(maps[..., :2]), tf.constant(maps[..., 2:])])


def adapted(maps, views=(), points=POINTS, **kwargs):
    layer = Regions(CHANNELS, points)
    layer.adapt(cells(maps).numpy(), maps, [cells(each).numpy() for each in views], **kwargs)
    return layer


def maps_of(layer, maps):
    return layer(cells(maps), tf.constant(maps)).numpy()


@pytest.fixture(scope="module")
def regions():
    return adapted(feature_maps(60, 0), [feature_maps(60, 1)])


@pytest.mark.parametrize("side", SIDES)
def test_a_region_is_described_by_mean_and_deviation_of_each_channel(side):
    maps = feature_maps(2, 3)
    found = descriptions(cells(maps), side).numpy()
    places = CELLS - side + 1
    assert found.shape == (2, places, places, 2 * CHANNELS)
    row, column = places - 1, places // 2
    size = 32 // CELLS
    part = maps[:, row * size : (row + side) * size, column * size : (column + side) * size]
    expected = [part.mean(axis=(1, 2)), part.std(axis=(1, 2))]
    np.testing.assert_allclose(found[:, row, column], np.concatenate(expected, -1), atol=1e-4)


def test_a_coarse_map_with_one_value_per_cell_has_no_deviation():
    maps = np.random.default_rng(0).normal(0, 100, (2, CELLS, CELLS, 1)).astype("float32")
    found = descriptions(cells_of([tf.constant(maps)]), 1).numpy()
    np.testing.assert_allclose(found[..., 0], maps[..., 0])
    assert np.ptp(found[..., 1]) == 0


def test_what_no_good_image_has_stands_out_where_it_is(regions):
    maps = feature_maps(8, 4)
    good = maps_of(regions, maps)
    maps[:, 4:8, 20:24, 3] += 2  # the sum of the first two no more
    bad = maps_of(regions, maps)
    assert np.all(bad.max(axis=(1, 2)) > 1.5)
    assert np.mean(good.max(axis=(1, 2)) > 1.5) == 0
    row, column = np.unravel_index(np.argmax(bad.mean(0)), (GRID, GRID))
    assert abs(row - 5.5) <= 2
    assert abs(column - 21.5) <= 2


def test_nine_of_ten_good_images_that_it_was_not_fitted_to_stay_below_1(regions):
    below = maps_of(regions, feature_maps(200, 5)).max(axis=(1, 2)) < 1
    assert 0.8 <= below.mean() <= 0.98


def test_a_point_is_compared_with_itself():
    points_alone = adapted(feature_maps(60, 0), points=1e3)
    maps = maps_of(points_alone, feature_maps(100, 6)).mean(0)
    own = maps[GRID // 2 :].mean() - maps[: GRID // 2].mean()  # the lower half varies more
    alike = adapted(feature_maps(60, 0), points=1e3, per_place=False)
    for statistic in (*alike.place_mean, *alike.place_deviation):
        for turned in (statistic.numpy()[::-1], statistic.numpy()[:, ::-1], statistic.numpy().T):
            np.testing.assert_allclose(statistic.numpy(), turned, rtol=1e-6)
    maps = maps_of(alike, feature_maps(100, 6)).mean(0)
    assert maps[GRID // 2 :].mean() - maps[: GRID // 2].mean() > 4 * abs(own)


def test_of_a_part_that_is_not_square_long_and_short_sides_are_not_alike():
    errors = np.random.default_rng(0).normal(0, 1, (500, 4, 4))
    errors[:, 0] += 5.0  # the upper edge
    alike = PlaceStatistics(errors, per_place=False, one="deviation", square=False).mean
    np.testing.assert_allclose(alike, alike[::-1])
    np.testing.assert_allclose(alike, alike[:, ::-1])
    assert alike[0, 1] - alike[1, 0] > 2  # half of 5, the lower edge has the other half


def test_larger_regions_have_one_mean_and_their_distance_from_it_by_place():
    errors = np.random.default_rng(0).normal(0, 1, (500, 4, 4)) + np.arange(16).reshape(4, 4)
    places = PlaceStatistics(errors, per_place=True, one="mean")
    np.testing.assert_allclose(places.mean, errors.mean())
    distances = np.sqrt(np.square(errors - errors.mean()).mean(0))
    least = LEAST_SHARE * np.median(distances)
    np.testing.assert_allclose(places.deviation, np.maximum(distances, least))


def test_one_point_that_no_good_image_has_stands_out_at_that_point(regions):
    maps = feature_maps(8, 4)
    maps[:, 9, 22, 3] += 2  # a sixteenth of a cell
    found = maps_of(regions, maps)
    for each in found:
        assert np.unravel_index(np.argmax(each), (GRID, GRID)) == (9, 22)


@pytest.mark.parametrize(("count", "problem"), [(1, "are too few"), (3, "are all alike")])
def test_images_that_say_nothing_of_variation_are_refused(count, problem):
    with pytest.raises(UsageError, match=f"normal images '{count}': {problem}"):
        adapted(np.repeat(feature_maps(1, 0), count, axis=0))


def test_two_images_are_enough_for_finite_numbers():
    assert not Regions(CHANNELS).is_adapted
    layer = adapted(feature_maps(2, 0))
    assert layer.is_adapted
    assert np.abs(maps_of(layer, feature_maps(40, 1))).max() < 100


def test_images_of_which_all_but_one_are_alike_make_no_warning(recwarn):
    one = feature_maps(2, 0)
    layer = adapted(np.concatenate([np.repeat(one[:1], 7, axis=0), one[1:]]))
    assert not [each for each in recwarn if "divide" in str(each.message)]
    assert np.all(np.isfinite(maps_of(layer, feature_maps(3, 1))))


def test_a_layer_of_its_configuration_takes_its_weights(regions):
    copy = keras.layers.deserialize(keras.layers.serialize(regions))
    assert not copy.is_adapted
    copy.set_weights(regions.get_weights())
    maps = feature_maps(2, 7)
    np.testing.assert_array_equal(maps_of(copy, maps), maps_of(regions, maps))


def test_statistics_of_before_points_counted_score_as_then(regions):
    weights = {weight.name: weight.numpy() for weight in regions.weights}
    earlier = [value for name, value in weights.items() if "point" not in name]
    layer = Regions(CHANNELS)
    layer.load_own_variables({str(number): value for number, value in enumerate(earlier)})
    maps = feature_maps(4, 8)
    found = maps_of(layer, maps)
    assert np.all(np.isfinite(found))
    maps[:, 9, 22, 3] += 9
    other = layer(cells(feature_maps(4, 8)), tf.constant(maps))  # points alone differ
    np.testing.assert_array_equal(found, other)
    assert np.any(found != maps_of(regions, feature_maps(4, 8)))
