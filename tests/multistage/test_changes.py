"""Changes of fabric on images: turned, enlarged, and going on outside their windows."""

import numpy as np
import pytest

from tfgad.multistage import changes
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import DISPLACEMENT, MASK, on_fabric

EDGE = changes.EDGE
SIDE = 16 + 2 * EDGE
WINDOW = 20 - EDGE, 30 - EDGE, SIDE  # row, column, side; of use are 16 pixels from 20 and 30
SHAPE = 64, 80


def change(side=SIDE, **channels):
    """A change that is the same everywhere, or as arrays say; without a mask none is a defect."""
    values = {"image": 0.0, "opacity": 1.0, "mask": -1.0, "row": 0.0, "column": 0.0} | channels
    return np.stack([np.broadcast_to(np.float32(v), (side, side)) for v in values.values()], -1)


def bar(rows=(-EDGE, 16 + EDGE), columns=(-EDGE, 16 + EDGE)):
    """A mask; rows and columns count from the first that is of use."""
    mask = np.full((SIDE, SIDE), -1.0, "float32")
    (top, bottom), (left, right) = rows, columns
    mask[top + EDGE : bottom + EDGE, left + EDGE : right + EDGE] = 1.0
    return mask


def mask_of(spread):
    return spread[..., MASK] > 0


def test_a_defect_that_ends_in_its_window_stays_there():
    spread = changes.spread(change(mask=bar(rows=(4, 9), columns=(5, 8))), WINDOW, SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[24:29, 35:38] = True
    np.testing.assert_array_equal(mask_of(spread), expected)


def test_a_defect_that_runs_off_its_window_goes_on_to_the_edge_of_the_image():
    spread = changes.spread(change(mask=bar(columns=(5, 8))), WINDOW, SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[:, 35:38] = True
    np.testing.assert_array_equal(mask_of(spread), expected)


def test_a_defect_that_is_cut_by_its_window_is_completed_as_in_a_mirror():
    mask = bar(rows=(4, 9), columns=(11, 16))
    shade = np.linspace(-1, 1, SIDE)  # from left to right
    spread = changes.spread(change(mask=mask, image=shade), WINDOW, SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[24:29, 41:51] = True
    np.testing.assert_array_equal(mask_of(spread), expected)
    left, right = spread[26, 41:46, 0], spread[26, 46:51, 0]
    np.testing.assert_array_equal(left, right[::-1])


@pytest.mark.parametrize(
    ("rows", "columns", "cut"),
    [
        ((40, 50), (50, 60), False),  # within
        ((0, 99), (50, 60), False),  # from edge to edge
        ((50, 60), (0, 99), False),
        ((0, 99), (0, 99), True),  # all over
        ((40, 50), (80, 91), True),  # off at the right
        ((40, 50), (34, 60), True),  # off at the left
        ((24, 30), (50, 60), True),  # off above
        ((0, 99), (34, 60), True),  # across, and off at the left
    ],
)
def test_a_defect_is_cut_off_unless_it_ends_in_its_window_or_crosses_it(rows, columns, cut):
    """Of use in this window are the pixels from (24, 34) to (79, 89)."""
    mask = np.zeros((99, 99), bool)
    mask[slice(*rows), slice(*columns)] = True
    assert changes.is_cut_off(mask, (20, 30, PATCH)) is cut


@pytest.mark.parametrize(("first", "last", "cut"), [(21, 40, False), (20, 40, True), (0, 99, True)])
def test_what_does_not_go_on_outside_must_end_in_its_window(first, last, cut):
    mask = np.zeros((99, 99), bool)
    mask[first:last, 50:60] = True
    assert changes.is_cut_off(mask, (20, 30, PATCH), extends=False) is cut


def test_what_is_mirrored_moves_yarns_the_other_way():
    spread = changes.spread(change(mask=1.0, row=2.0, column=-1.0), WINDOW, SHAPE)
    moved = spread[..., DISPLACEMENT]
    np.testing.assert_array_equal(moved[25, 35], [2.0, -1.0])
    np.testing.assert_array_equal(moved[25, 50], [2.0, 1.0])
    np.testing.assert_array_equal(moved[40, 35], [-2.0, -1.0])
    np.testing.assert_array_equal(moved[40, 50], [-2.0, 1.0])


def test_in_a_larger_window_yarns_move_farther():
    spread = changes.spread(change(side=SIDE // 2, mask=1.0, row=2.0), WINDOW, SHAPE)
    np.testing.assert_allclose(spread[25, 35, -2], 4.0)


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_change_does_to_turned_fabric_what_it_does_to_fabric(turns):
    rng = np.random.default_rng(0)
    fabric = rng.uniform(-1, 1, (16, 16, 1)).astype("float32")
    made = rng.uniform(-1, 1, (16, 16, 5)).astype("float32")
    made[..., DISPLACEMENT] *= 3.0
    expected = np.rot90(on_fabric(made[None], fabric[None]).numpy()[0], turns)
    turned = changes.turned(made, turns)
    of_turned = on_fabric(turned[None], np.rot90(fabric, turns)[None]).numpy()[0]
    np.testing.assert_allclose(of_turned, expected, atol=1e-5)
