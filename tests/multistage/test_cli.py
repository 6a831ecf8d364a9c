"""`tfgad synthesize` and `tfgad segment`, as a user types them."""

import json

import pytest
from typer.testing import CliRunner

from tfgad import cli, console

PLAIN = "weave:plain?size=64&train=6&calibration=4&test=24"
TWILL = "weave:twill?size=64&train=6&calibration=4&test=12"
SMALL = ["--steps", "2", "--set", "width=4", "--set", "batch_size=4", "--set", "painted=4"]
SMALL += ["--set", "rehearsed=4"]


def tfgad(*arguments):
    """Runs the command in this process; returns exit code, standard output and error."""
    console.show_log()
    result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_from_known_defects_to_a_segmenter_of_a_new_fabric(painter_folder, tmp_path):
    base, adapted = tmp_path / "base", tmp_path / "adapted"
    said = tfgad("segment", "train", "--data", PLAIN, "--out", base, *SMALL)
    assert said.exit_code == 0, said.stderr
    given = ["--painter", painter_folder, "--data", TWILL, "--set", "adapt_steps=2"]
    said = tfgad("segment", "adapt", base, *given, "--out", adapted)
    assert said.exit_code == 0, said.stderr
    said = tfgad("segment", "evaluate", adapted)
    assert said.exit_code == 0, said.stderr
    assert "F-measure" in said.stdout
    assert "iou" in json.loads((adapted / "metrics.json").read_text())
    said = tfgad("segment", "export", adapted, tmp_path / "saved")
    assert said.exit_code == 0, said.stderr
    assert (tmp_path / "saved" / "1" / "saved_model.pb").is_file()


def test_painted_images_can_be_scored(painter_folder, tmp_path):
    out = tmp_path / "painted"
    given = ["--data", TWILL, "--count", "5", "--kind", "hole"]
    said = tfgad("synthesize", "paint", painter_folder, *given, "--out", out)
    assert said.exit_code == 0, said.stderr
    assert len(list((out / "test" / "hole").glob("*.png"))) == 5
    assert len(list((out / "train" / "good").glob("*.png"))) == 6
    again = tfgad("synthesize", "paint", painter_folder, *given, "--out", out)
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["synthesize", "train", "--data", "digits:8", "--out", "x"], "has no masks"),
        (["synthesize", "train", "--data", PLAIN, "--set", "widht=1", "--out", "x"], "width"),
        (
            ["synthesize", "train", "--data", PLAIN, "--vgg-weights", "no.h5", "--out", "x"],
            "is not there",
        ),
        (["synthesize", "train", "--data", PLAIN, "--except", "twill", "--out", "x"], "plain"),
        (["synthesize", "paint", "nowhere", "--data", TWILL, "--out", "x"], "is not there"),
        (["segment", "train", "--data", PLAIN, "--set", "steps", "--out", "x"], "name=value"),
        (["segment", "adapt", "no", "--painter", "p", "--data", TWILL, "--out", "x"], "run 'no'"),
    ],
)
def test_a_mistake_gives_one_line(arguments, fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = tfgad(*arguments)
    assert said.exit_code == 2
    assert fault in said.stderr
    assert len([line for line in said.stderr.splitlines() if line.startswith("tfgad: ")]) == 1
    assert not list(tmp_path.iterdir())
