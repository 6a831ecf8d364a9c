import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgad import data, recipes
from tfgad.errors import UsageError
from tfgad.training import callbacks, runs

DATA = "digits:8?size=24"
FANOGAN = {
    "width": 4,
    "latent_dim": 4,
    "batch_size": 4,
    "d_steps": 2,
    "steps": "5+4",
    "stride": 24,
}
GANOMALY = {"width": 4, "latent_dim": 4, "batch_size": 4, "steps": 9, "stride": 24}


@pytest.fixture(scope="module", autouse=True)
def _frequent_checkpoints():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "CHECKPOINT_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted; nobody changes it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return runs.train("fanogan", DATA, folder, settings=FANOGAN)


@pytest.fixture
def copied(whole, tmp_path):
    """The folder of a copy of that run."""
    return shutil.copytree(whole.folder, tmp_path / "copied")


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) == self.step:
            raise KeyboardInterrupt


def state(model):
    """All that training, adapting and calibrating changes, by a readable name."""
    variables = [*model.variables]
    for optimizer in model.optimizers.values():
        variables += optimizer.variables
    return [(variable.path, variable.numpy()) for variable in variables]


def assert_same_state(ours, theirs):
    assert len(ours.variables) == len(theirs.variables)
    for (path, a), (_, b) in zip(state(ours), state(theirs), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(whole, tmp_path):
    folder = tmp_path / "run"
    seen = []
    # Checkpoints hold steps 2, 4, 5 (a stage ends), 6 and 8: steps 3 and 7 are done again.
    for step, resume in ((3, False), (7, True)):

        def interrupted(stage, remaining_steps, step=step):
            seen.append((stage, remaining_steps))
            return [Interrupt(step)]

        with pytest.raises(KeyboardInterrupt):
            runs.train(
                "fanogan", DATA, folder, settings=FANOGAN, resume=resume, callbacks=interrupted
            )
        with pytest.raises(UsageError, match="has not ended"):
            runs.load_run(folder)
    run = runs.train("fanogan", DATA, folder, settings=FANOGAN, resume=True)

    assert seen == [("gan", 5), ("gan", 3), ("encoder", 4)]
    assert int(run.model.step) == 9
    assert_same_state(run.model, whole.model)
    timeless = [
        {k: v for k, v in r.config.items() if k != "training_seconds"} for r in (run, whole)
    ]
    assert timeless[0] == timeless[1]


KILLED = f"""
import os, signal, sys, keras
from tfgad import callbacks, runs
callbacks.CHECKPOINT_STEPS = 2

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) == 7:
            os.kill(os.getpid(), signal.SIGKILL)

runs.train("ganomaly", {DATA!r}, sys.argv[1], settings={GANOMALY!r}, callbacks=lambda *_: [Kill()])
"""


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path):
    folder = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    remaining_steps = []
    runs.train(
        "ganomaly",
        DATA,
        folder,
        settings=GANOMALY,
        resume=True,
        callbacks=lambda stage, steps: remaining_steps.append((stage, steps)) or [],
    )
    assert remaining_steps == [("train", 3)]
    assert int(runs.load_run(folder).model.step) == 9


def test_a_run_holds_all_that_was_given_and_made(whole):
    config = json.loads((whole.folder / runs.CONFIG).read_text())
    assert config == whole.config
    assert config["settings"].items() >= FANOGAN.items()
    assert config["image_shape"] == [24, 24, 1]
    assert config["versions"].keys() >= {"tfgad", "tensorflow", "keras", "python"}
    assert config["calibration"]["threshold"] == pytest.approx(
        float(whole.model.calibration.threshold)
    )
    names = {path.name for path in whole.folder.iterdir()}
    assert names == {runs.CONFIG, runs.MODEL, "logs", "previews"}
    pictures = {path.name for path in (whole.folder / "previews").iterdir()}
    assert {"samples-000005.png", "reconstructions-000009.png"} <= pictures
    assert any((whole.folder / "logs").iterdir())


def test_a_loaded_run_judges_as_the_trained_one(whole):
    images = np.stack(list(data.load(DATA).calibration.take(3).as_numpy_iterator()))
    loaded = runs.load_run(whole.folder)
    assert loaded.config == whole.config
    assert_same_state(loaded.model, whole.model)
    np.testing.assert_array_equal(
        loaded.model.anomaly(images)["score"], whole.model.anomaly(images)["score"]
    )


def test_a_finished_run_is_not_trained_again(whole, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    with pytest.raises(UsageError, match=r"holds a run already.*--overwrite"):
        runs.train("fanogan", DATA, copied, settings=FANOGAN)

    def refuse(stage, steps):
        raise AssertionError("trained")

    resumed = runs.train("fanogan", DATA, copied, settings=FANOGAN, resume=True, callbacks=refuse)
    assert_same_state(resumed.model, whole.model)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "data|seed"),
        ({"method": "wgan_gp", "settings": {}}, "method"),
        ({"spec": "digits:3?size=24"}, "data"),
        ({"settings": {**FANOGAN, "kappa": 2}}, "kappa"),
    ],
)
def test_a_run_is_resumed_with_its_own_arguments_alone(copied, change, key):
    arguments = {"method": "fanogan", "spec": DATA, "settings": FANOGAN, **change}
    with pytest.raises(UsageError, match=f"was begun with ({key}) "):
        runs.train(out=copied, resume=True, **arguments)


def test_a_run_from_before_depths_is_resumed_with_files_of_8_or_16_bits(copied):
    config = json.loads((copied / runs.CONFIG).read_text())
    assert config.pop("depth") == 8
    (copied / runs.CONFIG).write_text(json.dumps(config))
    assert runs.state_of(copied, {**config, "depth": 8}, True, False) == runs.FINISHED
    assert runs.state_of(copied, {**config, "depth": 16}, True, False) == runs.FINISHED
    with pytest.raises(UsageError, match="was begun with depth 16, not 12"):
        runs.state_of(copied, {**config, "depth": 12}, True, False)


@pytest.mark.parametrize("missing", recipes.COMMON)
def test_a_run_from_before_a_common_setting_is_resumed_with_its_default(copied, whole, missing):
    config = json.loads((copied / runs.CONFIG).read_text())
    del config["settings"][missing]
    (copied / runs.CONFIG).write_text(json.dumps(config))
    resumed = runs.train("fanogan", DATA, copied, settings=FANOGAN, resume=True)
    assert_same_state(resumed.model, whole.model)
    other = {"precision": "bfloat16", "jitter": 0.5}[missing]
    default = re.escape(repr(recipes.COMMON[missing]))
    with pytest.raises(UsageError, match=f"was begun with {missing} {default}, not {other!r}"):
        runs.train("fanogan", DATA, copied, settings={**FANOGAN, missing: other}, resume=True)


@pytest.mark.parametrize(
    ("part", "purpose"), [("train", "to train on"), ("calibration", "for a threshold")]
)
def test_too_few_good_images_are_refused(tmp_path, part, purpose):
    spec = {"train": 4, "calibration": 4, "test": 4, part: 1}
    spec = "weave:twill?size=64&" + "&".join(f"{key}={value}" for key, value in spec.items())
    with pytest.raises(UsageError, match=rf"too few good images \(1\) {purpose}"):
        runs.train("ganomaly", spec, tmp_path / "run", settings=GANOMALY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="something else than a run"):
        runs.train("ganomaly", DATA, tmp_path, settings=GANOMALY, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("again", [{"overwrite": True}, {"resume": True}, {}])
def test_a_configuration_of_something_else_makes_no_run(tmp_path, again):
    (tmp_path / runs.CONFIG).write_text('{"model_type": "bert"}')
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="something else than a run"):
        runs.train("ganomaly", DATA, tmp_path, settings=GANOMALY, **again)
    with pytest.raises(UsageError, match="is not a run"):
        runs.load_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {runs.CONFIG, "thesis.tex"}


def test_a_run_with_something_else_beside_it_is_not_replaced(copied):
    (copied / "thesis.tex").write_text("years of work")
    before = sorted(copied.rglob("*"))
    with pytest.raises(UsageError, match=r"holds thesis\.tex beside the run"):
        runs.train("ganomaly", DATA, copied, settings=GANOMALY, overwrite=True)
    assert sorted(copied.rglob("*")) == before


def test_only_what_a_run_consists_of_is_removed(copied):
    left_by_a_kill = (f".{runs.CONFIG}.x7", f".{runs.MODEL}.partial.keras", "metrics.json")
    for name in (*left_by_a_kill, f".partial.{runs.CHECKPOINT}"):
        (copied / name).touch()
    runs.check_removable(copied)
    (copied / ".config").touch()  # as if it came between the check and the removal
    runs.remove(copied)
    assert [path.name for path in copied.iterdir()] == [".config"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_may_take_the_folder_it_is_started_in(tmp_path, monkeypatch, overwrite, copied):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(copied if overwrite else empty)
    run = runs.train("ganomaly", DATA, ".", settings={**GANOMALY, "steps": 1}, overwrite=overwrite)
    assert int(run.model.step) == 1


@pytest.mark.parametrize(
    "wrong", [{"settings": {"steps": "0"}}, {"settings": {"stride": 5}}, {"spec": "digits:x"}]
)
def test_a_wrong_argument_leaves_nothing_behind_and_an_old_run_alone(copied, tmp_path, wrong):
    for folder in (tmp_path / "new", copied):
        before = sorted(folder.rglob("*"))
        with pytest.raises(UsageError):
            runs.train(out=folder, overwrite=True, **{"method": "ganomaly", "spec": DATA, **wrong})
        assert sorted(folder.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_diverged_training_stops_and_leaves_an_unfinished_run_to_overwrite(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match=r"became (nan|inf).*lower learning_rate"):
        runs.train("ganomaly", DATA, folder, settings={**GANOMALY, "learning_rate": 1e30})
    with pytest.raises(UsageError, match="has not ended"):
        runs.load_run(folder)
    run = runs.train("ganomaly", DATA, folder, settings={**GANOMALY, "steps": 1}, overwrite=True)
    assert int(run.model.step) == 1


def test_calibrating_again_changes_threshold_and_configuration_together(copied):
    run = runs.load_run(copied)
    before = run.config["calibration"]
    metadata = runs.calibrate(run, data.load(DATA), false_positive_rate=0.2)
    assert metadata["false_positive_rate"] == 0.2
    assert metadata["threshold"] < before["threshold"]
    again = runs.load_run(copied)
    assert again.config["calibration"] == metadata
    assert float(again.model.calibration.threshold) == pytest.approx(metadata["threshold"])


def test_the_threshold_is_the_one_the_model_judges_by(copied, monkeypatch):
    run = runs.load_run(copied)
    before = run.calibration

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.calibrate(run, data.load(DATA), false_positive_rate=0.2)
    again = runs.load_run(copied)
    assert again.config["calibration"]["false_positive_rate"] == 0.2
    assert again.calibration["threshold"] == before["threshold"]
    assert again.calibration["false_positive_rate"] == 0.01


def test_a_run_names_its_folder_of_images_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.from_anywhere("folder:a b/c?size=32") == f"folder:{tmp_path}/a b/c?size=32"
    assert runs.from_anywhere("folder:~") == f"folder:{Path.home().resolve()}"
    assert runs.from_anywhere("weave:twill?size=64") == "weave:twill?size=64"


def test_images_of_another_size_do_not_fit_a_run_of_resized_ones(whole):
    with pytest.raises(UsageError, match="size=24 and channels=1"):
        runs.check_shape(whole, data.load("digits:8?size=32"))


def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_files(copied, whole, full_disk):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    run = runs.Run(copied, whole.config, whole.model)
    checkpoint = callbacks.Checkpoint(copied / runs.CHECKPOINT)
    checkpoint.set_model(whole.model)
    log = callbacks.Log(copied, data.load(DATA))
    log.set_model(whole.model)
    for write in (
        run.save,
        lambda: runs.save_model(whole.model, copied / runs.MODEL),
        checkpoint.on_train_end,
        log.on_train_end,
    ):
        with pytest.raises(UsageError, match=r"\(No space left on device\); free some") as error:
            write()
        assert str(copied) in str(error.value)
        assert "\n" not in str(error.value)
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path.parent.name != "logs"} == {
        path: content for path, content in before.items() if path.parent.name != "logs"
    }


def test_a_log_that_tensorflow_cannot_write_is_said_in_one_line(whole, monkeypatch, tmp_path):
    log = callbacks.Log(tmp_path, data.load(DATA))

    def full():
        raise tf.errors.ResourceExhaustedError(None, None, "a.tfevents; No space left on device")

    monkeypatch.setattr(log, "writer", SimpleNamespace(flush=full))
    monkeypatch.setattr(log, "_draw", lambda step: None)
    log.set_model(whole.model)
    with pytest.raises(UsageError, match=r"logs': cannot be written \(No space left on device\)"):
        log.on_train_end()


@pytest.mark.parametrize(
    ("steps", "stages", "expected"),
    [
        ("600", ("train",), {"train": 600}),
        ("600+1500", ("gan", "encoder"), {"gan": 600, "encoder": 1500}),
        ("600", ("gan", "encoder"), None),
        ("600+1500", ("train",), None),
        ("0", ("train",), None),
        ("many", ("train",), None),
        ("600+x", ("train",), None),
        ("-5", ("train",), None),
        ("", ("train",), None),
    ],
)
def test_steps_of_each_stage(steps, stages, expected):
    if expected is not None:
        assert runs.stage_steps(steps, stages) == expected
        return
    with pytest.raises(UsageError, match="a positive number for each stage"):
        runs.stage_steps(steps, stages)


def test_what_is_no_run_is_not_loaded(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        runs.load_run(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is not a run"):
        runs.load_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_model_is_not_loaded(tmp_path, content):
    path = tmp_path / "model.keras"
    with pytest.raises(UsageError, match="is not there"):
        runs.load_model(path)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no model that can be read") as error:
        runs.load_model(path)
    assert "\n" not in str(error.value)


class Unregistered(keras.layers.Layer):
    """What a loaded model does not know."""


@pytest.mark.parametrize(
    ("layer", "answer"),
    [(keras.layers.Flatten, "is a Sequential, no detector"), (Unregistered, "can be read")],
)
def test_a_model_of_another_program_is_not_loaded(tmp_path, monkeypatch, layer, answer):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), layer()]).save(path)
    monkeypatch.setattr(f"{__name__}.Unregistered", None)
    with pytest.raises(UsageError, match=answer):
        runs.load_model(path)
