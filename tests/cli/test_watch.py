"""`tfgad watch`: output, exit codes, signals; `tests/inference/test_watch.py` has the rest."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgad.cli import console, main
from tfgad.inference import predictor, watch
from tfgad.scores.drift import CalibrationScores

SIDE, MEAN = 28, 100
MODEL = Path(__file__).parents[2] / "saved_models" / "mnist_5_fanogan"


class Brightness:
    """A predictor whose score is the mean grey level of an image."""

    image_shape = window = (SIDE, SIDE, 1)
    resized, score, threshold, scale, depth = False, "mean", 150.0, 1.0, None
    ignored, fit, products = None, "stretch", ()
    calibration_scores = CalibrationScores.of(np.random.default_rng(1).normal(MEAN, 10, 100))

    def predict_images(self, images):
        scores = [127.5 * (1 + float(image.mean())) for image in images]
        return [
            {"score": score, "probability": score / 300, "is_anomalous": score > 150, "map": image}
            for score, image in zip(scores, images[..., 0], strict=True)
        ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder `in` beside which the test works, and a model that is quickly loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predictor, "load_predictor", lambda path, product: Brightness())
    monkeypatch.setattr(watch, "POLL", 0.02)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def write(folder, name, level=MEAN):
    Image.fromarray(np.full((SIDE, SIDE), level, np.uint8)).save(folder / name)


def tfgad(*arguments):
    console.show_log()
    result = CliRunner().invoke(main.app, ["watch", "model", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(table):
    with open(table, newline="") as file:
        return list(csv.DictReader(file))


def test_once(folder):
    write(folder, "a.png")
    write(folder, "b.png", 200)
    options = ["in", "--csv", "results.csv", "--once", "--settle", 0.05, "--bad", "bad"]
    result = tfgad(*options, "--maps", "maps")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["good", "defective"]
    assert lines[0].endswith(str(folder / "a.png"))
    assert lines[2] == "results.csv: 1 good, 1 defective"
    assert [row["image"] for row in rows("results.csv")] == [
        str(folder / name) for name in ("a.png", "b.png")
    ]
    assert os.listdir("bad") == ["b.png"]
    assert len(os.listdir("maps")) == 2
    again = tfgad(*options)
    assert again.stdout == "results.csv: no new images\n"
    assert "tfgad: watching in; results.csv has 2 images" in again.stderr


def test_once_with_images_that_are_not_scored(folder):
    write(folder, "a.png")
    (folder / "broken.png").write_text("no image")
    options = ["in", "--csv", "results.csv", "--once", "--settle", 0.05]
    result = tfgad(*options, "--max-pixels", 10)
    assert result.exit_code == 1
    assert "a.png: has more than 10 pixels; give a larger --max-pixels" in result.stderr
    assert "broken.png: is not a PNG" in result.stderr
    assert tfgad(*options).exit_code == 0
    # A file that changes all the time is left for the next call, and counted.
    with pytest.MonkeyPatch.context() as patch:
        times = iter(range(100))
        scan = watch.Folder._scan

        def changing(self, problems):
            os.utime(folder / "a.png", (1, next(times)))
            return scan(self, problems)

        patch.setattr(watch.Folder, "_scan", changing)
        result = tfgad(*options)
    assert result.exit_code == 1
    assert "not scored: 1 files that still change, or may not be read" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(folder, number):
    before = signal.getsignal(number)

    def arrive():
        for name in ("a.png", "b.png"):
            write(folder, name)
            while not os.path.exists("results.csv") or name not in Path("results.csv").read_text():
                time.sleep(0.01)
        os.kill(os.getpid(), number)

    arriving = threading.Thread(target=arrive)
    arriving.start()
    result = tfgad("in", "--csv", "results.csv", "--settle", 0)
    arriving.join()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "results.csv: 2 good"
    assert signal.getsignal(number) == before


def test_drift_is_told(folder):
    rng = np.random.default_rng(0)
    for number, level in enumerate(0.7 * rng.normal(MEAN, 10, 60)):
        write(folder, f"{number}.png", round(level))
    result = tfgad("in", "--csv", "results.csv", "--once", "--settle", 0.05)
    assert result.stderr.count("tfgad: in: the scores of the last 25 images are lower than") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent", "--csv", "r.csv"], "folder 'absent': cannot be read (No such file"),
        (["file", "--csv", "r.csv"], "folder 'file': cannot be read (Not a directory)"),
        (["in"], "Missing option '--csv'"),
        (["in", "--csv", "in/r.png"], "csv 'in/r.png': is named like an image"),
        (["in", "--csv", "in"], "csv 'in': is a folder"),
        (["in", "--csv", "file"], "csv 'file': is no table of `tfgad watch`"),
        (["in", "--csv", "r.csv", "--bad", "in"], "folder 'in': is inside in; name folders apart"),
        (["in", "--csv", "r.csv", "--maps", "file"], "maps 'file': is a file"),
        (["in", "--csv", "r.csv", "--settle", "-1"], "Invalid value for '--settle'"),
    ],
)
def test_mistakes_give_one_line(folder, arguments, said):
    Path("file").write_text("text")
    result = tfgad(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"tfgad: {said}")


@pytest.mark.slow
@pytest.mark.integration
def test_a_killed_process_is_started_again(tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(300):
        picture = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
        Image.fromarray(picture).save(tmp_path / "in" / f"{number}.png")
    command = [sys.executable, "-m", "tfgad.cli.main", "watch", MODEL, tmp_path / "in"]
    command += ["--csv", tmp_path / "results.csv", "--bad", tmp_path / "bad"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("defective")
        process.kill()
    assert 0 < len(rows(tmp_path / "results.csv")) < 300
    subprocess.run([*command, "--once"], check=True, capture_output=True)
    assert len({row["image"] for row in rows(tmp_path / "results.csv")}) == 300
    assert len(rows(tmp_path / "results.csv")) == 300
    assert len(list((tmp_path / "bad").iterdir())) == 300
