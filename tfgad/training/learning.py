"""More good images for a finished run: new statistics and threshold, with training or without.

A part of the new images is learned from, the rest is held out for the threshold. The statistics of
normal images are then measured anew on old and new training images together, and the threshold is
set on old and new held-out ones. The networks stay as they are, unless steps are asked for. Images
that were false alarms are only learned from: chosen by their scores, they would set too high a
threshold.

The result is a new run. It names its parent, and its `split.json` has the new images, so that none
that was learned from comes back for calibration or evaluation.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfgad import data, methods
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.batches import training_batches
from tfgad.data.pixels import depth_to_read
from tfgad.errors import UsageError
from tfgad.networks.pretrained import sha256_of
from tfgad.training import held_out
from tfgad.training.callbacks import write_checkpoint
from tfgad.training.lock import locked
from tfgad.training.normals import (
    Normals,
    alarms_of,
    earlier,
    groups_of,
    new_images,
    together,
)
from tfgad.training.run import Run, calibration_metadata, calibration_numbers, check_shape
from tfgad.training.run_config import absolute_spec, check_same_weights, versions
from tfgad.training.run_folder import CHECKPOINT, RunFolder, RunState
from tfgad.training.saving import check_same_networks
from tfgad.training.split_file import Split, merged
from tfgad.training.stages import Callbacks, fit_stages, no_callbacks, stage_steps


@dataclasses.dataclass(frozen=True)
class Change:
    """The share of some good images that are called anomalous, before and after learning.

    Attributes:
        of: which images, in words.
        count: how many images there are, or tiles if the threshold is set per tile.
        before: the share by the run.
        after: the share by the new run.
    """

    of: str
    count: int
    before: float
    after: float


def learn(
    run: Run,
    good: AnomalyData,
    out: str | os.PathLike[str],
    *,
    false_alarms: AnomalyData | None = None,
    steps: int = 0,
    overwrite: bool = False,
    callbacks: Callbacks = no_callbacks,
) -> tuple[Run, list[Change]]:
    """Adapts a run to more good images, and writes the result as a new run.

    Args:
        run: a finished run; its folder stays as it is, its model in memory is changed.
        good: a folder of new good images, loaded as the run's data are.
        out: folder of the new run.
        false_alarms: a folder of good images that the run calls anomalous.
        steps: training steps of the last stage, on old and new images; 0 leaves the networks as
            they are.
        overwrite: replace an old run in `out`.
        callbacks: name of a stage and its number of steps -> Keras callbacks.

    Returns:
        The new run, and the false alarms of old and new images before and after.

    Raises:
        UsageError: a folder that must not be replaced, a run that does not learn from good images
            alone, images of another shape, too few that are new, or old ones that are gone; or a
            model of several products, and images without `products=`. Or the run has been trained
            since it was loaded. Nothing is written then.
    """
    start, folder = time.monotonic(), RunFolder(out)
    with locked(folder.path):
        _check(run, folder, steps, overwrite)
        learned = _learned(run, good, false_alarms, steps, callbacks)
        learned.config["training_seconds"] = round(time.monotonic() - start, 1)
        folder.start(RunState.NEW, learned.config, learned.split)
        result = Run(folder.path, learned.config, learned.model)
        result.save()
    return result, learned.changes


@dataclasses.dataclass(frozen=True)
class _Learned:
    """What a run becomes: its model and configuration, the files of both, and what changed."""

    model: Detector
    config: dict[str, Any]
    split: Split | None
    changes: list[Change]


def _learned(
    run: Run,
    good: AnomalyData,
    false_alarms: AnomalyData | None,
    steps: int,
    callbacks: Callbacks,
) -> _Learned:
    """Learns as `learn` does, and writes nothing."""
    run.check_unchanged()
    parent = {
        "run": str(run.folder.resolve()),
        "sha256": sha256_of(RunFolder(run.folder).model),
    }
    form = {"channels": run.config["image_shape"][2], "depth": depth_to_read(run.config)}
    own = data.load(run.config["data"], **form)
    check_shape(run, own)
    threshold_data = run.config.get("calibration", {}).get("data", own.spec)
    held = own if threshold_data == own.spec else data.load(threshold_data, **form)
    old, old_held, split = earlier(run, own, held_out.for_calibration(run, held))
    new, new_held, new_split = new_images(run, good, hold_out=True, groups=groups_of(old))
    shown = {
        "old, held out for the threshold": old_held,
        "new, held out for the threshold": new_held,
        "new, learned from": new,
    }
    learned, splits = [*old, new], [split, new_split]
    entry = {"good": absolute_spec(good.spec)}
    if false_alarms is not None:
        alarms, _, alarm_split = new_images(run, false_alarms, hold_out=False, known=new_split)
        shown["false alarms, learned from"] = alarms
        learned, splits = [*learned, alarms], [*splits, alarm_split]
        entry["false_alarms"] = absolute_spec(false_alarms.spec)
    train, calibration = together(learned), together([old_held, new_held])
    asked = calibration_numbers(run.model)
    rate, per = asked["false_positive_rate"], asked["per"]
    before = [alarms_of(run.model, each, per) for each in shown.values()]

    settings = {**run.config["settings"]}
    if steps:
        settings["steps"] = _more(settings["steps"], steps)
        model = _trained_on(run, settings, own, train, callbacks)
    else:
        model = run.model
    model.adapt(train.images, train.size)
    if train.products is not None:
        model.learn_products(train.images, train.products)
    threshold = model.calibrate(
        calibration.images,
        rate,
        origins=calibration.origins,
        per=per,
        products=calibration.products,
    )
    after = [alarms_of(model, each, per) for each in shown.values()]
    changes = [
        Change(of, len(old_alarms), float(old_alarms.mean()), float(new_alarms.mean()))
        for of, old_alarms, new_alarms in zip(shown, before, after, strict=True)
    ]

    sizes = {"train": train.size, "calibration": calibration.size}
    config = {
        **run.config,
        "settings": settings,
        "images": {**run.config.get("images", {}), **sizes},
        "parent": parent,
        "learned": [*run.config.get("learned", ()), entry],
        "false_alarms": [dataclasses.asdict(change) for change in changes],
        "calibration": calibration_metadata(
            threshold, rate, threshold_data, calibration.origins, per
        ),
        "versions": versions(),
    }
    return _Learned(model, config, merged(splits), changes)


def _check(run: Run, folder: RunFolder, steps: int, overwrite: bool) -> None:
    """Raises UsageError if a run cannot learn on, or not into this folder."""
    method = run.config["method"]
    if method not in methods.names():
        raise UsageError("run", run.folder, f"is of {method}", "give one of `tfgad train`")
    if steps and run.model.labelled:
        hint = "leave --steps out"
        raise UsageError("steps", steps, f"{method} learns from labels, which these lack", hint)
    if steps < 0:
        raise UsageError("steps", steps, "is no number of steps", "give a positive one")
    if folder.path.resolve() == run.folder.resolve():
        hint = "name another folder: the run stays as it is"
        raise UsageError("out", folder.path, "is the run that is to learn", hint)
    if folder.read_config() is not None and not overwrite:
        hint = "give --overwrite to replace it, or name another folder"
        raise UsageError("out", folder.path, "holds a run already", hint)
    folder.state({}, None, resume=False, overwrite=overwrite, upgrade=dict)


def _more(steps: str | int, more: int) -> str | int:
    """Returns steps by stage with more of the last stage, in the form they are given in."""
    *first, last = str(steps).split("+")
    number = int(last) + more
    return "+".join([*first, str(number)]) if first else type(steps)(number)


def _trained_on(
    run: Run, settings: dict[str, Any], own: AnomalyData, train: Normals, callbacks: Callbacks
) -> Detector:
    """Returns a run's model, trained on to the steps of `settings`.

    It is made anew: rates that fall with the steps must know how many there are.
    """
    config, old = run.config, run.model
    built_with = {**settings, "score": old.score, "ignored": old.ignored}
    shape, seed = own.image_shape, config["seed"]
    model = methods.build(config["method"], shape, seed, products=old.product_names, **built_with)
    model.prepare()
    check_same_weights(run.folder, config, model.pretrained)
    check_same_networks(run.folder, old, model)
    filled = model.normal_images(train.images)
    images = dataclasses.replace(own, train=filled, train_size=train.size)

    def batches(start: int) -> tf.data.Dataset:
        return training_batches(
            images,
            model.training_window,
            batch_size=model.images_per_step,
            seed=model.seed,
            start=start,
            jitter=settings["jitter"],
        )

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / CHECKPOINT
        write_checkpoint(run.model, checkpoint)
        by_stage = stage_steps(settings["steps"], model.stages)
        fit_stages(model, by_stage, batches, checkpoint, callbacks)
    return model
