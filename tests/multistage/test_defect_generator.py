"""The defect generator: what its two networks draw, and its steps."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.core.settings import parse
from tfgad.errors import UsageError
from tfgad.multistage import defect_generator
from tfgad.multistage.painter_config import PainterConfig
from tfgad.networks.defects import on_fabric

STYLE_DIM, KINDS = 3, 2


@pytest.fixture(scope="module", params=["fabric", "nothing"])
def model(request):
    """A small generator on each ground; one test trains it two steps."""
    config = PainterConfig(ground=request.param, latent_dim=5, width=4)
    return defect_generator.build(config, (32, 32, 2), STYLE_DIM, KINDS)


@pytest.fixture
def rows():
    """What a batch of four holds."""
    rng = np.random.default_rng(0)
    return {
        "patches": rng.uniform(-1, 1, (4, 32, 32, 2)).astype("float32"),
        "fabric": rng.uniform(-1, 1, (4, 32, 32, 1)).astype("float32"),
        "style": rng.standard_normal((4, STYLE_DIM)).astype("float32"),
        "kind": np.array([0, 1, 1, 0], np.int32),
    }


def changed(fabric, image=0.0, opacity=0.0, mask=1.0, moved=(0.0, 0.0)):
    """The result of a change of a fabric `[h, w]`, all else being the same everywhere."""
    change = np.float32([image, opacity, mask, *moved])
    change = np.broadcast_to(change, (1, *fabric.shape, 5))
    patch = on_fabric(change, fabric[None, ..., None]).numpy()[0]
    return patch[..., 0], patch[..., 1]


def test_what_is_drawn_covers_fabric_as_far_as_opacity_and_mask_say():
    fabric = np.full((2, 2), -0.5, "float32")
    np.testing.assert_array_equal(changed(fabric, 0.5), [fabric, np.ones((2, 2))])
    np.testing.assert_array_equal(changed(fabric, 0.5, opacity=1.0)[0], 0.5)
    np.testing.assert_array_equal(changed(fabric, 0.5, opacity=0.5)[0], 0.0)
    np.testing.assert_array_equal(changed(fabric, 0.5, opacity=1.0, mask=0.0)[0], 0.0)
    np.testing.assert_array_equal(changed(fabric, 0.5, 1.0, mask=-1.0), [fabric, -np.ones((2, 2))])


def test_yarns_are_moved_by_pixels():
    fabric = np.random.default_rng(0).uniform(-1, 1, (16, 16)).astype("float32")
    moved, _ = changed(fabric, moved=(2, 0))
    np.testing.assert_allclose(moved[:-2], fabric[2:], atol=1e-6)
    np.testing.assert_allclose(moved[-2:], np.stack([fabric[-1]] * 2), atol=1e-6)
    between, _ = changed(fabric, moved=(0, -0.5))
    np.testing.assert_allclose(between[:, 1:], (fabric[:, 1:] + fabric[:, :-1]) / 2, atol=1e-6)


def test_the_critic_has_logits_of_whole_patches_and_of_places_in_them(model, rows):
    condition = rows["style"], rows["kind"]
    logits = model.critic([rows["patches"], *condition])
    assert logits["whole"].shape == (4,)
    assert logits["places"].shape == (4, 64)
    spoilt = rows["patches"].copy()
    spoilt[:, 24:, 24:] = 0.0
    places = np.isclose(model.critic([spoilt, *condition])["places"], logits["places"], atol=1e-6)
    away = places.reshape(4, 8, 8)[:, :4, :4]  # of 4 pixels each; receptive fields of 22
    assert away.all()
    assert not places.all(axis=1).any()
    for other in ((-condition[0], condition[1]), (condition[0], 1 - condition[1])):
        assert not np.allclose(model.critic([rows["patches"], *other])["places"], logits["places"])


@pytest.mark.slow
def test_a_step_moves_both(model, rows):
    moved = {role: [w.numpy().copy() for w in model.weights_of(role)] for role in model.roles}
    data = tf.data.Dataset.from_tensor_slices(rows).repeat().batch(4)
    history = model.fit(data, steps_per_epoch=2, verbose=0).history
    assert set(history) == {"critic", "r1", "generator"}
    assert all(np.isfinite(values).all() for values in history.values())
    for role, old in moved.items():
        new = model.weights_of(role)
        assert any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)), role


def test_a_patch_follows_code_style_kind_and_ground(model, rows):
    style, kind, fabric = rows["style"][:1], rows["kind"][:1], rows["fabric"][:1]
    first = model.generate(style, kind, fabric).numpy()
    assert first.shape == (1, 32, 32, 5 if model.on_fabric else 2)
    assert np.abs(first[..., :-2] if model.on_fabric else first).max() <= 1.0
    np.testing.assert_array_equal(model.generate(style, kind, fabric), first)
    for other in (
        (-style, kind, fabric, 0),
        (style, 1 - kind, fabric, 0),
        (style, kind, fabric, 1),
    ):
        assert not np.allclose(model.generate(*other), first)
    on_other = model.generate(style, kind, -fabric)
    assert np.allclose(on_other, first) != model.on_fabric


def test_an_unknown_ground_is_refused():
    with pytest.raises(UsageError, match="fabric"):
        parse(PainterConfig, {"ground": "fabrik"}, of="the painter")


def test_a_generator_of_an_older_version_is_loaded(model):
    """Its file has networks, `r1`, seed and name side by side, and no `config`."""
    saved = {"name": "defects", "seed": 3, "r1": 0.25}
    saved |= {
        name: keras.saving.serialize_keras_object(getattr(model, name))
        for name in ("generator", "critic")
    }
    loaded = defect_generator.DefectGenerator.from_config(saved)
    assert loaded.config == dataclasses.replace(model.config, r1=0.25, width=loaded.config.width)
    assert (loaded.seed, loaded.name) == (3, "defects")
    assert loaded.patch_shape == (32, 32, 2)
    assert (loaded.style_dim, loaded.kinds) == (STYLE_DIM, KINDS)
    for name in ("generator", "critic"):
        shapes = [[w.shape for w in getattr(each, name).weights] for each in (loaded, model)]
        assert shapes[0] == shapes[1]
