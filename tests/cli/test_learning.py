"""`tfgad learn` and `tfgad compare`, on one small run."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import tfgad
from tfgad import data
from tfgad.cli import loading
from tfgad.cli.main import app
from tfgad.errors import UsageError
from tfgad.training import calibrate, held_out, load_run, train
from tfgad.training.learning import learn
from tfgad.training.run_folder import MODEL

SIDE = 24
SMALL = {"width": 2, "latent_dim": 2, "batch_size": 4, "steps": 2, "stride": 24}


def save(folder, count, shade=0, dent=False, seed=0):
    """Writes images of a wave, lighter by a shade, some with a dent."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    y, x = np.mgrid[:SIDE, :SIDE] * (2 * np.pi / 8)
    for i in range(count):
        phase = rng.uniform(0, 2 * np.pi)
        pixels = 100 + shade + 40 * np.sin(x + phase) * np.sin(y) + rng.normal(0, 4, x.shape)
        if dent:
            pixels[8:14, 8:14] = 250
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")


def command(*arguments):
    """Runs a command in this process."""
    with pytest.raises(SystemExit) as done:
        app([str(each) for each in arguments], prog_name="tfgad")
    return done.value.code


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run of `parts/`, lighter good images in `new/`, and what it learned."""
    home = tmp_path_factory.mktemp("home")
    save(home / "parts" / "good", 30)
    save(home / "parts" / "dent", 6, dent=True, seed=1)
    save(home / "new", 20, shade=40, seed=2)
    save(home / "rejected", 2, shade=70, seed=3)
    save(home / "newer", 10, shade=20, seed=4)
    save(home / "mixed" / "train" / "good", 4, seed=5)
    save(home / "mixed" / "test" / "good", 8, shade=40, seed=6)
    save(home / "mixed" / "test" / "dent", 4, dent=True, seed=7)
    train("vae", f"folder:{home / 'parts'}?size={SIDE}", home / "run", settings=SMALL)
    shutil.copytree(home / "run", home / "kept")
    given = ("--good", home / "new", "--false-alarms", home / "rejected", "--out", home / "second")
    assert command("learn", home / "run", *given) == 0
    return home


def load(home, name):
    return data.load(f"folder:{home / name}?size={SIDE}", channels=1)


def test_a_run_learns_what_good_images_may_look_like(home):
    first, second = load_run(home / "run"), load_run(home / "second")
    changes = {each["of"]: each for each in second.config["false_alarms"]}
    assert changes["new, held out for the threshold"]["before"] == 1
    assert changes["new, held out for the threshold"]["after"] < 0.5
    assert changes["false alarms, learned from"]["count"] == 2
    assert second.config["parent"]["run"] == str(home / "run")
    assert (home / "run" / MODEL).read_bytes() == (home / "kept" / MODEL).read_bytes()
    for name, network in first.model.networks().items():
        for ours, theirs in zip(
            network.get_weights(), second.model.networks()[name].get_weights(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    of_new = load(home, "new")
    assert second.config["images"]["train"] == (
        first.config["images"]["train"] + of_new.train_size + 2
    )


def test_what_was_learned_from_never_comes_back(home, tmp_path):
    second, of_new = load_run(home / "second"), load(home, "new")
    kept = held_out.for_calibration(second, of_new)
    assert kept.calibration_size == of_new.calibration_size
    for name in ("new", "rejected"):
        with pytest.raises(UsageError, match=r"too few good images \(0\) that are new"):
            learn(second, load(home, name), tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_a_run_that_was_trained_since_it_was_loaded_does_not_learn(home, tmp_path):
    run = load_run(shutil.copytree(home / "run", tmp_path / "run"))
    (run.folder / MODEL).unlink()  # as a training by more steps does
    with pytest.raises(UsageError, match="is being trained since it was loaded"):
        learn(run, load(home, "new"), tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.mark.slow
def test_a_run_learns_again_with_all_that_it_learned_before(home, tmp_path, caplog):
    second = load_run(home / "second")
    shutil.copytree(home / "second", tmp_path / "copied")
    calibrate(load_run(tmp_path / "copied"), load(home, "parts"), 0.1)
    assert "without the images that were learned since" in caplog.text
    (home / "new" / "00.png").rename(home / "new" / "renamed.png")
    try:
        third, changes = learn(second, load(home, "newer"), tmp_path / "third")
    finally:
        (home / "new" / "renamed.png").rename(home / "new" / "00.png")
    assert changes[0].count == second.config["images"]["calibration"]
    sizes = third.config["images"]["train"], second.config["images"]["train"]
    assert sizes[0] == sizes[1] + load(home, "newer").train_size
    assert len(third.config["learned"]) == 2


@pytest.mark.slow
def test_a_run_trains_on_from_its_weights(home, tmp_path):
    run = load_run(home / "run")
    new, _ = learn(run, load(home, "newer"), tmp_path / "new", steps=3)
    assert tfgad.load_model(tmp_path / "new").steps_done == 5
    assert new.config["settings"]["steps"] == 5
    for name, network in run.model.networks().items():
        ours, theirs = network.get_weights(), new.model.networks()[name].get_weights()
        assert not np.array_equal(ours[0], theirs[0]), name
    with pytest.raises(UsageError, match="was written by `tfgad learn`"):
        train(
            "vae",
            run.config["data"],
            tmp_path / "new",
            settings=SMALL | {"steps": 9},
            resume=True,
        )


def test_what_cannot_be_learned_is_refused(home, tmp_path):
    run = load_run(home / "run")
    for out, message in ((home / "run", "is the run that"), (home / "kept", "holds a run already")):
        with pytest.raises(UsageError, match=message):
            learn(run, load(home, "new"), out)
    with pytest.raises(UsageError, match="but the model has"):
        learn(run, data.load(f"folder:{home / 'new'}?size=32", channels=1), tmp_path / "x")
    with pytest.raises(UsageError, match="is no folder of image files"):
        learn(run, data.load("digits:8?size=24"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_two_runs_are_compared_on_the_same_images(home, tmp_path, capsys):
    given = ("--data", f"folder:{home / 'mixed'}", "--out", tmp_path)
    assert command("compare", home / "run", home / "second", *given) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert (found["unit"], found["compared"]) == ("image", 12)
    assert "image AUROC" in shown
    assert "the second alone 8" in shown  # to the first, lighter images are defective
    assert sum(found["verdicts"].values()) == 12
    for each in found["figures"].values():
        low, high = each["interval"]
        assert low <= high
        assert each["difference"] == pytest.approx(each["second"] - each["first"])
    alarms = found["figures"]["false_positive_rate"]
    assert (alarms["first"], alarms["second"], alarms["interval"]) == (1, 0, [-1, -1])
    rows = list(csv.DictReader((tmp_path / "differences.csv").open()))
    names = ("truth", "right", "first_verdict", "second_verdict")
    expected = ("good", "second", "defective", "good")
    assert [tuple(row[name] for name in names) for row in rows] == [expected] * 8
    assert Image.open(tmp_path / "differences.png").height > 500


def test_new_images_of_a_group_that_was_trained_on_set_no_threshold(home, tmp_path):
    for roll in range(4):
        save(tmp_path / "old" / "good" / f"roll{roll}", 4, seed=10 + roll)
    spec = f"folder:{tmp_path / 'old'}?size={SIDE}&group=folder"
    run = train("vae", spec, tmp_path / "run", settings=SMALL)
    trained_on = set(data.load(spec).train_origins.groups)
    for number, roll in enumerate([*trained_on, "roll8", "roll9"]):
        save(tmp_path / "new" / "good" / roll, 4, seed=20 + number)
    new = data.load(f"folder:{tmp_path / 'new'}?size={SIDE}&group=folder&calibration=0.5&seed=2")
    assert trained_on & set(new.calibration_origins.groups)  # some would be held out
    learned, _ = learn(run, new, tmp_path / "second")
    split = json.loads((learned.folder / "split.json").read_text())
    held = {name.split("/")[-2] for name in split["calibration"] if "/new/" in name}
    assert held
    assert not held & trained_on


def test_good_images_in_a_folder_of_another_form(home, tmp_path):
    config = {**load_run(home / "run").config, "data": "folder:parts?good=OK&group=folder"}
    assert loading.load_good(config, "good", str(home / "new")).train_size == 16
    with pytest.raises(UsageError, match="OK"):
        loading.load_good(config, "good", f"folder:{home / 'new'}")
