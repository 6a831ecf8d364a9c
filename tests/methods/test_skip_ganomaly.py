import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.methods import skip_ganomaly

WEIGHTS = {"adversarial_weight": 2.0, "contextual_weight": 30.0, "latent_weight": 3.0}


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("skip_ganomaly")


def windows(images, count=4):
    return tf.constant(images[:count, :32, :32])


def cross_entropy(logits, label):
    """-t log D - (1 - t) log(1 - D) of each logit `[B]`, by Keras."""
    labels = tf.fill([len(logits), 1], label)
    return keras.losses.binary_crossentropy(labels, logits[:, None], from_logits=True)


def test_the_generator_goes_down_the_weighted_sum(build_small, images, assert_descent):
    model, x = build_small("skip_ganomaly", **WEIGHTS), windows(images)

    def terms():
        generated = model.generator(x, training=True)
        real, fake = model.critic(x, training=True), model.critic(generated, training=True)
        return {
            "adversarial": tf.reduce_mean(cross_entropy(fake["logit"], 1.0)),
            "contextual": tf.reduce_mean(tf.abs(x - generated)),
            "latent": tf.reduce_mean((real["latent"] - fake["latent"]) ** 2),
        }

    def loss():
        found = terms()
        return 2.0 * found["adversarial"] + 30.0 * found["contextual"] + 3.0 * found["latent"]

    expected = terms()
    logs = assert_descent(model, "generator", loss, x)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-4)


def test_the_discriminator_goes_down_the_cross_entropy(build_small, images, assert_descent):
    model, x = build_small("skip_ganomaly", **WEIGHTS), windows(images)

    def loss():
        fake = model.critic(model.generator(x, training=True), training=True)["logit"]
        real = model.critic(x, training=True)["logit"]
        return tf.reduce_mean(cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)) / 2

    value = float(loss())
    logs = assert_descent(model, "critic", loss, x)
    np.testing.assert_allclose(logs["critic"], value, rtol=1e-4)


@pytest.mark.parametrize("role", ["generator", "critic"])
def test_a_role_moves_its_own_network_once_per_step(build_small, images, role):
    model = build_small("skip_ganomaly")
    model.compile({each: keras.optimizers.SGD(float(each == role)) for each in model.roles})
    before = {each: [w.numpy() for w in model.weights_of(each)] for each in model.roles}
    model.train_step(windows(images))
    for each in model.roles:
        now = [w.numpy() for w in model.weights_of(each)]
        moved = any(np.any(a != b) for a, b in zip(before[each], now, strict=True))
        assert moved == (each == role), each
        assert int(model.optimizer_by_role[each].iterations) == 1


@pytest.mark.slow
def test_the_scores_are_the_paper_s_sums(model, images):
    x = windows(images, 3)
    generated = model.generator(x, training=False)
    f_x, f_generated = (model.critic(y, training=False)["latent"] for y in (x, generated))
    contextual = np.abs(x - generated).mean(axis=(1, 2, 3))
    latent = np.square(f_x - f_generated).mean(axis=1)
    expected = {
        "loss": 0.9 * contextual + 0.1 * latent,
        "contextual": 0.9 * contextual,
        "latent": 0.1 * latent,
        "residual": np.square(x - generated).mean(axis=(1, 2, 3)),
    }
    for score, values in expected.items():
        np.testing.assert_allclose(model.anomaly(x, score)["score"], values, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(x), generated, atol=1e-5)


def test_the_score_of_a_known_reconstruction(build_small):
    """G gives grey, tanh(0), where its last layer is 0: |x - G(x)| is |x|."""
    model = build_small("skip_ganomaly", side=32, reconstruction_weight=0.75)
    for weight in model.generator.trainable_weights[-2:]:
        weight.assign(tf.zeros_like(weight))
    x = np.full((1, 32, 32, 1), -0.5, "float32")
    np.testing.assert_allclose(model.anomaly(x, "contextual")["score"], [0.375], rtol=1e-6)
    np.testing.assert_allclose(model.anomaly(x, "residual")["score"], [0.25], rtol=1e-6)


def test_terms_and_code_are_of_the_discriminator_s_layers(model, images):
    x = windows(images, 2)
    errors = model.errors(x)
    assert model.terms == (("residual",), ("features_0", "features_1", "features_2"), ("latent",))
    np.testing.assert_array_equal(errors["code"], model.critic(x, training=False)["latent"])
    assert errors["code"].shape == (2, model.code_dim)


def test_paper_has_the_published_numbers():
    paper = skip_ganomaly.PAPER
    weights = (paper.adversarial_weight, paper.contextual_weight, paper.latent_weight)
    assert weights == (1.0, 40.0, 1.0)
    assert (paper.reconstruction_weight, paper.score) == (0.9, "loss")
    assert (paper.latent_dim, paper.width, paper.batch_size) == (100, 64, 64)
    assert (paper.learning_rate, paper.beta_1, paper.beta_2, paper.epsilon) == (
        2e-4,
        0.5,
        0.999,
        1e-8,
    )


def test_networks_of_paper_are_those_of_the_authors_code():
    model = tfgad.build("skip_ganomaly/paper", (32, 32, 3))
    halved = [3, 64, 128, 256, 512, 512]
    down = sum(16 * a * b for a, b in itertools.pairwise(halved))
    doubled = [(512, 512), (1024, 256), (512, 128), (256, 64), (128, 3)]
    up = sum(16 * a * b for a, b in doubled) + 3  # the last layer alone has biases
    normalised = (128 + 256 + 512) + (512 + 256 + 128 + 64)
    generator = sum(int(np.prod(w.shape)) for w in model.weights_of("generator"))
    assert generator == down + up + 2 * normalised == 16_659_075
    # 800 fewer than in the authors' code: its last convolution has 3x3 weights for a single pixel.
    critic = 16 * (3 * 64 + 64 * 128 + 128 * 256) + 2 * (128 + 256) + 4 * 4 * 256 * 100 + 100
    assert sum(int(np.prod(w.shape)) for w in model.weights_of("critic")) == critic == 1_068_900
    assert model.critic.output["latent"].shape == (None, 100)
    innermost = model.generator.trainable_weights[10].numpy()
    scale = next(w for w in model.generator.trainable_weights if w.name == "gamma").numpy()
    assert innermost.std() == pytest.approx(0.02, rel=0.05)
    assert scale.mean() == pytest.approx(1.0, abs=0.01)
    assert scale.std() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("side", "sides"), [(32, [16, 8, 4, 2, 1]), (28, [14, 7, 4, 2, 1]), (25, [13, 7, 4, 2, 1])]
)
def test_the_u_net_halves_to_a_pixel_and_returns_to_the_image_s_size(side, sides):
    network = skip_ganomaly.generator((side, side, 1), 4)
    halved = [layer.output.shape[1] for layer in network.layers if type(layer).__name__ == "Conv2D"]
    assert halved == sides
    assert network.output_shape == (None, side, side, 1)
    joined = [layer.input for layer in network.layers if type(layer).__name__ == "Concatenate"]
    channels = [tuple(each.shape[-1] for each in pair) for pair in joined]
    assert channels == [(32, 32), (16, 16), (8, 8), (4, 4)]  # of the skip, and of what came up


def test_a_skip_connection_carries_what_the_code_does_not():
    """Whatever the innermost layer gives, the reconstruction depends on the image."""
    network = skip_ganomaly.generator((32, 32, 1), 4)
    innermost = [layer for layer in network.layers if type(layer).__name__ == "Conv2D"][-1]
    innermost.kernel.assign(tf.zeros_like(innermost.kernel))
    black, white = (network(tf.fill([1, 32, 32, 1], value)) for value in (-1.0, 1.0))
    assert np.abs(black - white).max() > 1e-4
