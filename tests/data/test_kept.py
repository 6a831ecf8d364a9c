"""Training images at random places: what is kept, and where."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.data import kept
from tfgad.data.kept import KeptImages
from tfgad.data.pixels import from_uint8
from tfgad.errors import UsageError

LEVELS = np.random.default_rng(0).integers(0, 256, (300, 8, 9, 3), np.uint8)
VALUES = np.random.default_rng(1).uniform(-1, 1, (300, 8, 9, 3)).astype("float32")


def stream(images):
    return tf.data.Dataset.from_tensor_slices(images)


@pytest.mark.parametrize("in_memory", [0, 2**30])
@pytest.mark.parametrize(
    ("images", "dtype"),
    [
        (from_uint8(LEVELS), tf.uint8),
        (VALUES, tf.float32),
        # The first images alone are grey levels.
        (np.concatenate([from_uint8(LEVELS), VALUES[:1]]), tf.float32),
    ],
)
def test_images_come_back_to_the_last_bit(monkeypatch, images, dtype, in_memory):
    monkeypatch.setattr(kept, "IN_MEMORY", in_memory)
    monkeypatch.setattr("tfgad.data.sampling.BATCH_PIXELS", 8 * 9 * 40)
    held = KeptImages(stream(images), len(images))
    order = np.random.default_rng(2).permutation(len(images))
    rows = tf.data.Dataset.from_tensor_slices(order)
    assert held.read(tf.constant([0])).dtype == dtype
    one_by_one = rows.map(lambda row: held.values(held.read(row))).batch(len(images))
    at_once = rows.batch(len(images)).map(lambda row: held.values(held.read(row)))
    assert one_by_one.element_spec.shape[1:] == at_once.element_spec.shape[1:] == (8, 9, 3)
    for found in (one_by_one, at_once):
        np.testing.assert_array_equal(next(iter(found)).numpy(), images[order])


@pytest.mark.parametrize("count", [299, 301])
def test_another_number_of_images_than_found_before_is_refused(count):
    with pytest.raises(
        UsageError, match=rf"training images '300': were read, {count} were expected"
    ):
        KeptImages(stream(VALUES), count)


def test_a_full_disk_is_a_usage_error_with_a_hint(full_disk):
    with pytest.raises(UsageError, match=r"No space left on device.*TMPDIR"):
        KeptImages(stream(VALUES), len(VALUES))
