"""The method of `CONTRIBUTING.md` works as it is printed there, and so does its test."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.methods import METHODS

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = "autoencoder"


@pytest.fixture
def the_method_s_test(monkeypatch):
    """Registers the method for the time of a test; returns the test that is printed with it."""
    method, test = BLOCK.findall(CONTRIBUTING.read_text(encoding="utf-8"))
    module = types.ModuleType(f"tfgad.methods.{NAME}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(method, CONTRIBUTING.name, "exec"), module.__dict__)
    namespace = {}
    exec(compile(test, CONTRIBUTING.name, "exec"), namespace)
    yield next(value for name, value in namespace.items() if name.startswith("test_"))
    del METHODS[NAME]


@pytest.mark.slow
def test_the_printed_method_works(
    the_method_s_test, build_small, know_normal_images, images, tmp_path
):
    the_method_s_test(build_small, images)
    model = build_small(NAME)
    before = [weight.numpy() for weight in model.trainable_weights]
    model.fit(images[:, :32, :32], batch_size=8, verbose=0)
    after = [weight.numpy() for weight in model.trainable_weights]
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))
    know_normal_images(model, images)
    assert model.score == "cues"
    scored = model(tf.constant(images))
    assert scored["map"].shape == images.shape[:3]
    model.save(tmp_path / "model.keras")
    again = tfgad.load_model(tmp_path / "model.keras")(tf.constant(images))
    np.testing.assert_array_equal(again["score"], scored["score"])
