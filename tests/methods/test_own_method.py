"""What a contributor's method gets from the rest of the project, and no further line for it."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad import training
from tfgad.core.registry import METHODS
from tfgad.export.saved_model import export_run
from tfgad.training import run_folder

pytestmark = pytest.mark.slow  # for the models that it trains

DATA = "digits:8?size=32"


@pytest.fixture(scope="module")
def method():
    """The file `own_method.py`, as if it lay in `tfgad/methods/`."""
    name = "tfgad.methods.own"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "own_method.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield METHODS["own"]
    del METHODS["own"], sys.modules[name]


@pytest.fixture(scope="module")
def run(method, tmp_path_factory):
    return training.train("own", DATA, tmp_path_factory.mktemp("own") / "run")


def test_it_is_trained_calibrated_and_saved(run):
    assert int(run.model.step) == 4
    assert run.config["settings"]["latent_dim"] == 8
    loaded = training.load_run(run.folder).model
    x = np.zeros((2, 32, 32, 1), "float32")
    np.testing.assert_array_equal(loaded.anomaly(x)["score"], run.model.anomaly(x)["score"])
    assert loaded.calibration.is_calibrated


def test_it_is_resumed_to_the_same_end(run, tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save_weights(tmp_path / "run" / run_folder.CHECKPOINT)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train("own", DATA, tmp_path / "run", callbacks=lambda *_: [Interrupt()])
    resumed = training.train("own", DATA, tmp_path / "run", resume=True)
    for ours, theirs in zip(run.model.variables, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_has_the_scores_of_methods_that_reconstruct(run):
    assert run.model.score == "density"
    x = np.zeros((1, 40, 48, 1), "float32")
    for score in ("residual", "cues", "density"):
        found = run.model.anomaly(x, score)
        assert found["map"].shape == (1, 40, 48)
        assert np.isfinite(found["map"]).all()


def test_it_is_exported_and_served(run, tmp_path):
    served = tf.saved_model.load(str(export_run(run, tmp_path)))
    pixels = np.full((2, 32, 32, 1), 100, "uint8")
    answer = served.signatures["serving_default"](images=tf.constant(pixels))
    expected = run.model.anomaly(pixels.astype("float32") / 127.5 - 1)
    np.testing.assert_allclose(answer["score"], expected["score"], rtol=1e-4)


def test_its_published_configuration_has_a_name(method):
    assert tfgad.build("own/paper", (32, 32, 1), width=4).config.latent_dim == 16
