"""Conditional generator and critic."""

import keras
import numpy as np
import pytest

from tfgad.networks import conditional, convolutional

CLASSES = 3


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def tiny_trunk():
    """A trunk for images of two pixels: φ(x) = x, ψ(φ) = 2 φ_1 - φ_2 + 1."""
    images = keras.Input((1, 2, 1))
    psi = keras.layers.Dense(1, name="psi")(keras.layers.Flatten()(images))
    psi = keras.layers.Reshape(())(psi)
    trunk = keras.Model(images, {"logit": psi, "features": [images]})
    trunk.get_layer("psi").set_weights([np.array([[2.0], [-1.0]]), np.array([1.0])])
    return trunk


def test_logits_are_those_of_a_projection_discriminator():
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
        convolutional.critic((32, 32, 3), width=4, normalise=True),
    ],
    ids=["plain", "normalised"],
)
def test_conditional_critic_keeps_the_features_and_weights_of_its_trunk(trunk):
    critic = conditional.critic(trunk, CLASSES)
    given, features = critic(noise(2, 32, 32, 3)), trunk(noise(2, 32, 32, 3))["features"]
    assert given["logits"].shape == (2, CLASSES)
    for ours, theirs in zip(given["features"], features, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The weights of the trunk, including its logit, and V.
    assert len(critic.trainable_weights) == len(trunk.trainable_weights) + 1


def small_generator():
    return conditional.generator(
        convolutional.generator((32, 32, 1), 5 + conditional.EMBEDDING, width=4), CLASSES
    )


def test_generator_maps_codes_and_labels_to_images():
    generator = small_generator()
    images = generator([noise(4, 5), np.array([0, 1, 2, 0])])
    assert images.shape == (4, 32, 32, 1)
    assert np.abs(images).max() <= 1


def test_embedding_of_the_label_is_concatenated_with_the_code():
    inner = convolutional.generator((32, 32, 1), 5 + conditional.EMBEDDING, width=4)
    generator = conditional.generator(inner, CLASSES)
    z, y = noise(4, 5), np.array([2, 0, 1, 2])
    embedding = generator.get_layer("embedding").get_weights()[0]
    both = np.concatenate([z, embedding[y]], axis=1)
    np.testing.assert_allclose(generator([z, y]), inner(both), atol=1e-6)


def test_image_of_a_code_depends_on_the_label():
    z = np.repeat(noise(1, 5), 2, axis=0)
    images = small_generator()([z, np.array([0, 1])]).numpy()
    assert np.abs(images[0] - images[1]).max() > 1e-3
