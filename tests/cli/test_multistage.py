"""`tfgad synthesize` and `tfgad segment`, as a user types them."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgad.cli import console, main

PLAIN = "weave:plain?size=64&train=6&calibration=4&test=24"
TWILL = "weave:twill?size=64&train=6&calibration=4&test=12"
SMALL = ["--steps", "2", "--set", "width=4", "--set", "batch_size=4", "--set", "painted=4"]
SMALL += ["--set", "transplanted=4", "--set", "rehearsed=4"]
TINY = ["--steps", "1+1", "--set", "patches=24", "--set", "fusions=6"]
for name in ("width", "fusion_width", "batch_size", "fusion_batch_size"):
    TINY += ["--set", f"{name}=4"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The folder of a segmenter trained on plain weave."""
    folder = tmp_path_factory.mktemp("segmenter") / "run"
    said = tfgad("segment", "train", "--data", PLAIN, "--out", folder, *SMALL)
    assert said.exit_code == 0, said.stderr
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """The folder of a painter trained on plain weave, and what the command printed."""
    folder = tmp_path_factory.mktemp("painter") / "painter"
    given = [*TINY, "--vgg-weights", "random", "--out", folder]
    said = tfgad("synthesize", "train", "--data", PLAIN, *given)
    assert said.exit_code == 0, said.stderr
    return folder, said.stdout


@pytest.fixture(scope="module")
def painter_folder(painter):
    """The folder of that painter."""
    return painter[0]


def tfgad(*arguments):
    """Runs the command in this process; returns exit code, standard output and error."""
    console.show_log()
    result = CliRunner().invoke(main.app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.integration
def test_from_known_defects_to_a_segmenter_of_a_new_fabric(run_folder, painter_folder, tmp_path):
    base, adapted = run_folder, tmp_path / "adapted"
    given = ["--painter", painter_folder, "--data", TWILL, "--set", "adapt_steps=2"]
    said = tfgad("segment", "adapt", base, *given, "--out", adapted)
    assert said.exit_code == 0, said.stderr
    said = tfgad("segment", "adapt", base, *given[2:], "--out", tmp_path / "unpainted")
    assert said.exit_code == 0, said.stderr
    said = tfgad("segment", "evaluate", adapted)
    assert said.exit_code == 0, said.stderr
    assert "F-measure" in said.stdout
    assert "iou" in json.loads((adapted / "metrics.json").read_text())
    said = tfgad("segment", "export", adapted, tmp_path / "saved")
    assert said.exit_code == 0, said.stderr
    assert (tmp_path / "saved" / "1" / "saved_model.pb").is_file()


@pytest.mark.integration
def test_a_segmenter_is_not_evaluated_on_what_it_was_trained_on(run_folder, tmp_path):
    base = shutil.copytree(run_folder, tmp_path / "base")
    for own in ([], ["--data", "weave:plain?test=4"], ["--data", "weave:plain?test=4&seed=0"]):
        said = tfgad("segment", "evaluate", base, *own)
        assert said.exit_code == 2
        assert "has test images that the model was trained on" in said.stderr
    assert not (base / "metrics.json").exists()
    said = tfgad("segment", "evaluate", base, "--data", "weave:plain?test=4&seed=1")
    assert said.exit_code == 0, said.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    "mistake", [["--steps", "1k"], ["--set", "backbone=resnet"], ["--set", "batch_size=1"]]
)
def test_a_refused_segmenter_changes_nothing(run_folder, mistake, tmp_path):
    given = ["segment", "train", "--data", PLAIN, *SMALL, *mistake]
    assert tfgad(*given, "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()
    before = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    assert tfgad(*given, "--out", run_folder, "--overwrite").exit_code == 2
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()} == before


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mistake", "fault"),
    [
        (["--set", "ground=fabrik"], "did you mean 'fabric'"),
        (["--set", "patches=10"], "above 16"),
        (["--vgg-weights", "no.h5"], "is not there"),
        (["--data", "weave:denim?size=80"], "of 96 or more to all"),
    ],
)
def test_a_refused_painter_changes_nothing(painter_folder, mistake, fault, tmp_path):
    given = ["synthesize", "train", "--data", PLAIN, "--quick", "--steps", "1+1", *mistake]
    said = tfgad(*given, "--out", tmp_path / "new")
    assert said.exit_code == 2
    assert fault in said.stderr
    assert not (tmp_path / "new").exists()
    before = {path.name: path.read_bytes() for path in painter_folder.iterdir()}
    assert tfgad(*given, "--out", painter_folder, "--overwrite").exit_code == 2
    assert {path.name: path.read_bytes() for path in painter_folder.iterdir()} == before


@pytest.mark.integration
def test_images_unlike_the_segmenters_are_refused_before_painting(
    painter_folder, run_folder, tmp_path
):
    given = ["--painter", painter_folder, "--data", "weave:twill?size=96", "--out", tmp_path / "x"]
    said = tfgad("segment", "adapt", run_folder, *given)
    assert said.exit_code == 2
    assert "(96, 96, 1)" in said.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.integration
def test_a_painter_by_the_command(painter, tmp_path):
    folder, printed = painter
    assert "12 kinds of defect" in printed
    assert "VGG19's weights: random" in printed
    out = shutil.copytree(folder, tmp_path / "painter")
    (out / ".partial.generator.weights.h5").touch()  # as a kill leaves it
    given = [*TINY, "--vgg-weights", "random", "--out", out]
    said = tfgad("synthesize", "train", "--data", PLAIN, *given, "--overwrite")
    assert said.exit_code == 0, said.stderr
    assert sorted(path.suffix for path in out.iterdir()) == [".json", ".keras", ".keras", ".keras"]


def test_a_group_alone_shows_its_help_and_nothing_else():
    said = tfgad("synthesize")
    assert "paint" in said.stdout + said.stderr
    assert "tfgad: ;" not in said.stderr


@pytest.mark.integration
def test_paint_writes_a_data_set(painter_folder, tmp_path):
    out = tmp_path / "painted"
    given = ["--data", TWILL, "--count", "5", "--kind", "hole"]
    said = tfgad("synthesize", "paint", painter_folder, *given, "--out", out)
    assert said.exit_code == 0, said.stderr
    assert len(list((out / "test" / "hole").glob("*.png"))) == 5
    for part in ("train", "test"):  # half of the six
        assert len(list((out / part / "good").glob("*.png"))) == 3
    assert (out / "gallery.png").is_file()
    again = tfgad("synthesize", "paint", painter_folder, *given, "--out", out)
    assert again.exit_code == 2
    assert "is there already" in again.stderr


@pytest.mark.integration
def test_a_painter_is_exported(painter_folder, tmp_path):
    said = tfgad("synthesize", "export", painter_folder, tmp_path / "saved")
    assert said.exit_code == 0, said.stderr
    (line,) = said.stdout.splitlines()
    version = tmp_path / "saved" / "1"
    assert line == f'{version}; next: tf.saved_model.load("{version}").signatures["paint"]'
    assert (version / "saved_model.pb").is_file()


@pytest.mark.integration
def test_a_segmenter_is_trained_on_what_was_painted(painter_folder, tmp_path):
    """Tiles of a folder in MVTec AD's layout, its kinds and masks, are a fabric like others."""
    out, base = tmp_path / "painted", tmp_path / "base"
    more = TWILL.replace("train=6", "train=40")
    said = tfgad("synthesize", "paint", painter_folder, "--data", more, "--count", 6, "--out", out)
    assert said.exit_code == 0, said.stderr
    said = tfgad("segment", "train", "--data", f"folder:{out}?tile=64", "--out", base, *SMALL)
    assert said.exit_code == 0, said.stderr
    assert json.loads((base / "config.json").read_text())["images"]["defective"] == 6


@pytest.mark.slow
@pytest.mark.integration
def test_all_of_it_in_colour(tmp_path):
    colour = "&channels=3"
    for arguments in (
        ["synthesize", "train", "--data", PLAIN + colour, *TINY, "--out", "p"],
        ["synthesize", "paint", "p", "--data", TWILL + colour, "--count", "3", "--out", "painted"],
        ["segment", "train", "--data", PLAIN + colour, *SMALL, "--out", "base"],
        [
            "segment",
            "adapt",
            "base",
            "--painter",
            "p",
            "--data",
            TWILL + colour,
            "--out",
            "new",
            "--set",
            "adapt_steps=2",
        ],
        ["segment", "evaluate", "new"],
    ):
        in_folder = [tmp_path / each if each in ("p", "painted", "base", "new") else each
                     for each in arguments]  # fmt: skip
        said = tfgad(*in_folder)
        assert said.exit_code == 0, said.stderr
    with Image.open(next((tmp_path / "painted" / "test").rglob("*.png"))) as image:
        assert image.mode == "RGB"


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
        (["synthesize", "export", "nowhere", "x"], "is not there"),
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
