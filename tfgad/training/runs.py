"""A run: one folder with all that a training was given and all that it made.

    config.json          method, settings, data, seed, versions; what was found on the way
    checkpoint.weights.h5   weights, optimizers and step, while training goes on
    split.json           of a data set of files: those trained on and those calibrated by
    model.keras          the fitted, calibrated model, once it has ended
    logs/                TensorBoard: losses, samples, reconstructions
    previews/            the same pictures as PNG
    metrics.json, report.html   what an evaluation found

A run can be broken off at any moment. What a step does depends on the seed and the step's number
alone, so that a resumed run ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy
import tensorflow as tf

from tfgad import data, files, methods
from tfgad.core.detector import Detector
from tfgad.core.trained import Trained
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.batches import count_classes, training_batches
from tfgad.data.pixels import FULL_DEPTH
from tfgad.data.spec import Spec
from tfgad.errors import UsageError
from tfgad.networks.pretrained import IMAGENET, RANDOM, known_as
from tfgad.training import distribution, held_out
from tfgad.training.callbacks import Checkpoint, Log, StopIfDiverged
from tfgad.training.distribution import Team
from tfgad.version import __version__

logger = logging.getLogger(__name__)

CONFIG, CHECKPOINT, MODEL = "config.json", "checkpoint.weights.h5", "model.keras"
NEW, STARTED, FINISHED = STATES = "new", "begun", "finished"
KEYS = {"method", "data", "seed", "settings", "image_shape", "resized"}  # of every configuration
FILES = {CONFIG, CHECKPOINT, MODEL, held_out.SPLIT, "metrics.json", "report.html"}
FOLDERS = {"logs", "previews"}
# Settings that runs had not, and what they did without.
COMMON = {"precision": "float32", "jitter": 0.0}
LEAST_IMAGES = 2  # to train on, and to calibrate by: of one nothing is known to vary
FALSE_POSITIVE_RATE = 0.01  # of the threshold that training sets; `tfgad calibrate` sets another

# Stage name and its number of steps still to go -> Keras callbacks.
Callbacks = Callable[[str, int], Sequence[keras.callbacks.Callback]]


def no_callbacks(stage: str, steps: int) -> Sequence[keras.callbacks.Callback]:
    """Returns no Keras callbacks, whatever the stage."""
    return ()


@dataclasses.dataclass
class Run:
    """A finished run: its folder, its configuration, its model."""

    folder: Path
    config: dict[str, Any]
    model: Detector

    @property
    def calibration(self) -> dict[str, Any]:
        """What there is to say of the threshold.

        Its numbers are the model's, by which it judges: `save` may have been killed half-way.
        """
        return {**self.config["calibration"], **calibration_numbers(self.model)}

    def save(self) -> None:
        """Writes the configuration and the model back, each whole or not at all.

        The model last: a run counts as finished once it is there.
        """
        files.write_json(self.folder / CONFIG, self.config)
        save_model(self.model, self.folder / MODEL)


def load_run(folder: str | os.PathLike) -> Run:
    """Loads a finished run.

    Raises:
        UsageError: the folder is not there, is no run, or its training has not ended.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError("run", folder, "is not there", "give the folder of a run")
    config = read_config(folder)
    if config is None:
        raise UsageError("run", folder, "is not a run", "give a folder that `tfgad train` wrote")
    if not (folder / MODEL).is_file():
        raise UsageError("run", folder, "has not ended", "go on with its command and --resume")
    return Run(folder, config, load_model(folder / MODEL))


def read_config(folder: Path) -> dict[str, Any] | None:
    """Returns the configuration of a run, finished or not, or None if the folder holds none."""
    config = files.read_object(folder / CONFIG)
    if config is None or not config.keys() >= KEYS:
        return None
    if "sources" in config:  # of a segmenter, perhaps of an earlier tfgad
        known = [*config["sources"], *(config.get("painter") or ())]
        config.setdefault("learnt_from", known)
    return config


def new_config(
    method: str,
    spec: str,
    seed: int,
    settings: dict[str, Any],
    image_shape,
    resized: bool,
    depth: int,
) -> dict[str, Any]:
    """Returns what is known of every run before it is trained: `KEYS`, and `depth`."""
    return {
        "method": method,
        "data": from_anywhere(spec),
        "seed": seed,
        "settings": settings,
        "image_shape": list(image_shape),
        "resized": resized,
        "depth": depth,
    }


def load_model(path: str | os.PathLike) -> Detector:
    """Loads a model that `model.save` or a run wrote, ready to judge and to train further.

    Raises:
        UsageError: the file is not there or is no model.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("model", path, "is not there", "give a .keras file")
    hint = "give a .keras file that tfgad wrote"
    try:
        model = keras.saving.load_model(path)
    except (ValueError, OSError, KeyError, TypeError) as error:  # TypeError: an unknown class
        problem = f"is no model that can be read ({first_line(error)})"
        raise UsageError("model", path, problem, hint) from error
    if not isinstance(model, Detector):
        raise UsageError("model", path, f"is a {type(model).__name__}, no detector", hint)
    return model


def first_line(error: Exception) -> str:
    """Returns what an error says in its first line, or its kind if it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def save_model(model: Detector, path: Path) -> None:
    """Writes a .keras file whole or not at all.

    Raises:
        UsageError: the path cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial.keras")
    try:
        model.save(partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise files.unwritable("output", path, error) from error


def train(
    method: str,
    spec: str,
    out: str | os.PathLike,
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = no_callbacks,
    distribute: str = distribution.ALONE,
) -> Run | None:
    """Trains a method on the normal images of a data set, and calibrates it on held-out ones.

    Args:
        method: one of `tfgad.methods.names()`.
        spec: the data set.
        out: the run's folder.
        seed: of the data, the weights and the training.
        settings: what differs from the recipe, by name.
        resume: go on with a run that was broken off; the arguments must be the same, and so must
            the good images of a folder.
        overwrite: put a new run in the place of an old one.
        callbacks: stage name and its number of steps still to go -> further Keras callbacks.
        distribute: see `tfgad.training.distribution.join`. `batch_size` is that of all together.

    Returns:
        The run; None to a worker that is not the chief, which writes nothing.

    Raises:
        UsageError: a wrong argument, or a folder that is in the way. Nothing is written then.
            Or another worker is lost; then the run can be resumed.
    """
    folder = Path(out)
    chosen = methods.settings_of(method, settings).as_dict()
    team = distribution.join(distribute)
    team.check_batch(chosen["batch_size"])
    images = data.load(spec, seed=seed)
    for purpose, size in (
        ("to train on", images.train_size),
        ("for a threshold", images.calibration_size),
    ):
        check_enough(images.spec, size, purpose)
    if "classes" in chosen:
        chosen["classes"] = count_classes(images, chosen["classes"])
    shape, resized = images.image_shape, images.resized
    config = new_config(method, images.spec, seed, chosen, shape, resized, images.depth)
    with distribution.raise_on_lost_worker():
        state = _agreed_state(team, folder, config, images, resume, overwrite)
        if state == FINISHED:
            run = load_run(folder) if team.is_chief else None
        else:
            run = _trained(team, state, folder, config, images, callbacks)
        team.wait()
    return run


def check_enough(spec: str, count: int, purpose: str = "for a threshold") -> None:
    """Raises UsageError if the good images for a purpose are too few."""
    if count < LEAST_IMAGES:
        problem = f"leaves too few good images ({count}) {purpose}"
        raise UsageError("data", spec, problem, "add good images")


def _agreed_state(
    team: Team, folder: Path, config: dict[str, Any], images: AnomalyData, resume, overwrite
) -> str:
    """Returns what the chief found at the run's place, to all workers; see `state_of`."""
    state = state_of(folder, config, resume, overwrite) if team.is_chief else NEW
    if state != NEW:
        held_out.check_same_files(folder, held_out.split_of(images), state == FINISHED)
    return STATES[team.agreed(STATES.index(state))]


def _trained(team: Team, state: str, folder: Path, config, images, callbacks) -> Run | None:
    """Trains what is still to be trained of a run; the chief calibrates and writes it, alone."""

    def built():
        return methods.build(config["method"], images.image_shape, config["seed"], **chosen)

    chosen = config["settings"]
    with team.strategy.scope():
        model = built()
    steps = stage_steps(chosen["steps"], model.stages)
    config |= {"window": list(model.window), "score": model.score}
    config |= {"versions": versions(), "images": _sizes(images)}
    if team.is_chief:
        if state == NEW:
            remove(folder)
            # First, since a run without it cannot be resumed.
            held_out.write_split(folder, held_out.split_of(images))
        files.write_json(folder / CONFIG, config)
    team.wait()  # or others might find the checkpoint of the run that is being replaced

    begun = time.monotonic()
    _fit(model, images, steps, chosen, folder, callbacks, team)
    if not team.is_chief:
        return None
    if team.is_distributed:  # from here on each weight is one plain variable
        model = built()
        model.load_weights(folder / CHECKPOINT)
    model.adapt(images.train, images.train_size)
    threshold = model.calibrate(images.calibration, FALSE_POSITIVE_RATE)
    config["training_seconds"] = round(time.monotonic() - begun, 1)
    config["calibration"] = calibration_metadata(threshold, FALSE_POSITIVE_RATE, config["data"])
    run = Run(folder, config, model)
    run.save()
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return run


def calibrate(run: Run, images: AnomalyData, false_positive_rate: float) -> dict[str, Any]:
    """Sets the run's threshold anew from normal images, and returns what there is to say of it.

    All good images serve that the run was not trained on and that the test does not need.

    Raises:
        UsageError: images of another form, too few of them, or some that the run was trained on.
    """
    check_shape(run, images)
    images = held_out.for_calibration(run, images)
    check_enough(images.spec, images.calibration_size)
    threshold = run.model.calibrate(images.calibration, false_positive_rate)
    spec = from_anywhere(images.spec)
    run.config["calibration"] = calibration_metadata(threshold, false_positive_rate, spec)
    run.save()
    return run.config["calibration"]


def calibration_metadata(threshold, false_positive_rate: float, spec: str) -> dict[str, Any]:
    """Returns what the configuration says of a threshold."""
    return {
        "threshold": threshold.value,
        "false_positive_rate": false_positive_rate,
        "method": threshold.method,
        "images": threshold.n,
        "data": spec,
    }


def calibration_numbers(model: Detector) -> dict[str, float]:
    """Returns the numbers that a calibrated model judges by."""
    weights = model.calibration
    return {
        "threshold": float(weights.threshold),
        # Six digits, since 0.01 as float32 is 0.009999999776.
        "false_positive_rate": round(float(weights.false_positive_rate), 6),
    }


def from_anywhere(spec: str) -> str:
    """Returns a spec that names the same data from whatever folder: its path, if any, absolute."""
    parts = Spec.parse(spec)
    if parts.kind != "folder":
        return spec
    return str(dataclasses.replace(parts, name=str(Path(parts.name).expanduser().resolve())))


def check_shape(run: Run, images: AnomalyData) -> None:
    """Raises UsageError unless the run's model can judge the images as it was trained to."""
    made_for, given = tuple(run.config["image_shape"]), images.image_shape
    if given != made_for and (run.config["resized"] or given[2] != made_for[2]):
        hint = f"load the data with size={made_for[0]} and channels={made_for[2]}"
        raise UsageError("data", f"images of {given}", f"but the run has {made_for}", hint)


def stage_steps(steps: str | int, stages: Sequence[str]) -> dict[str, int]:
    """Returns the training steps of each stage: `"600+1500"` gives the GAN 600, the encoder 1500.

    Raises:
        UsageError: not one positive number a stage.
    """
    numbers = [int(part) if part.isdecimal() else 0 for part in str(steps).split("+")]
    if len(numbers) != len(stages) or min(numbers) < 1:
        hint = f"give a positive number for each stage ({', '.join(stages)}), with + between"
        raise UsageError("steps", steps, "does not fit the method", hint)
    return dict(zip(stages, numbers, strict=True))


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on."""
    return {
        "tfgad": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": numpy.__version__,
    }


def check_removable(folder: Path) -> None:
    """Raises UsageError unless a folder holds a run and nothing else, which can be replaced."""
    if read_config(folder) is None:
        raise UsageError("out", folder, "is something else than a run", "name a new folder")
    others = sorted(path.name for path in folder.iterdir() if not _is_part(path.name))
    if others:
        hint = "move it away, or name a new folder"
        raise UsageError("out", folder, f"holds {others[0]} beside the run", hint)


def remove(folder: Path) -> None:
    """Removes what a run consists of, if there is one, but not the folder, which may be `.`.

    The configuration goes last: what is left of a removal broken off is a run to be replaced.
    """
    files.remove_parts(folder, lambda path: _is_part(path.name), last=CONFIG)


def _is_part(name: str) -> bool:
    """Returns whether a run has such a child, or leaves one when it is killed while writing it."""
    return files.is_or_becomes(name, FILES) or name in FOLDERS


def state_of(folder: Path, config: dict[str, Any], resume: bool, overwrite: bool) -> str:
    """Returns what stands at the run's place; raises UsageError if that must not be touched."""
    if is_empty(folder, CONFIG):
        return NEW
    old = read_config(folder)
    if overwrite or old is None:
        check_removable(folder)
        return NEW
    if not resume:
        hint = "give --resume to go on with it, --overwrite to replace it"
        raise UsageError("out", folder, "holds a run already", hint)
    # Before runs had a depth, files of 16 bits were read as they are.
    old = {"depth": 8 if config["depth"] == 8 else FULL_DEPTH, **old}
    # A run from before a common setting existed did what the setting's default does now.
    with_common = ({**each, "settings": COMMON | each["settings"]} for each in (old, config))
    check_same(folder, *with_common)
    return FINISHED if (folder / MODEL).is_file() else STARTED


def is_empty(folder: Path, config: str) -> bool:
    """Returns whether a folder is not there or holds nothing, not even a training's configuration.

    What a training writes before its configuration, and may leave if it is killed, does not count.

    Args:
        folder: of the training.
        config: the name of the file of its configuration.
    """
    if not folder.is_dir():
        return not folder.exists()
    names = {path.name for path in folder.iterdir()}
    return config not in names and all(
        files.is_or_becomes(name, (config, held_out.SPLIT)) for name in names
    )


def check_same(folder: Path, old: dict[str, Any], config: dict[str, Any]) -> None:
    """Raises UsageError where a configuration differs from the one that a training was begun with.

    The settings are compared one by one, so that one is named and not all.
    """
    old, config = ({**each, **each["settings"], "settings": None} for each in (old, config))
    for key, value in config.items():
        if old.get(key) != value:
            problem = f"was begun with {key} {old.get(key)!r}, not {value!r}"
            raise UsageError("out", folder, problem, "resume it with the same arguments")


def weights_begun_with(
    folder: Path, begun_with: dict[str, Any], name: str, asked: str | None
) -> str | None:
    """Returns the weights to resume with, those that a training was begun with.

    If none are asked for, they need not be what `tfgad.networks.pretrained` would find today.

    Args:
        folder: of the training.
        begun_with: its configuration.
        name: of the weights there.
        asked: a file, `imagenet`, `random` or None.

    Raises:
        UsageError: others are asked for, or they were a file's and no file is given.
    """
    source = begun_with.get(name)
    weights = source if asked is None and source in (IMAGENET, RANDOM) else asked
    settings = {"settings": {}}
    check_same(folder, {name: source, **settings}, {name: known_as(weights), **settings})
    return weights


def _sizes(images: AnomalyData) -> dict[str, int]:
    return {
        "train": images.train_size,
        "calibration": images.calibration_size,
        "test": images.test_size,
        "skipped": len(images.skipped),
    }


def _fit(model, images: AnomalyData, steps, settings, folder, callbacks, team: Team) -> None:
    """Trains what is still to be trained of a method, on normal images."""

    def batches(start):
        return training_batches(
            images,
            model.window,
            batch_size=model.images_per_step,
            seed=model.seed,
            start=start,
            labelled=model.labelled,
            jitter=settings["jitter"],
        )

    def with_log(stage, remaining_steps):
        logs = [Log(folder, images)] if team.is_chief else []
        return [*logs, *callbacks(stage, remaining_steps)]

    fit_stages(model, steps, batches, folder / CHECKPOINT, with_log, team)


def fit_stages(
    model: Trained,
    steps: dict[str, int],
    batches: Callable[[int], tf.data.Dataset],
    checkpoint: Path,
    callbacks: Callbacks,
    team: Team | None = None,
) -> None:
    """Trains what is still to be trained, from the checkpoint if there is one.

    Args:
        model: compiled.
        steps: of each of its stages, in their order.
        batches: number of the first batch -> endless batches, the same whenever they are made.
        checkpoint: where weights, optimizers and step are kept meanwhile.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.
        team: those who train the model, which was made in their scope; by default nobody else.
    """
    team = team or Team()
    if checkpoint.is_file():
        model.load_weights(checkpoint)
        logger.info("going on at step %d", model.steps_done)
    team.check_together(model.steps_done)
    model, begin = team.sharing(model), 0
    for stage, count in steps.items():
        done = max(model.steps_done - begin, 0)
        begin += count
        if done >= count:
            continue
        model.begin(stage)
        remaining_steps = count - done
        saving = [Checkpoint(checkpoint)] if team.is_chief else []
        further = [StopIfDiverged(), *saving, *callbacks(stage, remaining_steps)]
        model.fit(
            batches(done),
            steps_per_epoch=remaining_steps,
            callbacks=further,
            shuffle=False,
            verbose=0,
        )
