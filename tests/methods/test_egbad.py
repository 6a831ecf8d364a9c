import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.errors import UsageError
from tfgad.methods import egbad

ROLES = ["critic", "generator", "encoder"]


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("egbad")


def windows(images, count=4):
    return tf.constant(images[:count, :32, :32])


def cross_entropy(logits, label):
    """-t log D - (1 - t) log(1 - D) of each logit `[B]`, by Keras."""
    labels = tf.fill([len(logits), 1], label)
    return keras.losses.binary_crossentropy(labels, logits[:, None], from_logits=True)


def pair_losses(model, x, purpose):
    """Two functions of a label: the cross-entropies of the pairs (x, E(x)), and of (G(z), z)."""
    z = model.random_normal([len(x), model.config.latent_dim], purpose)
    encoded, generated = model.encoder(x, training=True), model.generator(z, training=True)
    of_x = model.critic([x, encoded], training=True)["logit"]
    of_z = model.critic([generated, z], training=True)["logit"]
    return lambda label: cross_entropy(of_x, label), lambda label: cross_entropy(of_z, label)


def test_the_discriminator_tells_the_two_kinds_of_pairs(build_small, images, assert_descent):
    model, x = build_small("egbad", dropout=0.0), windows(images)

    def loss():
        of_x, of_z = pair_losses(model, x, "critic")
        return tf.reduce_mean((of_x(1.0) + of_z(0.0)) / 2)

    logs = assert_descent(model, "critic", loss, x)
    assert set(logs) == set(ROLES)


def test_generator_and_encoder_want_the_other_label(build_small, images, assert_descent):
    x = windows(images)
    for role, kind, label in (("encoder", 0, 0.0), ("generator", 1, 1.0)):
        model = build_small("egbad", dropout=0.0)

        def loss(model=model, kind=kind, label=label):
            return tf.reduce_mean(pair_losses(model, x, "generator")[kind](label))

        value = float(loss())
        logs = assert_descent(model, role, loss, x)
        np.testing.assert_allclose(logs[role], value, rtol=1e-4)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_moves_its_own_network_once_per_step(build_small, images, role):
    model = build_small("egbad")
    model.compile({each: keras.optimizers.SGD(float(each == role)) for each in ROLES})
    before = {each: [w.numpy() for w in model.weights_of(each)] for each in ROLES}
    model.train_step(windows(images))
    for each in ROLES:
        now = [w.numpy() for w in model.weights_of(each)]
        moved = any(np.any(a != b) for a, b in zip(before[each], now, strict=True))
        assert moved == (each == role), each
        assert int(model.optimizer_by_role[each].iterations) == 1


def test_updates_of_discriminator_and_generator_draw_other_codes(build_small, images, monkeypatch):
    model, drawn = build_small("egbad"), {}
    draw = model.random_normal
    monkeypatch.setattr(
        model,
        "random_normal",
        lambda shape, purpose: drawn.setdefault(purpose, draw(shape, purpose)),
    )
    model.train_step(windows(images))
    assert list(drawn) == ["critic", "generator"]
    assert np.any(drawn["critic"] != drawn["generator"])


def test_averages_follow_the_weights_and_statistics_are_copied(build_small, images):
    model = build_small("egbad", ema=0.75)
    start = [w.numpy() for mean, _ in model.averages() for w in mean.weights]
    trained = [w for _, network in model.averages() for w in network.weights]
    for weight, average in zip(trained, start, strict=True):
        np.testing.assert_array_equal(weight, average)
    model.train_step(windows(images))
    averages = [w for mean, _ in model.averages() for w in mean.weights]
    for average, weight, first in zip(averages, trained, start, strict=True):
        expected = 0.75 * first + 0.25 * weight.numpy() if weight.trainable else weight.numpy()
        np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-7, err_msg=weight.path)
    assert not any(mean.trainable_weights for mean, _ in model.averages())


def test_without_a_decay_the_averages_are_the_weights(build_small, images):
    model = build_small("egbad", ema=0.0)
    model.train_step(windows(images))
    for mean, network in model.averages():
        for average, weight in zip(mean.weights, network.weights, strict=True):
            np.testing.assert_array_equal(average, weight)


def test_scores_are_those_of_the_averages(build_small, images):
    model = build_small("egbad", side=32)
    before = model.anomaly(windows(images), "feature")["score"]
    for network in (model.encoder, model.generator, model.critic):
        network.set_weights([np.zeros_like(w) for w in network.get_weights()])
    np.testing.assert_array_equal(model.anomaly(windows(images), "feature")["score"], before)


@pytest.mark.slow
def test_the_scores_are_the_paper_s_sums(model, images):
    x = windows(images, 3)
    z = model.mean_encoder(x, training=False)
    generated = model.mean_generator(z, training=False)
    of_x = model.mean_critic([x, z], training=False)
    of_generated = model.mean_critic([generated, z], training=False)
    residual = np.abs(x - generated).sum(axis=(1, 2, 3))
    feature = np.abs(of_x["joint"] - of_generated["joint"]).sum(axis=1)
    entropy = -np.log(1 / (1 + np.exp(-of_x["logit"].numpy().astype("float64"))))
    for score, distance in (("feature", feature), ("cross_entropy", entropy)):
        found = model.anomaly(x, score)["score"]
        np.testing.assert_allclose(found, 0.9 * residual + 0.1 * distance, rtol=1e-4)
    squares = np.square(x - generated).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(model.anomaly(x, "residual")["score"], squares, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(x), generated, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "logit", "entropy"), [(1.0, 0.0, 0.693147), (0.5, -2.0, 2.126928), (1.0, 40.0, 0.0)]
)
def test_the_cross_entropy_of_a_known_logit(build_small, images, weight, logit, entropy):
    model = build_small("egbad", discriminator_weight=weight)
    *_, kernel, bias = model.mean_critic.weights
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([logit])
    found = model.errors(windows(images, 2))
    np.testing.assert_allclose(found["cross_entropy"], weight * entropy, atol=1e-5)
    if weight == 1.0:  # nothing is left of the residual
        np.testing.assert_array_equal(found["pixels"], np.zeros((2, 32, 32)))


def test_the_critic_s_features_see_the_image_and_its_joint_layer_the_pair(model, images):
    x = windows(images, 2)
    one, other = (model.mean_critic([x, z]) for z in (tf.zeros([2, 8]), tf.ones([2, 8])))
    for a, b in zip(one["features"], other["features"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(one["joint"] != other["joint"])
    assert model.terms == (("residual",), ("features_0", "features_1"), ("feature",))
    assert model.code_dim == model.config.latent_dim == 8


def test_paper_has_the_published_numbers():
    paper = egbad.PAPER
    assert (paper.latent_dim, paper.batch_size, paper.dropout) == (200, 100, 0.5)
    assert (paper.learning_rate, paper.beta_1, paper.epsilon, paper.ema) == (1e-5, 0.5, 1e-8, 0.999)
    assert (paper.discriminator_weight, paper.score) == (0.1, "feature")


def test_networks_of_paper_are_those_of_the_mnist_experiment():
    model = tfgad.build("egbad/paper", (28, 28, 1))
    convolution = {
        "encoder": (9 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128),
        "generator": (16 * 128 * 64 + 64) + (16 * 64 + 1),
        "critic": (16 * 64 + 64) + (16 * 64 * 64 + 64),
    }
    dense = {
        "encoder": 7 * 7 * 128 * 200 + 200,
        "generator": (200 * 1024 + 1024) + (1024 * 6272 + 6272),
        "critic": (200 * 512 + 512) + ((3136 + 512) * 1024 + 1024) + (1024 + 1),
    }
    normalised = {"encoder": 64 + 128, "generator": 1024 + 6272 + 64, "critic": 64}
    for role in ROLES:
        count = sum(int(np.prod(w.shape)) for w in model.weights_of(role))
        assert count == convolution[role] + dense[role] + 2 * normalised[role], role
    assert model.critic.output["joint"].shape == (None, 1024)
    assert [f.shape[1:] for f in model.critic.output["features"]] == [(14, 14, 64), (7, 7, 64)]
    first = model.encoder.weights[0].numpy()  # Gaussian of deviation 0.02
    assert 0.015 < first.std() < 0.025


def test_a_window_that_cannot_be_halved_twice_is_refused(build_small):
    with pytest.raises(UsageError, match="multiples of 4"):
        build_small("egbad", side=30, stride=2)
