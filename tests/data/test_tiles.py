"""Cutting and blending: borders covered, no seams."""

import numpy as np
import pytest

from tfgad.data.tiles import blend, cut, starts
from tfgad.errors import UsageError


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "expected"),
    [
        (256, 128, 0, [0, 128]),
        (300, 128, 0, [0, 128, 172]),
        (300, 128, 64, [0, 64, 128, 172]),
        (128, 128, 32, [0]),
        (5, 128, 32, [0]),
    ],
)
def test_starts(length, tile, overlap, expected):
    assert starts(length, tile, overlap) == expected


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_tiles(tile, overlap):
    with pytest.raises(UsageError):
        starts(100, tile, overlap)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_cut_takes_the_pixels_at_the_positions(channels):
    image = np.random.default_rng(0).normal(size=(50, 71, *channels)).astype(np.float32)
    tiles, positions = cut(image, 32, 8)
    assert tiles.shape == (6, 32, 32, *channels)
    assert positions.dtype == np.int32
    for tile, (y, x) in zip(tiles, positions, strict=True):
        np.testing.assert_array_equal(tile, image[y : y + 32, x : x + 32])


def test_cut_reflects_a_small_image():
    tiles, positions = cut(np.array([[1, 2, 3]]), 5)
    np.testing.assert_array_equal(tiles[0], np.tile([1, 2, 3, 3, 2], (5, 1)))
    assert positions.tolist() == [[0, 0]]


@pytest.mark.parametrize("overlap", [0, 1, 16, 31])
@pytest.mark.parametrize("shape", [(50, 71), (32, 32), (20, 100), (7, 9)])
def test_blending_the_tiles_of_a_ramp_gives_the_ramp(shape, overlap):
    y, x = np.mgrid[: shape[0], : shape[1]]
    ramp = (0.37 * x - 1.21 * y).astype(np.float32)
    result = blend(*cut(ramp, 32, overlap), shape)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, ramp)


def test_disagreeing_tiles_fade_into_each_other_without_a_seam():
    positions = np.array([[0, 0], [0, 32]])
    maps = np.stack([np.zeros((64, 64)), np.ones((64, 64))])
    row = blend(maps, positions, (64, 96))[10]
    assert (np.diff(row) >= 0).all()
    assert np.diff(row).max() < 0.06  # a raised cosine over 32 pixels is steepest at pi/64
    assert row[47] + row[48] == pytest.approx(1)  # halfway at the middle of the overlap
    assert row[31] == 0
    assert row[64] == 1
