"""Trains a segmenter on fabrics with known defects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.core import settings as settings_of
from tfgad.data.origins import Origins
from tfgad.errors import UsageError
from tfgad.multistage import segmenter
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.segmenter_config import SegmenterConfig, settings_of_run
from tfgad.multistage.sources import Source, joined_origins
from tfgad.training.lock import locked
from tfgad.training.loop import finish
from tfgad.training.run import Run, check_enough, load_run
from tfgad.training.run_config import (
    absolute_spec,
    new_config,
    upgraded,
    versions,
    weights_to_resume,
)
from tfgad.training.run_folder import RunFolder, RunState
from tfgad.training.split_file import Split, merged
from tfgad.training.stages import Callbacks, fit_stages, no_callbacks

METHOD = "segmenter"
Rows = dict[str, np.ndarray]  # arguments of `segmentation_batches`: defective, masks, good


def train_segmenter(
    sources: Sequence[Source],
    out: str | Path,
    *,
    settings: SegmenterConfig | None = None,
    backbone_weights: str | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = no_callbacks,
) -> Run:
    """Trains a segmenter on fabrics with known defects; their good images set its threshold.

    Args:
        sources: the fabrics, their images of one size.
        out: the run's folder.
        settings: hyper-parameters; the defaults of `SegmenterConfig` if None.
        backbone_weights: see `segmenter.build`.
        seed: of weights and training.
        resume: continue an interrupted run. The arguments must be the same, and so must the images
            of folders.
        overwrite: replace an old run.
        callbacks: name of a stage and its number of remaining steps -> Keras callbacks.

    Raises:
        UsageError: weights that cannot be had, images of several sizes, too few good ones for a
            threshold, or a folder that must not be replaced. Nothing is changed then.
    """
    settings, folder = settings or SegmenterConfig(), RunFolder(out)
    shapes = {source.images.shape[1:] for source in sources}
    if len(shapes) > 1:
        given = " and ".join(str(shape) for shape in sorted(shapes))
        raise UsageError("data", given, "are of several sizes", "give one size or tile to all")
    (shape,) = shapes
    held_out = np.concatenate([source.held_out for source in sources])
    check_enough(sources[0].spec, len(held_out))
    specs = [absolute_spec(source.spec) for source in sources]
    resized, depth = sources[0].resized, max(source.depth for source in sources)
    config = new_config(
        METHOD, specs[0], seed, settings_of.as_dict(settings), shape, resized, depth
    )
    config |= {"sources": specs, "learnt_from": specs}
    split = merged(source.files for source in sources)
    with locked(folder.path):
        state = folder.state(
            config,
            split,
            resume=resume,
            overwrite=overwrite,
            upgrade=lambda old: upgraded_settings(old, depth),
        )
        if state != RunState.NEW:
            backbone_weights = weights_to_resume(
                folder.path, folder.read_config() or {}, "backbone_weights", backbone_weights
            )
        if state == RunState.FINISHED:
            return load_run(folder.path)
        model, weights = segmenter.build(settings, shape, seed, backbone_weights)
        config |= weights.as_config("backbone_weights") if weights else {"backbone_weights": None}
        rows = {
            "defective": np.concatenate([source.images for source in sources]),
            "masks": np.concatenate([source.masks for source in sources]),
            "good": np.concatenate([source.good for source in sources]),
        }
        run = Run(folder.path, config, model)
        origins = joined_origins(sources)
        fit(run, state, split, rows, held_out, settings.steps, callbacks, origins)
        return run


def load_segmenter(folder: str | Path) -> Run:
    """Loads a run of `train_segmenter` or `adaptation.adapt_segmenter`.

    Raises:
        UsageError: the run is of another method, or cannot be read.
    """
    run = load_run(folder)
    if not isinstance(run.model, segmenter.Segmenter):
        hint = "give a run of `tfgad segment train`"
        raise UsageError("run", folder, f"is a {run.config['method']}", hint)
    return run


def upgraded_settings(config: dict[str, Any], depth: int) -> dict[str, Any]:
    """Returns the configuration of an older segmenter with what was added since.

    Args:
        config: of the older run.
        depth: of the data now; see `tfgad.training.run_config.upgraded`.
    """
    return upgraded(config, settings_of.as_dict(settings_of_run(config)), depth=depth)


def fit(
    run: Run,
    state: RunState,
    split: Split | None,
    rows: Rows,
    held_out: np.ndarray,
    steps: int,
    callbacks: Callbacks,
    origins: Origins | None = None,
) -> None:
    """Trains the remaining steps of a segmenter on arrays, calibrates it, and writes its run.

    Args:
        run: with the part of its configuration that is known before training.
        state: of its folder.
        split: the files of its data, if they consist of files.
        rows: `defective`, `masks` and `good`; see `segmentation_batches`.
        held_out: good images `[N, H, W, C]` that set the threshold.
        steps: of the training.
        callbacks: as `train_segmenter` takes them.
        origins: the groups of `held_out`; None if each has its own.
    """
    start, config, model, folder = time.monotonic(), run.config, run.model, RunFolder(run.folder)
    config |= {"window": list(model.window), "score": model.score, "versions": versions()}
    config["images"] = {
        "train": len(rows["good"]),
        "defective": len(rows["defective"]),
        "calibration": len(held_out),
        "test": 0,
        "skipped": 0,
    }
    folder.start(state, config, split)

    def batches(first: int) -> tf.data.Dataset:
        size, seed = config["settings"]["batch_size"], config["seed"]
        defective, masks, good = rows["defective"], rows["masks"], rows["good"]
        return segmentation_batches(defective, masks, good, batch_size=size, seed=seed, start=first)

    fit_stages(model, {"train": steps}, batches, folder.checkpoint, callbacks)
    good, held = (tf.data.Dataset.from_tensor_slices(each) for each in (rows["good"], held_out))
    finish(run, good, len(rows["good"]), held, start, origins)
