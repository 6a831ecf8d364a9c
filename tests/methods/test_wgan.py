import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.core import batches
from tfgad.errors import UsageError
from tfgad.methods import settings_of

CLIP = 0.01


def windows(images, count=4):
    return tf.constant(images[:count, :32, :32])


def logits(model, images):
    return model.critic(images, training=True)["logit"]


# WGAN-GP differs in the penalty alone: `test_wgan_gp.py`.
@pytest.mark.parametrize("r1", [0.0, 0.5])
def test_the_critic_goes_down_the_paper_s_loss(build_small, images, assert_descent, r1):
    model, x = build_small("wgan", d_steps=1, clip=100.0, r1=r1), windows(images)
    z = model.random_normal([4, model.config.latent_dim], "critic 0")
    generated = model.generator(z, training=True)

    def loss():
        with tf.GradientTape() as inner:
            inner.watch(x)
            real = logits(model, x)
        slope = tf.reduce_sum(inner.gradient(real, x) ** 2, axis=[1, 2, 3])
        return tf.reduce_mean(logits(model, generated) - real + r1 * slope)

    assert_descent(model, "critic", loss, x)


@pytest.mark.parametrize("method", ["wgan", "wgan_gp"])
def test_the_generator_goes_up_the_critic(build_small, images, assert_descent, method):
    model = build_small(method, d_steps=1, **({"clip": 100.0} if method == "wgan" else {}))

    def loss():
        z = model.random_normal([4, model.config.latent_dim], "generator 0")
        return -tf.reduce_mean(logits(model, model.generator(z, training=True)))

    assert_descent(model, "generator", loss, windows(images))


def test_after_a_step_every_weight_of_the_critic_is_within_the_clip(build_small, images):
    model = build_small("wgan", clip=CLIP, learning_rate=5e-5)
    weights = model.critic.trainable_weights
    for weight in weights:
        weight.assign(weight + 1.0)
    generator = [w.numpy() for w in model.generator.trainable_weights]
    model.train_step(windows(images))
    names = [weight.name for weight in weights]
    assert names.count("kernel") == names.count("bias") == len(names) / 2
    for weight in weights:
        np.testing.assert_array_equal(weight, np.full(weight.shape, CLIP, "float32"), weight.path)
    # A step of RMSprop, but no clip: that would take most of a kernel to its bound.
    for weight, start in zip(model.generator.trainable_weights, generator, strict=True):
        assert np.abs(weight.numpy() - start).max() < 1e-3


def recorded(model, monkeypatch):
    """Returns a list that gets the images and codes of each update of the critic."""
    updates, update = [], model.update_critic
    monkeypatch.setattr(
        model, "update_critic", lambda x, z: [updates.append((x, z)), update(x, z)][1]
    )
    return updates


LONG = {"d_steps": 2, "long_d_steps": 7}


@pytest.mark.parametrize(
    ("step", "updates"), [(0, 7), (24, 7), (25, 2), (499, 2), (500, 7), (501, 2), (1000, 7)]
)
def test_the_first_25_steps_and_each_500th_have_more_updates_of_the_critic(
    build_small, images, step, updates
):
    model = build_small("wgan", **LONG)
    model.step.assign(step)
    model.train_step(windows(images))
    assert int(model.optimizer_by_role["critic"].iterations) == updates
    assert int(model.optimizer_by_role["generator"].iterations) == 1
    assert max(np.abs(w).max() for w in model.critic.trainable_weights) <= np.float32(CLIP)


def test_without_long_steps_all_are_alike(build_small, images):
    model = build_small("wgan", d_steps=2, long_d_steps=0)
    model.train_step(windows(images))
    assert int(model.optimizer_by_role["critic"].iterations) == 2
    assert settings_of("wgan")["long_d_steps"] == 0


def test_a_long_step_takes_its_images_in_turns_and_draws_new_codes(
    build_small, images, monkeypatch
):
    model = build_small("wgan", **LONG)
    updates = recorded(model, monkeypatch)
    x = windows(images, 6)
    model.train_step(x)
    assert model.images_per_step == 2 * model.config.batch_size
    for t, (batch, _) in enumerate(updates):
        np.testing.assert_array_equal(batch, x[3 * (t % 2) : 3 * (t % 2) + 3])
    assert {tuple(z.shape) for _, z in updates} == {(3, model.config.latent_dim)}
    assert len({z.numpy().tobytes() for _, z in updates}) == 7


@pytest.mark.slow
def test_a_resumed_training_counts_on_to_the_next_long_step(build_small, images, tmp_path):
    model = build_small("wgan", **LONG, networks="arjovsky")
    model.step.assign(24)
    data = tf.data.Dataset.from_tensor_slices(images[:4, :32, :32]).repeat().batch(4)

    def train(model, steps):
        model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)

    train(model, 1)
    model.save(tmp_path / "model.keras")
    train(model, 2)
    resumed = tfgad.load_model(tmp_path / "model.keras")
    train(resumed, 2)
    assert int(resumed.optimizer_by_role["critic"].iterations) == 7 + 2 + 2
    for ours, theirs in zip(model.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, ours.path)


def test_long_steps_are_refused_on_several_devices(build_small, images, monkeypatch):
    model = build_small("wgan", **LONG)
    strategy = type("Strategy", (), {"num_replicas_in_sync": 2})()
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    with pytest.raises(UsageError, match=r"long_d_steps '7'.*one device.*give 0"):
        model.update_critic_further(windows(images), tf.constant(2), {})


def test_rmsprop_of_the_paper_is_pytorch_s(build_small):
    optimizer = build_small("wgan/paper").optimizers()["critic"]
    for gradient in (1.0, 1e-3, 1e-6):
        weight = tf.Variable(0.0)
        optimizer = build_small("wgan/paper").optimizers()["critic"]
        optimizer.apply([tf.constant(gradient)], [weight])
        # v = 0.01 g², and the weight moves by lr g / (√v + 1e-8).
        expected = -5e-5 * gradient / (np.sqrt(0.01) * gradient + 1e-8)
        # At a gradient of 1e-6 the root is 1e-7, of which the two ε make a tenth and a 200th.
        assert float(weight) == pytest.approx(expected, rel=0.1 if gradient < 1e-5 else 1e-3)


def test_the_critic_of_the_paper_is_normalised_and_clipped_in_its_scales_too(build_small, images):
    model = build_small("wgan/paper", window=32, d_steps=2, long_d_steps=0)
    model.train_step(windows(images))
    names = [weight.name for weight in model.critic.trainable_weights]
    assert names.count("gamma") == names.count("beta") == 2
    assert names.count("kernel") == 4
    assert "bias" not in names
    assert max(np.abs(w).max() for w in model.critic.trainable_weights) <= np.float32(CLIP)


def test_the_clip_outlives_saving(build_small, images, tmp_path):
    build_small("wgan", clip=CLIP).save(tmp_path / "model.keras")
    model = tfgad.load_model(tmp_path / "model.keras")
    model.train_step(windows(images))
    assert max(np.abs(w).max() for w in model.critic.get_weights()) <= np.float32(CLIP)


def test_the_optimizers_are_rmsprop(build_small):
    rate = settings_of("wgan")["learning_rate"]
    for optimizer in build_small("wgan").optimizer_by_role.values():
        assert type(optimizer).__name__ == "RMSprop"
        assert float(optimizer.learning_rate) == pytest.approx(rate)


def test_images_that_the_critic_thinks_less_of_score_higher(build_small, images):
    model = build_small("wgan")
    model.adapt(tf.data.Dataset.from_tensor_slices(images[:, :32, :32]), len(images))
    logit = logits(model, windows(images, 16)).numpy()
    scores = model.anomaly(windows(images, 16))["score"].numpy()
    np.testing.assert_allclose(scores, logit.mean() - logit, atol=1e-6)
    assert abs(scores.mean()) < 1e-6


def test_the_critic_s_mean_is_of_images_drawn_by_the_seed(build_small, images, monkeypatch):
    monkeypatch.setattr(batches, "MEAN_IMAGES", 15)
    normals = tf.data.Dataset.from_tensor_slices(images[:, :32, :32])
    left_out = []
    for seed in (0, 0, 1, 2):
        model = build_small("wgan", seed=seed)
        model.adapt(normals, len(images))
        means = np.array(
            [np.delete(logits(model, windows(images, 16)), i).mean() for i in range(16)]
        )
        distances = np.abs(means - float(model.normal_logit))
        assert distances.min() < 1e-7 < np.partition(distances, 1)[1]
        left_out.append(distances.argmin())
    assert left_out[0] == left_out[1]
    assert len(set(left_out)) > 1
