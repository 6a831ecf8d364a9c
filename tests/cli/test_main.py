"""The `tfgad` command. The tests share small runs, which none may change."""

import csv
import errno
import functools
import json
import logging
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgad import __version__, data, training
from tfgad.cli import checking, console, loading, main
from tfgad.cli.demo import demo
from tfgad.cli.progress import Progress
from tfgad.cli.score_report import verdict_line
from tfgad.data.image_files import ImageError
from tfgad.data.pixels import to_uint8
from tfgad.data.registry import KINDS
from tfgad.errors import UsageError
from tfgad.evaluation import baselines, metrics
from tfgad.export.saved_model import METADATA, metadata_of_model, metadata_of_run
from tfgad.files import write_json
from tfgad.inference import predictor, results, scoring
from tfgad.methods import METHODS, settings_of
from tfgad.scores.map_regions import find_regions
from tfgad.training import run_folder

WEAVE = "weave:plain?size=48&train=8&calibration=4&test=6"
SMALL = ["--steps", "2", "--set", "width=8", "--set", "latent_dim=8"]


def tfgad(*arguments):
    """Runs the command in this process; returns exit code, standard output and error."""
    console.show_log()
    result = CliRunner().invoke(main.app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def write_image(path, side=48, channels=1, seed=0):
    """Writes noise as an image file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, channels), np.uint8)
    Image.fromarray(noise.squeeze()).save(path)
    return path


def write_broken(folder):
    """Writes a truncated image, an empty one and a text file that is named like one."""
    whole = write_image(folder / "truncated.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, made by the command: its folder, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "weave"
    result = tfgad("train", "ganomaly", "--data", WEAVE, "--out", folder, *SMALL)
    assert result.exit_code == 0, result.stderr
    return folder, result


@pytest.fixture(scope="module")
def run(trained):
    """The folder of the run."""
    return trained[0]


@pytest.fixture(scope="module")
def saved_model(run, tmp_path_factory):
    """The run's model, exported by the command."""
    folder = tmp_path_factory.mktemp("saved_models") / "weave"
    assert tfgad("export", run, folder).exit_code == 0
    return folder


load_predictor = functools.cache(predictor.load_predictor)
load_to_check = functools.cache(checking._load)


@pytest.fixture(autouse=True)
def load_predictors_once(monkeypatch):
    """Keeps the models that `score` and `check` load, with their graphs, for later tests."""
    monkeypatch.setattr(predictor, "load_predictor", load_predictor)
    monkeypatch.setattr(checking, "_load", load_to_check)


# Commands


@pytest.mark.integration
def test_help_imports_no_tensorflow():
    heavy = ("tensorflow", "keras", "matplotlib", "sklearn", "scipy")
    script = f"""
import sys
from typer.testing import CliRunner
from tfgad.cli import main
text = CliRunner().invoke(main.app, ["--help"]).output
assert "130" in text and "evaluate" in text, text
assert CliRunner().invoke(main.app, ["train", "--help"]).exit_code == 0
assert not set({heavy}) & set(sys.modules), sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_version():
    assert tfgad("--version").stdout == f"tfgad {__version__}\n"


def test_list_names_every_method_weave_and_kind_of_data():
    assert {kind.example.partition(":")[0] for kind in KINDS.values()} == set(KINDS)
    listed = tfgad("list").stdout
    assert {line.split()[0] for line in listed.splitlines()} >= set(METHODS)
    assert "herringbone" in listed


@pytest.mark.parametrize("method", METHODS)
def test_list_prints_the_settings_of_a_method(method):
    lines = tfgad("list", method).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    # The line after it has the values and the meaning.
    printed = {line.split()[0]: line.split() for line in lines if re.match(r"  \w", line)}
    assert printed["setting"][1:] == list(METHODS[method].configs)
    for name, value in settings_of(method).as_dict().items():
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        assert printed[name][1] == shown, name


def test_list_of_no_method_is_refused():
    result = tfgad("list", "wgangp")
    assert result.exit_code == 2
    assert "did you mean 'wgan_gp'" in result.stderr


def test_train_prints_the_run_and_the_next_command(trained):
    out, result = trained
    assert f"{out}: trained in" in result.stdout
    assert "for a false-positive rate of 0.01 per tile of 48 x 48 (" in result.stdout
    assert f"next: tfgad evaluate {out}" in result.stdout
    assert "training: 1 of 2" in result.stderr
    assert (out / run_folder.MODEL).is_file()


def test_ctrl_c_says_how_to_continue(monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    arguments = ["train", "ganomaly", "--data", "folder:my parts", "--out", "r", "--overwrite"]
    monkeypatch.setattr(training, "train", stopped)
    monkeypatch.setattr(sys, "argv", ["tfgad", *arguments])
    result = tfgad(*arguments)
    assert result.exit_code == 130
    command = "tfgad train ganomaly --data 'folder:my parts' --out r --resume"
    assert result.stderr == f"tfgad: stopped; continue with: {command}\n"


def test_a_full_disk_is_reported_in_one_line(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/spool/x")

    monkeypatch.setattr(training, "train", full)
    result = tfgad("train", "ganomaly", "--data", "digits:8", "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    said = "tfgad: disk '/spool/x': No space left on device; free some, or name a path"
    assert result.stderr.splitlines()[-1].startswith(said)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["segment", "adapt", "r", "--overwrite"], "continue with: tfgad segment adapt r --resume"),
        (["segment", "evaluate", "r"], "results not yet written are lost"),
    ],
)
def test_resumable_commands_of_two_words(typed, said):
    assert console._how_to_continue(typed) == said


def test_evaluate_prints_the_trivial_detectors_beside_the_method(run, tmp_path):
    result = tfgad("evaluate", run, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    for word in ("ganomaly", "PCA", *metrics.NAMES.values(), "95 % interval"):
        assert word in result.stdout
    figures = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert figures["baselines"].keys() == baselines.NAMES.keys() - {"feature_pca"}
    assert figures["baselines_left_out"] == {}
    assert f"{figures['image_auroc']:.3f}" in result.stdout
    for finding in figures["findings"]:
        assert finding in result.stdout
    assert figures["best_baseline"]["name"] in figures["baselines"]
    assert figures["false_positive_rate_asked"] == 0.01
    for kind in figures["by_kind"]:
        assert f" {kind} " in result.stdout
    rows = list(csv.DictReader((tmp_path / "report" / "scores.csv").open(newline="")))
    assert {row["kind"] for row in rows} == {"good", *figures["by_kind"]}
    alarms = [row["verdict"] == "defective" for row in rows if row["label"] == "good"]
    assert np.mean(alarms) == figures["false_positive_rate"]
    assert "scoring the test set: 6 of 6" in result.stderr
    assert "trivial detectors: 18 of 18" in result.stderr
    last = result.stdout.splitlines()[-1].split(", ")
    assert {*last} == {str(path) for path in (tmp_path / "report").iterdir()}


@pytest.fixture(scope="module")
def new_good(tmp_path_factory):
    """A folder of eight good images that are new to the run."""
    folder = tmp_path_factory.mktemp("good")
    for index, tile in enumerate(data.load(f"{WEAVE}&seed=3").train):
        Image.fromarray(to_uint8(tile.numpy())[..., 0]).save(folder / f"{index}.png")
    return folder


def test_check_of_a_run_and_of_its_saved_model(run, saved_model, new_good, tmp_path):
    found = []
    for model in (run, saved_model):
        result = tfgad("check", model, "--data", new_good, "--json", tmp_path / "c.json")
        found.append(json.loads((tmp_path / "c.json").read_text()))
        assert result.exit_code == (3 if found[-1]["failed"] else 0), result.stderr
        for finding in found[-1]["findings"]:
            assert finding in result.stdout
        assert found[-1].pop("model") == str(model)
    assert found[0]["images"] == 8
    assert found[0]["false_alarms"] == found[1]["false_alarms"]
    assert found[0]["reasons"] == found[1]["reasons"]


def test_check_of_black_images_has_an_exit_code_of_its_own(run, tmp_path):
    for index in range(4):
        black = np.zeros((48, 48), np.uint8)
        black[index] = 1  # no copies
        Image.fromarray(black).save(tmp_path / f"{index}.png")
    result = tfgad("check", run, "--data", tmp_path)
    assert result.exit_code == 3
    assert "4 of 4 images are unlike any good one: 4 too dark" in result.stdout
    assert "the check failed: false alarms, image quality" in result.stdout


def test_check_of_the_own_data_takes_what_is_new(run, saved_model, tmp_path):
    result = tfgad("check", run, "--data", WEAVE, "--json", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["images"] == 3  # of the test, the good
    assert "left out: 3 defective images" in result.stderr
    line = mistake(tmp_path, "check", saved_model, "--data", WEAVE)
    assert "is what the model was made from" in line


@pytest.mark.slow
def test_evaluate_of_good_images_alone_checks_them(run, new_good, tmp_path):
    checked = tfgad("check", run, "--data", new_good)
    result = tfgad("evaluate", run, "--data", f"folder:{new_good}", "--out", tmp_path / "out")
    assert result.exit_code == checked.exit_code
    assert result.stdout == checked.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["check.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "is no folder"),
        (["--data", "folder:nowhere"], "does not exist"),
        (["--data", "weave:plain", "--json", "a.png"], "is named like an image"),
    ],
)
def test_mistakes_of_check(run, tmp_path, arguments, said):
    assert said in mistake(tmp_path, "check", run, *arguments)


def test_calibrate_sets_another_threshold(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    result = tfgad("calibrate", copy, "--false-positive-rate", 0.3)
    assert "false-positive rate of 0.3" in result.stdout
    config = json.loads((copy / run_folder.CONFIG).read_text())
    assert config["calibration"]["false_positive_rate"] == 0.3
    assert f"{config['calibration']['threshold']:.4g}" in result.stdout


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """A run on a folder of 12-bit images: its parent folder, and the output of the command.

    The parent holds the images as `8/` and `12/` with that many bits, and the run as `run/`.
    """
    parent = tmp_path_factory.mktemp("folder")
    tiles = [*data.load(WEAVE).train.as_numpy_iterator(), *data.load(WEAVE).calibration]
    for depth, dtype in ((8, np.uint8), (12, np.uint16)):
        for kind, selected in (("good", tiles[1:]), ("hole", tiles[:1])):
            folder = parent / str(depth) / kind
            folder.mkdir(parents=True)
            for i, tile in enumerate(selected):
                levels = np.rint((np.asarray(tile)[..., 0] + 1) / 2 * (2**depth - 1)).astype(dtype)
                Image.fromarray(levels).save(folder / f"{i}.png")
    before = os.getcwd()
    os.chdir(parent)
    try:
        small = ["--data", "folder:12?size=32", "--out", "run", "--seed", 5, *SMALL]
        result = tfgad("train", "ganomaly", *small)
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.stderr
    return parent, result


def test_a_folder_without_options_is_read_with_those_of_the_run(folder_run, tmp_path):
    parent, _ = folder_run
    copy = shutil.copytree(parent / "run", tmp_path / "run")
    assert tfgad("calibrate", copy, "--data", f"folder:{parent / '12'}").exit_code == 0
    config = json.loads((copy / run_folder.CONFIG).read_text())
    read_as = config["calibration"]["data"]
    assert "size=32" in read_as
    assert "seed=5" in read_as


def test_data_of_another_kind_have_the_size_of_the_run():
    config = {"data": "weave:twill?size=64", "image_shape": [64, 64, 1], "resized": False}
    defaults = loading.data_defaults(config, "folder:parts")
    assert defaults["tile"] == 64
    assert (defaults["size"], defaults["depth"]) == (None, 16)  # a run without depth
    config |= {"image_shape": [64, 32, 1], "resized": True, "fit": "letterbox"}
    defaults = loading.data_defaults(config, "folder:parts")
    assert (str(defaults["size"]), defaults["fit"]) == ("64x32", "letterbox")
    assert "tile" not in defaults
    defaults = loading.data_defaults({**config, "data": "folder:a?tile=64"}, "weave:twill")
    assert str(defaults["size"]) == "64x32"


def test_a_size_asks_for_whole_images_whatever_the_run_was_given():
    config = {"data": "folder:a?tile=64&seed=5", "image_shape": [64, 64, 1], "resized": False}
    for spec in ("folder:b?size=32", "folder:b?size=32&channels=1"):
        assert loading.data_defaults(config, spec)["tile"] is None
    assert loading.data_defaults(config, "folder:b")["tile"] == "64"
    config = {**config, "data": "folder:a?size=64&fit=letterbox", "resized": True}
    assert loading.data_defaults(config, "folder:b?tile=32")["fit"] is None
    assert (
        loading.data_defaults({**config, "data": "weave:twill"}, "folder:b?size=32")["tile"] is None
    )


def test_a_run_finds_its_images_from_another_folder(folder_run, tmp_path, monkeypatch):
    copy = shutil.copytree(folder_run[0] / "run", tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tfgad("calibrate", copy).exit_code == 0


def test_info_of_a_run_and_of_its_saved_model(run, saved_model):
    metadata = tfgad("info", run).stdout
    assert "ganomaly" in metadata
    assert "48 x 48, grey" in metadata
    assert "32 x 32" in metadata
    assert "false-positive rate  0.01 per tile of 48 x 48" in metadata
    assert tfgad("info", saved_model).stdout == metadata


def test_info_of_a_model_exported_by_hand(run, saved_model, tmp_path):
    copy = shutil.copytree(saved_model, tmp_path / "model")
    form = metadata_of_model(training.load_run(run).model, (48, 48, 1), resized=True)
    write_json(copy / "1" / METADATA, {"method": "ganomaly", **form})
    metadata = tfgad("info", copy).stdout
    assert "ganomaly" in metadata
    assert "training images" not in metadata
    assert metadata.rstrip().endswith("false-positive rate  0.01")  # per image, and the last line


def test_info_of_an_unfinished_run(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / run_folder.MODEL).unlink()
    assert "is not finished" in mistake(tmp_path, "info", copy)


# Scoring


@pytest.fixture
def images(tmp_path):
    """Three images, two of them alike in name."""
    return [
        write_image(tmp_path / "images" / "a.png", seed=1),
        write_image(tmp_path / "images" / "a.bmp", side=70, seed=2),
        write_image(tmp_path / "images" / "more" / "a.png", channels=3, seed=3),
    ]


def test_score_writes_a_table_and_a_heat_map_for_each_image(run, images, tmp_path):
    table, maps, raw = (tmp_path / name for name in ("results.csv", "maps", "raw"))
    given = ["--maps", maps, "--raw-maps", raw, "--mm-per-pixel", "0.1"]
    result = tfgad("score", run, *images, "--csv", table, *given)
    assert result.exit_code == 0, result.stderr
    rows = list(csv.DictReader(table.open(newline="")))
    assert [row["image"] for row in rows] == [str(image) for image in images]
    assert all(row["verdict"] in ("good", "defective") for row in rows)
    assert rows[0]["reason"] == "too much contrast"  # noise, not cloth
    threshold = json.loads((run / run_folder.CONFIG).read_text())["calibration"]["threshold"]
    for row in rows:
        is_anomalous = float(row["score"]) > threshold or row["reason"] != ""
        assert is_anomalous == (row["verdict"] == "defective")
        assert (float(row["probability"]) > 0.5) == (row["verdict"] == "defective")
    written = {path.relative_to(maps).as_posix(): path for path in maps.rglob("*.png")}
    assert set(written) == {"a.png.png", "a.bmp.png", "more/a.png.png"}
    assert Image.open(written["a.bmp.png"]).size == (70, 70)
    regions = list(csv.DictReader((tmp_path / "results.defects.csv").open(newline="")))
    for row, name in zip(rows, ("a.png.tiff", "a.bmp.tiff", "more/a.png.tiff"), strict=True):
        anomaly_map = np.asarray(Image.open(raw / name))
        expected = find_regions(anomaly_map, threshold)
        of_image = [each for each in regions if each["image"] == row["image"]]
        assert int(row["regions"]) == len(of_image) == len(expected)
        assert [int(each["area"]) for each in of_image] == [each.area for each in expected]


def test_small_regions_are_left_out_and_counted(run, images, tmp_path, monkeypatch):
    anomaly_map = np.zeros((9, 9), "float32")
    anomaly_map[0, :5], anomaly_map[3, :2], anomaly_map[8, 8] = 2, 3, 4
    monkeypatch.setattr(scoring, "regions_of", lambda verdict: find_regions(anomaly_map, 1.0))
    table = tmp_path / "results.csv"
    for least, areas in ((1, ["5", "2", "1"]), (2, ["5", "2"]), (6, [])):
        result = tfgad("score", run, *images, "--csv", table, "--min-area", least)
        rows = list(csv.DictReader(table.open(newline="")))
        regions = csv.DictReader(table.with_suffix(".defects.csv").open(newline=""))
        assert [row["area"] for row in regions] == 3 * areas
        assert [row["regions"] for row in rows] == 3 * [str(len(areas))]
        left_out = 3 * (3 - len(areas))
        bare = 0 if areas else sum(row["verdict"] == "defective" for row in rows)
        line = f"--min-area {least} left out {left_out} regions"
        if bare:
            line += f"; {bare} defective image{' has' if bare == 1 else 's have'} no other region"
        assert (f"tfgad: {line}\n" in result.stderr) == (left_out > 0)


def test_a_product_has_no_name_in_litert_files(tmp_path):
    given = ["export", tmp_path, tmp_path / "out", "--format", "litert", "--name", "lids"]
    assert "is not kept in litert files; leave it out" in mistake(tmp_path, *given)


def test_a_pixels_size_needs_a_length_and_a_table(run, images, tmp_path):
    given = ["score", run, images[0], "--mm-per-pixel"]
    for length in ("0", "-1", "nan", "inf"):
        table = ["--csv", tmp_path / "t.csv"]
        assert "is no length above 0" in mistake(tmp_path, *given, length, *table)
    assert "needs a table to write; add --csv FILE" in mistake(tmp_path, *given, "0.1")


def test_score_of_a_folder_prints_one_line_per_image(run, images, tmp_path):
    lines = tfgad("score", run, tmp_path / "images").stdout.splitlines()
    for line, image in zip(lines, sorted(map(str, images)), strict=False):
        assert line.partition("  (")[0].endswith(f"  {image}")
    assert lines[0].endswith("  (too much contrast)")
    assert len(lines) == 4
    assert sum(int(word) for word in lines[-1].split() if word.isdecimal()) == 3


def test_images_of_12_bits_get_the_scores_of_8(folder_run, tmp_path):
    parent, result = folder_run
    assert "read as 12 bits" in result.stderr
    run = training.load_run(parent / "run")
    assert metadata_of_run(run)["depth"] == 12
    assert loading.data_defaults(run.config, None)["depth"] == 12

    def scores(depth, *options):
        images = [parent / str(depth) / "good" / f"{i}.png" for i in range(3)]
        result = tfgad("score", run.folder, *images, "--csv", tmp_path / "t.csv", *options)
        rows = csv.DictReader((tmp_path / "t.csv").open(newline=""))
        return result, [float(row["score"]) for row in rows if row["score"]]

    np.testing.assert_allclose(scores(12)[1], scores(8)[1], rtol=0.05)
    said = scores(12, "--depth", 9)[0].stderr
    assert "holds values above 511, the maximum of 9 bits" in said
    assert said.count("give a larger --depth") == 1
    said = scores(12, "--max-pixels", 100)[0].stderr
    assert "has more than 100 pixels" in said
    assert said.count("give a larger --max-pixels") == 1


def test_a_saved_model_scores_as_its_run(run, saved_model, images, tmp_path):
    tables = []
    for model in (run, saved_model):
        tfgad("score", model, *images, "--csv", tmp_path / "t.csv")
        tables.append(list(csv.DictReader((tmp_path / "t.csv").open(newline=""))))
    for ours, theirs in zip(*tables, strict=True):
        assert ours["verdict"] == theirs["verdict"]
        assert float(ours["score"]) == pytest.approx(float(theirs["score"]), rel=1e-4)


def test_a_full_disk_loses_no_score(run, images, tmp_path, monkeypatch):
    written = []

    def fill(path, content):
        written.append(path)
        if len(written) > 1:
            raise UsageError("maps", path, "cannot be written", "free some")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    table = tmp_path / "results.csv"
    monkeypatch.setattr(results, "write_map", lambda path, verdict: fill(path, b""))
    result = tfgad("score", run, *images, "--csv", table, "--maps", tmp_path / "maps")
    assert result.exit_code == 2
    assert f"{table} holds 2 of 3 images" in result.stderr
    assert len(list(csv.DictReader(table.open(newline="")))) == 2


def test_no_name_forges_a_line_or_colours_the_terminal(capsys):
    name = "a.png\ngood       probability 0.001\x1b[31m.png"
    error = ImageError(name, "is empty")
    console.warn(f"not scored: {error}")
    console.LogLines().emit(logging.makeLogRecord({"msg": "%s: ignored", "args": (name,)}))
    row = results.scored_row(results.row(error)["image"], 1.0, 0.5, False)
    console.say(verdict_line(row))
    console.say("two\nlines\x1b[0m")
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert (len(said.out.splitlines()), len(said.err.splitlines())) == (3, 2)


def test_names_that_are_not_valid_utf_8_are_scored(run, images, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path / "images") + b"/\xff.png")
    images[0].rename(odd)
    table = tmp_path / "results.csv"
    assert tfgad("score", run, tmp_path / "images", "--csv", table).exit_code == 0
    names = [row["image"].rpartition("/")[2] for row in csv.DictReader(table.open(newline=""))]
    assert "\\xff.png" in names


def test_broken_images_are_named_and_the_others_scored(run, images, tmp_path):
    write_broken(tmp_path / "images")
    write_image(tmp_path / "images" / "small.png", side=20)
    table = tmp_path / "results.csv"
    result = tfgad("score", run, tmp_path / "images", "--csv", table)
    assert result.exit_code == 1
    rows = {row["image"].rpartition("/")[2]: row for row in csv.DictReader(table.open(newline=""))}
    for name in ("truncated.png", "empty.png", "text.png", "small.png"):
        assert rows[name]["verdict"] == "not scored"
        assert f"{name}: {rows[name]['reason']}\n" in result.stderr
    assert rows["small.png"]["reason"] == "is smaller than 32x32 pixels"
    assert rows["a.bmp"]["verdict"] in ("good", "defective")
    assert "4 not scored" in result.stdout


# Usage errors: one line, exit code 2, nothing written


def mistake(tmp_path, *arguments):
    """Runs a command that must fail; returns its one line of output."""
    before = sorted(tmp_path.rglob("*"))
    result = tfgad(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    # The first line of a progress bar may come before the error.
    lines = [line for line in result.stderr.splitlines() if not line.startswith("scoring:")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("tfgad: ")
    assert sorted(tmp_path.rglob("*")) == before
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train"], "tfgad train --help"),
        (["train", "ganomaly", "--sed", "1"], "--seed"),
        (["list", "--now"], "--now"),
        (["train", "ganomaly", "--data", WEAVE, "--out", "run", "--seed", "-1"], "--seed"),
    ],
)
def test_mistyped_commands(tmp_path, arguments, answer):
    assert answer in mistake(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("method", "spec", "settings", "answer"),
    [
        ("ganomoly", WEAVE, [], "did you mean 'ganomaly'?"),
        ("ganomaly", "weave:twil", [], "did you mean 'twill'?"),
        ("ganomaly", "waeve:twill", [], "did you mean 'weave'?"),
        ("ganomaly", "weave:twill?sise=64", [], "did you mean 'size'?"),
        ("ganomaly", "weave:twill?size=big", [], "give a whole number"),
        ("ganomaly", "folder:nowhere", [], "does not exist"),
        ("ganomaly", WEAVE, ["--set", "witdh=8"], "did you mean 'width'?"),
        ("ganomaly", WEAVE, ["--set", "width=wide"], "is not of type int"),
        ("ganomaly", WEAVE, ["--set", "width"], "name=value"),
        ("ganomaly", WEAVE, ["--steps", "none"], "is not of type int"),
        ("fanogan", WEAVE, ["--steps", "100"], "with + between"),
    ],
)
def test_wrong_names_and_settings(tmp_path, method, spec, settings, answer):
    out = ["--out", tmp_path / "run"]
    assert answer in mistake(tmp_path, "train", method, "--data", spec, *out, *settings)


def train_on(tmp_path, folder, options=""):
    """Trains on an unusable folder; returns the one line of output."""
    spec = f"folder:{folder}{options}"
    return mistake(tmp_path, "train", "ganomaly", "--data", spec, "--out", tmp_path / "run", *SMALL)


def test_folders_without_good_images(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no good images" in train_on(tmp_path, tmp_path / "empty")
    (tmp_path / "bad" / "good").mkdir(parents=True)
    write_image(tmp_path / "bad" / "hole" / "0.png")
    assert "has no good images" in train_on(tmp_path, tmp_path / "bad")
    write_broken(tmp_path / "bad" / "good")
    assert "has no good image that can be read" in train_on(tmp_path, tmp_path / "bad")


def test_images_smaller_than_the_networks_take(tmp_path):
    for i in range(8):
        write_image(tmp_path / "parts" / f"{i}.png", seed=i)
    assert "at least 24x24" in train_on(tmp_path, tmp_path / "parts", "?size=4")


def test_too_few_good_images_are_refused_before_training(tmp_path):
    for i in range(2):
        write_image(tmp_path / "parts" / f"{i}.png", seed=i)
    assert "add good images" in train_on(tmp_path, tmp_path / "parts", "?size=32")


def test_unwritable_paths(run, images, tmp_path):
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "inside"
    mistake(tmp_path, "train", "ganomaly", "--data", WEAVE, "--out", inside, *SMALL)
    mistake(tmp_path, "evaluate", run, "--out", inside)
    mistake(tmp_path, "export", run, inside)
    mistake(tmp_path, "score", run, *images, "--csv", inside)
    mistake(tmp_path, "score", run, *images, "--maps", inside)
    mistake(tmp_path, "score", run, *images, "--csv", tmp_path / "images")
    assert "named like an image" in mistake(tmp_path, "score", run, "--csv", *images)
    # The maps of a.png and more/a.png would overwrite them.
    answer = mistake(tmp_path, "score", run, images[0], images[2], "--maps", tmp_path / "images")
    assert "would overwrite the images" in answer
    inside = tmp_path / "images" / "maps"
    for option in ("--maps", "--raw-maps"):
        answer = mistake(tmp_path, "score", run, tmp_path / "images", option, inside)
        assert "would be scored the next time" in answer


def test_folders_with_other_files_are_left_alone(run, tmp_path):
    mine = write_image(tmp_path / "mine" / "a.png").parent
    train = ["train", "ganomaly", "--data", WEAVE, *SMALL]
    assert "something else" in mistake(tmp_path, *train, "--out", mine, "--overwrite")
    assert "--resume" in mistake(tmp_path, *train, "--out", run)
    assert "is not a demo" in mistake(tmp_path, "demo", "--out", mine, "--overwrite")


def test_nothing_to_score(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is not there" in mistake(tmp_path, "score", run, tmp_path / "nowhere.png")
    assert "without images" in mistake(tmp_path, "score", run, tmp_path / "empty")
    write_broken(tmp_path / "broken")
    table = ["--csv", tmp_path / "results.csv"]
    answer = mistake(tmp_path, "score", run, tmp_path / "broken", *table)
    assert "empty.png': is empty, nor 2 others" in answer


@pytest.mark.parametrize("command", ["calibrate", "evaluate", "info", "export", "score"])
def test_invalid_models(tmp_path, command):
    more = {"export": ["out"], "score": [write_image(tmp_path / "a.png")]}.get(command, [])
    assert "is not there" in mistake(tmp_path, command, tmp_path / "nowhere", *more)
    (tmp_path / "empty").mkdir()
    mistake(tmp_path, command, tmp_path / "empty", *more)


def test_false_positive_rates_outside_0_to_1(run, tmp_path):
    assert "between 0 and 1" in mistake(tmp_path, "calibrate", run, "--false-positive-rate", 1)


# Demo


@pytest.mark.integration
def test_demo_writes_its_files(tmp_path):
    settings = {"steps": "2+2", "width": "8", "latent_dim": "8"}
    with Progress() as progress:
        demo(tmp_path / "demo", progress, spec=WEAVE, settings=settings)
    written = {path.name for path in (tmp_path / "demo").iterdir()}
    results = {"metrics.json", "report.html", "scores.csv", "heat_maps.png"}
    assert written - {"gallery.png"} == {"run", "saved_model", *results}
    assert (tmp_path / "demo" / "saved_model" / "1" / "saved_model.pb").is_file()
    assert "holds a demo already" in mistake(tmp_path, "demo", "--out", tmp_path / "demo")


def test_only_a_demo_is_replaced(run, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    write_image(out / "run" / "a.png")
    command = ["demo", "--out", out, "--overwrite"]
    assert "is not a demo" in mistake(tmp_path, *command)
    shutil.copytree(run, out / "run", dirs_exist_ok=True)
    assert "holds a.png beside the run" in mistake(tmp_path, *command)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    (out / "run" / "a.png").unlink()
    monkeypatch.setattr(training, "train", stopped)
    monkeypatch.chdir(out)
    for _ in range(2):  # an interrupted demo does not block the next one
        assert tfgad("demo", "--out", ".", "--overwrite").exit_code == 130
    assert not list(out.iterdir())


def test_a_library_that_logs_does_not_make_records_appear_twice(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    console.show_log()
    logging.warning("of a library")
    logging.getLogger("tfgad").warning("ours")
    assert capsys.readouterr().err.count("ours") == 1
    assert not [each for each in logging.root.handlers if isinstance(each, logging.StreamHandler)]
