"""Regions of a map above the threshold, by SciPy and inside a graph."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgad.export import regions_in_graph
from tfgad.scores.map_regions import (
    MAX_REGIONS,
    Region,
    as_outputs,
    find_regions,
    from_outputs,
)


@pytest.fixture(scope="module")
def in_graph():
    """The regions of maps `[B, H, W]` as an exported model finds them."""
    form = [tf.TensorSpec([None, None, None]), tf.TensorSpec([])]
    return tf.function(regions_in_graph.find_regions, form, autograph=False)


def test_box_area_values_and_centroid_of_regions():
    anomaly_map = np.zeros((6, 9), "float32")
    anomaly_map[1, 2:5] = 3, 5, 4
    anomaly_map[2, 5] = 2  # touches by a corner
    anomaly_map[5, 0] = 9
    anomaly_map[3, 8] = 1  # the threshold, not above it
    assert find_regions(anomaly_map, 1.0) == [
        Region(2, 1, 4, 2, 4, peak=5, mean=3.5, centroid_x=3.5, centroid_y=1.25),
        Region(0, 5, 1, 1, 1, peak=9, mean=9, centroid_x=0, centroid_y=5),
    ]
    assert find_regions(anomaly_map, 9.0) == []


def test_of_equal_area_the_higher_peak_comes_first():
    regions = find_regions(np.float32([[2, 0, 4, 0, 3]]), 1.0)
    assert [region.peak for region in regions] == [4, 3, 2]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 40, 50), (2, 7, 33), (1, 130, 120)])
@pytest.mark.parametrize("sigma", [0, 1, 4])
def test_the_graph_finds_what_scipy_finds(in_graph, shape, sigma):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=shape).astype("float32")
    maps = ndimage.gaussian_filter(maps, (0, sigma, sigma)) if sigma else maps
    for level in (-9, 0, 1, 2, 9):
        threshold = np.float32(level * maps.std() if maps.std() else level)
        outputs = {name: value.numpy() for name, value in in_graph(maps, threshold).items()}
        assert outputs["regions"].dtype == np.float32
        assert outputs["region_count"].dtype == np.int32
        for index, anomaly_map in enumerate(maps):
            expected = as_outputs(find_regions(anomaly_map, threshold))
            for name, value in expected.items():
                np.testing.assert_allclose(outputs[name][index], value, rtol=1e-5, atol=1e-5)


def spiral(side):
    """A path one pixel wide that turns inwards, with a gap of one pixel beside it."""
    picture, (y, x), (down, right) = np.zeros((side, side), "float32"), (0, 0), (0, 1)
    picture[0, 0] = 1
    for turn in range(2 * side):
        steps = 0
        while True:
            near, far = (y + down, x + right), (y + 2 * down, x + 2 * right)
            inside = [0 <= a < side and 0 <= b < side for a, b in (near, far)]
            if not inside[0] or picture[near] or (inside[1] and picture[far]):
                break
            y, x = near
            picture[near] = 1
            steps += 1
        if not steps and turn:
            break
        down, right = right, -down
    return picture


def test_a_spiral_is_one_region_in_few_rounds(in_graph, monkeypatch):
    path = spiral(101)
    regions = find_regions(path, 0.5)
    assert len(regions) == 1
    assert regions[0].area == path.sum() > 5000
    rounds = []
    loop = tf.while_loop

    def counted(condition, body, start):
        return loop(condition, lambda *state: rounds.append(1) or body(*state), start)

    monkeypatch.setattr(tf, "while_loop", counted)
    outputs = regions_in_graph.find_regions(tf.constant(path[None]), tf.constant(0.5))  # eager
    assert outputs["region_count"].numpy() == [1]
    np.testing.assert_allclose(outputs["regions"][0], as_outputs(regions)["regions"], rtol=1e-5)
    assert len(rounds) < 15


def test_more_regions_than_fit_are_counted_and_the_largest_listed(in_graph):
    anomaly_map = np.zeros((40, 40), "float32")
    anomaly_map[::2, ::2] = 2  # 400 of one pixel
    anomaly_map[39, 20:30] = 2
    outputs = {name: value[0].numpy() for name, value in in_graph(anomaly_map[None], 1.0).items()}
    regions = find_regions(anomaly_map, 1.0)
    assert outputs["region_count"] == len(regions) > MAX_REGIONS
    listed = from_outputs(outputs)
    assert len(listed) == MAX_REGIONS
    assert listed[0] == regions[0]
    assert listed[0].area >= 10


def test_outputs_and_regions_are_each_others_reverse():
    regions = find_regions(np.float32([[2, 2, 0, 4]]), 1.0)
    assert from_outputs(as_outputs(regions)) == regions
    assert from_outputs(as_outputs([])) == []
    assert from_outputs(as_outputs(None)) is None
