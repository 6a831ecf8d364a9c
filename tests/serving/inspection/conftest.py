"""A predictor of an exported small model, and image files for it."""

import numpy as np
import pytest
from PIL import Image

from tfgad.inference.predictor import SavedModelPredictor
from tfgad.scores.calibration import RATES

OWN_RATE = RATES.index(0.1)  # position of the slider for the model's own false-positive rate


@pytest.fixture(scope="session")
def predictor(models_folder):
    """A SavedModel for grey images of 48 pixels, or larger at native resolution."""
    return SavedModelPredictor(models_folder / "native" / "1")


class Models:
    """The models in service, as the page needs them."""

    def __init__(self, predictors):
        self.predictors = predictors

    def names(self):
        return list(self.predictors)

    def predictor(self, name):
        return self.predictors[name]

    def drift(self, name):
        return ""


@pytest.fixture(scope="session")
def models(predictor):
    return Models({"fabric": predictor})


@pytest.fixture(scope="session")
def good(images, predictor):
    """The normal image with the median score, uint8 `[48, 48]`."""
    scores = [float(predictor(image)["score"]) for image in images]
    median = images[np.argsort(scores)[len(scores) // 2]]
    return np.rint((median[:, :, 0] + 1) * 127.5).astype(np.uint8)


@pytest.fixture
def paths(good, tmp_path):
    """Files by name: good images, noise, and two that cannot be scored."""
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
