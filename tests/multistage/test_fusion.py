"""The fusion: what it may change, its losses, and its steps."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.multistage import fusion
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.pasting import paste_examples
from tfgad.networks.vgg import feature_extractor, grey_or_colour


@pytest.fixture(scope="module")
def model():
    """A small fusion with its first weights."""
    return new_model()


def new_model():
    phi, _ = feature_extractor("block1_conv1", "random")
    config = PainterConfig(fusion_width=4, fusion_rate=1e-3)
    return fusion.build(config, 1, grey_or_colour(phi, 1))


def example(side=24):
    y = np.random.default_rng(0).uniform(-1, 1, (64, 64, 1)).astype("float32")
    patch = np.ones((side, side, 2), "float32")
    return y[None], fusion.paste(y, patch, (20, 30, side))[None]


def draw(images, kinds, windows):
    """Fills all windows with the same."""
    return np.stack(
        [
            fusion.paste(image, np.full((window[-1], window[-1], 2), 0.25, "float32"), window)
            for image, window in zip(images, windows, strict=True)
        ]
    )


def test_pasting_fills_the_window_and_nothing_else():
    y, pasted = example()
    window = pasted[0, ..., 1] > 0
    assert window.sum() == 24 * 24
    np.testing.assert_array_equal(pasted[0, ..., 0][window], 1.0)
    np.testing.assert_array_equal(pasted[0, ..., 0][~window], y[0, ..., 0][~window])
    np.testing.assert_array_equal(pasted[0, ..., 2], np.where(window, 1.0, -1.0))


def test_the_rim_falls_from_the_defect_to_nothing():
    mask = np.zeros((1, 40, 40, 1), "float32")
    mask[:, 15:25, 15:25] = 1.0
    share = fusion.rim(tf.constant(mask)).numpy()[0, ..., 0]
    np.testing.assert_array_equal(share[15:25, 15:25], 1.0)
    across = share[20, : 15 + 1]
    assert (np.diff(across) >= 0).all()
    np.testing.assert_array_equal(across[: 15 - fusion.RIM], 0.0)
    assert 0 < across[15 - fusion.RIM // 2] < 1


def test_it_begins_by_changing_nothing():
    _, pasted = example()
    np.testing.assert_array_equal(new_model().fuser(pasted), pasted[..., :1])


def test_a_fusion_of_an_older_version_is_loaded(model):
    """Its file has networks, loss weights, seed and name side by side, and no `config`."""
    weights = {"margin": 0.2, "reconstruction": 5.0, "feature": 2.0, "adversarial": 0.3, "r1": 0.4}
    saved = {"name": "fusion", "seed": 3, **weights}
    saved |= {
        name: keras.saving.serialize_keras_object(getattr(model, name))
        for name in ("fuser", "critic", "phi")
    }
    loaded = fusion.DefectFusion.from_config(saved)
    assert loaded.config == dataclasses.replace(PainterConfig(), **weights)
    assert (loaded.channels, loaded.seed, loaded.name) == (1, 3, "fusion")
    for name in ("fuser", "critic", "phi"):
        shapes = [[w.shape for w in getattr(each, name).weights] for each in (loaded, model)]
        assert shapes[0] == shapes[1]


def test_fabric_outside_the_rim_is_untouched(model):
    y, pasted = example()
    pasted[..., 2] = -1.0
    pasted[:, 28:36, 40:50, 2] = 1.0  # a defect in the middle of the window
    fused = model.fused(tf.constant(y), tf.constant(pasted)).numpy()
    grown = np.zeros((64, 64), bool)
    grown[28 - fusion.RIM : 36 + fusion.RIM, 40 - fusion.RIM : 50 + fusion.RIM] = True
    np.testing.assert_array_equal(fused[0, ..., 0][~grown], y[0, ..., 0][~grown])
    assert not np.allclose(fused[0, ..., 0][grown], y[0, ..., 0][grown])


def test_examples_give_a_share_of_defects_back(fabrics):
    own = paste_examples(fabrics, draw, 6, own_share=1.0)
    other = paste_examples(fabrics, draw, 6, own_share=0.0)
    assert own.images.shape == (6, 64, 64, 1)  # the tiles are smaller than a view
    inside = other.pasted[..., 1] > 0
    assert (inside.sum(axis=(1, 2)) > 0).all()
    np.testing.assert_allclose(other.pasted[..., 0][inside], 0.25, atol=1e-5)
    near = own.pasted[..., 0][own.pasted[..., 1] > 0] - own.images[..., 0][own.pasted[..., 1] > 0]
    assert np.abs(near).mean() < 0.5  # like what was there, if out of place
    assert (own.pasted[..., 2] > 0).any(axis=(1, 2)).sum() >= 5
    np.testing.assert_array_equal(own.real[..., :1], own.images)
    np.testing.assert_array_equal(own.aims, own.images)
    kept = np.where(inside[..., None], 0.25, other.images)  # a generated defect is to be kept
    np.testing.assert_allclose(other.aims, kept, atol=1e-5)
    assert (other.real[..., 1] > 0).any(axis=(1, 2)).all()


@pytest.mark.slow
def test_a_step_moves_both_and_leaves_the_features(model, fabrics):
    rows = vars(paste_examples(fabrics, draw, 4, own_share=0.5))
    before = [w.numpy().copy() for w in model.phi.weights]
    moved = {role: [w.numpy().copy() for w in model.weights_of(role)] for role in model.roles}
    data = tf.data.Dataset.from_tensor_slices(rows).repeat().batch(4)
    history = model.fit(data, steps_per_epoch=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert set(history) == {"critic", "r1", "reconstruction", "feature", "adversarial"}
    for role, old in moved.items():
        new = model.weights_of(role)
        assert any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)), role
    for old, new in zip(before, model.phi.weights, strict=True):
        np.testing.assert_array_equal(old, new)
