"""Groups through a run: its record, `calibrate` on groups, per image, and what evaluation says."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tfgad import data, evaluation
from tfgad.cli.main import app
from tfgad.errors import UsageError
from tfgad.export.saved_model import metadata_of_run
from tfgad.training import calibrate, load_run, train
from tfgad.training.run_folder import CONFIG
from tfgad.training.split_file import SPLIT

SMALL = {"width": 4, "latent_dim": 4, "batch_size": 4, "steps": 2, "stride": 24}
OPTIONS = "tile=24&group=folder"


def save(path, seed, height=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 160, (height, 48), np.uint8)
    Image.fromarray(pixels).save(path)


def add_roll(folder, roll, images=2):
    for i in range(images):
        save(folder / "good" / roll / f"{i}.png", 1000 * int(roll.removeprefix("roll")) + i)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Six rolls of two images of four tiles, a defective image, and a run on them."""
    folder = tmp_path_factory.mktemp("groups")
    for i in range(6):
        add_roll(folder / "parts", f"roll{i}")
    save(folder / "parts" / "dent" / "1.png", 77)
    train("ganomaly", f"folder:{folder / 'parts'}?{OPTIONS}", folder / "run", settings=SMALL)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return load_run(shutil.copytree(trained / "run", tmp_path / "run"))


def load(folder, options=OPTIONS):
    return data.load(f"folder:{folder}?{options}")


def test_the_record_of_a_run_counts_groups(trained, run):
    record = json.loads((run.folder / CONFIG).read_text())["calibration"]
    images = load(trained / "parts")
    assert record["images"] == images.calibration_size
    assert record["groups"] == len(set(images.calibration_origins.groups))
    assert (record["unit"], record["group"], record["per"]) == ("tile", "group", "tile")
    low, high = record["rate_interval"]
    assert 0 <= low < high <= 1
    assert record["groups_needed"] > record["groups"]
    assert record["groups_needed_for"] == 0.02
    assert metadata_of_run(run)["calibration"]["rate_interval"] == [low, high]


def test_split_and_resume_keep_whole_groups(trained, run):
    split = json.loads((run.folder / SPLIT).read_text())
    rolls = [{name.split("/")[1] for name in split[part]} for part in ("train", "calibration")]
    assert not rolls[0] & rolls[1]
    spec = f"folder:{trained / 'parts'}?{OPTIONS}"
    again = train("ganomaly", spec, run.folder, settings=SMALL, resume=True)
    assert again.config["calibration"] == run.config["calibration"]
    other = spec.replace("group=folder", "group=image")
    with pytest.raises(UsageError, match="was started with data"):
        train("ganomaly", other, run.folder, settings=SMALL, resume=True)


def test_images_of_a_roll_that_was_trained_on_do_not_calibrate(trained, run, tmp_path, caplog):
    parts = shutil.copytree(trained / "parts", tmp_path / "parts")
    split = json.loads((run.folder / SPLIT).read_text())
    roll = next(iter(split["train"])).split("/")[1]
    save(parts / "good" / roll / "new.png", 555)
    add_roll(parts, "roll8")
    record = calibrate(run, load(parts), 0.1)
    assert "others of their group: 1 (" in caplog.text
    used = {name.split("/")[1] for name in split["calibration"]}
    expected = load(parts).files
    tested = {name.split("/")[1] for name in expected.test if "good/" in name}
    assert record["groups"] == len(used | ({"roll8"} - tested))
    assert f"{roll}/new.png" in caplog.text


def test_a_folder_of_seen_groups_alone_is_refused(trained, run, tmp_path):
    split = json.loads((run.folder / SPLIT).read_text())
    for name in split["train"]:
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained / "parts" / name, tmp_path / "new" / name)
        save((tmp_path / "new" / name).parent / "other.png", 600)
    with pytest.raises(UsageError, match="has no group of which"):
        calibrate(run, load(tmp_path / "new"), 0.1)


def test_per_image_counts_images_and_is_kept(trained, run):
    images = load(trained / "parts")
    per_tile = calibrate(run, images, 0.2)["threshold"]
    result = CliRunner().invoke(
        app,
        ["calibrate", str(run.folder), "--per", "image", "--false-positive-rate", "0.2"],
    )
    assert result.exit_code == 0, result.output
    assert "0.2 per image of tiles of 24 x 24 (" in result.output
    count = len(images.files.calibration)
    groups = len(set(images.calibration_origins.groups))
    assert f"the {count} images come from {groups} groups: on new groups" in result.output
    again = load_run(run.folder)
    record = again.calibration
    assert (record["per"], record["unit"], record["images"]) == ("image", "image", count)
    assert record["threshold"] >= per_tile

    figures = evaluation.evaluate(again, images, run.folder / "report")
    assert figures["threshold_per"] == "image"
    good = sum(name.startswith("good/") for name in images.files.test)
    assert figures["false_alarms"]["image"]["normal"] == good
    assert figures["false_alarms"]["tile"]["normal"] == 4 * good
    rates = [figures["false_alarms"][unit]["false_positive_rate"] for unit in ("tile", "image")]
    assert 0 <= rates[0] <= rates[1] <= 1


def test_a_run_from_before_loads_and_shows_its_threshold(run, trained):
    config = json.loads((run.folder / CONFIG).read_text())
    kept = ("threshold", "false_positive_rate", "method", "images", "data")
    config["calibration"] = {key: config["calibration"][key] for key in kept}
    (run.folder / CONFIG).write_text(json.dumps(config))
    old = load_run(run.folder)
    assert old.calibration["per"] == "tile"
    assert "calibration" not in metadata_of_run(old)
    result = CliRunner().invoke(app, ["info", str(run.folder)])
    assert result.exit_code == 0, result.output
    assert "0.01 per tile of 24 x 24" in result.output
    assert calibrate(old, load(trained / "parts"), 0.01)["groups"] >= 2
