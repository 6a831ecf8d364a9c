"""Ignored regions from the command line: `train --mask`, and what every later command says."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tfgad import data
from tfgad.cli.main import app
from tfgad.data.ignored_files import region_of
from tfgad.errors import UsageError
from tfgad.evaluation import compare
from tfgad.training import load_run, train

SIDE = 24
SMALL = {"width": 2, "latent_dim": 2, "batch_size": 4, "steps": 2, "stride": 24}


def command(*arguments):
    """Runs a command in this process."""
    with pytest.raises(SystemExit) as done:
        app([str(each) for each in arguments], prog_name="tfgad")
    return done.value.code


def save(folder, count, dent=None, seed=0):
    """Writes images of a wave with a bright clamp at the upper left, some with a dent."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIDE, :SIDE] * (2 * np.pi / 8)
    for i in range(count):
        phase = rng.uniform(0, 2 * np.pi)
        pixels = 100 + 40 * np.sin(x + phase) * np.sin(y) + rng.normal(0, 4, x.shape)
        pixels[:8, :8] = rng.uniform(0, 255)
        truth = np.zeros((SIDE, SIDE), np.uint8)
        if dent:
            pixels[dent] = 250
            truth[dent] = 255
            (folder.parents[1] / "ground_truth" / folder.name).mkdir(parents=True, exist_ok=True)
            mask = folder.parents[1] / "ground_truth" / folder.name / f"{i:02d}_mask.png"
            Image.fromarray(truth).save(mask)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with parts, a mask of their clamp, and a run that ignores it."""
    home = tmp_path_factory.mktemp("home")
    save(home / "parts" / "train" / "good", 24)
    save(home / "parts" / "test" / "good", 6, seed=1)
    save(home / "parts" / "test" / "dent", 5, (slice(12, 18), slice(12, 18)), seed=2)
    save(home / "parts" / "test" / "hidden", 2, (slice(1, 5), slice(1, 5)), seed=3)
    save(home / "new", 12, seed=4)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:8, :8] = 255
    Image.fromarray(mask).save(home / "mask.png")
    train("vae", spec(home), home / "run", settings=SMALL, mask=home / "mask.png")
    return home


def spec(home, form=f"size={SIDE}"):
    return f"folder:{home / 'parts'}?{form}"


def test_a_run_records_what_it_ignores(home, capsys):
    config = json.loads((home / "run" / "config.json").read_text())
    assert config["ignored"]["share"] == pytest.approx(64 / 576, abs=1e-6)
    assert load_run(home / "run").model.ignored.sum() == 64
    assert command("info", home / "run") == 0
    assert "11 % of each image" in " ".join(capsys.readouterr().out.split())


def test_a_run_is_resumed_with_the_same_mask_only(home, tmp_path):
    other = np.zeros((SIDE, SIDE), np.uint8)
    other[:12, :12] = 255
    Image.fromarray(other).save(tmp_path / "other.png")
    for mask, problem in (
        (None, "was started with 11 % of each image ignored, not with nothing"),
        (tmp_path / "other.png", "was started with 11 % of each image ignored, not with 25 %"),
    ):
        with pytest.raises(UsageError, match=problem):
            train("vae", spec(home), home / "run", settings=SMALL, resume=True, mask=mask)
    again = train(
        "vae", spec(home), home / "run", settings=SMALL, resume=True, mask=home / "mask.png"
    )
    assert again.model.ignored.sum() == 64


@pytest.mark.slow
def test_an_evaluation_leaves_out_what_is_ignored(home, tmp_path, capsys):
    assert command("evaluate", home / "run", "--out", tmp_path) == 0
    shown = " ".join(capsys.readouterr().out.split())
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    hidden = ["test/hidden/00.png", "test/hidden/01.png"]
    assert metrics["ignored"] == {"share": 64 / 576, "left_out": hidden}
    line = "left out, as their defects lie wholly inside the ignored region: 2 (test/hidden/00.png"
    assert any(finding.startswith(line) for finding in metrics["findings"])
    assert line in shown
    assert line in (tmp_path / "report.html").read_text()
    assert metrics["by_kind"].keys() == {"dent"}
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 11


@pytest.mark.slow
def test_other_commands_do_not_see_it_either(home, tmp_path, capsys):
    given = ("--good", home / "new", "--out", tmp_path / "more", "--steps", 2)
    assert command("learn", home / "run", *given) == 0
    more = load_run(tmp_path / "more")
    assert more.model.ignored.sum() == 64
    assert more.config["ignored"] == load_run(home / "run").config["ignored"]
    assert command("calibrate", home / "run", "--false-positive-rate", "0.1") == 0
    scores = []
    for level in (0, 255):
        folder = tmp_path / f"shown_{level}"
        folder.mkdir()
        for path in sorted((home / "parts" / "test" / "good").glob("*.png")):
            pixels = np.array(Image.open(path))
            pixels[:8, :8] = level
            Image.fromarray(pixels).save(folder / path.name)
        table = tmp_path / f"{level}.csv"
        given = ("--csv", table, "--maps", tmp_path / f"maps_{level}")
        assert command("score", home / "run", folder, *given) == 0
        with table.open(newline="") as file:
            rows = [{**row, "image": ""} for row in csv.DictReader(file)]
        checked = tmp_path / f"{level}.json"
        command("check", home / "run", "--data", folder, "--json", checked)
        scores.append((rows, json.loads(checked.read_text())["false_alarms"]))
    assert scores[0] == scores[1]
    maps = [np.asarray(Image.open(tmp_path / f"maps_{level}" / "00.png")) for level in (0, 255)]
    hatched = (maps[0] == maps[1]).all(axis=-1)
    assert hatched[8:].all()
    assert hatched[:, 8:].all()
    assert (maps[0][:8, :8] > 0).any()  # the lines of the hatching on black

    whole = train("vae", spec(home), tmp_path / "whole", settings=SMALL)
    run = load_run(home / "run")
    own = data.load(spec(home))
    same = compare.compare([run, more], [own, own], bootstrap=20)
    assert "pixel_auroc" in same.figures
    other = compare.compare([run, whole], [own, own], bootstrap=20)
    assert "pixel_auroc" not in other.figures
    assert len(other.runs[0].names) == 11


def test_masks_among_the_images_are_not_scored(home, tmp_path):
    folder, table = tmp_path / "in", tmp_path / "t.csv"
    save(folder, 1)
    (folder / "masks").mkdir()
    Image.open(home / "mask.png").save(folder / "masks" / "00.png")
    given = ("--mask", folder / "masks", "--csv", table)
    assert command("score", home / "run", folder, *given) == 0
    with table.open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(folder / "00.png")]


@pytest.mark.parametrize(
    ("levels", "form", "problem"),
    [
        (255, f"size={SIDE}", "ignores every pixel"),
        (0, f"size={SIDE}", "ignores no pixel"),
        ((SIDE, 2 * SIDE), f"size={SIDE}", "has 24x48 pixels, another aspect ratio than 24x24"),
        ("text", f"size={SIDE}", "is not a PNG"),
        (None, f"size={SIDE}", "No such file"),
        ("clamp", f"tile={SIDE}", "marks a place on images that are resized whole"),
    ],
)
def test_a_wrong_mask_is_one_line(home, tmp_path, levels, form, problem):
    path, images = tmp_path / "mask.png", data.load(spec(home, form))
    if levels == "text":
        path.write_text("no image")
    elif levels == "clamp":
        path = home / "mask.png"
    elif isinstance(levels, tuple):
        Image.fromarray(np.eye(*levels, dtype=np.uint8) * 255).save(path)
    elif levels is not None:
        Image.fromarray(np.full((SIDE, SIDE), levels, np.uint8)).save(path)
    with pytest.raises(UsageError, match=problem):
        region_of(path, images)


def test_pixels_that_are_ignored_count_for_no_figure():
    from tfgad.evaluation import metrics

    rng = np.random.default_rng(0)
    masks = np.zeros((8, 16, 16), bool)
    masks[:5, 9:13, 9:13] = True
    maps = (0.5 * masks + rng.normal(0, 0.5, masks.shape)).astype("float32")
    ignored = np.zeros((16, 16), bool)
    ignored[:, :8] = True
    kept = slice(None), slice(None), slice(8, None)
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    of_kept = metrics.evaluate(labels, scores, masks[kept], maps[kept], bootstrap=50)
    maps[:, ignored] = rng.uniform(-9, 9, (8, 128))
    figures = metrics.evaluate(labels, scores, masks, maps, ignored=ignored, bootstrap=50)
    for name in ("pixel_auroc", "pixel_aupro"):
        assert figures[name] == pytest.approx(of_kept[name], abs=1e-9)
        np.testing.assert_allclose(figures[f"{name}_ci"], of_kept[f"{name}_ci"], atol=0.01)
