"""Synthetic defects: what is drawn, what is labelled, and that the same seed draws the same."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data import perlin, synthetic_defects, warping
from tfgad.data.random_numbers import Random
from tfgad.data.synthetic_defects import FILLINGS, SHAPES, Mix
from tfgad.errors import UsageError


def seed(number):
    return tf.constant([5, number], tf.int64)


@pytest.fixture(scope="module")
def tiles():
    """Sixteen tiles `[16, 64, 64, 1]` of a wave, as fabric has."""
    y, x = np.mgrid[:64, :64] * (2 * np.pi / 8)
    phase = np.linspace(0, 6, 16)[:, None, None]
    return tf.constant(0.3 * np.sin(x + phase) * np.sin(y)[None], tf.float32)[..., None]


@pytest.mark.parametrize(
    "lay", [synthetic_defects.with_defects, perlin.with_perlin_defects], ids=["shapes", "perlin"]
)
def test_defects_lie_where_the_mask_is(tiles, lay):
    images, masks = lay(tiles, seed(0), share=1.0)
    assert images.shape == tiles.shape
    assert masks.shape == (16, 64, 64, 1)
    assert np.abs(images).max() <= 1
    assert set(np.unique(masks)) == {0.0, 1.0}
    change = np.abs(images - tiles)
    assert change[masks.numpy() == 1].mean() > 10 * change[masks.numpy() == 0].mean()
    again, _ = lay(tiles, seed(0), share=1.0)
    np.testing.assert_array_equal(images, again)
    other, _ = lay(tiles, seed(1), share=1.0)
    assert np.any(other != images)


@pytest.mark.parametrize(
    "lay", [synthetic_defects.with_defects, perlin.with_perlin_defects], ids=["shapes", "perlin"]
)
def test_some_images_stay_good(tiles, lay):
    many = tf.repeat(tiles, 10, axis=0)
    images, masks = lay(many, seed(2), share=0.3)
    changed = np.any(images != many, axis=(1, 2, 3))
    assert 0.15 < changed.mean() < 0.4  # a mask may miss the image
    assert not np.any(masks.numpy()[~changed])


@pytest.mark.parametrize("name", [*SHAPES, *FILLINGS])
def test_each_shape_and_filling_shows(tiles, name):
    kinds = SHAPES if name in SHAPES else FILLINGS
    mix = Mix.without(*(other for other in kinds if other != name))
    images, masks = synthetic_defects.with_defects(tiles, seed(3), share=1.0, mix=mix)
    marked = np.any(masks, axis=(1, 2, 3))
    assert marked.sum() >= 5
    change = np.abs(images - tiles)
    assert change[masks.numpy() == 1].mean() > synthetic_defects.LEAST_CHANGE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_a_kind_is_computed_for_its_own_images_as_for_all(tiles, channels, compiled):
    images = tf.repeat(tiles, channels, axis=-1)
    none = tf.zeros([16, 1, 1, 1], bool)
    used = tf.reshape(tf.range(16) % 4 > 0, none.shape)

    def computed_by_kind(index, kinds, otherwise):
        own, unused = (
            synthetic_defects.computed_by_kind(index, kinds, u, otherwise) for u in (used, none)
        )
        of_all = tf.stack([kind(tf.identity) for kind in kinds], axis=1)
        chosen = tf.gather(of_all, index, axis=1, batch_dims=1)
        return own, tf.where(used, chosen, otherwise), unused, otherwise

    def both(number):
        random = Random(tf.stack([tf.constant(5, tf.int64), number]), tf.constant(16))
        shapes = synthetic_defects.shapes(random, tf.constant([64, 64]), Mix().shapes)
        fillings = synthetic_defects.fillings(random, images, Mix().fillings)
        return computed_by_kind(*shapes, tf.zeros_like(tiles)) + computed_by_kind(*fillings, images)

    both = tf.function(both, autograph=False) if compiled else both
    for number in range(4):  # with one kind or another that no image uses
        results = both(tf.constant(number, tf.int64))
        for result, expected in zip(results[::2], results[1::2], strict=True):
            np.testing.assert_array_equal(result, expected)


def test_a_change_that_nobody_sees_is_not_labelled():
    flat = tf.zeros([16, 64, 64, 1])
    mix = Mix.without("tone", "noise")  # turned, distorted or blurred, nothing is still nothing
    images, masks = synthetic_defects.with_defects(flat, seed(4), share=1.0, mix=mix)
    np.testing.assert_array_equal(images, flat)
    assert not np.any(masks)


def test_choices_follow_their_shares():
    index = Random(seed(5), tf.constant(4000)).choice([1, 0, 3])
    counts = np.bincount(index, minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.25, 0, 0.75], atol=0.03)


def test_smooth_noise_has_unit_variance_and_is_smooth():
    noise = Random(seed(6), tf.constant(50)).noise(8, tf.constant([64, 64])).numpy()
    assert noise.shape == (50, 64, 64, 1)
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(noise, axis=1)).mean() < 0.3


def test_light_changes_by_little_and_keeps_the_texture(tiles):
    lit = synthetic_defects.with_random_light(tiles, seed(7)).numpy()
    assert np.abs(lit).max() <= 1
    assert np.abs(lit - tiles).max() > 0.05
    for before, after in zip(tiles.numpy(), lit, strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.8


def test_perlin_noise_is_zero_on_its_grid():
    noise = perlin.perlin_noise(Random(seed(8), tf.constant(32)), tf.constant([64, 64])).numpy()
    assert noise.shape == (32, 64, 64, 1)
    assert noise.std() > 0.1
    assert np.abs(noise).max() <= 1 + 1e-5
    np.testing.assert_allclose(noise[:, 0, 0], 0, atol=1e-6)


def test_textures_come_from_all_weaves():
    textures = perlin.weave_textures(1)
    assert textures.shape == (32, 256, 256, 1)
    assert textures.min() >= -1
    assert textures.max() <= 1
    drawn = perlin.random_textures(Random(seed(9), tf.constant(8)), tf.constant([40, 300]), 1)
    assert drawn.shape == (8, 40, 300, 1)
    assert np.abs(drawn).max() <= 1


def test_a_quarter_turn_and_a_shift_are_exact():
    image = tf.random.stateless_normal([1, 9, 9, 2], [1, 2])
    quarter = tf.fill([1, 1, 1, 1], np.float32(np.pi / 2))
    turned = warping.turned(image, quarter, tf.ones([1, 1, 1, 1])).numpy()[0]
    np.testing.assert_allclose(turned, np.rot90(image[0], 1), atol=1e-4)
    shifts = tf.tile(tf.constant([[[[1.0, -2.0]]]]), [1, 9, 9, 1])
    moved = warping.displaced(image, shifts)
    np.testing.assert_allclose(moved[0, :-1, 2:], image[0, 1:, :-2], atol=1e-6)
    half = warping.displaced(image, 0.5 * shifts)[0, 0, 1]
    np.testing.assert_allclose(half, (image[0, 0, 0] + image[0, 1, 0]) / 2, atol=1e-6)


def test_a_blur_keeps_a_constant_and_the_sum():
    np.testing.assert_allclose(
        warping.gaussian_blur(tf.fill([1, 16, 16, 1], 0.3), 1.5), 0.3, rtol=1e-5
    )
    point = np.zeros((1, 33, 33, 1), "float32")
    point[0, 16, 16] = 1
    blurred = warping.gaussian_blur(tf.constant(point), 2.0).numpy()
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    assert blurred.max() == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)


def test_a_mix_without_an_unknown_name_or_without_everything_is_refused():
    with pytest.raises(UsageError, match="'elipse': is no shape and no filling; did you mean 'el"):
        Mix.without("elipse")
    with pytest.raises(UsageError, match="leave nothing"):
        Mix.without(*SHAPES)
