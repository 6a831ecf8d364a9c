"""Shapes and ranges of the convolutional networks."""

import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import convolutional
from tfgad.networks.layers import BatchNormalization

SHAPES = [(32, 32, 1), (24, 24, 3), (64, 32, 1), (28, 56, 3)]


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("shape", SHAPES)
def test_encoder_returns_one_code_per_image(shape):
    network = convolutional.encoder(shape, latent_dim=5, width=4)
    assert network.input_shape == (None, *shape)
    assert network(noise(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("shape", SHAPES)
def test_generator_returns_images_in_minus_one_to_one(shape):
    network = convolutional.generator(shape, latent_dim=5, width=4)
    images = network(100 * noise(2, 5), training=True)
    assert images.shape == (2, *shape)
    assert np.abs(images).max() <= 1
    assert np.abs(images).max() > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_critic_returns_a_logit_and_its_hidden_layers(shape):
    given = convolutional.critic(shape, width=4)(noise(2, *shape))
    assert given["logit"].shape == (2,)
    height, width, _ = shape
    halved = [(height >> i, width >> i) for i in range(1, convolutional.halvings(shape) + 1)]
    expected = [(2, *sides, 4 * 2**i) for i, sides in enumerate(halved)]
    assert [f.shape for f in given["features"]] == expected
    assert 4 <= min(expected[-1][1:3]) < 8


def test_critic_has_no_batch_normalisation_by_default():
    def kinds(**options):
        return [type(layer) for layer in convolutional.critic((32, 32, 1), 4, **options).layers]

    assert BatchNormalization not in kinds()
    assert BatchNormalization in kinds(normalise=True)


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ((16, 16, 1), "too small"),
        ((64, 20, 1), "too small"),
        ((33, 32, 1), "halved evenly"),
    ],
)
@pytest.mark.parametrize("make", ["encoder", "generator", "critic"])
def test_invalid_image_sizes_are_refused(make, shape, fault):
    sizes = {"width": 4} if make == "critic" else {"width": 4, "latent_dim": 5}
    with pytest.raises(UsageError, match=fault):
        getattr(convolutional, make)(shape, **sizes)
