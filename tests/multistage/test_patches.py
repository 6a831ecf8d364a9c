"""Patches of defects: their form, their masks, their fabric beside them."""

import numpy as np

from tfgad.multistage import patches
from tfgad.multistage.sources import kinds_of


def test_patches_hold_defects_of_all_kinds_alike(fabrics):
    kinds = kinds_of(fabrics)
    cut = patches.cut_patches(fabrics, kinds, 36, side=48)
    assert cut.defects.shape == (36, 48, 48, 2)
    assert cut.fabrics.shape == (36, 48, 48, 1)
    assert np.abs(cut.defects).max() <= 1.0
    assert (cut.defects[..., 1] > 0).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(np.bincount(cut.kinds), [3] * len(kinds))


def test_the_same_seed_cuts_the_same(fabrics):
    kinds = kinds_of(fabrics)
    first, again, other = (patches.cut_patches(fabrics, kinds, 4, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.defects, again.defects)
    assert not np.array_equal(first.defects, other.defects)


def test_a_change_tones_the_image_and_turns_its_mask():
    patch = np.zeros((4, 4, 2), "float32")
    patch[..., 1] = -1.0
    patch[0, 0] = (0.5, 1.0)
    for seed in range(8):
        change = patches.Augmentation(np.random.default_rng(seed))
        changed = change(patch)
        assert sorted(np.unique(changed[..., 1])) == [-1.0, 1.0]
        (y,), (x,) = np.nonzero(changed[..., 1] > 0)
        expected = np.clip(0.5 * change.gain + change.shade, -1, 1)
        np.testing.assert_allclose(changed[y, x, 0], expected, rtol=1e-6)


def test_a_square_around_a_mask_holds_some_of_it():
    rng = np.random.default_rng(0)
    mask = np.zeros((64, 80, 1), np.uint8)
    mask[2, 77] = 1  # in a corner
    for _ in range(20):
        y, x = patches.around(mask, 32, rng)
        assert 0 <= y <= 32
        assert 0 <= x <= 48
        assert mask[y : y + 32, x : x + 32].any()


def test_enlarging_stays_in_range():
    patch = np.where(np.random.default_rng(0).uniform(size=(32, 32, 1)) > 0.5, 1.0, -1.0)
    assert np.abs(patches.resized(patch, 48)).max() <= 1.0
    assert patches.resized(patch, 32) is patch
