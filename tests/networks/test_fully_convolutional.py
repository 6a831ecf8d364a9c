"""GANomaly's networks against the tables of the authors' code, worked out by hand."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.networks import fully_convolutional
from tfgad.networks.layers import BatchNormalization

SHAPE, LATENT, WIDTH = (32, 32, 1), 100, 64  # of MNIST in the authors' code
PYRAMID = [
    ("Conv2D", (16, 16, 64), 16 * 1 * 64),
    ("LeakyReLU", (16, 16, 64), 0),
    ("Conv2D", (8, 8, 128), 16 * 64 * 128),
    ("BatchNormalization", (8, 8, 128), 4 * 128),
    ("LeakyReLU", (8, 8, 128), 0),
    ("Conv2D", (4, 4, 256), 16 * 128 * 256),
    ("BatchNormalization", (4, 4, 256), 4 * 256),
    ("LeakyReLU", (4, 4, 256), 0),
]
GENERATOR = [
    ("Conv2DTranspose", (4, 4, 256), 16 * 100 * 256),
    ("BatchNormalization", (4, 4, 256), 4 * 256),
    ("ReLU", (4, 4, 256), 0),
    ("Conv2DTranspose", (8, 8, 128), 16 * 256 * 128),
    ("BatchNormalization", (8, 8, 128), 4 * 128),
    ("ReLU", (8, 8, 128), 0),
    ("Conv2DTranspose", (16, 16, 64), 16 * 128 * 64),
    ("BatchNormalization", (16, 16, 64), 4 * 64),
    ("ReLU", (16, 16, 64), 0),
    ("Conv2DTranspose", (32, 32, 1), 16 * 64 * 1),
    ("Activation", (32, 32, 1), 0),
]


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.fixture(scope="module")
def networks():
    return {
        "encoder": fully_convolutional.encoder(SHAPE, LATENT, WIDTH),
        "generator": fully_convolutional.generator(SHAPE, LATENT, WIDTH),
        "critic": fully_convolutional.critic(SHAPE, WIDTH),
    }


# Of the totals, averages of batch normalisation are 2 per channel.
@pytest.mark.parametrize(
    ("name", "layers", "trainable", "averages"),
    [
        ("encoder", [*PYRAMID, ("Conv2D", (1, 1, 100), 16 * 256 * 100)], 1_066_752, 768),
        ("generator", GENERATOR, 1_066_880, 896),
        ("critic", [*PYRAMID, ("Conv2D", (1, 1, 1), 16 * 256 * 1)], 661_248, 768),
    ],
)
def test_layers_and_weights_are_those_of_the_authors_code(
    networks, name, layers, trainable, averages
):
    network = networks[name]
    found = [
        (type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params())
        for layer in network.layers
        if (
            not isinstance(layer, (keras.layers.InputLayer, keras.layers.Reshape))
            and layer.get_config().get("activation") != "linear"
        )
        or hasattr(layer, "kernel")
    ]
    assert found == layers
    counts = [
        sum(math.prod(weight.shape) for weight in weights)
        for weights in (network.trainable_weights, network.non_trainable_weights)
    ]
    assert counts == [trainable, averages]


def test_strides_slopes_and_no_biases(networks):
    for network in networks.values():
        kernels = [layer for layer in network.layers if hasattr(layer, "kernel")]
        assert all(layer.kernel_size == (4, 4) and layer.bias is None for layer in kernels)
        last = kernels[0] if network.name == "generator" else kernels[-1]
        for layer in kernels:
            expected = ((1, 1), "valid") if layer is last else ((2, 2), "same")
            assert (layer.strides, layer.padding) == expected
        slopes = {
            layer.negative_slope
            for layer in network.layers
            if isinstance(layer, keras.layers.LeakyReLU)
        }
        assert slopes == (set() if network.name == "generator" else {0.2})


def test_first_weights_are_normal(networks):
    for network in networks.values():
        assert_published(network, [weight.numpy() for weight in network.trainable_weights])


def assert_published(network, values):
    """N(0, 0.02) for weights, N(1, 0.02) for scales, 0 for offsets."""
    for weight, value in zip(network.trainable_weights, values, strict=True):
        if weight.name == "beta":
            assert not np.any(value)
            continue
        # Of n numbers mean and deviation vary by 0.02 / √n, and 0.02 / √2n.
        bound = 5 * 0.02 / math.sqrt(value.size)
        assert abs(value.mean() - (weight.name == "gamma")) < bound
        assert abs(value.std() - 0.02) < bound


def test_weights_that_start_anew_are_as_the_first_and_follow_their_seed(networks):
    def drawn(seed):
        seed = tf.constant(seed, tf.int64)
        return [v.numpy() for v in fully_convolutional.initial_weights(networks["critic"], seed)]

    first = drawn([1, 2])
    assert_published(networks["critic"], first)
    for value, again, other in zip(first, drawn([1, 2]), drawn([1, 3]), strict=True):
        np.testing.assert_array_equal(value, again)
        assert not np.any(value) or np.any(value != other)
    halves = np.split(first[0].ravel(), 2)
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.3


def test_constants_of_normalisation_are_pytorch_s(networks):
    constants = {
        (layer.momentum, layer.epsilon)
        for network in networks.values()
        for layer in network.layers
        if isinstance(layer, BatchNormalization)
    }
    assert constants == {(0.9, 1e-5)}


def test_a_critic_for_penalties_per_image_has_no_batch_normalisation():
    network = fully_convolutional.critic(SHAPE, 4, normalise=False)
    assert not any(isinstance(layer, BatchNormalization) for layer in network.layers)
    assert not network.non_trainable_weights


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ((32, 32, 3), (4, 4)),
        ((64, 64, 1), (4, 4)),
        ((128, 128, 1), (4, 4)),
        ((64, 32, 1), (8, 4)),
        ((28, 28, 1), (7, 7)),
        ((48, 48, 1), (6, 6)),
        ((144, 144, 1), (9, 9)),
    ],
)
def test_sides_are_halved_as_far_as_they_can_be(shape, left):
    x = noise(2, *shape)
    given = fully_convolutional.critic(shape, 4)(x)
    assert given["logit"].shape == (2,)
    assert given["features"][-1].shape[1:3] == left
    z = fully_convolutional.encoder(shape, 5, 4)(x)
    assert z.shape == (2, 5)
    images = fully_convolutional.generator(shape, 5, 4)(z).numpy()
    assert images.shape == x.shape
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize(
    ("shape", "fault"),
    [((16, 16, 1), "too small"), ((30, 30, 1), "multiples of 16"), ((64, 52, 1), "halved evenly")],
)
def test_unfit_images_are_refused(shape, fault):
    for make in (
        lambda: fully_convolutional.critic(shape, 4),
        lambda: fully_convolutional.encoder(shape, 5, 4),
        lambda: fully_convolutional.generator(shape, 5, 4),
    ):
        with pytest.raises(UsageError, match=fault):
            make()
