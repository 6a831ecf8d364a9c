"""Training of a run: its stages one after another, with checkpoints, then its threshold.

What a step does depends on the seed and the number of the step alone. A resumed run therefore ends
with the weights of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad import data, methods
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.batches import count_classes, training_batches
from tfgad.data.ignored import ignoring
from tfgad.data.ignored_files import region_of
from tfgad.data.origins import Origins
from tfgad.errors import UsageError
from tfgad.networks.precision import AUTO, POLICIES
from tfgad.training import distribution
from tfgad.training.callbacks import Log, write_checkpoint
from tfgad.training.default_method import default_method, default_score
from tfgad.training.distribution import Cluster
from tfgad.training.lock import locked
from tfgad.training.run import (
    FALSE_POSITIVE_RATE,
    Run,
    calibration_metadata,
    check_enough,
    check_enough_of_each,
    check_several,
    default_per,
    load_run,
)
from tfgad.training.run_config import (
    asked_of,
    check_same_weights,
    new_config,
    upgraded,
    versions,
)
from tfgad.training.run_folder import RunFolder, RunState
from tfgad.training.saving import check_same_networks, load_model
from tfgad.training.split_file import split_of
from tfgad.training.stages import Callbacks, fit_stages, is_longer, no_callbacks, stage_steps

logger = logging.getLogger(__name__)


def train(
    method: str | None,
    spec: str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = no_callbacks,
    distribute: str = distribution.ALONE,
    mask: str | os.PathLike[str] | None = None,
) -> Run | None:
    """Trains a method on the normal images of a data set, and calibrates it on held-out ones.

    Args:
        method: one of `tfgad.methods.names()`; None for the default of the data, see
            `default_method`.
        spec: the data set.
        out: the run's folder.
        seed: of the data, the weights and the training.
        settings: hyper-parameters that differ from the method's defaults, by name.
        resume: continue an interrupted run, or a finished one by more `steps` of its last stage.
            Else the arguments must be the same, and so must the good images of a folder.
        overwrite: replace an old run.
        callbacks: name of a stage and its number of remaining steps -> further Keras callbacks.
        distribute: see `tfgad.training.distribution.connect`. `batch_size` is that of all workers
            together.
        mask: an image file, white where pixels of every image are ignored; see
            `tfgad.data.ignored_files.region_of`.

    Returns:
        The run; None in a worker that is not the chief, which writes nothing.

    Raises:
        UsageError: a wrong argument, or a folder that must not be replaced or that another
            training is writing; nothing is written then. Or another worker is lost; then the run
            can be resumed.
    """
    folder = RunFolder(out)
    if method is not None:
        methods.settings_of(method, settings)  # a mistake is found before other workers are awaited
    cluster = distribution.connect(distribute)  # before TensorFlow computes anything
    images = data.load(spec, seed=seed)
    images = ignoring(images, None if mask is None else region_of(mask, images))
    if method is None:
        method = _default_of_chief(cluster, folder if resume else None, images, settings)
    hyper_parameters = methods.settings_of(method, settings).as_dict()
    if hyper_parameters["precision"] == AUTO:
        hyper_parameters["precision"] = _precision_of_chief(cluster, folder if resume else None)
    for name, value in hyper_parameters.items():
        if name.endswith("batch_size"):  # a stage may have its own
            cluster.check_batch(value, name)
    check_enough(images.spec, images.train_size, "to train on")
    check_enough(images.spec, images.calibration_size)
    check_enough_of_each(images)
    check_several(images)
    if "classes" in hyper_parameters:
        hyper_parameters["classes"] = count_classes(images, hyper_parameters["classes"])
    config = new_config(
        method,
        images.spec,
        seed,
        hyper_parameters,
        images.image_shape,
        images.resized,
        images.depth,
        images.fit,
        images.ignored,
        images.products,
    )
    lock = locked(folder.path) if cluster.is_chief else contextlib.nullcontext()
    with lock, distribution.raise_on_lost_worker():
        state = _state_on_chief(cluster, folder, config, images, resume, overwrite)
        if state == RunState.FINISHED:
            run = load_run(folder.path) if cluster.is_chief else None
        else:
            run = _trained(cluster, state, folder, config, images, callbacks)
        cluster.barrier()
    return run


def _default_of_chief(
    cluster: Cluster,
    folder: RunFolder | None,
    images: AnomalyData,
    settings: Mapping[str, Any] | None,
) -> str:
    """Returns the method of the run in `folder`, if there is one, else the data's default.

    The default depends on the pretrained weights of a machine: all workers take the chief's.
    """
    old, names = (folder.read_config() if folder else None), methods.names()
    method = old["method"] if old else default_method(images, settings)
    return names[cluster.broadcast(names.index(method))] if method in names else method


def _precision_of_chief(cluster: Cluster, folder: RunFolder | None) -> str:
    """Returns the precision of the run in `folder`, if there is one, else the processor's best.

    A run that is resumed on another processor keeps the one that it began with, and workers on
    other processors take the chief's.
    """
    old, names = (folder.read_config() if folder else None), list(POLICIES)
    if old:
        precision, reason = old.get("settings", {}).get("precision", names[0]), "that of the run"
    else:
        precision, reason = methods.native_precision(), "the best of this processor"
    precision = names[cluster.broadcast(names.index(precision))]
    logger.info("precision %s: %s", precision, reason)
    return precision


def _state_on_chief(
    cluster: Cluster,
    folder: RunFolder,
    config: dict[str, Any],
    images: AnomalyData,
    resume: bool,
    overwrite: bool,
) -> RunState:
    """Returns the state of the run as the chief finds it, in all workers."""

    def upgrade(old: dict[str, Any]) -> dict[str, Any]:
        # Settings that it does not name had the method's defaults, in published configurations too.
        settings = methods.settings_of(old["method"].partition("/")[0], old["settings"])
        return upgraded(old, settings.as_dict(), depth=images.depth)

    state = RunState.NEW
    if cluster.is_chief:
        split, asked, goes_on = split_of(images), config, False
        old, steps = folder.read_config(), config["settings"]["steps"]
        if old and resume and is_longer(steps, old["settings"].get("steps", steps)):
            if "parent" in old:
                hint = "give more images with `tfgad learn`"
                raise UsageError("out", folder.path, "was written by `tfgad learn`", hint)
            settings = {**config["settings"], "steps": old["settings"]["steps"]}
            asked, goes_on = {**config, "settings": settings}, True
        state = folder.state(asked, split, resume=resume, overwrite=overwrite, upgrade=upgrade)
        if goes_on and state == RunState.FINISHED:
            state = RunState.STARTED
    return RunState(cluster.broadcast(state))


def _trained(
    cluster: Cluster,
    state: RunState,
    folder: RunFolder,
    config: dict[str, Any],
    images: AnomalyData,
    callbacks: Callbacks,
) -> Run | None:
    """Trains the remaining steps of a run; the chief alone calibrates and writes it."""
    settings = config["settings"]
    old = (folder.read_config() or {}) if state == RunState.STARTED else {}
    # A resumed run keeps its score, whatever is the default now: its checkpoint fits that alone.
    score = old.get("score") or default_score(config)
    built_with = {**settings, "score": score, "ignored": images.ignored}
    build = partial(
        methods.build,
        config["method"],
        images.image_shape,
        config["seed"],
        products=images.products,
        **built_with,
    )
    with cluster.strategy.scope():
        model = build()
    model.prepare()  # a mistake is found before anything is written
    steps = stage_steps(settings["steps"], model.stages)
    pretrained = model.pretrained
    config |= {"learnt_from": list(model.learnt_from), **pretrained}
    config |= {"window": list(model.window), "score": model.score}
    config |= {"versions": versions(), "images": _sizes(images)}
    asked: dict[str, Any] = {}
    if cluster.is_chief:
        if state == RunState.STARTED:
            check_same_weights(folder.path, old, pretrained)
            asked = asked_of(folder.path, old)
            config |= {"calibration": asked} if asked else {}  # may be interrupted again
            if folder.is_finished():  # and is to be trained by more steps
                finished = load_model(folder.model)
                check_same_networks(folder.path, finished, model)
                write_checkpoint(finished, folder.checkpoint)
                folder.remove_results()
        folder.start(state, config, split_of(images))
    cluster.barrier()  # before it, others might find the checkpoint of the run that is replaced

    start = time.monotonic()
    _fit(model, steps, images, settings["jitter"], folder, callbacks, cluster)
    if not cluster.is_chief:
        return None
    if cluster.is_distributed:  # from here on each weight is one plain variable
        model = build()
        model.load_weights(folder.checkpoint)
    run = Run(folder.path, config, model)
    origins = images.calibration_origins
    if images.train_products is not None:
        model.learn_products(images.train, images.train_products)
    held_products = images.calibration_products
    normals, size, held_out = images.train, images.train_size, images.calibration
    finish(run, normals, size, held_out, start, origins, held_products=held_products, **asked)
    return run


def _fit(
    model: Detector,
    steps: Mapping[str, int],
    images: AnomalyData,
    jitter: float,
    folder: RunFolder,
    callbacks: Callbacks,
    cluster: Cluster,
) -> None:
    """Fits the remaining steps of a detector on the training images of its data set."""

    def batches(first: int) -> tf.data.Dataset:
        return training_batches(
            images,
            model.training_window,
            batch_size=model.images_per_step,
            seed=model.seed,
            start=first,
            labelled=model.labelled,
            jitter=jitter,
        )

    def with_log(stage: str, remaining_steps: int) -> Sequence[keras.callbacks.Callback]:
        logs = [Log(folder.path, images)] if cluster.is_chief else []
        return [*logs, *callbacks(stage, remaining_steps)]

    fit_stages(model, steps, batches, folder.checkpoint, with_log, cluster)


def finish(
    run: Run,
    normals: tf.data.Dataset,
    size: int,
    held_out: tf.data.Dataset,
    start: float,
    origins: Origins | None = None,
    false_positive_rate: float = FALSE_POSITIVE_RATE,
    per: str | None = None,
    held_products: np.ndarray | None = None,
) -> None:
    """Adapts and calibrates the fitted model of a run, and writes the finished run.

    Args:
        run: with a configuration that lacks only what is found here.
        normals: images float32 `[H, W, C]` that the model was trained on, one at a time.
        size: how many they are.
        held_out: normal images that set the threshold, in the same form.
        start: of the training, by `time.monotonic`.
        origins: the groups of `held_out`; None if each has its own.
        false_positive_rate: that the threshold is set for.
        per: what it is a share of; see `default_per`.
        held_products: the product of each of `held_out`, of a model of several.
    """
    per = per or default_per(run)
    run.model.adapt(normals, size)
    threshold = run.model.calibrate(
        held_out, false_positive_rate, origins=origins, per=per, products=held_products
    )
    run.config["training_seconds"] = round(time.monotonic() - start, 1)
    run.config["calibration"] = calibration_metadata(
        threshold, false_positive_rate, run.config["data"], origins, per
    )
    run.save()
    RunFolder(run.folder).checkpoint.unlink(missing_ok=True)


def _sizes(images: AnomalyData) -> dict[str, int]:
    return {
        "train": images.train_size,
        "calibration": images.calibration_size,
        "test": images.test_size,
        "skipped": len(images.skipped),
    }
