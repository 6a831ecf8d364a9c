"""A run: one folder with all that a training was given and all that it made.

    config.json          method, settings, data, seed, versions; what was found on the way
    checkpoint.weights.h5   weights, optimizers and step, while training goes on
    model.keras          the fitted, calibrated model, once it has ended
    logs/                TensorBoard: losses, samples, reconstructions
    previews/            the same pictures as PNG

A run can be broken off at any moment. What a step does depends on the seed and the step's number
alone, so that a resumed run ends with the weights of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy
import tensorflow as tf

from tfgad import data, files, recipes
from tfgad.callbacks import Checkpoint, Log, StopIfDiverged
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.batches import training_batches
from tfgad.errors import UsageError
from tfgad.models.detector import Detector
from tfgad.version import __version__

logger = logging.getLogger(__name__)

CONFIG, CHECKPOINT, MODEL = "config.json", "checkpoint.weights.h5", "model.keras"
NEW, BEGUN, FINISHED = "new", "begun", "finished"
FALSE_POSITIVE_RATE = 0.01  # of the threshold that training sets; `tfgad calibrate` sets another


@dataclasses.dataclass
class Run:
    """A finished run: its folder, its configuration, its model."""

    folder: Path
    config: dict[str, Any]
    model: Detector

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
    if not (folder / CONFIG).is_file():
        raise UsageError("run", folder, "is not a run", f"give a folder with a {CONFIG}")
    if not (folder / MODEL).is_file():
        raise UsageError("run", folder, "has not ended", "go on with `tfgad train ... --resume`")
    config = json.loads((folder / CONFIG).read_text())
    return Run(folder, config, load_model(folder / MODEL))


def load_model(path: str | os.PathLike) -> Detector:
    """Loads a model that `model.save` or a run wrote, ready to judge and to train further.

    Raises:
        UsageError: the file is not there or is no model.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError("model", path, "is not there", "give a .keras file")
    try:
        return keras.saving.load_model(path)
    except (ValueError, OSError, KeyError) as error:
        problem = f"is no model that can be read ({str(error).splitlines()[0]})"
        raise UsageError("model", path, problem, "give a .keras file that tfgad wrote") from error


def save_model(model: Detector, path: Path) -> None:
    """Writes a .keras file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial.keras")
    model.save(partial)
    os.replace(partial, path)


def train(
    method: str,
    spec: str,
    out: str | os.PathLike,
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callable[[str, int], Sequence[keras.callbacks.Callback]] = lambda stage, steps: (),
) -> Run:
    """Trains a method on the normal images of a data set, and calibrates it on held-out ones.

    Args:
        method: one of `tfgad.recipes.RECIPES`.
        spec: the data set.
        out: the run's folder.
        seed: of the data, the weights and the training.
        settings: what differs from the recipe, by name.
        resume: go on with a run that was broken off; the arguments must be the same.
        overwrite: put a new run in the place of an old one.
        callbacks: stage name and its number of steps still to go -> further Keras callbacks.

    Raises:
        UsageError: a wrong argument, or a folder that is in the way. Nothing is written then.
    """
    folder = Path(out)
    chosen = recipes.settings_of(method, settings)
    images = data.load(spec, seed=seed)
    if images.calibration_size < 2:
        problem = f"leaves too few good images ({images.calibration_size}) for a threshold"
        raise UsageError("data", images.spec, problem, "add good images")
    config = {
        "method": method,
        "data": images.spec,
        "seed": seed,
        "settings": chosen,
        "image_shape": list(images.image_shape),
        "resized": images.resized,
    }
    state = _state(folder, config, resume, overwrite)
    if state == FINISHED:
        return load_run(folder)
    model = recipes.build(method, images.image_shape, seed, **chosen)
    steps = stage_steps(chosen["steps"], model.stages)
    if state == NEW and folder.exists():
        shutil.rmtree(folder)
    config |= {"window": list(model.window), "score": model.score}
    config |= {"versions": versions(), "images": _sizes(images)}
    files.write_json(folder / CONFIG, config)

    begun = time.monotonic()
    _fit(model, images, steps, chosen["batch_size"], folder, callbacks)
    model.adapt(images.train, images.train_size)
    threshold = model.calibrate(images.calibration, FALSE_POSITIVE_RATE)
    config["training_seconds"] = round(time.monotonic() - begun, 1)
    config["calibration"] = calibration_facts(threshold, FALSE_POSITIVE_RATE, images.spec)
    run = Run(folder, config, model)
    run.save()
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return run


def calibrate(run: Run, images: AnomalyData, false_positive_rate: float) -> dict[str, Any]:
    """Sets the run's threshold anew from normal images, and returns what there is to say of it."""
    check_shape(run, images)
    threshold = run.model.calibrate(images.calibration, false_positive_rate)
    run.config["calibration"] = calibration_facts(threshold, false_positive_rate, images.spec)
    run.save()
    return run.config["calibration"]


def calibration_facts(threshold, false_positive_rate: float, spec: str) -> dict[str, Any]:
    """Returns what the configuration says of a threshold."""
    return {
        "threshold": threshold.value,
        "false_positive_rate": false_positive_rate,
        "method": threshold.method,
        "images": threshold.n,
        "data": spec,
    }


def check_shape(run: Run, images: AnomalyData) -> None:
    """Raises UsageError unless the run's model can judge the images as it was trained to."""
    made_for, given = tuple(run.config["image_shape"]), images.image_shape
    if given != made_for and (run.config["resized"] or given[2] != made_for[2]):
        mend = f"load the data with size={made_for[0]} and channels={made_for[2]}"
        raise UsageError("data", f"images of {given}", f"but the run has {made_for}", mend)


def stage_steps(steps: str, stages: Sequence[str]) -> dict[str, int]:
    """Returns the training steps of each stage: `"600+1500"` gives the GAN 600, the encoder 1500.

    Raises:
        UsageError: not one positive number a stage.
    """
    numbers = [int(part) if part.isdecimal() else 0 for part in steps.split("+")]
    if len(numbers) != len(stages) or min(numbers) < 1:
        mend = f"give a positive number for each stage ({', '.join(stages)}), with + between"
        raise UsageError("steps", steps, "does not fit the method", mend)
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


def _state(folder: Path, config: dict[str, Any], resume: bool, overwrite: bool) -> str:
    """Returns what stands at the run's place; raises UsageError if that must not be touched."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return NEW
    if not (folder / CONFIG).is_file():
        raise UsageError("out", folder, "is something else than a run", "name a new folder")
    if overwrite:
        return NEW
    if not resume:
        mend = "give --resume to go on with it, --overwrite to replace it"
        raise UsageError("out", folder, "holds a run already", mend)
    old, config = (
        {**each, **each["settings"], "settings": None}  # so that one setting is named, not all
        for each in (json.loads((folder / CONFIG).read_text()), config)
    )
    for key, value in config.items():
        if old.get(key) != value:
            problem = f"was begun with {key} {old.get(key)!r}, not {value!r}"
            raise UsageError("out", folder, problem, "resume it with the same arguments")
    return FINISHED if (folder / MODEL).is_file() else BEGUN


def _sizes(images: AnomalyData) -> dict[str, int]:
    return {
        "train": images.train_size,
        "calibration": images.calibration_size,
        "test": images.test_size,
        "skipped": len(images.skipped),
    }


def _fit(model, images: AnomalyData, steps: dict[str, int], batch_size, folder, callbacks) -> None:
    """Trains what is still to be trained, from the checkpoint if there is one."""
    if (folder / CHECKPOINT).is_file():
        model.load_weights(folder / CHECKPOINT)
        logger.info("going on at step %d", int(model.step))
    own = [StopIfDiverged(), Checkpoint(folder / CHECKPOINT), Log(folder, images)]
    begin = 0
    for stage, count in steps.items():
        done = max(int(model.step) - begin, 0)
        begin += count
        if done >= count:
            continue
        model.begin(stage)
        batches = training_batches(
            images.train,
            images.train_size,
            window=model.window,
            batch_size=batch_size * model.batches_a_step,
            seed=model.seed,
            start=done,
        )
        further = callbacks(stage, count - done)
        togo = {"steps_per_epoch": count - done, "callbacks": [*own, *further]}
        model.fit(batches, **togo, shuffle=False, verbose=0)
