"""The U-Net of synthetic defects, and DRAEM's two networks."""

import numpy as np
import pytest
import tensorflow as tf

from tfgad.networks import draem
from tfgad.networks.unet import GRID, unet


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_half_the_resolution(channels):
    network = unet((None, None, channels), 4)
    logits = network(tf.zeros([2, 3 * GRID, 2 * GRID, channels]))
    assert logits.shape == (2, 3 * GRID // 2, GRID, 1)


def test_skips_carry_what_is_small():
    """A single pixel changes the logit at its place the most."""
    network = unet((None, None, 1), 8)
    image = np.zeros((1, 64, 64, 1), "float32")
    point = image.copy()
    point[0, 32, 32] = 1
    change = np.abs(network(point) - network(image))[0, ..., 0]
    assert np.hypot(*(np.argwhere(change == change.max())[0] - 16)) < 4


def test_draem_has_as_many_weights_as_the_authors_code():
    """Worked out from model_unet.py of its authors.

    Their U-Net has a second output, of 3·3·64 weights and a bias.
    """
    assert trainable(draem.reconstructive((None, None, 3), 128)) == 69_048_579
    assert trainable(draem.discriminative((None, None, 3), 64)) == 28_374_146 - 577


def test_draem_keeps_the_size():
    images = tf.zeros([1, 2 * draem.GRID, draem.GRID, 3])
    restored = draem.reconstructive((None, None, 3), 2)(images)
    assert restored.shape == images.shape
    pairs = tf.concat([images, restored], axis=-1)
    assert draem.discriminative((None, None, 3), 2)(pairs).shape == (*images.shape[:3], 1)
