import keras
import numpy as np
import pytest

from tfgad.networks import conditional, convolutional, dcgan

CLASSES = 3


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def tiny_trunk():
    """φ(x) = x, of images of two pixels, and ψ(φ) = 2 φ_1 - φ_2 + 1."""
    images = keras.Input((1, 2, 1))
    psi = keras.layers.Dense(1, name="psi")(keras.layers.Flatten()(images))
    psi = keras.layers.Reshape(())(psi)
    trunk = keras.Model(images, {"logit": psi, "features": [images]})
    trunk.get_layer("psi").set_weights([np.array([[2.0], [-1.0]]), np.array([1.0])])
    return trunk


def test_logits_are_miyato_s_projection():
    critic = conditional.critic(tiny_trunk(), CLASSES)
    # The rows of V: v_0 = (1, 0), v_1 = (0, 3), v_2 = (-1, -1).
    critic.get_layer("projections").set_weights([np.array([[1.0, 0, -1], [0, 3, -1]])])
    images = np.array([[4.0, 5.0], [-1.0, 0.5]], "float32").reshape(2, 1, 2, 1)
    # ψ is 8 - 5 + 1 = 4 and -2 - 0.5 + 1 = -1.5; v_yᵀφ is 4, 15, -9 and -1, 1.5, 0.5.
    expected = [[8, 19, -5], [-2.5, 0, -1]]
    np.testing.assert_allclose(critic(images)["logits"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "trunk",
    [
        convolutional.critic((32, 32, 3), width=4),
        dcgan.critic((32, 32, 3), width=4, dropout=0.3, seed=0),
    ],
    ids=["convolutional", "dcgan"],
)
def test_any_critic_becomes_conditional(trunk):
    critic = conditional.critic(trunk, CLASSES)
    given, features = critic(noise(2, 32, 32, 3)), trunk(noise(2, 32, 32, 3))["features"]
    assert given["logits"].shape == (2, CLASSES)
    for ours, theirs in zip(given["features"], features, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The trunk's own weights, and V; no logit of the trunk is left over.
    assert len(critic.trainable_weights) == len(trunk.trainable_weights) + 1


def small_generator():
    return conditional.generator(
        convolutional.generator((32, 32, 1), 5 + conditional.EMBEDDING, width=4), CLASSES
    )


def test_generator_takes_a_code_and_a_label():
    generator = small_generator()
    images = generator([noise(4, 5), np.array([0, 1, 2, 0])])
    assert images.shape == (4, 32, 32, 1)
    assert np.abs(images).max() <= 1


def test_the_label_stands_beside_the_code():
    inner = convolutional.generator((32, 32, 1), 5 + conditional.EMBEDDING, width=4)
    generator = conditional.generator(inner, CLASSES)
    z, y = noise(4, 5), np.array([2, 0, 1, 2])
    embedding = generator.get_layer("embedding").get_weights()[0]
    both = np.concatenate([z, embedding[y]], axis=1)
    np.testing.assert_allclose(generator([z, y]), inner(both), atol=1e-6)


def test_the_same_code_gives_another_image_of_another_class():
    z = np.repeat(noise(1, 5), 2, axis=0)
    images = small_generator()([z, np.array([0, 1])]).numpy()
    assert np.abs(images[0] - images[1]).max() > 1e-3
