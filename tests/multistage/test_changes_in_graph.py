"""Changes in a graph: the same as by NumPy and SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgad.multistage import changes, changes_in_graph
from tfgad.multistage.fusion import RIM
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import DISPLACEMENT, MASK

SHAPE = 96, 128
WINDOWS = (20, 30, PATCH), (0, 0, 52), (16, 48, 80), (3, 61, 67), (44, 76, 52)

# With sizes that only the graph knows, as in an exported painter.
spread_in_graph = tf.function(
    changes_in_graph.spread,
    [tf.TensorSpec((PATCH, PATCH, 5)), tf.TensorSpec(3, tf.int32), tf.TensorSpec(2, tf.int32)],
    autograph=False,
)


def random_change(seed, smooth):
    """A change of random numbers, smoothed so that its mask has large pieces or small ones."""
    noise = np.random.default_rng(seed).standard_normal((PATCH, PATCH, 5))
    change = ndimage.gaussian_filter(noise, (smooth, smooth, 0)).astype("float32")
    change /= np.abs(change).max((0, 1))
    change[..., MASK] -= 0.2
    change[..., DISPLACEMENT] *= 6.0
    return change


@pytest.mark.parametrize("smooth", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_change_is_spread_as_by_scipy(window, smooth):
    change = random_change(window[-1], smooth)
    expected = changes.spread(change, window, SHAPE)
    found = spread_in_graph(change, window, SHAPE).numpy()
    np.testing.assert_array_equal(found[..., MASK] > 0, expected[..., MASK] > 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pieces_that_touch_by_a_corner_alone_are_not_connected():
    """Of a diagonal line that starts at the window's edge, the mirror image is not extended."""
    change = np.full((PATCH, PATCH, 5), -1.0, "float32")
    for i in range(30):
        change[PATCH - changes.EDGE - 1 - i, 20 + i, MASK] = 1.0
    row, column, side = window = 20, 30, PATCH
    expected = changes.spread(change, window, SHAPE)
    found = spread_in_graph(change, window, SHAPE).numpy()
    np.testing.assert_array_equal(found[..., MASK] > 0, expected[..., MASK] > 0)
    last_row = row + side - changes.EDGE - 1
    assert found[last_row + 1, column + 20, MASK] > 0
    assert not (found[last_row + 2 + RIM :, :, MASK] > 0).any()


def test_without_a_defect_nothing_is_spread():
    empty = np.full((PATCH, PATCH, 5), -1.0, "float32")
    assert np.all(spread_in_graph(empty, WINDOWS[0], SHAPE).numpy()[..., MASK] == -1.0)


@pytest.mark.parametrize("turns", range(-3, 4))
def test_a_change_is_turned_as_by_numpy(turns):
    change = random_change(0, 3.0)
    found = changes_in_graph.turned(tf.constant(change), tf.constant(turns))
    np.testing.assert_array_equal(found, changes.turned(change, turns))


@pytest.mark.parametrize("extends", [True, False])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_defect_is_cut_off_as_by_numpy(window, extends):
    rng = np.random.default_rng(0)
    graded = set()
    for _ in range(60):
        mask = np.zeros(SHAPE, bool)
        rows, columns = (np.sort(rng.integers(0, length + 1, 2)) for length in SHAPE)
        mask[slice(*rows), slice(*columns)] = True
        expected = changes.is_cut_off(mask, window, extends)
        assert bool(changes_in_graph.is_cut_off(mask, tf.constant(window), extends)) is expected
        graded.add(expected)
    assert graded == {False, True}
