import numpy as np
import pytest
import tensorflow as tf

from tfgad.scores import windows


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 24, 40, 3)).astype("float32")


def cut_and_blend(images, window, stride, judge=lambda pieces: pieces):
    pieces = windows.cut(windows.pad_to_grid(images, window, stride), window, stride)
    return windows.blend(judge(pieces), stride)[:, : images.shape[1], : images.shape[2]].numpy()


@pytest.mark.parametrize("side", [1, 2, 7, 32])
def test_hann_is_a_bell_that_is_nowhere_zero(side):
    bell = windows.hann(side, side + 3)
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
    result = windows.pad_to_grid(image, (16, 16), 4).numpy()
    spare = [(0, b - a) for a, b in zip(size, padded, strict=True)]
    np.testing.assert_array_equal(result, np.pad(image, [(0, 0), *spare, (0, 0)], "symmetric"))


def test_windows_are_pieces_of_the_image_in_reading_order(images):
    pieces = windows.cut(images, (16, 8), 8)
    assert pieces.shape == (2, 2, 5, 16, 8, 3)
    for row in range(2):
        for column in range(5):
            piece = images[:, 8 * row : 8 * row + 16, 8 * column : 8 * column + 8]
            np.testing.assert_array_equal(pieces[:, row, column], piece)


@pytest.mark.parametrize(
    ("window", "stride"), [((16, 16), 4), ((16, 16), 16), ((16, 8), 8), ((8, 24), 2)]
)
def test_a_function_of_the_pixel_comes_back_exactly(images, window, stride):
    def judge(x):
        return x**2 - 3 * x + 1

    blended = cut_and_blend(images, window, stride, judge)
    np.testing.assert_allclose(blended, judge(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (31, 18)])
def test_a_constant_comes_back_at_any_size(size):
    image = np.full((1, *size, 2), 0.3, "float32")
    np.testing.assert_allclose(cut_and_blend(image, (16, 16), 8), image, atol=1e-6)


def test_overlapping_windows_are_averaged_by_their_weights():
    pieces = np.random.default_rng(0).normal(size=(2, 3, 2, 8, 12, 1)).astype("float32")
    stride, weight = 4, windows.hann(8, 12)[..., None]
    total, weights = np.zeros((2, 16, 16, 1)), np.zeros((1, 16, 16, 1))
    for row in range(3):
        for column in range(2):
            place = np.s_[:, 4 * row : 4 * row + 8, 4 * column : 4 * column + 12]
            total[place] += pieces[:, row, column] * weight
            weights[place] += weight
    np.testing.assert_allclose(windows.blend(pieces, stride), total / weights, atol=1e-6)


@pytest.mark.parametrize("length", [1, 60, 69, 70, 71, 100, 101, 180])
def test_blocks_keep_each_pixel_once_with_its_rim_around_it(length):
    blocks = list(windows.parts(length, step=40, far=30))
    kept = [pixel for keep, _ in blocks for pixel in range(keep.start, keep.stop)]
    assert kept == list(range(length))
    for keep, block in blocks:
        assert keep.start % 40 == 0
        assert block.stop - block.start <= 100
        assert block.start == max(keep.start - 30, 0)
        assert block.stop == min(keep.stop + 30, length)


@pytest.mark.parametrize("size", [(1, 16, 16), (3, 40, 170), (1, 64, 300), (40, 16, 16)])
def test_blocks_of_windows_and_tiles_change_nothing(monkeypatch, size):
    monkeypatch.setattr(windows, "BLOCK", 100)
    images = np.random.default_rng(0).uniform(-1, 1, (*size, 1)).astype("float32")
    seen = []

    def of_windows(pieces):  # as networks do, and the cues, it sees each window and tile whole
        return pieces * tf.reduce_mean(pieces, axis=[1, 2], keepdims=True)

    def whole(x, trim=lambda x: x):
        errors = trim(windows.by_piece(x, (16, 16), 8, of_windows))
        return windows.by_piece(errors, (32, 32), 16, of_windows)

    def of_block(block, trim):
        seen.append(tf.shape(block))
        return whole(block, trim)

    rims = 2 * (windows.rim(16, 8, 32, 16),)
    assert rims[0] == (16, 24, 16)
    by_block = windows.by_block(images, rims, 1, of_block)
    np.testing.assert_allclose(by_block, whole(tf.constant(images)), rtol=1e-5, atol=1e-6)
    pixels = [int(tf.reduce_prod(each)) for each in seen]
    assert max(pixels) <= 100**2
    assert len(seen) == {3: 12, 1: 1 if size[1] == 16 else 6, 40: 2}[size[0]]
