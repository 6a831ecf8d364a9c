"""The fused layers and optimizer, compared with those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.networks.layers import Adam, BatchNormalization, RMSprop


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def batch_normalizations(rng, shape=(None, 4, 5, 3)):
    """Returns the fused layer and Keras's, with the same weights."""
    layers = BatchNormalization(), keras.layers.BatchNormalization()
    weights = [rng.uniform(0.5, 2, 3) for _ in range(4)]
    for layer in layers:
        layer.build(shape)
        layer.set_weights(weights)
    return layers


def test_batch_normalization_equals_that_of_keras(rng):
    x = tf.constant(rng.normal(2, 3, (2, 4, 5, 3)), tf.float32)
    direction = tf.constant(rng.normal(size=x.shape), tf.float32)
    outputs, gradients, averages = [], [], []
    for layer in batch_normalizations(rng):
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(direction * tf.sin(y))
        outputs.append(y)
        gradients.append(tape.gradient(loss, [x, *layer.trainable_weights]))
        averages.append([w.numpy() for w in layer.non_trainable_weights])
    np.testing.assert_allclose(*outputs, atol=1e-5)
    np.testing.assert_allclose(*averages, rtol=1e-5)
    for fused, own in zip(*gradients, strict=True):
        np.testing.assert_allclose(fused, own, atol=2e-5)


def test_batch_normalization_accepts_a_batch_of_one_pixel():
    layer = BatchNormalization()
    y = layer(tf.fill((1, 1, 1, 2), 5.0), training=True)
    np.testing.assert_allclose(y, 0, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, layer.momentum)  # from an initial value of 1


@pytest.mark.parametrize(("training", "trainable"), [(False, True), (True, False)])
@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 3)])
def test_batch_normalization_in_inference_keeps_the_moving_averages(
    rng, training, trainable, shape
):
    x = rng.normal(2, 3, shape).astype("float32")
    fused, own = batch_normalizations(rng, shape)
    fused.trainable = own.trainable = trainable
    before = fused.get_weights()
    outputs = [layer(x, training=training) for layer in (fused, own)]
    np.testing.assert_allclose(*outputs, atol=2e-6)
    np.testing.assert_array_equal(fused.get_weights(), before)


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.999), (0.0, 0.9), (0.5, 0.999)])
def test_adam_equals_that_of_keras(rng, beta_1, beta_2):
    steps = [[rng.normal(size=(3, 2)), rng.normal(size=4)] for _ in range(5)]
    values, states = [], []
    for kind in (Adam, keras.optimizers.Adam):
        variables = [keras.Variable(np.ones(shape)) for shape in ((3, 2), (4,))]
        optimizer = kind(0.01, beta_1=beta_1, beta_2=beta_2)
        for gradients in steps:
            optimizer.apply([tf.constant(g, tf.float32) for g in gradients], variables)
        values.append(np.concatenate([v.numpy().ravel() for v in variables]))
        states.append(np.concatenate([v.numpy().ravel() for v in optimizer.variables]))
    np.testing.assert_allclose(*values, atol=1e-6)
    np.testing.assert_allclose(*states, atol=1e-6)


@pytest.mark.parametrize("made", [Adam(), BatchNormalization()])
def test_fused_classes_are_registered_by_their_own_name(made):
    config = keras.saving.serialize_keras_object(made)
    assert config["registered_name"] == f"tfgad>{type(made).__name__}"
    assert type(keras.saving.deserialize_keras_object(config)) is type(made)


def test_rmsprop_is_tensorflow_1_s():
    start = np.array([0.5, -2.0, 0.0], "float32")
    theirs = tf.Variable(start)
    reference = tf.compat.v1.train.RMSPropOptimizer(5e-5, decay=0.9, epsilon=1e-10)
    ours = keras.Variable(start)
    optimizer = RMSprop(5e-5, epsilon=1e-10)
    assert optimizer.rho == 0.9
    for gradient in ([1e-3, -4.0, 0.0], [2e-3, 1e2, 1e-6], [-1e-3, 0.1, 1e-6]):
        optimizer.apply([tf.constant(gradient)], [ours])
        reference.apply_gradients([(tf.constant(gradient), theirs)])
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(copy) is RMSprop
    assert copy.get_config() == optimizer.get_config()
