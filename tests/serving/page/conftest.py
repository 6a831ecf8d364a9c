"""An exported small model, and image files for it."""

import numpy as np
import pytest
from PIL import Image

from tfgad.export.saved_model import export
from tfgad.inference.predictor import SavedModelPredictor


@pytest.fixture(scope="session")
def judge(fitted, tmp_path_factory):
    """A SavedModel for grey images of 48 pixels, or larger, judged as they are."""
    metadata = {"method": "ganomaly", "data": "weave:plain?size=48"}
    folder = tmp_path_factory.mktemp("models")
    shape = (48, 48, 1)
    return SavedModelPredictor(
        export(fitted("ganomaly"), folder, image_shape=shape, resized=False, metadata=metadata)
    )


class Models:
    """What a server has in service, as the page asks for it."""

    def __init__(self, judges):
        self.judges = judges

    def names(self):
        return list(self.judges)

    def judge(self, name):
        return self.judges[name]


@pytest.fixture(scope="session")
def models(judge):
    return Models({"fabric": judge})


@pytest.fixture(scope="session")
def good(images, judge):
    """The middle one of the normal images by score, uint8 `[48, 48]`."""
    scores = [float(judge(image)["score"]) for image in images]
    middle = images[np.argsort(scores)[len(scores) // 2]]
    return np.rint((middle[:, :, 0] + 1) * 127.5).astype(np.uint8)


@pytest.fixture
def paths(good, tmp_path):
    """Files by name: a good image, one that is none of the kind, and what cannot be judged."""
    noise = np.random.default_rng(1).integers(0, 256, (60, 70), np.uint8)
    pictures = {
        "good.png": good,
        "deep.png": good.astype(np.uint16) * 257,
        "colour.png": np.repeat(good[:, :, None], 3, axis=2),
        "noise.png": noise,
        "tiny.png": good[:20],
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    return {name: tmp_path / name for name in (*pictures, "broken.png")}
