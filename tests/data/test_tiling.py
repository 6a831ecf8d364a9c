"""Cutting and putting together: every pixel once, in order, at any size, the same by blocks."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data import tiling
from tfgad.scores.score import margins_of


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 24, 40, 3)).astype("float32")


def cut_and_blend(images, window, stride, function=lambda windows: windows):
    windows = tiling.cut(tiling.pad_to_grid(images, window, stride), window, stride)
    blended = tiling.blend(function(windows), stride)
    return blended[:, : images.shape[1], : images.shape[2]].numpy()


@pytest.mark.parametrize("side", [1, 2, 7, 32])
def test_hann_is_a_bell_that_is_nowhere_zero(side):
    bell = tiling.hann_weights(side, side + 3)
    assert bell.shape == (side, side + 3)
    assert bell.dtype == np.float32
    assert bell.min() > 0
    np.testing.assert_allclose(bell, bell[::-1, ::-1], atol=1e-7)
    assert bell[side // 2, (side + 3) // 2] == bell.max()


@pytest.mark.parametrize(
    ("size", "padded"),
    [((16, 16), (16, 16)), ((17, 24), (20, 24)), ((23, 33), (24, 36)), ((5, 17), (16, 20))],
)
def test_padding_mirrors_up_to_the_grid(size, padded):
    image = np.random.default_rng(0).normal(size=(1, *size, 1)).astype("float32")
    result = tiling.pad_to_grid(image, (16, 16), 4).numpy()
    spare = [(0, b - a) for a, b in zip(size, padded, strict=True)]
    np.testing.assert_array_equal(result, np.pad(image, [(0, 0), *spare, (0, 0)], "symmetric"))


def test_windows_are_pieces_of_the_image_in_reading_order(images):
    windows = tiling.cut(images, (16, 8), 8)
    assert windows.shape == (2, 2, 5, 16, 8, 3)
    for row in range(2):
        for column in range(5):
            piece = images[:, 8 * row : 8 * row + 16, 8 * column : 8 * column + 8]
            np.testing.assert_array_equal(windows[:, row, column], piece)


@pytest.mark.parametrize(
    ("window", "stride"), [((16, 16), 4), ((16, 16), 16), ((16, 8), 8), ((8, 24), 2)]
)
def test_a_function_of_each_pixel_comes_back_exactly(images, window, stride):
    def polynomial(x):
        return x**2 - 3 * x + 1

    blended = cut_and_blend(images, window, stride, polynomial)
    np.testing.assert_allclose(blended, polynomial(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (31, 18)])
def test_a_constant_comes_back_at_any_size(size):
    image = np.full((1, *size, 2), 0.3, "float32")
    np.testing.assert_allclose(cut_and_blend(image, (16, 16), 8), image, atol=1e-6)


@pytest.mark.parametrize("size", [(24, 45), (16, 9), (40, 10), (7, 5), (33, 36)])
def test_flush_windows_lie_within_the_image_and_cover_it(size):
    image = np.random.default_rng(1).normal(size=(1, *size, 1)).astype("float32")
    window, stride, seen = (16, 9), (8, 9), []

    def of_windows(windows):
        seen.append(windows.numpy())
        return windows

    result = tiling.by_window(image, window, stride, of_windows, flush=True)
    np.testing.assert_allclose(result, image, rtol=1e-5, atol=1e-6)
    height, width = (max(side, least) for side, least in zip(size, window, strict=True))
    spare = [(0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0)]
    whole = np.pad(image, spare, "symmetric")  # beyond an image smaller than a window alone
    rows = sorted({min(top, height - 16) for top in range(0, height - 16 + 8, 8)})
    columns = sorted({min(left, width - 9) for left in range(0, width - 9 + 9, 9)})
    pieces = [whole[0, y : y + 16, x : x + 9] for y in rows for x in columns]
    np.testing.assert_array_equal(seen[0], pieces)


def test_a_flush_window_counts_from_its_place_on_the_grid_on():
    image = np.zeros((1, 8, 11, 1), "float32")  # windows at 0 and 3, the second in place of 4
    numbers = tf.constant([1.0, 2.0])[:, None, None, None]
    blended = tiling.by_window(image, (8, 8), 4, lambda x: x + numbers, flush=True)
    result, weight = blended.numpy()[0, 0, :, 0], tiling.hann_weights(8, 8)[0]
    assert (result[:4] == 1).all()
    assert result[4] == pytest.approx((weight[4] + 2 * weight[0]) / (weight[4] + weight[0]))
    assert (result[8:] == 2).all()


def test_windows_overlap_by_half_along_each_axis():
    assert [tiling.half_stride(side) for side in (128, 98, 97, 1)] == [64, 49, 97, 1]


def test_overlapping_windows_are_averaged_by_their_weights():
    windows = np.random.default_rng(0).normal(size=(2, 3, 2, 8, 12, 1)).astype("float32")
    stride, weight = 4, tiling.hann_weights(8, 12)[..., None]
    total, weights = np.zeros((2, 16, 16, 1)), np.zeros((1, 16, 16, 1))
    for row in range(3):
        for column in range(2):
            place = np.s_[:, 4 * row : 4 * row + 8, 4 * column : 4 * column + 12]
            total[place] += windows[:, row, column] * weight
            weights[place] += weight
    np.testing.assert_allclose(tiling.blend(windows, stride), total / weights, atol=1e-6)


@pytest.mark.parametrize("length", [1, 60, 69, 70, 71, 100, 101, 180])
def test_blocks_keep_each_pixel_once_with_its_margin_around_it(length):
    blocks = list(tiling.split_axis(length, step=40, outer=30))
    kept = [pixel for keep, _ in blocks for pixel in range(keep.start, keep.stop)]
    assert kept == list(range(length))
    for keep, block in blocks:
        assert keep.start % 40 == 0
        assert block.stop - block.start <= 100
        assert block.start == max(keep.start - 30, 0)
        assert block.stop == min(keep.stop + 30, length)


@pytest.mark.parametrize("size", [(1, 16, 16), (3, 40, 170), (1, 64, 300), (40, 16, 16)])
def test_blocks_of_windows_and_tiles_change_nothing(monkeypatch, size):
    monkeypatch.setattr(tiling.blocks, "BLOCK", 100)
    images = np.random.default_rng(0).uniform(-1, 1, (*size, 1)).astype("float32")
    seen = []

    def of_windows(windows):  # like networks and cues, it reads each window and tile whole
        return windows * tf.reduce_mean(windows, axis=[1, 2], keepdims=True)

    def whole(x, trim=lambda x: x):
        errors = trim(tiling.by_window(x, (16, 16), 8, of_windows))
        return tiling.by_window(errors, (32, 32), 16, of_windows, flush=True)

    def of_block(block, trim):
        seen.append(tf.shape(block))
        return whole(block, trim)

    margins = 2 * (tiling.two_stage_margin(16, 8, 32, 16),)
    assert margins[0] == (16, 24, 16)
    by_block = tiling.by_block(images, margins, 1, of_block)
    np.testing.assert_allclose(by_block, whole(tf.constant(images)), rtol=1e-5, atol=1e-6)
    pixels = [int(tf.reduce_prod(each)) for each in seen]
    assert max(pixels) <= 100**2
    assert len(seen) == {3: 12, 1: 1 if size[1] == 16 else 6, 40: 2}[size[0]]


@pytest.mark.parametrize("score", ["cues", "latent", None])
@pytest.mark.parametrize("tile", [48, 128, 160])
def test_blocks_have_the_tiles_of_the_whole_image(score, tile):
    """Or the image's quality would be decided by a tile that the whole image does not have."""
    height, width = 1000, 1501
    places = np.stack(np.mgrid[:height, :width], axis=-1)
    seen, result = [], np.zeros((height, width, 2), int)

    def of_block(block):
        seen.append((block[0, 0], block[-1, -1] + 1))
        return block

    margins = margins_of((32, 32, 1), (tile, tile), 16, score)
    tiling.fill_by_block(result, places, margins, (tile, tile), 400**2, of_block)
    np.testing.assert_array_equal(result, places)
    assert len(seen) > 4
    for start, end in seen:
        assert not (start % tile).any()
        assert all(end % tile * (end != (height, width)) == 0)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(256, [0, 128]), (300, [0, 128, 172]), (129, [0, 1]), (128, [0]), (5, [0])],
)
def test_tiles_cover_an_axis_and_end_flush_with_it(length, expected):
    assert tiling.tile_starts(length, 128) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_cut_takes_tiles_row_by_row(channels):
    image = np.random.default_rng(0).normal(size=(50, 71, channels)).astype(np.float32)
    tiles = tiling.cut_tiles(image, 32)
    assert tiles.shape == (6, 32, 32, channels)
    assert tiles.dtype == np.float32
    corners = [(0, 0), (0, 32), (0, 39), (18, 0), (18, 32), (18, 39)]
    for tile, (y, x) in zip(tiles, corners, strict=True):
        np.testing.assert_array_equal(tile, image[y : y + 32, x : x + 32])


def test_cut_reflects_a_small_image():
    (tile,) = tiling.cut_tiles(np.array([[[1], [2], [3]]]), 5)
    np.testing.assert_array_equal(tile[..., 0], np.tile([1, 2, 3, 3, 2], (5, 1)))


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        ((32, 32), 16, (16, 16)),
        ((28, 50), 16, (14, 10)),
        ((8, 24), 16, (8, 12)),
        ((251, 256), 64, (251, 64)),
        ((97, 3), 64, (97, 3)),
        ((202, 64), 64, (101, 64)),
    ],
)
def test_strides_divide_the_sides_of_the_window(window, stride, expected):
    assert tiling.strides_of(window, stride) == expected
