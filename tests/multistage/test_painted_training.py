"""`ganomaly_unet` trained on what a painter paints."""

import dataclasses

import keras
import numpy as np
import pytest

import tfgad
from tfgad import training
from tfgad.errors import UsageError
from tfgad.evaluation import evaluate
from tfgad.multistage.painter import LEAST_MASK
from tfgad.training import loop

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


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, loaded_once):
    settings = {**SETTINGS, "defect_source": "mix", "painter": "somewhere", "steps": "1+2"}

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.steps_done == 2:
                self.model.save_weights(tmp_path / "stopped" / "checkpoint.weights.h5")
                raise KeyboardInterrupt

    whole = training.train("ganomaly_unet", SPEC, tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        training.train(
            "ganomaly_unet", SPEC, tmp_path / "stopped", settings=settings,
            callbacks=lambda *_: [Interrupt()],
        )  # fmt: skip
    resumed = training.train(
        "ganomaly_unet", SPEC, tmp_path / "stopped", settings=settings, resume=True
    )
    for one, other in zip(whole.model.weights, resumed.model.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.path)

    assert whole.config["learnt_from"] == list(whole.model.painter.learnt_from)
    asked = len(loaded_once)
    loaded = training.load_run(tmp_path / "whole")
    assert loaded.model.painter is None
    with pytest.raises(UsageError, match="trained on"):
        evaluate(loaded, tfgad.load("weave:denim?size=64&train=6&calibration=4&test=4"))
    assert evaluate(loaded, tfgad.load(SPEC))["image_auroc"] is not None
    assert len(loaded_once) == asked  # what is trained needs the painter no more


def test_nothing_is_written_if_the_painter_cannot_paint(tmp_path, loaded_once, monkeypatch):
    monkeypatch.setattr(loop, "_fit", lambda *_: pytest.fail("training has started"))
    painted = {**SETTINGS, "defect_source": "painter"}
    of_folder = {**painted, "painter": "somewhere"}
    for spec, settings, problem in (
        (SPEC, painted, "needs a painter"),
        (SPEC, {**SETTINGS, "painter": "somewhere"}, "not used by defect_source=shapes"),
        (SPEC + "&channels=3", of_folder, "3 channels: not 1"),
        (SPEC, {**of_folder, "unet_tile": 48}, "48x48: is no size to paint on"),
    ):
        with pytest.raises(UsageError) as error:
            training.train("ganomaly_unet", spec, tmp_path / "run", settings=settings)
        assert problem in str(error.value)
        assert not (tmp_path / "run").exists()
