"""DeepLab V3: sizes, the dilated backbone, the resize that moves nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad.errors import UsageError
from tfgad.networks import deeplab


@pytest.mark.parametrize("size", [(64, 64), (70, 61)])
def test_the_small_one_answers_at_the_size_of_the_image(size):
    network = deeplab.small((None, None, 1), width=4)
    assert network(np.zeros((2, *size, 1), "float32")).shape == (2, *size, 1)


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
def test_resnet_keeps_its_weights_when_strides_become_dilation(output_stride):
    """The feature at the middle of an image that shows one colour is that of the usual network."""
    keras.utils.set_random_seed(0)
    usual = keras.applications.ResNet50(include_top=False, weights=None)
    keras.utils.set_random_seed(0)
    dilated = deeplab._dilated_resnet(output_stride, None)
    images = np.full((1, 512, 512, 3), 40.0, "float32")
    features = dilated(images, training=False).numpy()
    assert features.shape == (1, 512 // output_stride, 512 // output_stride, 2048)
    middle, expected = (f[0, f.shape[1] // 2, f.shape[2] // 2] for f in (
        features, usual(images, training=False).numpy()))  # fmt: skip
    np.testing.assert_allclose(middle, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_another_output_stride_is_refused():
    with pytest.raises(UsageError, match="give 8 or 16"):
        deeplab.resnet50((64, 64, 1), output_stride=4)


def test_enlarging_keeps_the_middle_and_the_border_in_place():
    """A ramp stays a ramp where it is not cut off, and ends at its own values."""
    ramp = np.arange(4, dtype="float32").reshape(1, 1, 4, 1)
    enlarged = deeplab.ResizeLike()([tf.constant(ramp), tf.zeros((1, 1, 8, 1))]).numpy().ravel()
    np.testing.assert_allclose(enlarged, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-6)


def test_its_steps_keep_the_heap_whole():
    """A 1x1 convolution with a stride breaks it; see `deeplab._residual`."""
    network = deeplab.small((64, 64, 1), width=8)
    images, masks = tf.random.normal((8, 64, 64, 1)), tf.zeros((8, 64, 64, 1))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(images, training=True) - masks))
        return loss, tape.gradient(loss, network.trainable_weights)

    for _ in range(5):
        loss, gradients = step()
    assert np.isfinite(float(loss))
    assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients)
