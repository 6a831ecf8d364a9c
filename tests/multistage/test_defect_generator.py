"""The defect generator: what its two networks draw, and its steps."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.multistage import defect_generator
from tfgad.networks.defects import OnFabric

SMALL = {"latent_dim": 5, "width": 4, "r1": 0.1, "rate": 1e-3}
STYLE_DIM, KINDS = 3, 2


@pytest.fixture(params=defect_generator.GROUNDS)
def model(request):
    """A small generator of one of the two sorts, with its first weights."""
    return defect_generator.build((32, 32, 2), STYLE_DIM, KINDS, ground=request.param, **SMALL)


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


def test_what_is_drawn_covers_fabric_as_far_as_the_mask_says():
    drawn = np.array([[[[0.5, 1.0], [0.5, 0.0], [0.5, -1.0]]]], "float32")
    fabric = np.full((1, 1, 3, 1), -0.5, "float32")
    expected = [[[[0.5, 1.0], [0.0, 0.0], [-0.5, -1.0]]]]
    np.testing.assert_allclose(OnFabric()([drawn, fabric]), expected)


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
    assert first.shape == (1, 32, 32, 2)
    assert np.abs(first).max() <= 1.0
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
        defect_generator.build((32, 32, 2), STYLE_DIM, KINDS, ground="fabrik", **SMALL)
