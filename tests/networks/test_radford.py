import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.networks import radford
from tfgad.networks.radford import ARJOVSKY, RADFORD, WALKTHROUGH

DESIGNS = {"radford": RADFORD, "arjovsky": ARJOVSKY, "walkthrough": WALKTHROUGH}


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def blocks(network):
    """Convolutions with filters and stride, and the layers between them, by name."""
    left_out = ("InputLayer", "Reshape", "Flatten", "Activation")
    layers = [layer for layer in network.layers if type(layer).__name__ not in left_out]
    names = [type(layer).__name__.replace("BatchNormalization", "BN") for layer in layers]
    return [
        f"{name} {layer.filters} {layer.strides[0]}" if name.startswith("Conv") else name
        for name, layer in zip(names, layers, strict=True)
    ]


# (design, channels, z, width): all weights of G and of D, worked out by hand from the authors'
# code. With PyTorch the networks of `arjovsky` have 3,576,704 and 2,765,568 trained weights.
@pytest.mark.parametrize(
    ("design", "channels", "latent_dim", "width", "of_generator", "of_critic"),
    [
        ("radford", 3, 100, 128, 18_920_320, 17_236_352),  # faces/train_uncond_dcgan.py
        ("radford", 1, 100, 64, 5_156_160, 4_314_176),  # AnoGAN: half of the channels, grey
        ("arjovsky", 3, 100, 64, 3_578_624, 2_767_360),  # WassersteinGAN, models/dcgan.py
        ("walkthrough", 1, 20, 64, 2_922_177, 2_766_529),
    ],
)
def test_weights_for_64x64_are_those_of_the_authors(
    design, channels, latent_dim, width, of_generator, of_critic
):
    shape, design = (64, 64, channels), DESIGNS[design]
    generator = radford.generator(shape, latent_dim, width, design)
    critic = radford.critic(shape, width, design)
    assert generator.count_params() == of_generator
    assert critic.count_params() == of_critic
    if design == ARJOVSKY:
        trained = [sum(w.numpy().size for w in n.trainable_weights) for n in (generator, critic)]
        assert trained == [3_576_704, 2_765_568]


def test_layers_of_radford():
    normalised = ["BN", "ReLU"]
    hidden = [f"Conv2DTranspose {filters} 2" for filters in (512, 256, 128)]
    expected = ["Dense", *normalised]
    for layer in hidden:
        expected += [layer, *normalised]
    expected += ["Conv2DTranspose 3 2"]
    generator = radford.generator((64, 64, 3), 100, 128)
    assert blocks(generator) == expected
    assert generator.layers[-1].activation.__name__ == "tanh"
    assert generator.layers[1].units == 4 * 4 * 1024

    expected = ["Conv2D 128 2", "LeakyReLU"]
    for filters in (256, 512, 1024):
        expected += [f"Conv2D {filters} 2", "BN", "LeakyReLU"]
    critic = radford.critic((64, 64, 3), 128)
    assert blocks(critic) == [*expected, "Dense"]


@pytest.mark.parametrize(
    ("design", "kernel", "slope", "bias", "first_is_normalised"),
    [
        ("radford", 5, 0.2, False, False),
        ("arjovsky", 4, 0.2, False, False),
        ("walkthrough", 4, 0.1, True, True),
    ],
)
def test_designs_differ_in_kernel_slope_bias_and_normalisation(
    design, kernel, slope, bias, first_is_normalised
):
    critic = radford.critic((64, 64, 1), 4, DESIGNS[design])
    generator = radford.generator((64, 64, 1), 8, 4, DESIGNS[design])
    names = [type(layer).__name__ for layer in critic.layers]
    assert (names[2] == "BatchNormalization") == first_is_normalised
    assert names.count("BatchNormalization") == 3 + first_is_normalised
    for layer in (*critic.layers, *generator.layers):
        name = type(layer).__name__
        if name == "LeakyReLU":
            assert layer.negative_slope == pytest.approx(slope)
        if name in ("Conv2D", "Conv2DTranspose", "Dense"):
            assert layer.use_bias == bias
        if name in ("Conv2D", "Conv2DTranspose"):
            assert layer.kernel_size == ((kernel, kernel) if layer.strides[0] == 2 else (4, 4))
        if name == "BatchNormalization":
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("design", DESIGNS)
def test_weights_start_normal_with_a_deviation_of_two_hundredths(design):
    for network in (
        radford.generator((64, 64, 1), 100, 32, DESIGNS[design]),
        radford.critic((64, 64, 1), 32, DESIGNS[design]),
    ):
        seen = set()
        for weight in network.trainable_weights:
            values = weight.numpy().ravel()
            if weight.name in ("bias", "beta"):
                assert not values.any()
                continue
            seen.add(values[:3].tobytes())
            mean = 1.0 if weight.name == "gamma" else 0.0
            tolerance = 5 * 0.02 / np.sqrt(values.size)
            assert values.mean() == pytest.approx(mean, abs=tolerance)
            assert values.std() == pytest.approx(0.02, abs=tolerance)
        drawn = [w for w in network.trainable_weights if w.name not in ("bias", "beta")]
        assert len(seen) == len(drawn)  # no two layers start from the same numbers


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 64, 3), (48, 48, 1)])
@pytest.mark.parametrize("design", DESIGNS)
def test_images_of_other_sizes_are_made_and_scored(shape, design):
    images = radford.generator(shape, 5, 4, DESIGNS[design])(100 * noise(2, 5), training=True)
    assert images.shape == (2, *shape)
    assert np.abs(images).max() <= 1
    critic = radford.critic(shape, 4, DESIGNS[design], with_features=True)
    given = critic(noise(2, *shape))
    assert given["logit"].shape == (2,)
    assert min(given["features"][-1].shape[1:3]) in range(4, 8)
    assert radford.critic(shape, 4, DESIGNS[design])(noise(2, *shape)).shape == (2,)


def test_small_images_are_refused():
    with pytest.raises(UsageError, match="too small"):
        radford.generator((16, 16, 1), 5, 4)
