import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import dense

SHAPES = [(28, 28, 1), (25, 33, 3)]


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def critic(shape, dropout=0.2):
    return dense.critic(shape, dropout, seed=0)


def kernels(network):
    return [w.shape for w in network.trainable_weights if len(w.shape) > 1]


def test_weights_for_mnist():
    assert kernels(dense.generator((28, 28, 1), 100)) == [(100, 256), (256, 256), (256, 784)]
    assert kernels(critic((28, 28, 1))) == [(784, 128), (128, 128), (128, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_generator_makes_images_between_minus_one_and_one(shape):
    images = dense.generator(shape, 5)(100 * noise(2, 5), training=True)
    assert images.shape == (2, *shape)
    assert 0.5 < np.abs(images).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_critic_gives_a_logit_from_two_hidden_layers(shape):
    network = critic(shape)
    assert network(noise(2, *shape)).shape == (2,)
    hidden = [layer for layer in network.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert [layer.output.shape[1:] for layer in hidden] == [(128,)] * 2


def test_the_logit_is_that_of_the_written_network():
    network, x = critic((24, 24, 1)), noise(3, 24, 24, 1)
    h = x.reshape(3, -1)
    *hidden, (kernel, bias) = np.array(network.get_weights(), object)[:6].reshape(3, 2)
    for weight, offset in hidden:
        h = h @ weight + offset
        h = np.maximum(h, 0.2 * h)
    np.testing.assert_allclose(network(x), (h @ kernel + bias)[:, 0], atol=1e-5)


def test_dropout_goes_on_from_where_it_was_saved(tmp_path):
    network, x = critic((24, 24, 1)), noise(3, 24, 24, 1)
    first = network(x, training=True).numpy()
    network.save(tmp_path / "critic.keras")
    loaded = keras.saving.load_model(tmp_path / "critic.keras")
    second = network(x, training=True).numpy()
    assert np.any(first != second)
    np.testing.assert_array_equal(loaded(x, training=True), second)


def test_without_dropout_the_critic_is_saved_too(tmp_path):
    network, x = critic((24, 24, 1), dropout=0.0), noise(3, 24, 24, 1)
    network.save(tmp_path / "critic.keras")
    loaded = keras.saving.load_model(tmp_path / "critic.keras")
    np.testing.assert_array_equal(loaded(x, training=True), network(x))


@pytest.mark.parametrize(
    ("shape", "fault"), [((28, 23, 1), "too small"), ((28, 28, 2), "neither grey nor colour")]
)
def test_unfit_images_are_refused(shape, fault):
    with pytest.raises(UsageError, match=fault):
        dense.generator(shape, 5)
