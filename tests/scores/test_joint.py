"""The joined map: the marks' scale, their sum with the cues, and tiles of larger images."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.scores.cues import Cues, CuesScore, plane, variance
from tfgad.scores.joint import LEAST_PEAK, Joint, JointScore, MarksScore
from tfgad.scores.places import Places, PlacesScore


def test_marks_are_0_at_the_level_and_1_at_the_peak():
    logits = np.full((10, 8, 8), -3.0, "float32")
    logits[:, 0, 0] = np.arange(10)  # the peak of each image; nine of ten are below 8.1
    joint = Joint()
    joint.adapt(logits)
    assert float(joint.level) == -3
    np.testing.assert_allclose(float(joint.peak), 8.1 + 3, rtol=1e-6)
    marks = joint.marks(tf.constant([[[-9.0, -3.0, 8.1, 19.2]]]))
    np.testing.assert_allclose(marks[0, 0], [0, 0, 1, 2], rtol=1e-5)
    below = joint.marks(tf.constant([[[-14.1, -3.0, 8.1, 19.2]]]), below=True)
    np.testing.assert_allclose(below[0, 0], [-1, 0, 1, 2], rtol=1e-5)
    cues = tf.constant([[[0.5, 0.5, 0.5, 0.5]]])
    joined = joint(cues, tf.constant([[[-9.0, -3.0, 8.1, 19.2]]]))
    np.testing.assert_allclose(joined[0, 0], [0.5, 0.5, 1.5, 2.5], rtol=1e-5)


def test_a_network_without_doubts_does_not_drown_the_cues():
    joint = Joint()
    joint.adapt(np.full((10, 8, 8), -7.0, "float32"))
    assert float(joint.peak) == LEAST_PEAK


def test_a_tile_that_looks_like_a_defect_all_over_has_a_level_of_its_own():
    joint = Joint()
    joint.adapt(np.zeros((10, 8, 8), "float32"))
    logits = np.zeros((2, 40, 40), "float32")
    logits[1] = 5.0
    logits[:, :8, :8] += 3.0
    usual, shifted = joint.marks(tf.constant(logits)).numpy()
    np.testing.assert_allclose(usual, shifted, atol=1e-6)
    assert usual.max() == pytest.approx(3.0 / LEAST_PEAK)
    assert usual[20:, 20:].max() == 0


def test_larger_images_are_cut_into_tiles_to_adapt():
    slope = np.tile(np.linspace(-1, 1, 64, dtype="float32")[None, :, None], (64, 1, 1))
    images = tf.data.Dataset.from_tensor_slices(np.stack([slope] * 3))
    cues, sizes = CuesScore(Cues((1,)), (("residual",),), (32, 32)), []

    def logits(tiles):
        sizes.append(tuple(tiles.shape[1:]))
        return tiles[..., 0]

    cues.adapt(images, 3, lambda batch: tf.abs(batch) + 0.1)
    of_a_tile = variance(plane(tf.constant(slope[None, :32, :32])))
    assert float(cues.cues.steepest_light) == pytest.approx(float(of_a_tile[0, 0, 0, 0]) ** 0.5)
    JointScore(Joint(), cues, logits).adapt(images, 3)
    assert sizes == [(32, 32, 1)]


def test_the_network_gets_the_reconstruction_among_the_errors():
    """It is not computed again."""
    tiles = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 1)).astype("float32")
    errors = {
        "residual": tf.ones((2, 32, 32)),
        "reconstruction_0": tf.constant(0.5 * tiles[..., 0]),
    }
    given = []

    def logits(images, reconstruction=None):
        given.append(reconstruction)
        return images[..., 0]

    cues = CuesScore(Cues((1,)), (("residual",),), (32, 32))
    for kind in (JointScore, MarksScore):
        score = kind(Joint(), cues, logits, ["reconstruction_0"])
        score(tf.constant(tiles), score.window_errors(tf.constant(tiles), errors))
        np.testing.assert_array_equal(given.pop(), 0.5 * tiles)
        alone = kind(Joint(), cues, logits)
        alone(tf.constant(tiles), alone.window_errors(tf.constant(tiles), errors))
        assert given.pop() is None


@pytest.mark.parametrize("channels", [(), ("reconstruction_0",)])
def test_the_marks_are_added_to_the_map_of_places(channels):
    rng = np.random.default_rng(0)
    tiles = tf.constant(rng.uniform(-1, 1, (8, 32, 32, 1)).astype("float32"))
    errors = {
        "residual": tf.constant(rng.uniform(0, 1, (8, 32, 32)).astype("float32")),
        "reconstruction_0": tf.zeros((8, 32, 32)),
    }
    first = PlacesScore(Places((32, 32), 1))
    first.places.adapt(first.places.values(tiles, errors["residual"][..., None]).numpy())
    score = JointScore(Joint(), first, lambda x, _=None: 3 * x[..., 0], channels)
    alone = MarksScore(score.joint, first, score.logits, channels)
    maps = [e(tiles, e.window_errors(tiles, errors))["map"] for e in (first, alone, score)]
    np.testing.assert_allclose(maps[2], maps[0] + maps[1], rtol=1e-5, atol=1e-5)
