"""Sources of synthetic defects: that each image has one, and what is refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data import defect_sources
from tfgad.data.defect_sources import (
    NO_PAINTER,
    painted_by,
    painter_of,
    sources_of,
    with_defects_of,
)
from tfgad.data.perlin import with_perlin_defects
from tfgad.data.random_numbers import Random
from tfgad.data.synthetic_defects import with_defects
from tfgad.errors import UsageError


def seed(number):
    return tf.constant([5, number], tf.int64)


class Square:
    """A painter of squares, whose tone and place come from the seed of the image alone."""

    learnt_from = ("weave:denim",)

    def check_shape(self, shape):
        if shape[0] < 64:
            raise UsageError("data", "small", "is no size to paint on", "give sides of 64")

    def paint_each(self, images, seeds):
        images, masks = images.copy(), np.zeros((*images.shape[:-1], 1), np.uint8)
        for image, mask, number in zip(images, masks, seeds, strict=True):
            row, tone = number % 40, (number % 7) / 7
            image[row : row + 8, 8:16], mask[row : row + 8, 8:16] = tone, 1
        return images, masks


@pytest.fixture(scope="module")
def tiles():
    """Sixteen tiles `[16, 64, 64, 1]` of noise."""
    return tf.random.stateless_uniform([16, 64, 64, 1], [1, 2], -0.5, 0.5)


def test_a_single_source_draws_what_it_draws_alone(tiles):
    alone = {"shapes": with_defects, "perlin": with_perlin_defects}
    for name, lay in alone.items():
        found = with_defects_of(sources_of(name, None), tiles, seed(1), seed(2), 0.7)
        for one, other in zip(found, lay(tiles, seed(1), 0.7), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_painter_paints_its_share_each_image_by_its_own_seed(tiles):
    source = painted_by(Square())
    images, masks = source(tiles, seed(1), 0.5)
    marked = np.any(masks, axis=(1, 2, 3))
    assert 2 < marked.sum() < 14
    np.testing.assert_array_equal(np.any(images != tiles, axis=(1, 2, 3)), marked)
    np.testing.assert_array_equal(masks.numpy().sum((1, 2, 3))[marked], 64)
    assert len({tuple(m.ravel()) for m in masks.numpy()[marked]}) > 2
    traced = tf.function(source, autograph=False)
    for one, other in zip(traced(tiles, seed(1), 0.5), (images, masks), strict=True):
        np.testing.assert_array_equal(one, other)
    others, _ = source(tiles, seed(3), 0.5)
    assert np.any(others != images)


def test_a_mix_takes_one_source_for_each_image(tiles):
    many = tf.repeat(tiles, 8, axis=0)
    sources = sources_of("mix", Square())
    images, masks = with_defects_of(sources, many, seed(1), seed(2), 1.0)
    alone = [source(many, seed(1), 1.0) for source in sources]
    is_of = np.stack([np.all(images == own, axis=(1, 2, 3)) for own, _ in alone])
    assert np.all(np.any(is_of, axis=0))
    assert np.all(is_of.sum(axis=1) > 25)  # of 128, a third each
    number = np.argmax(is_of, axis=0)
    expected = np.stack([own for _, own in alone])[number, np.arange(128)]
    np.testing.assert_array_equal(masks, expected)
    assert len(sources_of("mix", None)) == 2


def test_in_a_mix_the_source_is_no_part_of_what_is_drawn(tiles):
    """The seed of the source is another: else shapes would lie in one part of the image alone."""
    many = tf.repeat(tiles, 16, axis=0)
    _, masks = with_defects_of(sources_of("mix", None), many, seed(1), seed(2), 1.0)
    rows = np.any(masks, axis=(2, 3)).mean(axis=0)
    assert rows[:32].mean() == pytest.approx(rows[32:].mean(), rel=0.3)


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    shape = (64, 64, 1)
    assert painter_of("shapes", NO_PAINTER, shape) is painter_of("mix", NO_PAINTER, shape) is None
    with pytest.raises(UsageError, match="needs a painter"):
        painter_of("painter", NO_PAINTER, shape)
    for source in ("shapes", "perlin"):
        with pytest.raises(UsageError, match=f"not used by defect_source={source}"):
            painter_of(source, str(tmp_path), shape)
    with pytest.raises(UsageError, match="has no painter yet"):
        sources_of("painter", None)
    with pytest.raises(UsageError, match="is not there"):
        painter_of("mix", str(tmp_path / "none"), shape)
    with pytest.raises(UsageError, match="no trained painter"):
        painter_of("painter", str(tmp_path), shape)
    monkeypatch.setattr(defect_sources, "PAINTER_LOADER", f"{__name__}:load_square")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert isinstance(painter_of("painter", "somewhere", shape), Square)
    with pytest.raises(UsageError, match="no size to paint on"):
        painter_of("painter", "somewhere", (32, 64, 1))


def load_square(folder, compiled):
    assert not compiled
    return Square()


def test_whole_numbers_differ_from_image_to_image():
    numbers = Random(seed(1), tf.constant(100)).whole_numbers().numpy()
    assert numbers.min() >= 0
    assert len(set(numbers)) == 100


@pytest.mark.slow
@pytest.mark.integration
def test_two_replicas_draw_what_one_draws():
    script = [sys.executable, Path(__file__).parent / "mirrored_sources.py"]
    subprocess.run(script, capture_output=True, text=True, timeout=240, check=True)
