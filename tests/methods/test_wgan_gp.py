import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.core.batches import part
from tfgad.errors import UsageError
from tfgad.networks.layers import BatchNormalization


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("wgan_gp")


def logits(model, images):
    return model.critic(images, training=False)["logit"].numpy()


def test_score_is_the_distance_from_the_mean_of_normal_windows(build_small, images):
    windows = images[:, :32, :32]
    model = build_small("wgan_gp")
    model.adapt(tf.data.Dataset.from_tensor_slices(windows), len(windows))
    expected = logits(model, windows).mean() - logits(model, windows[:3])
    predicted = model.anomaly(windows[:3])
    np.testing.assert_allclose(predicted["score"], expected, atol=1e-5)
    # The critic does not say where: the map is flat.
    for anomaly_map, score in zip(predicted["map"], predicted["score"], strict=True):
        np.testing.assert_allclose(anomaly_map, float(score), rtol=1e-5)


def test_adapting_again_gives_the_same(model, images):
    first = float(model.normal_logit)
    model.adapt(tf.data.Dataset.from_tensor_slices(images), len(images))
    assert float(model.normal_logit) == first


def test_a_step_updates_the_critic_more_often_than_the_generator(build_small, images):
    model = build_small("wgan_gp", d_steps=3)
    assert model.images_per_step == 3 * model.config.batch_size
    model.train_step(tf.constant(images[:6, :32, :32]))
    assert int(model.optimizer_by_role["critic"].iterations) == 3
    assert int(model.optimizer_by_role["generator"].iterations) == 1
    assert int(model.step) == 1


def test_the_critic_goes_down_the_paper_s_loss(build_small, images, assert_descent):
    model = build_small("wgan_gp", d_steps=1, penalty=10.0)
    x = tf.constant(images[:4, :32, :32])
    z = model.random_normal([4, model.config.latent_dim], "critic 0")
    epsilon = model.random_uniform([4, 1, 1, 1], "epsilon 0")
    generated = model.generator(z, training=True)

    def critic(images):
        return model.critic(images, training=True)["logit"]

    def loss():
        x_hat = epsilon * x + (1 - epsilon) * generated
        with tf.GradientTape() as inner:
            inner.watch(x_hat)
            logit = critic(x_hat)
        norm = tf.norm(tf.reshape(inner.gradient(logit, x_hat), [4, -1]), axis=1)
        return tf.reduce_mean(critic(generated) - critic(x) + 10.0 * (norm - 1) ** 2)

    assert_descent(model, "critic", loss, x)


@pytest.mark.parametrize(("rows", "expected"), [(8, [0, 1, 2, 3, 4, 5, 6, 7]), (9, range(8))])
def test_a_batch_is_shared_among_the_critic_s_updates(rows, expected):
    batch = tf.range(rows)
    parts = [part(batch, t, 2) for t in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)
    unknown = tf.function(
        part, input_signature=[tf.TensorSpec([None], tf.int32)] + 2 * [tf.TensorSpec([], tf.int32)]
    )
    for t in range(2):
        np.testing.assert_array_equal(unknown(batch, t, 2), parts[t])


def test_a_batch_of_fewer_images_than_updates_gives_one_to_each():
    parts = [part(tf.range(2), t, 3).numpy().tolist() for t in range(3)]
    assert parts == [[0], [1], [0]]


def test_samples_follow_their_seed(model):
    samples = model.sample(3, seed=1).numpy()
    assert samples.shape == (3, 32, 32, 1)
    assert np.abs(samples).max() <= 1
    np.testing.assert_array_equal(samples, model.sample(3, seed=1))
    assert np.any(samples != model.sample(3, seed=2).numpy())


@pytest.fixture(scope="module")
def paper():
    return tfgad.build("wgan_gp/paper", (64, 64, 1), width=4)


def test_paper_has_the_authors_networks_and_constants(paper):
    assert paper.window == (64, 64, 1)
    assert [f.shape[1:] for f in paper.critic.output["features"]] == [
        (32, 32, 8),
        (16, 16, 16),
        (8, 8, 32),
        (4, 4, 32),
    ]
    assert paper.generator.input_shape == (None, 128)
    for optimizer in paper.optimizer_by_role.values():
        constants = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        assert constants == (0.0, 0.9, 1e-8)
    normalization = {
        layer.epsilon for layer in paper.generator.layers if isinstance(layer, BatchNormalization)
    }
    assert normalization == {1e-5}


@pytest.mark.slow
def test_paper_trains(paper, images):
    x = np.repeat(np.repeat(images[:10, :32, :32], 2, axis=1), 2, axis=2)
    for _ in range(2):
        logs = paper.train_step(tf.constant(x))
        assert all(np.isfinite(value) for value in logs.values())
    assert int(paper.step) == 2


def test_default_networks_are_strided_convolutions(model):
    assert model.config.networks == "convolutional"
    kinds = {type(layer).__name__ for layer in model.critic.layers}
    assert "LeakyReLU" in kinds
    assert "Add" not in kinds
    constants = {
        layer.epsilon for layer in model.generator.layers if isinstance(layer, BatchNormalization)
    }
    assert constants == {1e-3}  # of Keras
    assert {each.epsilon for each in model.optimizer_by_role.values()} == {1e-7}  # of Keras


def test_constants_of_the_small_networks_can_be_set(build_small):
    model = build_small("wgan_gp", norm_epsilon=1e-4, epsilon=1e-6)
    constants = {
        layer.epsilon for layer in model.generator.layers if isinstance(layer, BatchNormalization)
    }
    assert constants == {1e-4}
    assert {each.epsilon for each in model.optimizer_by_role.values()} == {1e-6}


def test_images_that_the_paper_s_networks_do_not_take_are_refused():
    with pytest.raises(UsageError, match="image size '50x50': cannot be halved evenly"):
        tfgad.build("wgan_gp/paper", (50, 50, 1), width=4)
