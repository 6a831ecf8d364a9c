import numpy as np
import pytest
import tensorflow as tf

from tfgad.core import adversarial
from tfgad.errors import UsageError


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
    judged = model.anomaly(windows[:3])
    np.testing.assert_allclose(judged["score"], expected, atol=1e-5)
    # The critic does not say where: the map is flat.
    for anomaly_map, score in zip(judged["map"], judged["score"], strict=True):
        np.testing.assert_allclose(anomaly_map, float(score), rtol=1e-5)


def test_adapting_again_gives_the_same(model, images):
    first = float(model.normal_logit)
    model.adapt(tf.data.Dataset.from_tensor_slices(images), len(images))
    assert float(model.normal_logit) == first


def test_a_step_updates_the_critic_more_often_than_the_generator(build_small, images):
    model = build_small("wgan_gp", d_steps=3)
    assert model.batches_per_step == 3
    model.train_step(tf.constant(images[:6, :32, :32]))
    assert int(model.optimizers["critic"].iterations) == 3
    assert int(model.optimizers["generator"].iterations) == 1
    assert int(model.step) == 1


def test_the_critic_goes_down_the_paper_s_loss(build_small, images, assert_descent):
    model = build_small("wgan_gp", d_steps=1, penalty=10.0)
    x = tf.constant(images[:4, :32, :32])
    z = model.noise([4, model.latent_dim], adversarial.CRITIC_LATENT)
    epsilon = model.noise([4, 1, 1, 1], adversarial.EPSILON, uniform=True)
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


def test_a_batch_that_cannot_be_shared_is_refused(model, images):
    with pytest.raises(UsageError, match="d_steps=2"):
        model.train_step(tf.constant(images[:3, :32, :32]))


def test_samples_follow_their_seed(model):
    samples = model.sample(3, seed=1).numpy()
    assert samples.shape == (3, 32, 32, 1)
    assert np.abs(samples).max() <= 1
    np.testing.assert_array_equal(samples, model.sample(3, seed=1))
    assert np.any(samples != model.sample(3, seed=2).numpy())
