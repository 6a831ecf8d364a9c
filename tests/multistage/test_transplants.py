"""Known defects on another fabric: whole, where their masks are, and nothing else."""

import numpy as np
import pytest

from tfgad.multistage.sources import Source
from tfgad.multistage.transplants import SHIFT, transplanted

SIDE = 96


@pytest.fixture
def source():
    """A dark fabric with two bright defects: a pixel and a bar."""
    masks = np.zeros((2, SIDE, SIDE, 1), np.uint8)
    masks[0, 10, 20] = masks[1, 40:44, 50:70] = 1
    images = np.where(masks > 0, np.float32(0.9), np.float32(-0.9))
    return Source("weave:plain", images[:0], images[:0], images, masks, ("knot", "slub"))


def test_defects_are_laid_on_good_fabric_whole(source):
    good = np.random.default_rng(0).uniform(-0.5, 0.5, (3, SIDE, SIDE, 1)).astype("float32")
    images, masks, kinds = transplanted([source], good, 40, seed=1)
    assert images.shape == masks.shape == (40, SIDE, SIDE, 1)
    assert (images.dtype, masks.dtype) == (np.float32, np.uint8)
    sizes = {"knot": 1, "slub": 80}
    for image, mask, kind in zip(images, masks, kinds, strict=True):
        assert mask.sum() == sizes[kind]
        np.testing.assert_allclose(image[mask > 0], 0.9)
        assert any((image == each)[mask == 0].all() for each in good)
    assert set(kinds) == set(sizes)


def test_they_are_turned_and_shifted(source):
    """The place of the one-pixel defect: its four turns, each shifted by up to `SHIFT`."""
    _, masks, kinds = transplanted([source], np.zeros((1, SIDE, SIDE, 1), "float32"), 400)
    places = np.array(
        [np.argwhere(m)[0, :2] for m, k in zip(masks, kinds, strict=True) if k == "knot"]
    )
    turns = np.array([np.argwhere(np.rot90(source.masks[0], n))[0, :2] for n in range(4)])
    apart = (places[:, None] - turns + SIDE // 2) % SIDE - SIDE // 2
    nearest = np.abs(apart).max(axis=-1).min(axis=1)
    assert nearest.max() <= SHIFT
    assert len(np.unique(places, axis=0)) > 100


def test_the_seed_decides(source):
    good = np.zeros((2, SIDE, SIDE, 1), "float32")
    first, again, other = (transplanted([source], good, 8, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_none_are_none(source):
    images, masks, kinds = transplanted([source], np.zeros((2, SIDE, SIDE, 1), "float32"), 0)
    assert images.shape == masks.shape == (0, SIDE, SIDE, 1)
    assert kinds == []
