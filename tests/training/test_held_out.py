"""No image that a run was trained on sets its threshold or tests it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tfgad import data, evaluation, files
from tfgad.errors import UsageError
from tfgad.training import calibrate, held_out, load_run, train
from tfgad.training.run_folder import CONFIG, MODEL
from tfgad.training.split_file import SPLIT

pytestmark = pytest.mark.slow  # for the models that it trains

GANOMALY = {"width": 4, "latent_dim": 4, "batch_size": 4, "steps": 2, "stride": 24}


def save(folder, seed, size=24):
    """Writes a noisy image that no other seed gives."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 160, (size, size), np.uint8)
    Image.fromarray(pixels).save(folder / f"{seed}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with twenty good images and two defective ones, and a run on it beside."""
    folder = tmp_path_factory.mktemp("trained")
    for i in range(20):
        save(folder / "parts" / "good", i)
    for i in range(100, 102):
        save(folder / "parts" / "dent", i)
    train("ganomaly", f"folder:{folder / 'parts'}?size=24", folder / "run", settings=GANOMALY)
    return folder


@pytest.fixture
def parts(trained, tmp_path):
    """A copy of the images."""
    return shutil.copytree(trained / "parts", tmp_path / "parts")


@pytest.fixture
def run(trained, parts, tmp_path):
    """A copy of the run, as if it had been trained on the copy of the images."""
    folder = shutil.copytree(trained / "run", tmp_path / "run")
    config = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(config.replace(str(trained / "parts"), str(parts)))
    return load_run(folder)


def load(folder, **options):
    return data.load(f"folder:{folder}?size=24", **options)


def test_a_run_keeps_the_names_of_its_files(run, parts):
    split = json.loads((run.folder / SPLIT).read_text())
    images = load(parts)
    assert split == {"train": images.files.train, "calibration": images.files.calibration}
    assert len(split["train"]) == run.config["images"]["train"]


def test_a_run_is_calibrated_by_what_it_has_not_seen(run, parts, tmp_path, caplog):
    own = run.config["calibration"]["images"]
    before = float(run.model.calibration.threshold)
    assert calibrate(run, load(parts), 0.01)["images"] == own
    assert float(run.model.calibration.threshold) == pytest.approx(before, abs=1e-5)
    # Another seed splits otherwise; the run's split holds.
    assert calibrate(run, load(parts, seed=5), 0.01)["images"] == own

    trained = json.loads((run.folder / SPLIT).read_text())["train"]
    new = tmp_path / "new"
    for i in range(200, 207):
        save(new, i)
    assert calibrate(run, load(new), 0.01)["images"] == 7
    for i, name in enumerate(list(trained)[:3]):
        shutil.copy(parts / name, new / f"copy{i}.png")
    assert calibrate(run, load(new), 0.01)["images"] == 7
    assert "was trained on them" in caplog.text
    assert "3 (copy0.png, copy1.png, copy2.png)" in caplog.text

    for i in range(300, 305):
        save(parts / "good", i)
    grown = load(parts)
    added = len([n for n in grown.files.train | grown.files.calibration if "/30" in n])
    assert calibrate(run, grown, 0.01)["images"] == own + added


def test_the_test_holds_no_image_that_the_run_has_seen(run, parts, tmp_path, caplog):
    other = tmp_path / "other"
    for i in range(400, 412):
        save(other / "train" / "good", i)
    for i in range(500, 503):
        save(other / "test" / "good", i)
    shutil.copytree(parts / "dent", other / "test" / "dent")
    seen = next(iter(json.loads((run.folder / SPLIT).read_text())["train"]))
    shutil.copy(parts / seen, other / "test" / "good" / "renamed.png")
    images = load(other)
    assert images.test_size == 6
    assert held_out.for_test(run, images).test_size == 5
    assert "was trained on or calibrated by them: 1 (test/good/renamed.png)" in caplog.text
    figures = evaluation.evaluate(run, images, tmp_path / "out")
    assert figures["unit"] == "image"
    predictions = evaluation.predict_test_set(run.model, held_out.for_test(run, images))
    assert len(predictions.names) == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda good: save(good, 77), r"1 \(good/77.png\) added"),
        (lambda good: (good / "3.png").unlink(), r"1 \(good/3.png\) removed"),
        (lambda good: save(good, 3, size=30), r"1 \(good/3.png\) changed"),
    ],
)
def test_a_run_is_not_resumed_with_other_images(run, parts, change, reason):
    change(parts / "good")
    with pytest.raises(UsageError, match=f"was started with other images: {reason}"):
        train("ganomaly", f"folder:{parts}?size=24", run.folder, settings=GANOMALY, resume=True)


@pytest.mark.parametrize("damage", ["", '{"train": {}}', '{"train": {"a": 1}, "calibration": {}}'])
def test_a_damaged_file_of_names_does_not_end_the_protection(run, parts, damage):
    (run.folder / SPLIT).write_text(damage)
    images, spec = load(parts), f"folder:{parts}?size=24"
    for use in (
        lambda: calibrate(run, images, 0.01),
        lambda: evaluation.evaluate(run, images),
        lambda: train("ganomaly", spec, run.folder, settings=GANOMALY, resume=True),
    ):
        with pytest.raises(UsageError, match=r"has a split\.json that cannot be read"):
            use()


def test_a_test_of_seen_images_alone_is_refused(run, parts, tmp_path):
    other = tmp_path / "other"
    for i in range(400, 404):
        save(other / "train" / "good", i)
    (other / "test" / "good").mkdir(parents=True)
    seen = next(iter(json.loads((run.folder / SPLIT).read_text())["train"]))
    shutil.copy(parts / seen, other / "test" / "good" / "renamed.png")
    with pytest.raises(UsageError, match=r"holds only test images that .* was trained on"):
        evaluation.evaluate(run, load(other))


def test_a_training_killed_before_its_configuration_starts_anew(parts, tmp_path, monkeypatch):
    def kill(path, value):
        written(path, value)
        if path.name == SPLIT:
            (path.parent / ".config.json.x1y2z3").touch()
            raise KeyboardInterrupt

    written, out = files.write_json, tmp_path / "out"
    arguments = ("ganomaly", f"folder:{parts}?size=24", out)
    with monkeypatch.context() as patched:
        patched.setattr(files, "write_json", kill)
        with pytest.raises(KeyboardInterrupt):
            train(*arguments, settings=GANOMALY)
    assert not (out / CONFIG).exists()
    train(*arguments, settings=GANOMALY, resume=True)
    assert not list(out.glob(".*"))
    assert (out / MODEL).is_file()


def test_a_run_from_before_names_were_kept_is_calibrated_with_a_warning(run, parts, caplog):
    (run.folder / SPLIT).unlink()
    calibrate(run, load(parts), 0.01)
    assert "comes from an older version" in caplog.text
    spec = f"folder:{parts}?size=24"
    again = train("ganomaly", spec, run.folder, settings=GANOMALY, resume=True)
    assert again.folder == run.folder
    (run.folder / MODEL).unlink()
    with pytest.raises(UsageError, match=r"has no split\.json.*--overwrite"):
        train("ganomaly", f"folder:{parts}?size=24", run.folder, settings=GANOMALY, resume=True)


class RunOf:
    """What `held_out` needs to know of a run."""

    def __init__(self, spec, folder):
        self.config, self.folder = {"data": spec}, folder


@pytest.mark.parametrize(
    ("own", "given", "all_good"),
    [
        ("digits:8", "digits:8?size=24", False),
        ("digits:8?seed=0", "digits:8", False),
        ("digits:8", "digits:3", True),
        ("digits:7+8", "digits:7+3", None),
        ("digits:8", "digits:8?seed=1", None),
        ("digits:8", "digits:8?calibration=0.5", None),
        ("weave:twill?size=64", "weave:twill?size=64&train=3&calibration=2&test=2", False),
        ("weave:twill", "weave:twill?size=64&train=3&calibration=2&test=2&seed=1", True),
        ("weave:twill", "weave:denim?size=64&train=3&calibration=2&test=2", True),
    ],
)
def test_sets_that_are_no_files_are_known_by_their_specs(tmp_path, own, given, all_good):
    run, images = RunOf(own, tmp_path), data.load(given)
    if all_good is None:
        with pytest.raises(UsageError, match="trained on"):
            held_out.for_calibration(run, images)
        return
    found = held_out.for_calibration(run, images)
    expected = images.calibration_size + (images.train_size if all_good else 0)
    assert found.calibration_size == expected
    assert sum(1 for _ in found.calibration) == expected
