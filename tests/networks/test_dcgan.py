import keras
import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import dcgan

SHAPES = [(28, 28, 1), (32, 32, 3), (30, 33, 1), (25, 48, 3)]


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def critic(shape, width=4):
    return dcgan.critic(shape, width, dropout=0.3, seed=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_generator_makes_images_of_any_size(shape):
    images = dcgan.generator(shape, 5, width=4)(100 * noise(2, 5), training=True)
    assert images.shape == (2, *shape)
    assert 0.5 < np.abs(images).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_critic_gives_a_logit_from_two_hidden_layers(shape):
    network = critic(shape)
    assert network(noise(2, *shape)).shape == (2,)
    half, quarter = ([-(-side // cell) for side in shape[:2]] for cell in (2, 4))
    hidden = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.output.shape[1:] for layer in hidden] == [(*half, 4), (*quarter, 8)]


def test_weights_for_mnist_are_those_of_the_tutorial():
    generator, discriminator = dcgan.generator((28, 28, 1), 100, 64), critic((28, 28, 1), 64)
    kernels = [w.shape for w in generator.trainable_weights if len(w.shape) > 1]
    # Transposed convolutions hold [5, 5, to, from].
    convolutions = [(5, 5, 128, 256), (5, 5, 64, 128), (5, 5, 1, 64)]
    assert kernels == [(100, 7 * 7 * 256), *convolutions]
    kernels = [w.shape for w in discriminator.trainable_weights if len(w.shape) > 1]
    assert kernels == [(5, 5, 1, 64), (5, 5, 64, 128), (7 * 7 * 128, 1)]


def test_the_tutorial_s_networks_are_tensorflow_s():
    generator = dcgan.generator((28, 28, 1), 100, 64, tutorial=True)
    discriminator = dcgan.critic((28, 28, 1), 64, dropout=0.3, tutorial=True)
    # 100*12544 + 4*12544 + 25*256*128 + 4*128 + 25*128*64 + 4*64 + 25*64: the tutorial's last layer
    # has no bias, and its own summary says 2,330,944 as well.
    assert generator.count_params() == 2_330_944
    # 26*64 + 25*64*128 + 128 + 6272 + 1
    assert discriminator.count_params() == 212_865
    left_out = ("InputLayer", "Reshape", "Flatten", "Activation")
    names = [type(layer).__name__ for layer in generator.layers]
    block = ["BatchNormalization", "LeakyReLU"]
    assert names[1:5] == ["Dense", *block, "Reshape"]  # the statistics are of each unit
    names = [name for name in names if name not in left_out]
    assert names == ["Dense", *block, *(["Conv2DTranspose", *block] * 2), "Conv2DTranspose"]
    names = [type(layer).__name__ for layer in discriminator.layers]
    names = [name for name in names if name not in left_out]
    assert names == [*(["Conv2D", "LeakyReLU", "Dropout"] * 2), "Dense"]
    for layer in (*generator.layers, *discriminator.layers):
        if isinstance(layer, keras.layers.LeakyReLU):
            assert layer.negative_slope == pytest.approx(0.3)
        if isinstance(layer, keras.layers.BatchNormalization):  # Keras's defaults
            assert (layer.momentum, layer.epsilon) == (0.99, 1e-3)


def test_the_surplus_is_cropped_at_the_end():
    whole, cut = (dcgan.generator((side, side, 1), 5, width=4) for side in (32, 30))
    cut.set_weights(whole.get_weights())
    np.testing.assert_array_equal(cut(noise(2, 5)), whole(noise(2, 5))[:, :30, :30])


@pytest.mark.parametrize(
    ("shape", "fault"), [((28, 23, 1), "too small"), ((28, 28, 2), "neither grey nor colour")]
)
def test_unfit_images_are_refused(shape, fault):
    with pytest.raises(UsageError, match=fault):
        dcgan.generator(shape, 5, width=4)
