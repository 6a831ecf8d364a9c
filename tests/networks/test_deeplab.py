"""DeepLab V3: output sizes, the dilated backbone and the resize layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.networks import deeplab


@pytest.mark.parametrize("size", [(64, 64), (70, 61)])
def test_logits_of_the_small_network_have_the_size_of_the_image(size):
    network = deeplab.small((None, None, 1), width=4)
    assert network(np.zeros((2, *size, 1), "float32")).shape == (2, *size, 1)


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_resnet_keeps_the_weights_of_the_original(output_stride):
    """The central feature of a constant image equals that of the original network."""
    keras.utils.set_random_seed(0)
    usual = keras.applications.ResNet50(include_top=False, weights=None)
    keras.utils.set_random_seed(0)
    dilated = deeplab._dilated_resnet(output_stride, "random")[0]
    images = np.full((1, 512, 512, 3), 40.0, "float32")
    features = dilated(images, training=False).numpy()
    assert features.shape == (1, 512 // output_stride, 512 // output_stride, 2048)
    middle, expected = (f[0, f.shape[1] // 2, f.shape[2] // 2] for f in (
        features, usual(images, training=False).numpy()))  # fmt: skip
    np.testing.assert_allclose(middle, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_dilated_resnet_equals_the_original_before_the_dilation():
    """Also for odd sides: a strided convolution and subsampling both start at the first pixel."""
    keras.utils.set_random_seed(0)
    usual = keras.applications.ResNet50(include_top=False, weights=None)
    keras.utils.set_random_seed(0)
    dilated = deeplab._dilated_resnet(8, "random")[0]
    images = np.random.default_rng(0).uniform(0, 255, (2, 70, 53, 3)).astype("float32")
    of_both = []
    for network in (dilated, usual):
        end = network.get_layer("conv3_block4_out").output
        of_both.append(keras.Model(network.inputs[0], end)(images, training=False).numpy())
    features, expected = of_both
    assert expected.std() > 0
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    weights, of_usual = ([(w.path, w.shape) for w in each.weights] for each in (dilated, usual))
    assert weights == of_usual


@pytest.mark.parametrize("strides", [(2, 2), (3, 1)])
def test_subsampled_convolution_equals_a_strided_1x1_convolution(strides):
    strided = keras.layers.Conv2D(5, 1, strides=strides)
    images = np.random.default_rng(0).normal(size=(2, 11, 8, 3)).astype("float32")
    expected = strided(images)
    subsampled = deeplab.SubsampledConvolution.from_config(strided.get_config())
    saved = keras.saving.serialize_keras_object(subsampled)
    subsampled = keras.saving.deserialize_keras_object(saved)
    subsampled.build(images.shape)
    subsampled.set_weights(strided.get_weights())
    np.testing.assert_allclose(subsampled(images), expected, atol=1e-6)
    assert subsampled.compute_output_shape(images.shape) == expected.shape


def test_another_output_stride_is_refused():
    with pytest.raises(UsageError, match="give 8 or 16"):
        deeplab.resnet50((64, 64, 1), output_stride=4)


def test_resize_moves_neither_the_middle_nor_the_border():
    """A ramp stays linear inside and keeps its values at the border."""
    ramp = np.arange(4, dtype="float32").reshape(1, 1, 4, 1)
    enlarged = deeplab.ResizeLike()([tf.constant(ramp), tf.zeros((1, 1, 8, 1))]).numpy().ravel()
    np.testing.assert_allclose(enlarged, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_gradients_of_the_small_network_are_finite():
    """A strided 1x1 convolution would corrupt the heap; see `deeplab._residual`."""
    loss, gradients = steps(deeplab.small((64, 64, 1), width=8), batch_size=8, count=5)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_lite0_has_features_of_a_stride_of_4_and_trains(lite0_file):
    network, source = deeplab.lite0((64, 48, 1), width=4, weights=lite0_file)
    assert (source.name, source.network) == ("lite0.pth", "EfficientNet-Lite0")
    assert network.get_layer("block_10").output.shape == (None, 16, 12, 112)
    assert network(np.zeros((2, 64, 48, 1), "float32")).shape == (2, 64, 48, 1)
    stem = network.get_layer("stem_conv")
    assert stem.trainable
    random, _ = deeplab.lite0((64, 48, 1), width=4, weights="random")
    assert np.any(stem.get_weights()[0] != random.get_layer("stem_conv").get_weights()[0])
    loss, gradients = steps(network, batch_size=2, count=1)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    with pytest.raises(UsageError, match=r"are needed; give .*pth, or random"):
        deeplab.lite0((64, 48, 1))


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
def test_resnet_trains_without_strided_1x1_convolutions(output_stride):
    network, _ = deeplab.resnet50((32, 32, 1), output_stride=output_stride, weights="random")
    (backbone,) = (layer for layer in network.layers if isinstance(layer, keras.Model))
    strided = [
        layer
        for layer in backbone.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides != (1, 1)
    ]
    usual = [layer.name for layer in strided if type(layer) is keras.layers.Conv2D]
    assert usual == ["conv1_conv"]  # of 7x7
    assert len(strided) == (3 if output_stride == 8 else 5)
    loss, gradients = steps(network, batch_size=2, count=1)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def steps(network, batch_size, count):
    """Computes gradients `count` times; returns the last loss and gradients."""
    images = tf.random.normal((batch_size, *network.input_shape[1:]))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(images, training=True)))
        return loss, tape.gradient(loss, network.trainable_weights)

    for _ in range(count):
        loss, gradients = step()
    return float(loss), [gradient.numpy() for gradient in gradients]
