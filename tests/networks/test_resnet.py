"""The residual networks against the tables of the authors' code, worked out by hand."""

import math
from collections import Counter

import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import resnet
from tfgad.networks.layers import BatchNormalization

SHAPE, LATENT, WIDTH = (64, 64, 1), 128, 64  # of f-AnoGAN's code


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def halving_block(side, before, after, statistics):
    """Layers with weights of a block that halves `side`: kind, shape of output, weights.

    `statistics` is how many numbers the normalisation has per channel.
    """
    kind = "GroupNormalization" if statistics == 2 else "BatchNormalization"
    return [
        ("Conv2D", (side // 2, side // 2, after), before * after + after),  # the shortcut
        (kind, (side, side, before), statistics * before),
        ("Conv2D", (side, side, before), 9 * before * before),
        (kind, (side, side, before), statistics * before),
        ("Conv2D", (side, side, after), 9 * before * after + after),
    ]


def doubling_block(side, before, after):
    return [
        ("Conv2D", (side, side, after), before * after + after),  # the shortcut
        ("BatchNormalization", (side, side, before), 4 * before),
        ("Conv2D", (2 * side, 2 * side, after), 9 * before * after),
        ("BatchNormalization", (2 * side, 2 * side, after), 4 * after),
        ("Conv2D", (2 * side, 2 * side, after), 9 * after * after + after),
    ]


def layers_with_weights(network):
    return Counter(
        (type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params())
        for layer in network.layers
        if layer.weights
    )


def halving_network(statistics, outputs):
    return [
        ("Conv2D", (64, 64, 64), 9 * 1 * 64 + 64),
        *halving_block(64, 64, 128, statistics),
        *halving_block(32, 128, 256, statistics),
        *halving_block(16, 256, 512, statistics),
        *halving_block(8, 512, 512, statistics),
        ("Dense", (outputs,), 4 * 4 * 512 * outputs + outputs),
    ]


GENERATOR = [
    ("Dense", (8192,), 128 * 8192 + 8192),
    *doubling_block(4, 512, 512),
    *doubling_block(8, 512, 256),
    *doubling_block(16, 256, 128),
    *doubling_block(32, 128, 64),
    ("BatchNormalization", (64, 64, 64), 4 * 64),
    ("Conv2D", (64, 64, 1), 9 * 64 * 1 + 1),
]


@pytest.fixture(scope="module")
def networks():
    return {
        "critic": resnet.critic(SHAPE, WIDTH),
        "generator": resnet.generator(SHAPE, LATENT, WIDTH),
        "encoder": resnet.encoder(SHAPE, LATENT, WIDTH),
    }


# Of the totals, averages of batch normalisation are 2 per channel: 2,432 channels in the generator,
# 1,920 in the encoder.
@pytest.mark.parametrize(
    ("name", "layers", "trainable", "averages"),
    [
        ("critic", halving_network(2, 1), 7_490_689, 0),
        ("generator", GENERATOR, 8_539_329, 4_864),
        ("encoder", halving_network(4, 128), 8_531_200, 3_840),
    ],
)
def test_layers_and_weights_are_those_of_the_authors_code(
    networks, name, layers, trainable, averages
):
    network = networks[name]
    assert layers_with_weights(network) == Counter(layers)
    counts = [
        sum(math.prod(weight.shape) for weight in weights)
        for weights in (network.trainable_weights, network.non_trainable_weights)
    ]
    assert counts == [trainable, averages]


def test_colour_takes_only_the_first_and_the_last_layer_more(networks):
    colour = resnet.critic((64, 64, 3), WIDTH), resnet.generator((64, 64, 3), LATENT, WIDTH)
    more = [network.count_params() - networks[network.name].count_params() for network in colour]
    assert more == [2 * 9 * 64, 2 * 9 * 64 + 2]


def test_first_weights_are_uniform_of_the_published_size(networks):
    """He's scale in the convolutions of blocks and G's last, Glorot's in all others."""
    for network in networks.values():
        kernels = [layer for layer in network.layers if hasattr(layer, "kernel")]
        for layer in kernels:
            *window, before, after = layer.kernel.shape
            fans = math.prod(window) * (before + after)
            is_first = network.name != "generator" and before == 1
            he = list(window) == [3, 3] and not is_first
            largest = math.sqrt(3 * (4 if he else 2) / fans)
            weights = np.abs(layer.kernel.numpy())
            assert 0.95 * largest < weights.max() <= largest
            if weights.size > 5000:
                assert weights.mean() == pytest.approx(largest / 2, rel=0.03)
            if layer.bias is not None:
                assert not np.any(layer.bias.numpy())


def test_constants_of_normalisation():
    def constants(network, kind):
        layers = [layer for layer in network.layers if isinstance(layer, kind)]
        return {(getattr(layer, "momentum", None), layer.epsilon) for layer in layers}

    assert constants(resnet.encoder(SHAPE, 4, 4), BatchNormalization) == {(0.99, 1e-3)}
    assert constants(resnet.generator(SHAPE, 4, 4), BatchNormalization) == {(0.99, 1e-3)}
    of_gulrajani = resnet.generator(SHAPE, 4, 4, epsilon=1e-5)
    assert constants(of_gulrajani, BatchNormalization) == {(0.99, 1e-5)}
    critic = resnet.critic(SHAPE, 4)
    assert constants(critic, keras.layers.GroupNormalization) == {(None, 1e-5)}
    assert not constants(critic, BatchNormalization)


def test_critic_normalises_each_image_over_height_width_and_channels():
    x = 3 + 2 * noise(2, 8, 8, 4)
    mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
    layer = resnet._layer_normalization()
    np.testing.assert_allclose(layer(x), (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    assert [weight.shape for weight in layer.weights] == [(4,), (4,)]
    critic = resnet.critic((32, 32, 1), 4)
    x = noise(3, 32, 32, 1)
    together = critic(x, training=True)["logit"]
    np.testing.assert_allclose(critic(x[1:2], training=True)["logit"], together[1:2], rtol=1e-4)


def test_shortcuts_average_pixels_or_repeat_them():
    """With the last convolution at zero a block is its shortcut alone."""
    for make, resized in (
        (resnet._halving_block, lambda x: x.reshape(1, 4, 2, 4, 2, 3).mean((2, 4))),
        (resnet._doubling_block, lambda x: x.repeat(2, axis=1).repeat(2, axis=2)),
    ):
        images = keras.Input((8, 8, 3))
        network = keras.Model(images, make(images, 5, resnet._batch_normalization))
        convolutions = [layer for layer in network.layers if hasattr(layer, "kernel")]
        (short,) = (layer for layer in convolutions if layer.kernel.shape[0] == 1)
        (last,) = (layer for layer in convolutions if layer.use_bias and layer is not short)
        last.kernel.assign(np.zeros(last.kernel.shape))
        x = noise(1, 8, 8, 3)
        expected = resized(x) @ short.kernel.numpy()[0, 0]
        np.testing.assert_allclose(network(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "features"),
    [
        ((64, 64, 1), [(32, 32, 8), (16, 16, 16), (8, 8, 32), (4, 4, 32)]),
        ((32, 32, 3), [(16, 16, 8), (8, 8, 16), (4, 4, 32)]),
        ((48, 24, 1), [(24, 12, 8), (12, 6, 16)]),
        ((128, 128, 1), [(64, 64, 8), (32, 32, 16), (16, 16, 32), (8, 8, 32), (4, 4, 32)]),
    ],
)
def test_other_sizes_have_as_many_blocks_as_they_need(shape, features):
    x = noise(2, *shape)
    given = resnet.critic(shape, 4)(x)
    assert given["logit"].shape == (2,)
    assert [feature.shape[1:] for feature in given["features"]] == features
    z = resnet.encoder(shape, 5, 4)(x)
    assert z.shape == (2, 5)
    images = resnet.generator(shape, 5, 4)(z).numpy()
    assert images.shape == x.shape
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize(
    ("shape", "fault"), [((16, 16, 1), "too small"), ((66, 64, 1), "halved evenly")]
)
def test_unfit_images_are_refused(shape, fault):
    for make in (
        lambda: resnet.critic(shape, 4),
        lambda: resnet.encoder(shape, 5, 4),
        lambda: resnet.generator(shape, 5, 4),
    ):
        with pytest.raises(UsageError, match=fault):
            make()
