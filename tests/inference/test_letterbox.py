"""Letterboxed images, scored by a run and by the graph of an exported model."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data.pixels import from_uint8
from tfgad.export.saved_model import _Endpoints
from tfgad.inference.predictor import RunPredictor
from tfgad.training import Run


def test_a_letterboxed_model_predicts_as_its_run(fitted):
    model, shape = fitted("ganomaly"), (48, 48, 1)
    images = np.random.default_rng(0).integers(60, 200, (2, 30, 70, 1)).astype(np.uint8)
    config = {"image_shape": shape, "resized": True, "fit": "letterbox"}
    ours = RunPredictor(Run(Path("run"), config, model)).predict_images(from_uint8(images))
    endpoints = _Endpoints(model, shape, True, 8, "letterbox")
    theirs = endpoints.score(tf.constant(images))
    assert theirs["map"].shape == (2, 30, 70)
    for i, each in enumerate(ours):
        np.testing.assert_allclose(theirs["score"][i], each["score"], rtol=1e-3)
        np.testing.assert_allclose(theirs["map"][i], each["map"], atol=1e-3)
    stretched = RunPredictor(Run(Path("run"), config | {"fit": "stretch"}, model))
    assert stretched(from_uint8(images[0]))["score"] != pytest.approx(ours[0]["score"], rel=1e-3)
