"""DeepLab V3 (Chen et al. 2017): semantic segmentation, here with one logit per pixel.

The last strides of the backbone are replaced by dilation, which keeps the resolution of its
features. Atrous spatial pyramid pooling (ASPP) combines several dilation rates and the mean over
the image. The logits are resized to the image's size. There is no decoder and no CRF.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from tfgad.errors import UsageError
from tfgad.networks import efficientnet_lite0
from tfgad.networks.layers import BatchNormalization, Dropout
from tfgad.networks.pretrained import RANDOM, Weights, pretrained
from tfgad.networks.vgg import Preprocessing

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # of ASPP, by output stride (section 4.1 of the paper)
ASPP_WIDTH = 256
MOMENTUM = 0.9  # of batch normalisation: a training takes only hundreds of steps
DROPOUT = 0.1  # after ASPP, as in torchvision and keras-hub
SMALL_STRIDE = 4  # of the features in `small` and `lite0`
SMALL_RATES = (2, 4, 8)  # of ASPP there; the last sees 32 pixels to each side


def resnet50(
    image_shape: tuple[int | None, int | None, int],
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
) -> tuple[keras.Model, Weights]:
    """DeepLab V3 on ResNet-50: images `[B, H, W, C]` in [-1, 1] to logits `[B, H, W, 1]`.

    Args:
        image_shape: `(H, W, C)`; H and W may be None, C is 1 or 3.
        output_stride: of the features, 8 or 16.
        weights: of the backbone: a file, `imagenet` or `random`; see `tfgad.networks.pretrained`.

    Returns:
        The network, and the description of the backbone's weights.

    Raises:
        UsageError: another output stride, or weights that are not available.
    """
    if output_stride not in RATES:
        hint = "give 8 or 16"
        raise UsageError("output stride", output_stride, "is not one of ResNet-50's", hint)
    images = keras.Input(image_shape, name="images")
    colour = images if image_shape[2] == 3 else layers.Concatenate()([images] * 3)
    backbone, source = _dilated_resnet(output_stride, weights)
    features = backbone(Preprocessing(dtype="float32")(colour))
    return _with_head(images, features, ASPP_WIDTH, RATES[output_stride]), source


def lite0(
    image_shape: tuple[int | None, int | None, int],
    *,
    width: int = 32,
    weights: str | Path | None = None,
) -> tuple[keras.Model, Weights]:
    """DeepLab V3 on EfficientNet-Lite0: images `[B, H, W, C]` in [-1, 1] to logits `[B, H, W, 1]`.

    The backbone ends with the last block that has a stride of 16 in Lite0. Dilation replaces the
    last two of its strides, so that the features have a stride of 4. The head is that of `small`.
    The backbone's batch normalisation is folded into its convolutions, which are fine-tuned with
    the head; the head's batch normalisation is not folded.

    Args:
        image_shape: `(H, W, C)`; H and W may be None, C is 1 or 3.
        width: half of the head's channels.
        weights: of the backbone: a file, see `efficientnet_lite0.load_lite0_weights`; or `random`.

    Returns:
        The network, and the description of the backbone's weights.

    Raises:
        UsageError: no weights, or weights that are not Lite0's.
    """
    if weights is None:
        hint = f"give {efficientnet_lite0.FILE}, or random"
        raise UsageError("Lite0 weights", weights, "are needed", hint)
    backbone = efficientnet_lite0.lite0(image_shape, ("stride_16",), output_stride=SMALL_STRIDE)
    source = Weights(RANDOM, efficientnet_lite0.NAME)
    if weights != RANDOM:
        efficientnet_lite0.load_lite0_weights(backbone, weights)
        source = Weights.of_file(weights, efficientnet_lite0.NAME)
    backbone.trainable = True
    features = backbone.output["stride_16"]
    return _with_head(backbone.input, features, 2 * width, SMALL_RATES), source


def small(image_shape: tuple[int | None, int | None, int], *, width: int = 32) -> keras.Model:
    """DeepLab V3 on a small residual backbone of output stride 4, for training on a CPU.

    Defects of single yarns are five pixels wide: at a stride of 8 they would be smaller than one
    feature.

    Args:
        image_shape: `(H, W, C)`; H and W may be None.
        width: channels of the first layer.
    """
    x = images = keras.Input(image_shape, name="images")
    x = _convolution(x, width, stride=2)
    x = _residual(x, 2 * width, stride=2)
    for dilation in (1, 2, 4):
        x = _residual(x, 2 * width, dilation=dilation)
    return _with_head(images, x, 2 * width, SMALL_RATES)


def _with_head(
    images: keras.KerasTensor, features: keras.KerasTensor, width: int, rates: Sequence[int]
) -> keras.Model:
    """The network from images to logits: ASPP on the features, one convolution, the logits."""
    x = _aspp(features, width, rates)
    x = Dropout(DROPOUT)(_convolution(x, width))
    logits = layers.Conv2D(1, 1, dtype="float32", name="logits")(x)
    logits = ResizeLike(dtype="float32", name="enlarged")([logits, images])
    return keras.Model(images, logits, name="deeplab")


def _aspp(x: keras.KerasTensor, width: int, rates: Sequence[int]) -> keras.KerasTensor:
    """Atrous spatial pyramid pooling with the image-level branch (section 3.3 of the paper)."""
    branches = [_convolution(x, width, kernel=1)]
    branches += [_convolution(x, width, dilation=rate) for rate in rates]
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    pooled = layers.ReLU()(layers.Conv2D(width, 1)(pooled))
    branches.append(ResizeLike()([pooled, x]))
    return _convolution(layers.Concatenate()(branches), width, kernel=1)


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> keras.KerasTensor:
    """Convolution, batch normalisation and ReLU."""
    x = layers.Conv2D(
        filters, kernel, stride, "same", dilation_rate=dilation, use_bias=False
    )(x)  # fmt: skip
    return layers.ReLU()(BatchNormalization(momentum=MOMENTUM)(x))


def _residual(
    x: keras.KerasTensor, filters: int, stride: int = 1, dilation: int = 1
) -> keras.KerasTensor:
    """Residual block of two convolutions (He et al. 2016).

    With a stride the shortcut is average pooling (ResNet-D of He et al. 2019), which uses all
    pixels. A 1x1 convolution with a stride is no alternative: on a CPU its gradient corrupts the
    heap in TensorFlow 2.21.
    """
    short = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
    if x.shape[-1] != filters:
        short = BatchNormalization(momentum=MOMENTUM)(
            layers.Conv2D(filters, 1, use_bias=False)(short)
        )
    y = _convolution(x, filters, stride=stride)
    y = layers.Conv2D(filters, 3, padding="same", dilation_rate=dilation, use_bias=False)(y)
    return layers.ReLU()(layers.Add()([BatchNormalization(momentum=MOMENTUM)(y), short]))


def _dilated_resnet(output_stride: int, weights: str | Path | None) -> tuple[keras.Model, Weights]:
    """ResNet-50 of `keras.applications` with dilation for its last strides and the same weights.

    Where strides remain, `SubsampledConvolution` replaces the 1x1 convolutions.
    """
    network, source = pretrained((keras.applications.ResNet50,), weights)
    dilations = {"conv4": 1 if output_stride == 16 else 2, "conv5": 2 if output_stride == 16 else 4}
    unstrided = ("conv5",) if output_stride == 16 else ("conv4", "conv5")

    def dilated_layer(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        block, _, rest = layer.name.partition("_")
        if isinstance(layer, layers.Conv2D) and block in unstrided:
            config["strides"] = (1, 1)
            if config["kernel_size"] == (3, 3):
                # The input of a block's first unit has the resolution of the block before.
                first = rest.startswith("block1_")
                dilation = dilations[block] // 2 if first else dilations[block]
                config["dilation_rate"] = (max(dilation, 1),) * 2
        is_pointwise = isinstance(layer, layers.Conv2D) and config["kernel_size"] == (1, 1)
        if is_pointwise and config["strides"] != (1, 1):
            return SubsampledConvolution.from_config(config)
        return type(layer).from_config(config)

    dilated = keras.models.clone_model(network, clone_function=dilated_layer)
    dilated.set_weights(network.get_weights())
    return dilated, source


@keras.saving.register_keras_serializable("tfgad")
class SubsampledConvolution(layers.Conv2D):
    """A 1x1 convolution with strides, computed without strides on the subsampled input.

    The result is the same, and the gradient does not corrupt the heap; see `_residual`.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns `[B, ceil(H / stride), ceil(W / stride), filters]`."""
        rows, columns = self.strides
        return keras.ops.conv(inputs[:, ::rows, ::columns], kernel)


@keras.saving.register_keras_serializable("tfgad")
class ResizeLike(layers.Layer):
    """Bilinear resize of features `[B, h, w, c]` to the height and width of a second input.

    Pixels are squares, not points on a grid, and border values are continued outwards. So a defect
    at the edge of an image is neither moved nor cut.
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns `[B, H, W, c]` for features and the input that gives the size."""
        features, like = inputs
        size = keras.ops.shape(like)[1:3]
        return keras.ops.image.resize(features, size, interpolation="bilinear")

    def compute_output_shape(self, shapes: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Returns the shape of the output."""
        features, like = shapes
        return (features[0], *like[1:3], features[3])
