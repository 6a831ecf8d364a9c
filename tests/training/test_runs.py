import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad import data, methods
from tfgad.core.settings import Common
from tfgad.errors import UsageError
from tfgad.evaluation import evaluate
from tfgad.training import callbacks, run_config
from tfgad.training import run as run_module
from tfgad.training.lock import LOCK, locked
from tfgad.training.loop import train
from tfgad.training.run import Run, calibrate, check_shape, load_run
from tfgad.training.run_folder import CHECKPOINT, CONFIG, MODEL, RESULTS, RunFolder, RunState
from tfgad.training.saving import save_model
from tfgad.training.stages import stage_steps

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
    return train("fanogan", DATA, folder, settings=FANOGAN)


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
    for optimizer in model.optimizer_by_role.values():
        variables += optimizer.variables
    return [(variable.path, variable.numpy()) for variable in variables]


def assert_same_state(ours, theirs):
    assert len(ours.variables) == len(theirs.variables)
    for (path, a), (_, b) in zip(state(ours), state(theirs), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(whole, tmp_path):
    folder = tmp_path / "run"
    seen = []
    # Ctrl-C saves the step: none is done again.
    for step, resume in ((3, False), (7, True)):

        def interrupted(stage, remaining_steps, step=step):
            seen.append((stage, remaining_steps))
            assert (folder / LOCK).exists()
            return [Interrupt(step)]

        with pytest.raises(KeyboardInterrupt):
            train("fanogan", DATA, folder, settings=FANOGAN, resume=resume, callbacks=interrupted)
        with pytest.raises(UsageError, match="is not finished"):
            load_run(folder)
    run = train("fanogan", DATA, folder, settings=FANOGAN, resume=True)

    assert seen == [("gan", 5), ("gan", 2), ("encoder", 4)]
    assert int(run.model.step) == 9
    assert_same_state(run.model, whole.model)
    timeless = [
        {k: v for k, v in r.config.items() if k != "training_seconds"} for r in (run, whole)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.slow
def test_a_finished_run_goes_on_by_more_steps(whole, tmp_path):
    folder = tmp_path / "run"
    train("fanogan", DATA, folder, settings=FANOGAN | {"steps": "5+2"})
    for fewer in ("4+4", "5+1"):
        with pytest.raises(UsageError, match="was started with steps"):
            train("fanogan", DATA, folder, settings=FANOGAN | {"steps": fewer}, resume=True)
    assert load_run(folder)
    is_locked = []
    run = train(
        "fanogan",
        DATA,
        folder,
        settings=FANOGAN,
        resume=True,
        callbacks=lambda *_: is_locked.append((folder / LOCK).exists()) or [],
    )
    assert is_locked == [True]
    assert_same_state(run.model, whole.model)
    assert tfgad.load_model(folder).steps_done == 9
    assert not (folder / CHECKPOINT).exists()

    calibrate(run, tfgad.load(DATA), 0.2)
    (folder / RESULTS[0]).write_text("{}")
    run = train("fanogan", DATA, folder, settings=FANOGAN | {"steps": "5+5"}, resume=True)
    assert run.calibration["false_positive_rate"] == 0.2
    assert not (folder / RESULTS[0]).exists()


LOCKED = """
import sys, time
from pathlib import Path
from tfgad.training.lock import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_training_into_a_folder_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / "new" / "run"
    command = [sys.executable, "-c", LOCKED, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match="is being trained or written by another process"):
            train("ganomaly", DATA, folder, settings=GANOMALY, overwrite=True)
        first.kill()
    assert [path.name for path in folder.iterdir()] == [LOCK]
    with locked(folder):
        assert RunFolder(folder).state({}, None, resume=False, overwrite=False, upgrade=dict) == 0
    assert not any(folder.iterdir())


def test_a_lock_leaves_nothing_behind(tmp_path, monkeypatch, caplog):
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
        with pytest.raises(UsageError, match="another process"):
            locked(tmp_path / "a" / "b").__enter__()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]
    (tmp_path / "file").touch()
    with locked(tmp_path / "file"):  # `train` says what is wrong with it
        pass
    monkeypatch.setattr("tfgad.locks.fcntl", None)
    with locked(tmp_path / "a"), locked(tmp_path / "a"):
        assert "a is not locked (this system has no file locks)" in caplog.text
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_lock_is_waited_for_with_patience(tmp_path):
    held = locked(tmp_path)
    held.__enter__()
    release = threading.Timer(0.3, held.__exit__, (None, None, None))
    release.start()
    with locked(tmp_path, patience=30):
        assert release.finished.is_set()


KILLED = f"""
import os, signal, sys, keras
from tfgad.training import callbacks, train
callbacks.CHECKPOINT_STEPS = 2

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.step) == 7:
            os.kill(os.getpid(), signal.SIGKILL)

train("ganomaly", {DATA!r}, sys.argv[1], settings={GANOMALY!r}, callbacks=lambda *_: [Kill()])
"""


@pytest.mark.integration
def test_a_killed_run_continues_from_its_last_checkpoint(tmp_path):
    folder = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    remaining_steps = []
    train(
        "ganomaly",
        DATA,
        folder,
        settings=GANOMALY,
        resume=True,
        callbacks=lambda stage, steps: remaining_steps.append((stage, steps)) or [],
    )
    assert remaining_steps == [("train", 3)]
    assert int(load_run(folder).model.step) == 9


def test_a_run_holds_all_that_was_given_and_made(whole):
    config = json.loads((whole.folder / CONFIG).read_text())
    assert config == whole.config
    assert config["settings"].items() >= FANOGAN.items()
    assert config["image_shape"] == [24, 24, 1]
    assert config["versions"].keys() >= {"tfgad", "tensorflow", "keras", "python"}
    assert config["calibration"]["threshold"] == pytest.approx(
        float(whole.model.calibration.threshold)
    )
    names = {path.name for path in whole.folder.iterdir()}
    assert names == {CONFIG, MODEL, "logs", "previews"}
    pictures = {path.name for path in (whole.folder / "previews").iterdir()}
    assert {"samples-000005.png", "reconstructions-000009.png"} <= pictures
    assert any((whole.folder / "logs").iterdir())


def test_a_loaded_run_scores_as_the_trained_one(whole):
    images = np.stack(list(data.load(DATA).calibration.take(3).as_numpy_iterator()))
    loaded = load_run(whole.folder)
    assert loaded.config == whole.config
    assert_same_state(loaded.model, whole.model)
    np.testing.assert_array_equal(
        loaded.model.anomaly(images)["score"], whole.model.anomaly(images)["score"]
    )


def test_a_finished_run_is_not_trained_again(whole, copied):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    with pytest.raises(UsageError, match=r"holds a run already.*--overwrite"):
        train("fanogan", DATA, copied, settings=FANOGAN)

    def refuse(stage, steps):
        raise AssertionError("trained")

    resumed = train("fanogan", DATA, copied, settings=FANOGAN, resume=True, callbacks=refuse)
    assert_same_state(resumed.model, whole.model)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "data|seed"),
        ({"method": "wgan_gp", "settings": {}}, "method"),
        ({"spec": "digits:3?size=24"}, "data"),
        ({"settings": {**FANOGAN, "kappa": 2, "latent_dim": 7}}, "latent_dim"),
    ],
)
def test_a_run_is_resumed_with_its_own_arguments_alone(copied, change, key):
    arguments = {"method": "fanogan", "spec": DATA, "settings": FANOGAN, **change}
    with pytest.raises(UsageError, match=f"was started with ({key}) ") as refused:
        train(out=copied, resume=True, **arguments)
    if key == "latent_dim":
        assert re.search(r"--set latent_dim=\d+ .*--set kappa=\S+$", refused.value.hint)
    elif key != "method":
        assert refused.value.hint == "resume it with the same arguments"


def test_a_run_from_before_depths_is_resumed_with_files_of_8_or_16_bits(copied):
    config = json.loads((copied / CONFIG).read_text())
    assert config.pop("depth") == 8
    (copied / CONFIG).write_text(json.dumps(config))

    def state(depth):
        return RunFolder(copied).state(
            {**config, "depth": depth},
            None,
            resume=True,
            overwrite=False,
            upgrade=lambda old: run_config.upgraded(old, old["settings"], depth=depth),
        )

    assert state(8) == RunState.FINISHED
    assert state(16) == RunState.FINISHED
    with pytest.raises(UsageError, match="was started with depth 16, not 12"):
        state(12)


@pytest.mark.parametrize("missing", ["precision", "jitter", "cue_weights"])
def test_a_run_from_before_a_common_setting_is_resumed_with_its_default(copied, whole, missing):
    config = json.loads((copied / CONFIG).read_text())
    del config["settings"][missing]
    (copied / CONFIG).write_text(json.dumps(config))
    resumed = train("fanogan", DATA, copied, settings=FANOGAN, resume=True)
    assert_same_state(resumed.model, whole.model)
    other = {"precision": "bfloat16", "jitter": 0.5, "cue_weights": "tone:0"}[missing]
    default = re.escape(repr(getattr(Common(), missing)))
    with pytest.raises(UsageError, match=f"was started with {missing} {default}, not {other!r}"):
        train("fanogan", DATA, copied, settings={**FANOGAN, missing: other}, resume=True)


@pytest.mark.parametrize("native", ["float32", "bfloat16"])
def test_automatic_precision_of_a_resumed_run_is_that_which_it_began_with(
    copied, whole, native, monkeypatch, caplog
):
    monkeypatch.setattr(methods, "native_precision", lambda: native)
    settings = {**FANOGAN, "precision": "auto"}
    with caplog.at_level(logging.INFO, "tfgad"):
        resumed = train("fanogan", DATA, copied, settings=settings, resume=True)
    assert "precision float32: that of the run" in caplog.messages
    assert_same_state(resumed.model, whole.model)


def test_automatic_precision_stands_in_the_configuration(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(methods, "native_precision", lambda: "float32")
    settings = {**GANOMALY, "precision": "auto"}
    with caplog.at_level(logging.INFO, "tfgad"):
        run = train("ganomaly", DATA, tmp_path / "run", settings=settings)
    assert "precision float32: the best of this processor" in caplog.messages
    assert run.config["settings"]["precision"] == "float32"
    assert json.loads((run.folder / CONFIG).read_text())["settings"]["precision"] == "float32"


@pytest.mark.parametrize(
    ("part", "purpose"), [("train", "to train on"), ("calibration", "for a threshold")]
)
def test_too_few_good_images_are_refused(tmp_path, part, purpose):
    spec = {"train": 4, "calibration": 4, "test": 4, part: 1}
    spec = "weave:twill?size=64&" + "&".join(f"{key}={value}" for key, value in spec.items())
    with pytest.raises(UsageError, match=rf"too few good images \(1\) {purpose}"):
        train("ganomaly", spec, tmp_path / "run", settings=GANOMALY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="something else than a run"):
        train("ganomaly", DATA, tmp_path, settings=GANOMALY, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("again", [{"overwrite": True}, {"resume": True}, {}])
def test_a_configuration_of_something_else_makes_no_run(tmp_path, again):
    (tmp_path / CONFIG).write_text('{"model_type": "bert"}')
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="something else than a run"):
        train("ganomaly", DATA, tmp_path, settings=GANOMALY, **again)
    with pytest.raises(UsageError, match="is not a run"):
        load_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, "thesis.tex"}


def test_a_run_with_something_else_beside_it_is_not_replaced(copied):
    (copied / "thesis.tex").write_text("years of work")
    before = sorted(copied.rglob("*"))
    with pytest.raises(UsageError, match=r"holds thesis\.tex beside the run"):
        train("ganomaly", DATA, copied, settings=GANOMALY, overwrite=True)
    assert sorted(copied.rglob("*")) == before


def test_only_what_a_run_consists_of_is_removed(copied):
    left_by_a_kill = (f".{CONFIG}.x7", f".{MODEL}.partial.keras", "metrics.json")
    for name in (*left_by_a_kill, f".partial.{CHECKPOINT}"):
        (copied / name).touch()
    RunFolder(copied).check_removable()
    (copied / ".config").touch()  # as if it came between the check and the removal
    RunFolder(copied).remove()
    assert [path.name for path in copied.iterdir()] == [".config"]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_may_take_the_folder_it_is_started_in(tmp_path, monkeypatch, overwrite, copied):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(copied if overwrite else empty)
    run = train("ganomaly", DATA, ".", settings={**GANOMALY, "steps": 1}, overwrite=overwrite)
    assert int(run.model.step) == 1


@pytest.mark.parametrize(
    "wrong", [{"settings": {"steps": "0"}}, {"settings": {"stride": 5}}, {"spec": "digits:x"}]
)
def test_a_wrong_argument_leaves_nothing_behind_and_an_old_run_alone(copied, tmp_path, wrong):
    for folder in (tmp_path / "new", copied):
        before = sorted(folder.rglob("*"))
        with pytest.raises(UsageError):
            train(out=folder, overwrite=True, **{"method": "ganomaly", "spec": DATA, **wrong})
        assert sorted(folder.rglob("*")) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_diverged_training_stops_and_leaves_an_unfinished_run_to_overwrite(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match=r"became (nan|inf).*lower learning_rate"):
        train("ganomaly", DATA, folder, settings={**GANOMALY, "learning_rate": 1e30})
    with pytest.raises(UsageError, match="is not finished"):
        load_run(folder)
    run = train("ganomaly", DATA, folder, settings={**GANOMALY, "steps": 1}, overwrite=True)
    assert int(run.model.step) == 1


def test_calibrating_again_changes_threshold_and_configuration_together(copied):
    run = load_run(copied)
    before = run.config["calibration"]
    metadata = calibrate(run, data.load(DATA), false_positive_rate=0.2)
    assert metadata["false_positive_rate"] == 0.2
    assert metadata["threshold"] < before["threshold"]
    again = load_run(copied)
    assert again.config["calibration"] == metadata
    assert float(again.model.calibration.threshold) == pytest.approx(metadata["threshold"])
    assert calibrate(run, data.load(DATA), 1.5e-7)["false_positive_rate"] == 1.5e-7
    assert run.calibration["false_positive_rate"] == 1.5e-7


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_is_being_trained_is_not_calibrated(copied):
    run, before = load_run(copied), contents(copied)
    with locked(copied):
        message = "run '.*copied': is being trained or written by another process; wait until"
        with pytest.raises(UsageError, match=message):
            calibrate(run, data.load(DATA), 0.2)
        (copied / LOCK).unlink()
        assert contents(copied) == before


@pytest.mark.parametrize("change", ["trained", "being trained", "removed"])
def test_a_run_that_was_trained_since_it_was_loaded_is_not_calibrated(copied, whole, change):
    run = load_run(copied)
    calibrate(run, data.load(DATA), 0.2)
    calibrate(run, data.load(DATA), 0.1)  # what it wrote itself is no change
    if change == "trained":
        save_model(whole.model, copied / MODEL)
    elif change == "being trained":  # and interrupted
        RunFolder(copied).remove_results()
    else:
        shutil.rmtree(copied)
    before, verb = contents(copied), "has been" if change == "trained" else "is being"
    with pytest.raises(UsageError, match=f"{verb} trained .*since it was loaded"):
        calibrate(run, data.load(DATA), 0.2)
    assert contents(copied) == before


def test_an_evaluation_is_not_written_beside_another_model(copied, whole, tmp_path):
    run, images = load_run(copied), data.load(DATA)
    save_model(whole.model, copied / MODEL)
    before = contents(copied)
    for out in (None, tmp_path / "other" / ".." / "copied"):
        with pytest.raises(UsageError, match="since it was loaded"):
            evaluate(run, images, out)
    with locked(copied):  # nor does an evaluation that is written elsewhere need the lock
        figures = evaluate(run, images, tmp_path / "out")
    assert contents(copied) == before
    assert json.loads((tmp_path / "out" / RESULTS[0]).read_text()) == figures


def test_the_threshold_is_that_of_the_model(copied, monkeypatch):
    run = load_run(copied)
    before = run.calibration

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        calibrate(run, data.load(DATA), false_positive_rate=0.2)
    again = load_run(copied)
    assert again.config["calibration"]["false_positive_rate"] == 0.2
    assert again.calibration["threshold"] == before["threshold"]
    assert again.calibration["false_positive_rate"] == 0.01


def test_a_run_names_its_folder_of_images_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_config.absolute_spec("folder:a b/c?size=32") == f"folder:{tmp_path}/a b/c?size=32"
    assert run_config.absolute_spec("folder:~") == f"folder:{Path.home().resolve()}"
    assert run_config.absolute_spec("weave:twill?size=64") == "weave:twill?size=64"


def test_images_of_another_size_do_not_fit_a_run_of_resized_ones(whole):
    with pytest.raises(UsageError, match="size=24 and channels=1"):
        check_shape(whole, data.load("digits:8?size=32"))


def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_files(copied, whole, full_disk):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    run = Run(copied, whole.config, whole.model)
    checkpoint = callbacks.Checkpoint(copied / CHECKPOINT)
    checkpoint.set_model(whole.model)
    log = callbacks.Log(copied, data.load(DATA))
    log.set_model(whole.model)
    for write in (
        run.save,
        lambda: save_model(whole.model, copied / MODEL),
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
        assert stage_steps(steps, stages) == expected
        return
    with pytest.raises(UsageError, match="a positive number for each stage"):
        stage_steps(steps, stages)


def test_what_is_no_run_is_not_loaded(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is not a run"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"data": "weave:twill"}, []),
        ({"learnt_from": ["weave:plain"], "sources": ["weave:satin"]}, ["weave:plain"]),
        ({"sources": ["weave:plain", "weave:satin"]}, ["weave:plain", "weave:satin"]),
        ({"sources": ["weave:plain"], "painter": None}, ["weave:plain"]),
        ({"sources": ["a", "b"], "painter": ["b", "c"]}, ["a", "b", "c"]),
    ],
)
def test_the_data_sets_whose_test_images_were_trained_on(config, expected):
    """Runs of older versions have `sources` and `painter` in place of `learnt_from`."""
    assert run_config.learnt_from(config) == expected
