import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import published_dense

MNIST = (28, 28, 1)


def noise(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def named(network):
    return [type(layer).__name__ for layer in network.layers]


# Worked out by hand: dense layers have units * (inputs + 1) weights, normalisations 4 per unit.
@pytest.mark.parametrize(
    ("network", "weights"),
    [
        # 101*1200 + 1201*1200 + 1201*784, and 785*1200 + 241*1200 + 241
        (published_dense.goodfellow_generator(MNIST, 100), 2_503_984),
        (published_dense.goodfellow_critic(MNIST, 0), 1_231_441),
        # 101*256 + 257*256 + 257*784 + 2*4*256, and 785*128 + 129*128 + 129
        (published_dense.walkthrough_generator(MNIST, 100), 295_184),
        (published_dense.walkthrough_critic(MNIST, 0.2, 0), 117_121),
        # 785*500 + 501*40, and 21*500 + 501*784
        (published_dense.kingma_encoder(MNIST, 40, 500), 412_540),
        (published_dense.kingma_decoder(MNIST, 20, 500), 403_284),
    ],
)
def test_weights_for_mnist(network, weights):
    assert network.count_params() == weights


def test_layers_of_the_walkthrough():
    generator = published_dense.walkthrough_generator(MNIST, 100)
    hidden = ["Dense", "BatchNormalization"] * 2
    assert named(generator) == ["InputLayer", *hidden, "Dense", "Rescaling", "Reshape"]
    dense = [layer for layer in generator.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.activation.__name__ for layer in dense] == ["relu", "relu", "sigmoid"]
    critic = published_dense.walkthrough_critic(MNIST, 0.2, 0)
    hidden = ["Dense", "Dropout"] * 2
    assert named(critic) == ["InputLayer", "Rescaling", "Flatten", *hidden, "Dense", "Reshape"]
    assert [layer.rate for layer in critic.layers if hasattr(layer, "rate")] == [0.2, 0.2]


def test_goodfellow_s_discriminator_drops_a_fifth_of_the_pixels_and_half_of_the_units():
    critic = published_dense.goodfellow_critic(MNIST, seed=3)
    dropout = [layer for layer in critic.layers if hasattr(layer, "rate")]
    assert [layer.rate for layer in dropout] == [0.2, 0.5, 0.5]
    assert len({layer.seed for layer in dropout}) == 3


def test_goodfellow_s_discriminator_is_the_one_written_out():
    network, x = published_dense.goodfellow_critic((24, 24, 1), 0), noise(3, 24, 24, 1)
    h = (x.reshape(3, -1) + 1) / 2
    weights = network.get_weights()
    kernels = [w for w in weights if w.ndim == 2]
    biases = [w for w in weights if w.ndim == 1 and w.size in (1, 1200)]
    for kernel, bias in zip(kernels[:2], biases[:2], strict=True):
        h = (h @ kernel + bias).reshape(3, 240, 5).max(axis=2)
    np.testing.assert_allclose(network(x), (h @ kernels[2] + biases[2])[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("network", "limit"),
    [
        (published_dense.goodfellow_generator(MNIST, 100), 0.05),
        (published_dense.goodfellow_critic(MNIST, 0), 0.005),
    ],
)
def test_goodfellow_s_weights_start_uniform(network, limit):
    for weight in network.trainable_weights:
        if weight.name == "bias":
            assert not weight.numpy().any()
        else:
            assert 0.95 * limit < np.abs(weight).max() <= limit
            spread = limit / np.sqrt(3)
            assert weight.numpy().std() == pytest.approx(spread, rel=0.1)


def test_kingma_s_networks_are_those_written_out():
    encoder = published_dense.kingma_encoder((24, 24, 1), 6, 50)
    decoder = published_dense.kingma_decoder((24, 24, 1), 3, 50)
    x, z = noise(4, 24, 24, 1), noise(4, 3)
    (w1, b1, w2, b2), (w3, b3, w4, b4) = encoder.get_weights(), decoder.get_weights()
    code = np.tanh((x.reshape(4, -1) + 1) / 2 @ w1 + b1) @ w2 + b2
    np.testing.assert_allclose(encoder(x), code, atol=1e-5)
    white = sigmoid(np.tanh(z @ w3 + b3) @ w4 + b4)
    np.testing.assert_allclose(decoder(z), 2 * white.reshape(4, 24, 24, 1) - 1, atol=1e-5)
    for weight in (w1, w3, w4, b4):
        assert weight.std() == pytest.approx(0.01, rel=0.25)


@pytest.mark.parametrize("author", ["goodfellow", "walkthrough", "kingma"])
def test_images_lie_between_minus_one_and_one(author):
    sizes = (5, 9) if author == "kingma" else (5,)
    name = f"{author}_decoder" if author == "kingma" else f"{author}_generator"
    network = getattr(published_dense, name)((25, 33, 3), *sizes)
    images = network(1000 * noise(2, 5), training=True)
    assert images.shape == (2, 25, 33, 3)
    assert np.abs(images).max() <= 1
    with pytest.raises(UsageError, match="too small"):
        getattr(published_dense, name)((16, 16, 1), *sizes)
