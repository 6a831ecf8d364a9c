"""Two small fabrics with defects, and a painter that was trained a few steps on them."""

import pytest

from tfgad.multistage import painter_training, sources

FEW = "size=64&train=6&calibration=4&test=24"
TINY = {"patches": 48, "width": 4, "fusions": 12, "fusion_width": 4, "batch_size": 8}
TINY |= {"fusion_batch_size": 4, "steps": "2+2"}


@pytest.fixture(scope="session")
def fabrics():
    """Plain and denim weave; nobody may change them."""
    return sources.read_sources([f"weave:plain?{FEW}", f"weave:denim?{FEW}"])


@pytest.fixture(scope="session")
def painter_folder(fabrics, tmp_path_factory):
    """The folder of a trained painter."""
    folder = tmp_path_factory.mktemp("painter") / "painter"
    painter_training.train_painter(fabrics, folder, settings=TINY, vgg_weights="random")
    return folder
