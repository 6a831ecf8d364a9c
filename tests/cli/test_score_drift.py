"""`tfgad score` says when the scores of the images differ from those of calibration."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgad.cli import main
from tfgad.inference import predictor
from tfgad.scores.drift import CalibrationScores

SIDE, IMAGES, MEAN = 8, 60, 100


class Brightness:
    """A predictor whose score is the mean grey level of an image."""

    image_shape = window = (SIDE, SIDE, 1)
    resized, score, threshold, scale, depth = False, "mean", 250.0, 1.0, None
    ignored, fit, products = None, "stretch", ()

    def __init__(self, calibration_scores):
        self.calibration_scores = calibration_scores

    def predict_images(self, images):
        return [
            {
                "score": 127.5 * (1 + image.mean()),
                "probability": 0.1,
                "is_anomalous": False,
                "map": image[..., 0],
                "reason": "",
            }
            for image in images
        ]


@pytest.fixture
def folder(tmp_path):
    """A function that writes images with a lamp of some brightness; returns their folder."""

    def write(lamp, images=IMAGES, side=SIDE):
        rng = np.random.default_rng(0)
        for number, level in enumerate(lamp * rng.normal(MEAN, 10, images)):
            pixels = np.full((side, side), np.clip(round(level), 0, 255), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number:03d}.png")
        return tmp_path

    return write


@pytest.fixture
def score(monkeypatch):
    """A function that scores a folder, by a model with these calibration scores or without."""
    normal = CalibrationScores.of(np.random.default_rng(1).normal(MEAN, 10, 100))

    def run(folder, *options, seen=normal):
        monkeypatch.setattr(predictor, "load_predictor", lambda path, product: Brightness(seen))
        result = CliRunner().invoke(main.app, ["score", "model", str(folder), *options])
        assert result.exit_code == 0, result.stderr
        return result

    return run


def drift_line(result):
    """The lines about drift, of which there is at most one."""
    lines = [line for line in result.stderr.splitlines() if "calibrat" in line]
    assert len(lines) <= 1
    return "".join(lines)


def test_a_dimmed_lamp_is_told_in_one_line_at_the_end(folder, score, tmp_path):
    result = score(folder(0.8))
    assert result.stderr.splitlines()[-1] == (
        "tfgad: the scores of these 60 images are lower than in calibration (p < 0.0005): check "
        "light, focus and exposure, then calibrate again"
    )
    assert "60 good" in result.stdout


def test_it_is_told_beside_a_table_too(folder, score, tmp_path):
    table = tmp_path / "scores.csv"
    result = score(folder(1.3), "--csv", str(table))
    assert "are higher than in calibration" in drift_line(result)
    assert len(table.read_text().splitlines()) == IMAGES + 1
    assert "calibration" not in table.read_text()


def test_nothing_is_said_of_images_like_those_of_calibration(folder, score):
    assert drift_line(score(folder(1))) == ""


def test_nothing_is_said_of_a_few_images(folder, score):
    few = folder(0.8, images=24)
    assert drift_line(score(few)) == ""
    assert drift_line(score(few, seen=None)) == ""


@pytest.mark.parametrize("side", [SIDE, 2 * SIDE])
def test_a_model_of_before_is_not_tested(folder, score, side):
    assert drift_line(score(folder(0.8, side=side), seen=None)) == (
        "tfgad: no drift test: the model was calibrated before tfgad kept the scores; calibrate it "
        "again"
    )


def test_images_of_another_size_are_not_tested(folder, score):
    assert drift_line(score(folder(0.8, side=2 * SIDE))) == (
        "tfgad: no drift test: fewer than 25 images have 8 x 8 pixels, as those of calibration had"
    )
