"""Small images and small fitted models that several tests share."""

import builtins
import collections
import dataclasses
import functools
import os
import tempfile

import tfgad  # before TensorFlow is imported: it says what that is to compute with

# isort: split

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad import methods, processor
from tfgad.errors import UsageError
from tfgad.multistage import painter_config, segmenter_config

SIDE, WINDOW = 48, 32  # of the images, and of what the networks see
# Where a recipe has them.
SMALL = {
    "window": WINDOW,
    "width": 8,
    "unet_width": 4,
    "latent_dim": 8,
    "stride": 16,
    "d_steps": 2,
    "classes": 2,
    "search_steps": 5,
    "weights": "random",
    "maps": 1,
}


def pytest_collection_modifyitems(items):
    """Puts the files with the most slow tests first, so that no process ends alone with one."""
    slow = collections.Counter(
        item.path
        for item in items
        if {"slow", "integration"} & {m.name for m in item.iter_markers()}
    )
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def images():
    """Sixteen normal images `[16, 48, 48, 1]`: a wave of random phase under noise.

    Nobody may change them.
    """
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (16, 1, 1, 1))
    y, x = np.mgrid[:SIDE, :SIDE][..., None] * (2 * np.pi / 8)
    wave = 0.5 * np.sin(x + phase) * np.sin(y + phase)
    return (wave + rng.normal(0, 0.05, wave.shape)).clip(-1, 1).astype("float32")


@pytest.fixture(scope="session")
def build_small():
    """A function of a method's name to a small model with its first weights.

    It is for images of 48 pixels; `side=32` makes one for images of the window's size.
    """

    def build(method: str, side: int = SIDE, **settings):
        known = methods.settings_of(method)
        small = {name: value for name, value in SMALL.items() if name in known}
        return tfgad.build(method, (side, side, 1), **{**small, **settings})

    return build


@pytest.fixture(scope="session")
def half_precision():
    """Skips tests of bfloat16 where `ONEDNN_MAX_CPU_ISA` leaves none."""
    try:
        processor.check_bfloat16()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def labels():
    """The classes of the sixteen images for methods that are given any: 0 and 1 in turn."""
    return np.arange(16, dtype="int32") % 2


@pytest.fixture(scope="session")
def know_normal_images():
    """A function that adapts a model to normal images and calibrates it on the same."""

    def know(model, images):
        normals = tf.data.Dataset.from_tensor_slices(images)
        model.adapt(normals, len(images))
        model.calibrate(normals, false_positive_rate=0.1)

    return know


@pytest.fixture(scope="session")
def fitted(images, labels, build_small, know_normal_images):
    """A function of a method's name to its model, trained two steps per stage and calibrated.

    It scores images of 48 pixels, by `cues` where the method has them. With `side=32` it is the
    model for images of the window's size, with the same weights, by `density` where it has that.
    Each is made once: a test that changes a model must load a copy of it.
    """

    @functools.cache
    def model_of(method: str, side: int):
        model = trained(method)
        if side != SIDE:
            model = build_small(method, side=side)
            for name, network in trained(method).networks().items():
                getattr(model, name).set_weights(network.get_weights())
        know_normal_images(model, images[:, :side, :side])
        return model

    @functools.cache
    def trained(method: str):
        model = build_small(method)
        for stage in model.stages:
            model.begin(stage)
            height, width, _ = model.training_window
            windows = images[:, :height, :width]
            examples = (windows, labels) if model.labelled else windows
            windows = tf.data.Dataset.from_tensor_slices(examples).repeat()
            parts = max(1, model.images_per_step // model.config.batch_size)
            batches = windows.batch(4 * parts, drop_remainder=True)
            model.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0)
        return model

    return lambda method, side=SIDE: model_of(method, side)


@pytest.fixture(scope="session")
def assert_descent():
    """A function that asserts that a GAN's step goes down a loss, written out in the test.

    One role makes a plain step of gradient descent of length 1 while the others stand still.
    `loss()` is taken with the weights that `train_step` begins with. Returns what that logs.
    """

    def check(model, role: str, loss, batch):
        rates = {each: float(each == role) for each in model.roles}
        model.compile({each: keras.optimizers.SGD(rate) for each, rate in rates.items()})
        weights = model.weights_of(role)
        before = [w.numpy() for w in weights]
        with tf.GradientTape() as tape:
            value = loss()
        gradients = tape.gradient(value, weights, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(g) for g in gradients]  # that of an embedding is rows
        logs = model.train_step(batch)
        for weight, start, gradient in zip(weights, before, gradients, strict=True):
            np.testing.assert_allclose(weight, start - gradient, rtol=1e-4, atol=1e-5)
            assert np.any(gradient) or len(gradient.shape) < 2, weight.path
        return logs

    return check


@pytest.fixture
def full_disk(monkeypatch, tmp_path):
    """Makes every write below the test's folder one to a full disk."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, which Linux has")
    opened, made = builtins.open, tempfile.mkstemp

    def open_full(file, mode="r", *args, **kwargs):
        is_ours = str(file).startswith(str(tmp_path)) and "r" not in mode
        return opened("/dev/full" if is_ours else file, mode, *args, **kwargs)

    def mkstemp_full(*args, **kwargs):
        handle, name = made(*args, **kwargs)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    monkeypatch.setattr(builtins, "open", open_full)
    monkeypatch.setattr(tempfile, "mkstemp", mkstemp_full)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: opened("/dev/full", "w+b"))


@pytest.fixture
def quicker(monkeypatch):
    """Makes what is quick of the Multistage GAN quicker: two steps of networks four wide."""
    of_painter = dataclasses.replace(
        painter_config.QUICK,
        width=4,
        batch_size=4,
        patches=40,
        fusions=8,
        fusion_batch_size=4,
        steps=(2, 2),
    )
    monkeypatch.setattr(painter_config, "QUICK", of_painter)
    of_segmenter = dataclasses.replace(
        segmenter_config.QUICK,
        width=4,
        batch_size=4,
        steps=2,
        painted=8,
        transplanted=8,
        adapt_steps=2,
    )
    monkeypatch.setattr(segmenter_config, "QUICK", of_segmenter)
