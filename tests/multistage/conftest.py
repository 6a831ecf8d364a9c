"""Small fabrics with defects, and models that were trained a few steps on them."""

import keras
import numpy as np
import pytest
from PIL import Image

import tfgad
from tfgad.multistage import painter_training, segmenter_training, sources
from tfgad.multistage.painter import load_painter
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.segmenter_config import SegmenterConfig

FEW = "size=64&train=6&calibration=4&test=24"
TINY_PAINTER = PainterConfig(
    patches=48,
    width=4,
    fusions=12,
    fusion_width=4,
    batch_size=8,
    fusion_batch_size=4,
    steps=(2, 2),
)
TINY_SEGMENTER = SegmenterConfig(
    width=4, batch_size=4, steps=2, painted=8, transplanted=4, rehearsed=8, adapt_steps=2
)


@pytest.fixture(scope="session")
def fabrics():
    """Plain and denim weave; nobody may change them."""
    return sources.read_sources([f"weave:plain?{FEW}", f"weave:denim?{FEW}"])


@pytest.fixture(scope="session")
def twill():
    """A new fabric: good twill, and some of its own defects."""
    return tfgad.load("weave:twill?size=64&train=6&calibration=4&test=12")


@pytest.fixture(scope="session")
def painter_folder(fabrics, tmp_path_factory):
    """The folder of a trained painter."""
    folder = tmp_path_factory.mktemp("painter") / "painter"
    painter_training.train_painter(fabrics, folder, settings=TINY_PAINTER, vgg_weights="random")
    return folder


@pytest.fixture(scope="session")
def painter(painter_folder):
    """The painter, loaded; nobody may change it."""
    return load_painter(painter_folder)


@pytest.fixture(scope="session")
def tiny_segmenter():
    """Hyper-parameters of the segmenter."""
    return TINY_SEGMENTER


@pytest.fixture(scope="session")
def run(fabrics, tmp_path_factory):
    """A segmenter's run of two steps; nobody may change it."""
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    return segmenter_training.train_segmenter(fabrics, folder, settings=TINY_SEGMENTER)


@pytest.fixture
def parts(tmp_path):
    """A folder of noise in MVTec AD's layout: eight good images, two dents with their masks."""
    rng = np.random.default_rng(0)
    for name, count in (("train/good", 8), ("test/dent", 2), ("ground_truth/dent", 2)):
        folder = tmp_path / "parts" / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(90, 160, (64, 64), np.uint8)
            if name.startswith("ground_truth"):
                pixels = np.pad(np.full((16, 16), 255, np.uint8), 24)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "parts"


@pytest.fixture
def stop():
    """Callbacks that interrupt a training at its first step, as Ctrl-C does."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise KeyboardInterrupt

    return lambda *_: [Stop()]
