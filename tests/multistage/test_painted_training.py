"""`ganomaly_unet` trained on what a painter paints."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad import training
from tfgad.errors import UsageError
from tfgad.evaluation import evaluate
from tfgad.multistage.painter import LEAST_MASK
from tfgad.multistage.painter_folder import MODELS
from tfgad.training import loop, stages
from tfgad.training.run_config import LAST_OF_PAINTER

pytestmark = pytest.mark.slow  # for the painter that it trains

SETTINGS = {"width": 4, "latent_dim": 4, "batch_size": 4, "unet_width": 2, "unet_batch_size": 4}
SPEC = "weave:twill?size=64&train=6&calibration=4&test=6"


@pytest.fixture(scope="module")
def tiles():
    return np.stack(list(tfgad.load(SPEC).train.as_numpy_iterator()))


def test_each_image_is_painted_by_its_own_seed(painter, tiles):
    seeds = np.arange(6, dtype="int32")
    images, masks = painter.paint_each(tiles, seeds)
    assert masks.shape == (6, 64, 64, 1)
    painted = masks.any(axis=(1, 2, 3))
    assert painted.any()
    assert np.all(masks[painted].sum(axis=(1, 2, 3)) >= LEAST_MASK)
    np.testing.assert_array_equal(images[~painted], tiles[~painted])
    some, alone = (painter.paint_each(tiles[i], seeds[i])[0] for i in (slice(4, 6), slice(1)))
    np.testing.assert_array_equal(np.concatenate([alone, some]), images[[0, 4, 5]])
    plain = dataclasses.replace(painter, compiled=False)
    np.testing.assert_allclose(plain.paint_each(tiles, seeds)[0], images, atol=1e-4)


@pytest.fixture
def loaded_once(painter, monkeypatch):
    """Has each training take the same painter, which takes long to load."""
    asked = []

    def load(folder, compiled):
        assert not compiled
        asked.append(folder)
        return dataclasses.replace(painter, compiled=False)

    monkeypatch.setattr("tfgad.multistage.painter.load_painter", load)
    return asked


def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, loaded_once, tiles):
    def fitted(steps, checkpoint):
        settings = {**SETTINGS, "defect_source": "mix", "painter": "somewhere", "steps": "1+2"}
        model = tfgad.build("ganomaly_unet", (64, 64, 1), **settings)

        def batches(first):
            height, width, _ = model.training_window
            stream = tf.data.Dataset.from_tensor_slices(tiles[:, :height, :width]).repeat()
            return stream.skip(4 * first).batch(4, drop_remainder=True)

        stages.fit_stages(model, steps, batches, tmp_path / checkpoint, stages.no_callbacks)
        return model

    whole = fitted({"ganomaly": 1, "unet": 2}, "whole.weights.h5")
    fitted({"ganomaly": 1, "unet": 1}, "stopped.weights.h5")
    resumed = fitted({"ganomaly": 1, "unet": 2}, "stopped.weights.h5")
    assert resumed.steps_done == 3
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.path)


def test_a_run_says_what_its_painter_knows_and_needs_it_no_more(tmp_path, loaded_once, painter):
    settings = {**SETTINGS, "defect_source": "painter", "painter": "somewhere", "steps": "1+1"}
    training.train("ganomaly_unet", SPEC, tmp_path / "run", settings=settings)
    asked = len(loaded_once)
    loaded = training.load_run(tmp_path / "run")
    assert loaded.config["learnt_from"] == painter.config["data"]
    with pytest.raises(UsageError, match="trained on"):
        evaluate(loaded, tfgad.load("weave:denim?size=64&train=6&calibration=4&test=4"))
    assert loaded.model.painter is None
    assert len(loaded_once) == asked


def test_nothing_is_written_if_the_painter_cannot_paint(tmp_path, loaded_once, monkeypatch):
    monkeypatch.setattr(loop, "_fit", lambda *_: pytest.fail("training has started"))
    painted = {**SETTINGS, "defect_source": "painter"}
    of_folder = {**painted, "painter": "somewhere"}
    for spec, settings, problem in (
        (SPEC, painted, "needs a painter"),
        (SPEC, {**SETTINGS, "painter": "somewhere"}, "not used by defect_source=shapes"),
        (SPEC + "&channels=3", of_folder, "not 1; load the data with channels=1"),
        (SPEC, {**of_folder, "unet_tile": 48}, "is no size to paint on"),
    ):
        with pytest.raises(UsageError) as error:
            training.train("ganomaly_unet", spec, tmp_path / "run", settings=settings)
        assert problem in str(error.value)
        assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_its_own_painter(tmp_path, loaded_once, monkeypatch):
    folder = tmp_path / "painter"
    folder.mkdir()
    assert MODELS[-1] == LAST_OF_PAINTER
    (folder / LAST_OF_PAINTER).write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "_fit", lambda *_: pytest.fail("training has started"))
    settings = {**SETTINGS, "defect_source": "painter", "painter": "painter", "steps": "1+1"}

    def start(painter, **options):
        given = {**settings, "painter": painter}
        training.train("ganomaly_unet", SPEC, tmp_path / "run", settings=given, **options)

    with pytest.raises(pytest.fail.Exception, match="training has started"):
        start("painter")
    monkeypatch.chdir(folder)
    with pytest.raises(pytest.fail.Exception, match="training has started"):
        start(str(folder), resume=True)
    (folder / LAST_OF_PAINTER).write_bytes(b"another")
    with pytest.raises(UsageError, match="was started with painter_sha256"):
        start(str(folder), resume=True)
