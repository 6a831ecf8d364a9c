"""A painter end to end: trained, saved, loaded, resumed; and what it paints."""

import dataclasses
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfgad.core.settings import parse
from tfgad.errors import UsageError
from tfgad.multistage import fusion, sources
from tfgad.multistage.defect_generator import DefectGenerator
from tfgad.multistage.painter import LEAST_MASK, TRIES, Painter, load_painter
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.painter_folder import CONFIG
from tfgad.multistage.painter_training import train_painter
from tfgad.networks.defects import MASK

pytestmark = pytest.mark.slow  # for the models that it trains

SIDE = 128  # of what is painted on: larger than any window with its rim


@pytest.fixture(scope="module")
def good():
    """Good twill, larger than a window."""
    few = "train=6&calibration=2&test=4"
    return sources.read_sources([f"weave:twill?size={SIDE}&{few}"])[0].good


def settings_of(painter):
    return parse(PainterConfig, painter.config["settings"], of="the painter")


def again(painter, fabrics, folder, **arguments):
    """Trains as the fixture was trained."""
    settings = settings_of(painter)
    return train_painter(fabrics, folder, settings=settings, vgg_weights="random", **arguments)


def test_its_folder_says_what_it_is(painter, painter_folder):
    assert painter.config["vgg_weights"] == "random"
    assert len(painter.kinds) == 12
    assert {"generator", "fusion"} <= painter.config["seconds"].keys()
    assert not list(painter_folder.glob("*.h5"))


@pytest.mark.integration
def test_a_fresh_interpreter_loads_it(painter_folder):
    code = (
        "import sys; from tfgad.multistage.painter import load_painter; load_painter(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, painter_folder], check=True, timeout=300)


def test_it_paints_in_windows_and_says_where(painter, good):
    painted = list(painter.paint(good, 20, seed=3))
    assert [each.kind for each in painted[:12]] == list(painter.kinds)
    for each in painted:
        assert each.image.shape == (SIDE, SIDE, 1)
        assert each.mask.shape == (SIDE, SIDE, 1)
        assert np.abs(each.image).max() <= 1.0
        assert each.mask[fusion.inside(each.window)].any()
        assert each.mask.sum() >= LEAST_MASK
        outside = fusion.rim(each.mask[None].astype("float32"))[0] == 0
        np.testing.assert_array_equal(each.image[outside], each.good[outside])
        assert (each.image != each.good)[each.mask > 0].any()


def test_the_same_seed_paints_the_same(painter, fabrics):
    first, same, other = (list(painter.paint(fabrics[0].good, 4, seed=s)) for s in (1, 1, 2))
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=1e-6)
        assert not np.allclose(a.image, c.image)


def test_what_is_not_fused_stays_as_it_was_drawn(painter, good):
    painted = list(painter.paint(good, 4, how="pasted", kinds=["slub"]))
    assert [each.kind for each in painted] == ["slub"] * 4
    for each in painted:
        window = fusion.inside(each.window)
        np.testing.assert_array_equal(each.image[window], each.patch[..., :-1])
        np.testing.assert_array_equal(each.mask[window], each.patch[..., -1:] > 0)
        away = ndimage.maximum_filter(each.mask, (2 * fusion.RIM + 1,) * 2 + (1,)) == 0
        np.testing.assert_array_equal(each.image[away], each.good[away])
        assert (each.image != each.good)[window].any()


@pytest.fixture
def drawn(monkeypatch):
    """A function that has painters draw squares, of the sides given for each kind, one a drawing.

    The last side holds for all further drawings. Squares begin 20 pixels from the corner of their
    windows, which are of 52 to 80: one of 10 lies within, one of 60 is cut off.
    """

    def draw(**sides):
        rounds = []

        def draw(self, images, kinds, windows, seed=0):
            made = []
            for image, kind, window in zip(images, kinds, windows, strict=True):
                side = sides[kind][min(len(rounds), len(sides[kind]) - 1)]
                patch = np.full((window[-1], window[-1], 2), -1.0, "float32")
                patch[20 : 20 + side, 20 : 20 + side, -1] = 1.0
                made.append(fusion.paste(image, patch, window))
            rounds.append(len(kinds))
            return np.stack(made)

        monkeypatch.setattr(Painter, "draw", draw)
        return rounds

    return draw


def test_what_is_drawn_empty_is_drawn_again(painter, good, drawn, caplog):
    rounds = drawn(hole=[10], slub=[0, 0, 10])
    painted = list(painter.paint(good, 5, kinds=["hole", "slub"]))
    assert [each.kind for each in painted] == ["hole", "slub", "hole", "slub", "hole"]
    assert rounds == [5, 2, 2]
    assert not caplog.records


def test_what_its_window_cuts_off_is_drawn_again(painter, good, drawn):
    rounds = drawn(hole=[60, 10], slub=[60, 0, 60], knot=[0, 60, 0])
    painted = list(painter.paint(good, 3, kinds=["hole", "slub", "knot"]))
    assert rounds == [3, 3, *[2] * (TRIES - 2)]
    assert painted[0].mask.sum() == 10 * 10
    for each in painted[1:]:  # one that is cut off is better than none
        assert each.mask.sum() == (each.window[-1] - 20) ** 2


def test_what_stays_empty_is_left_out_and_logged_once(painter, good, drawn, caplog):
    rounds = drawn(hole=[0], slub=[10])
    painted = list(painter.paint(good, 20, kinds=["hole", "slub"]))
    assert [each.kind for each in painted] == ["slub"] * 10
    assert rounds == [16, *[8] * (TRIES - 1), 4, *[2] * (TRIES - 1)]
    (record,) = caplog.records
    assert "left out 10 of 20 images (hole: 10)" in record.getMessage()


def test_masks_are_large_enough_in_the_image_not_in_the_patch_alone(painter, good, monkeypatch):
    """A square of 4x4 pixels holds 16 of a patch, but of the smallest windows 9."""

    def generate(self, style, kind, fabric, seed=0, compiled=True):
        change = np.zeros((*fabric.shape[:3], 5), "float32")
        change[..., MASK] = -1.0
        change[:, 20:24, 20:24, MASK] = 1.0
        return tf.constant(change)

    monkeypatch.setattr(DefectGenerator, "generate", generate)
    painted = list(painter.paint(good, 30, kinds=["hole"]))
    assert 0 < len(painted) < 30
    assert min(each.mask.sum() for each in painted) >= LEAST_MASK


def test_a_painter_that_paints_nothing_must_be_trained_longer(painter, good, drawn):
    drawn(hole=[0])
    with pytest.raises(UsageError, match="more steps"):
        list(painter.paint(good, 3, kinds=["hole"]))
    assert list(painter.paint(good, 0)) == []


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


def test_an_interrupted_training_ends_with_the_same_painter(painter, fabrics, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

        def on_train_begin(self, logs=None):
            self.model.save_weights(tmp_path / "painter" / f"{self.stage}.weights.h5")

    def interrupted(stage, steps):
        stop = Stop()
        stop.stage = stage
        return [stop] if stage == "fusion" else []

    folder = tmp_path / "painter"
    with pytest.raises(KeyboardInterrupt):
        again(painter, fabrics, folder, callbacks=interrupted)
    with pytest.raises(UsageError, match="is not finished"):
        load_painter(folder)
    with pytest.raises(UsageError, match="--resume"):
        again(painter, fabrics, folder)
    with pytest.raises(UsageError, match="was started with seed"):
        again(painter, fabrics, folder, resume=True, seed=1)
    resumed = again(painter, fabrics, folder, resume=True)
    for name in ("style", "generator", "fusion"):
        ours, theirs = (getattr(each, name).get_weights() for each in (resumed, painter))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert load_painter(folder).config["kinds"] == list(painter.kinds)


def test_a_training_is_resumed_with_the_weights_of_vgg19_that_it_was_started_with(
    painter, painter_folder, fabrics
):
    """If none are named they are these, whatever could be had today."""
    settings = {"settings": settings_of(painter), "resume": True}
    same = train_painter(fabrics, painter_folder, **settings)
    assert same.config == painter.config
    with pytest.raises(UsageError, match="was started with vgg_weights 'random', not 'imagenet'"):
        train_painter(fabrics, painter_folder, vgg_weights="imagenet", **settings)


def test_a_painter_names_the_file_of_vgg16_that_it_was_trained_with(
    painter, fabrics, stop, tmp_path
):
    file = tmp_path / "own.weights.h5"
    network = keras.applications.VGG16(include_top=False, weights=None)
    network.save_weights(file)
    given = {"settings": settings_of(painter), "vgg_weights": file}
    with pytest.raises(KeyboardInterrupt):
        train_painter(fabrics, tmp_path / "painter", callbacks=stop, **given)
    config = json.loads((tmp_path / "painter" / "painter.json").read_text())
    assert (config["vgg_weights"], config["vgg_weights_network"]) == ("own.weights.h5", "VGG16")
    network.get_layer("block1_conv1").bias.assign_add(np.ones(64))
    other = tmp_path / "other.weights.h5"
    network.save_weights(other)
    other.replace(file)
    with pytest.raises(UsageError, match="was started with vgg_weights_sha256"):
        train_painter(fabrics, tmp_path / "painter", resume=True, **given)


def test_a_painter_is_resumed_with_the_same_images_alone(painter, parts, stop, tmp_path):
    def trained(**arguments):
        known = sources.read_sources([f"folder:{parts}?size=64"])
        return again(painter, known, tmp_path / "painter", **arguments)

    with pytest.raises(KeyboardInterrupt):
        trained(callbacks=stop)
    (parts / "train" / "good" / "0.png").unlink()
    with pytest.raises(UsageError, match=r"with other images: 1 \(.*/good/0.png\) removed"):
        trained(resume=True)


def test_a_painter_with_the_configuration_of_an_older_version_is_resumed(
    painter, painter_folder, fabrics, tmp_path
):
    """It may lack settings that were added since, which then have their defaults."""
    folder = shutil.copytree(painter_folder, tmp_path / "old")
    config = json.loads((folder / CONFIG).read_text())
    assert config["settings"].pop("own_share") == 0.0
    assert config["settings"]["steps"] == "2+2"
    (folder / CONFIG).write_text(json.dumps(config))
    assert again(painter, fabrics, folder, resume=True).config == config
    other = dataclasses.replace(settings_of(painter), own_share=0.5)
    with pytest.raises(UsageError, match=r"was started with own_share 0\.0, not 0\.5"):
        train_painter(fabrics, folder, settings=other, resume=True)


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
