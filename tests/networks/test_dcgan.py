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
def test_critic_gives_a_logit_and_its_two_hidden_layers(shape):
    given = critic(shape)(noise(2, *shape))
    assert given["logit"].shape == (2,)
    half, quarter = ([-(-side // cell) for side in shape[:2]] for cell in (2, 4))
    assert [f.shape for f in given["features"]] == [(2, *half, 4), (2, *quarter, 8)]


def test_weights_for_mnist_are_those_of_the_tutorial():
    generator, discriminator = dcgan.generator((28, 28, 1), 100, 64), critic((28, 28, 1), 64)
    kernels = [w.shape for w in generator.trainable_weights if len(w.shape) > 1]
    # Transposed convolutions hold [5, 5, to, from].
    convolutions = [(5, 5, 128, 256), (5, 5, 64, 128), (5, 5, 1, 64)]
    assert kernels == [(100, 7 * 7 * 256), *convolutions]
    kernels = [w.shape for w in discriminator.trainable_weights if len(w.shape) > 1]
    assert kernels == [(5, 5, 1, 64), (5, 5, 64, 128), (7 * 7 * 128, 1)]


def test_what_is_too_much_is_cut_off_at_the_end():
    whole, cut = (dcgan.generator((side, side, 1), 5, width=4) for side in (32, 30))
    cut.set_weights(whole.get_weights())
    np.testing.assert_array_equal(cut(noise(2, 5)), whole(noise(2, 5))[:, :30, :30])


@pytest.mark.parametrize(
    ("shape", "fault"), [((28, 23, 1), "too small"), ((28, 28, 2), "neither grey nor colour")]
)
def test_unfit_images_are_refused(shape, fault):
    with pytest.raises(UsageError, match=fault):
        dcgan.generator(shape, 5, width=4)
