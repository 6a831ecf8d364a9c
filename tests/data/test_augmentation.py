import numpy as np
import pytest
import tensorflow as tf

from tfgad.data import augmentation
from tfgad.data.augmentation import random_affine


def disc(count=8, side=32):
    """A white disc of radius 6 in the middle of black images."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    image = np.where(x**2 + y**2 < 36, 1.0, -1.0).astype("float32")
    return tf.constant(np.repeat(image[None, ..., None], count, axis=0))


def centre(images):
    """Returns the centre of the white pixels, `[B, 2]`, relative to the image's centre."""
    weight = (np.asarray(images)[..., 0] + 1) / 2
    places = np.mgrid[:32, :32] - 15.5
    return np.stack([(weight * p).sum((1, 2)) / weight.sum((1, 2)) for p in places], axis=1)


def only(monkeypatch, **amounts):
    for name in ("ROTATION", "SCALE", "SHEAR", "SHIFT"):
        monkeypatch.setattr(augmentation, name, amounts.get(name, 0.0))


def test_strength_0_changes_nothing():
    images = tf.random.stateless_uniform((3, 16, 24, 3), [0, 0], -1, 1)
    np.testing.assert_allclose(random_affine(images, 0.0, [1, 2]), images, atol=1e-5)


def test_the_seed_decides_and_each_image_has_its_own_transform():
    images = disc()
    first = random_affine(images, 1.0, [1, 2]).numpy()
    np.testing.assert_array_equal(first, random_affine(images, 1.0, [1, 2]))
    assert np.any(first != random_affine(images, 1.0, [1, 3]).numpy())
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8


def test_shifts_stay_within_their_bound(monkeypatch):
    only(monkeypatch, SHIFT=0.1)
    moved = centre(random_affine(disc(64), 1.0, [0, 0]))
    assert np.abs(moved).max() <= 3.2 + 0.01
    assert np.abs(moved).max() > 2
    assert np.abs(moved.mean(axis=0)).max() < 1


def test_scaling_keeps_the_middle_and_changes_the_area(monkeypatch):
    only(monkeypatch, SCALE=0.2)
    images = random_affine(disc(64), 1.0, [0, 0])
    areas = (np.asarray(images) + 1).sum((1, 2, 3)) / 2
    np.testing.assert_allclose(centre(images), 0, atol=0.05)
    ratio = areas / areas.mean()
    assert 1.2 < ratio.max() < np.exp(0.4) * 1.15
    assert 0.5 < ratio.min() < 0.85


def test_rotation_moves_pixels_along_a_circle(monkeypatch):
    only(monkeypatch, ROTATION=0.5)
    image = np.full((64, 32, 32, 1), -1, "float32")
    image[:, 14:18, 24:28] = 1  # ten pixels to the right
    moved = centre(random_affine(tf.constant(image), 1.0, [0, 0]))
    np.testing.assert_allclose(np.hypot(*moved.T), 10, atol=0.15)
    angles = np.arctan2(*moved.T)
    assert 0.35 < np.abs(angles).max() <= 0.5 + 0.02


def test_pixels_beyond_the_edge_repeat_it():
    images = tf.fill((2, 16, 16, 1), 0.3)
    np.testing.assert_allclose(random_affine(images, 3.0, [0, 0]), 0.3, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_are_known_to_graphs(channels):
    def moved(images):
        return random_affine(images, 1.0, [0, 0])

    images = tf.data.Dataset.from_tensors(tf.zeros((2, 16, 24, channels))).map(moved)
    assert images.element_spec.shape == (2, 16, 24, channels)
