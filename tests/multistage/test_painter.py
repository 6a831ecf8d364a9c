"""A painter end to end: trained, saved, loaded, resumed; and what it paints."""

import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.multistage import fusion, sources
from tfgad.multistage.painter import load_painter
from tfgad.multistage.painter_training import train_painter


@pytest.fixture(scope="module")
def painter(painter_folder):
    """The painter, loaded."""
    return load_painter(painter_folder)


def again(painter, fabrics, folder, **arguments):
    """Trains as the fixture was trained."""
    settings = painter.config["settings"]
    return train_painter(fabrics, folder, settings=settings, vgg_weights="random", **arguments)


def test_its_folder_says_what_it_is(painter, painter_folder):
    assert painter.config["vgg_weights"] == "random"
    assert len(painter.kinds) == 12
    assert {"generator", "fusion"} <= painter.config["seconds"].keys()
    assert not list(painter_folder.glob("*.h5"))


def test_it_paints_within_windows_and_says_where(painter, fabrics):
    painted = list(painter.paint(fabrics[0].good, 20, seed=3))
    assert [each.kind for each in painted[:12]] == list(painter.kinds)
    for each in painted:
        assert each.image.shape == (64, 64, 1)
        assert each.mask.shape == (64, 64, 1)
        assert np.abs(each.image).max() <= 1.0
        y, x, side = each.window
        inside = np.zeros((64, 64), bool)
        inside[y : y + side, x : x + side] = True
        assert not each.mask[..., 0][~inside].any()
        grown = np.zeros((64, 64), bool)
        rim = fusion.RIM
        grown[max(y - rim, 0) : y + side + rim, max(x - rim, 0) : x + side + rim] = True
        np.testing.assert_array_equal(each.image[~grown], each.good[~grown])


def test_the_same_seed_paints_the_same(painter, fabrics):
    first, same, other = (list(painter.paint(fabrics[0].good, 4, seed=s)) for s in (1, 1, 2))
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=1e-6)
        assert not np.allclose(a.image, c.image)


def test_unfused_patches_stay_as_they_are(painter, fabrics):
    (each,) = painter.paint(fabrics[0].good, 1, how="pasted", kinds=["slub"])
    assert each.kind == "slub"
    y, x, side = each.window
    outside = np.ones((64, 64), bool)
    outside[y : y + side, x : x + side] = False
    np.testing.assert_array_equal(each.image[outside], each.good[outside])


@pytest.mark.parametrize(
    ("images", "kinds", "fault"),
    [
        (np.zeros((0, 64, 64, 1), "float32"), None, "give good images"),
        (np.zeros((1, 64, 64, 3), "float32"), None, "channels=1"),
        (np.zeros((1, 32, 64, 1), "float32"), None, "at least 64"),
        (np.zeros((1, 66, 66, 1), "float32"), None, "multiples of 4"),
        (np.zeros((1, 64, 64, 1), "float32"), ["slab"], "slub"),
    ],
)
def test_what_cannot_be_painted_is_refused(painter, images, kinds, fault):
    with pytest.raises(UsageError, match=fault):
        list(painter.paint(images, 1, kinds=kinds))


def test_a_broken_off_training_goes_on_to_the_same_painter(
    painter, painter_folder, fabrics, tmp_path
):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

        def on_train_begin(self, logs=None):
            self.model.save_weights(tmp_path / "painter" / f"{self.stage}.weights.h5")

    def broken_off(stage, steps):
        stop = Stop()
        stop.stage = stage
        return [stop] if stage == "fusion" else []

    folder = tmp_path / "painter"
    with pytest.raises(KeyboardInterrupt):
        again(painter, fabrics, folder, callbacks=broken_off)
    with pytest.raises(UsageError, match="not been trained to the end"):
        load_painter(folder)
    with pytest.raises(UsageError, match="--resume"):
        again(painter, fabrics, folder)
    with pytest.raises(UsageError, match="was begun with seed"):
        again(painter, fabrics, folder, resume=True, seed=1)
    resumed = again(painter, fabrics, folder, resume=True)
    for name in ("style", "generator", "fusion"):
        ours, theirs = (getattr(each, name).get_weights() for each in (resumed, painter))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert load_painter(folder).config["kinds"] == list(painter.kinds)


def test_images_smaller_than_a_patch_are_refused(painter, tmp_path):
    small = sources.read_sources(["weave:plain?size=48&train=2&calibration=2&test=2"])
    with pytest.raises(UsageError, match="at least 64"):
        again(painter, small, tmp_path / "painter")


def test_a_folder_that_is_no_painter_is_left_alone(painter, fabrics, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="something else"):
            again(painter, fabrics, tmp_path, overwrite=overwrite)
    with pytest.raises(UsageError, match="no trained painter"):
        load_painter(tmp_path)
    with pytest.raises(UsageError, match="is not there"):
        load_painter(tmp_path / "nowhere")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
