"""Cutting: every pixel in a tile, tiles in order, small images continued."""

import numpy as np
import pytest

from tfgad.data.tiles import cut, starts


@pytest.mark.parametrize(
    ("length", "expected"),
    [(256, [0, 128]), (300, [0, 128, 172]), (129, [0, 1]), (128, [0]), (5, [0])],
)
def test_tiles_cover_an_axis_and_end_flush_with_it(length, expected):
    assert starts(length, 128) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_cut_takes_tiles_row_by_row(channels):
    image = np.random.default_rng(0).normal(size=(50, 71, channels)).astype(np.float32)
    tiles = cut(image, 32)
    assert tiles.shape == (6, 32, 32, channels)
    assert tiles.dtype == np.float32
    corners = [(0, 0), (0, 32), (0, 39), (18, 0), (18, 32), (18, 39)]
    for tile, (y, x) in zip(tiles, corners, strict=True):
        np.testing.assert_array_equal(tile, image[y : y + 32, x : x + 32])


def test_cut_reflects_a_small_image():
    (tile,) = cut(np.array([[[1], [2], [3]]]), 5)
    np.testing.assert_array_equal(tile[..., 0], np.tile([1, 2, 3, 3, 2], (5, 1)))
