import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from tfgad.data.datasets.weave import weave
from tfgad.data.datasets.weave.cloth import FABRICS, lay
from tfgad.data.datasets.weave.defects import KINDS
from tfgad.data.datasets.weave.render import photograph, set_up_camera
from tfgad.data.datasets.weave.weave import DEFECTS, VISIBLE, WEAVES, load, render
from tfgad.errors import UsageError


def cloth_of(name, size=128, seed=1):
    return lay(FABRICS[name], np.random.default_rng(seed), size, channels=1, zoom=2)


def picture_of(cloth, name):
    camera = set_up_camera(np.random.default_rng(2), len(cloth.relief) // 2)
    return photograph(cloth, FABRICS[name], camera, np.random.default_rng(3))


def test_there_are_eight_weaves_and_twelve_defects():
    assert len(WEAVES) >= 8
    assert len(DEFECTS) >= 10


@pytest.mark.parametrize(
    ("name", "over"), [("plain", 1 / 2), ("twill", 2 / 3), ("denim", 3 / 4), ("satin", 4 / 5)]
)
def test_draft_shows_the_right_share_of_warp(name, over):
    draft = FABRICS[name].draft
    assert draft.mean() == pytest.approx(over)
    # A sound cloth: every end and every pick goes over and under at least once.
    for axis in (0, 1):
        assert draft.any(axis).all()
        assert not draft.all(axis).any()


def test_weaves_do_not_share_the_positions_of_their_defects():
    """Otherwise the test tiles of one weave would tell the defects of another."""

    def masks(name):
        tiles = [render(name, seed=0, index=i, size=96, defect="hole") for i in range(6)]
        return np.stack([mask for _, mask in tiles]) > 0

    of_plain, of_denim = masks("plain"), masks("denim")
    assert (of_plain & of_denim).sum() / (of_plain | of_denim).sum() < 0.2


def test_satin_points_never_touch():
    points = ~FABRICS["satin"].draft
    neighbours = [
        np.roll(points, shift, axis=(0, 1)) for shift in ((0, 1), (1, 0), (1, 1), (1, -1))
    ]
    assert not any((points & neighbour).any() for neighbour in neighbours)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WEAVES)
def test_render_gives_cloth(name, channels):
    image, mask = render(name, seed=0, index=0, size=64, channels=channels)
    assert image.shape == (64, 64, channels)
    assert image.dtype == mask.dtype == np.uint8
    assert mask.shape == (64, 64, 1)
    assert not mask.any()
    assert image.std() > 10  # yarns are seen
    assert (image == 255).mean() < 0.02  # and not over-exposed


def test_tiles_depend_on_seed_index_and_split_alone():
    base = {"seed": 4, "index": 7, "split": "train", "size": 48}
    image, _ = render("twill", **base)
    np.testing.assert_array_equal(image, render("twill", **base)[0])
    for change in ({"seed": 5}, {"index": 8}, {"split": "calibration"}, {"split": "test"}):
        other, _ = render("twill", **{**base, **change})
        assert (image != other).mean() > 0.5


def test_twill_repeats_every_three_picks():
    image, _ = render("twill", seed=0, index=0, size=160)
    image = image[..., 0] - ndimage.gaussian_filter(image[..., 0].astype(float), 10)

    def likeness(shift):
        return np.corrcoef(image[shift:].ravel(), image[:-shift].ravel())[0, 1]

    # Picks lie 6 pixels apart, so that 3 of them make 18.
    assert likeness(18) > 0.8
    assert max(likeness(6), likeness(12)) < 0.65


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_is_visible_only_inside_its_mask(kind):
    tile = {"seed": 3, "index": 5, "split": "test", "size": 96}
    good, _ = render("twill", **tile)
    defective, mask = render("twill", **tile, defect=kind)
    inside = mask[..., 0] == 1
    assert 12 <= inside.sum() < 0.6 * inside.size
    change = np.abs(defective.astype(float) - good)[..., 0] / 255
    assert change[inside].mean() > VISIBLE
    far = ~ndimage.binary_dilation(inside, iterations=12)
    assert change[far].mean() < VISIBLE / 4


@pytest.mark.parametrize("name", WEAVES)
def test_every_defect_is_visible_on_every_weave_in_the_smallest_tile(name):
    for kind in DEFECTS:
        _, mask = render(name, seed=0, index=1, split="test", size=32, defect=kind)
        assert mask.sum() >= 12


def changed_yarns(kind, attribute):
    """Which ends and picks a severe defect of this kind changes, over several draws."""
    good, ends, picks = cloth_of("plain"), [], []
    for seed in range(6):
        defective = good.copy()
        KINDS[kind](defective, np.random.default_rng(seed), 0.9)
        for system, found in (("warp", ends), ("weft", picks)):
            before, after = (getattr(getattr(c, system), attribute) for c in (good, defective))
            found.append(int((before != after).any(axis=0).sum()))
    return ends, picks


def test_broken_end_loses_one_warp_yarn():
    assert changed_yarns("broken_end", "radius") == ([1] * 6, [0] * 6)


def test_coarse_end_is_one_thick_warp_yarn_all_along():
    good = cloth_of("plain")
    defective = good.copy()
    KINDS["coarse_end"](defective, np.random.default_rng(0), 1.0)
    ratio = (defective.warp.radius / good.warp.radius).max(axis=1)
    np.testing.assert_allclose(ratio, 2.1, rtol=1e-5)


def test_reed_mark_moves_ends_and_only_ends():
    ends, picks = changed_yarns("reed_mark", "centre")
    assert min(ends) > 1
    assert picks == [0] * 6


def test_oil_stain_darkens_without_moving_yarns():
    good = cloth_of("plain")
    defective = good.copy()
    KINDS["oil_stain"](defective, np.random.default_rng(0), 0.5)
    np.testing.assert_array_equal(defective.warp.centre, good.warp.centre)
    np.testing.assert_array_equal(defective.over, good.over)
    assert (defective.warp.albedo <= good.warp.albedo).all()
    assert (picture_of(defective, "plain") <= picture_of(good, "plain") + 1e-6).all()


def test_float_skips_interlacings_along_neighbouring_yarns():
    good = cloth_of("plain")
    defective = good.copy()
    KINDS["float"](defective, np.random.default_rng(0), 0.0)
    skipped = np.argwhere(defective.over != good.over)
    assert len(skipped) >= 2
    assert 1 in (len(set(skipped[:, 0])), len(set(skipped[:, 1])))  # along a single yarn


def test_a_missing_yarn_covers_no_pixels_and_leaves_a_dark_gap():
    fabric = dataclasses.replace(FABRICS["plain"], hairiness=0.0)
    cloth = lay(fabric, np.random.default_rng(0), 128, channels=1, zoom=2)
    for yarns in (cloth.warp, cloth.weft):
        yarns.radius[:] = 0
    assert picture_of(cloth, "plain").max() < 0.25


def test_load_streams_the_tiles():
    data = load("twill", size=32, train=3, calibration=2, test=26)
    assert data.image_shape == (32, 32, 1)
    assert data.train.element_spec.shape == (32, 32, 1)
    train = list(data.train.as_numpy_iterator())
    calibration = list(data.calibration.as_numpy_iterator())
    test = list(data.test.as_numpy_iterator())
    assert (len(train), len(calibration), len(test)) == (3, 2, 26)
    assert all(-1 <= image.min() < image.max() <= 1 for image in train + calibration)
    expected, _ = render("twill", seed=0, index=2, size=32)
    np.testing.assert_allclose(train[2], expected / 127.5 - 1, atol=1e-6)
    assert [tile["label"] for tile in test] == 13 * [0, 1]
    assert [tile["mask"].any() for tile in test] == 13 * [False, True]
    kinds = [tile["name"].decode().split("/")[0] for tile in test[1::2]]
    assert kinds == [*DEFECTS, DEFECTS[0]]
    assert test[0]["name"] == b"good/000"
    assert data.test.element_spec["mask"].shape == (32, 32, 1)


def test_streams_are_the_same_each_time():
    data = load("plain", size=32, channels=3, train=5, test=2, calibration=1)
    first, second = (np.stack(list(data.train.as_numpy_iterator())) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_tiles_of_a_stream_are_rendered_once_unless_they_are_large():
    weave._kept.cache_clear()
    data = load("plain", size=32, train=3, test=2, calibration=1)
    for _ in range(2):
        assert len(list(data.train)) == 3
        assert len(list(data.test)) == 2
    again = load("plain", size=32, train=3, test=2, calibration=1)
    assert len(list(again.train)) == 3
    kept = weave._kept.cache_info()
    assert (kept.misses, kept.hits) == (5, 8)
    assert len(list(load("plain", size=130, train=1, test=1, calibration=1).train)) == 1
    assert weave._kept.cache_info() == kept


def test_splits_share_no_tile():
    data = load("plain", size=32, train=4, calibration=4, test=8)
    tiles = [*data.train.as_numpy_iterator(), *data.calibration.as_numpy_iterator()]
    tiles += [tile["image"] for tile in data.test.as_numpy_iterator()]
    assert len({tile.tobytes() for tile in tiles}) == 16


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("twil", {}, "did you mean 'twill'"),
        ("twill", {"size": 16}, "use 32 or more"),
        ("twill", {"channels": 2}, "use 1 or 3"),
        ("twill", {"seed": -1}, "use 0 or more"),
        ("twill", {"calibration": 0}, "give 1 or more"),
    ],
)
def test_usage_errors(name, options, message):
    with pytest.raises(UsageError, match=message):
        load(name, **options)


def test_unknown_defect_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'broken_end'"):
        render("twill", seed=0, index=0, defect="broken_ends")
