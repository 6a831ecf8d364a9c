"""Trains a segmenter on fabrics whose defects are known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad import files
from tfgad.errors import UsageError
from tfgad.multistage import segmenter
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.settings import changed
from tfgad.multistage.sources import Source
from tfgad.training import runs
from tfgad.training.held_out import check_same_files, together, write_split

# All that is put on a new fabric is painted. Where half of it was transplanted instead, IoU was
# 0.04 lower on twill and 0.01 on satin and check (`mixed` of `examples/benchmarks/multistage.py`,
# three seeds).
# `adapt_rate` falls to nothing, so its mean is about half (`adaptation.renewed`). Beginning at 3e-4
# a segmenter of two AITEX fabrics does not learn a third one in 200 steps, not even from its own
# true defects: an IoU of 0.01, but at 6e-4 of 0.36.
SETTINGS = {
    "backbone": "small", "width": 32, "learning_rate": 1e-3, "batch_size": 16, "steps": "1000",
    "painted": 500, "transplanted": 0, "rehearsed": 500, "adapt_rate": 6e-4, "adapt_steps": "200",
}  # fmt: skip
# To see it all at work: too short to be of use.
QUICK = {"width": 8, "steps": "60", "painted": 60, "rehearsed": 60, "adapt_steps": "30"}

METHOD = "segmenter"


def train_segmenter(
    sources: Sequence[Source],
    out: str | Path,
    *,
    settings: dict[str, Any] | None = None,
    backbone_weights: str | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: runs.Callbacks = runs.no_callbacks,
) -> runs.Run:
    """Trains a segmenter on fabrics whose defects are known, and sets its threshold on good ones.

    Args:
        sources: the fabrics, their images of one size.
        out: the run's folder.
        settings: what differs from `SETTINGS`.
        backbone_weights: of ResNet-50; see `tfgad.networks.pretrained`.
        seed: of weights and training.
        resume: go on with a run that was broken off; the arguments must be the same, and so must
            the images of folders.
        overwrite: put a new run in the place of an old one.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.

    Raises:
        UsageError: a setting that is unknown or will not do, weights that cannot be had, images of
            several sizes, too few to set a threshold by, or a folder in the way. Nothing is changed
            then.
    """
    shapes = {source.images.shape[1:] for source in sources}
    if len(shapes) > 1:
        given = " and ".join(str(shape) for shape in sorted(shapes))
        raise UsageError("data", given, "are of several sizes", "give one size or tile to all")
    chosen = changed(SETTINGS, settings or {}, "the segmenter")
    steps = checked_steps(chosen, "steps")
    held_out = np.concatenate([source.held_out for source in sources])
    runs.check_enough(sources[0].spec, len(held_out))
    specs = [runs.from_anywhere(source.spec) for source in sources]
    resized, depth = sources[0].resized, max(source.depth for source in sources)
    config = runs.new_config(METHOD, specs[0], seed, chosen, *shapes, resized, depth)
    config |= {"sources": specs, "learnt_from": specs}
    folder = Path(out)
    state = runs.state_of(folder, config, resume, overwrite)
    split = together(source.files for source in sources)
    if state != runs.NEW:
        check_same_files(folder, split, state == runs.FINISHED)
        begun_with = runs.read_config(folder)
        backbone_weights = runs.weights_begun_with(
            folder, begun_with, "backbone_weights", backbone_weights
        )
    if state == runs.FINISHED:
        return runs.load_run(folder)
    model, config["backbone_weights"] = segmenter.build(
        *shapes, backbone=chosen["backbone"], width=chosen["width"], rate=chosen["learning_rate"],
        seed=seed, weights=backbone_weights,
    )  # fmt: skip
    rows = {
        "defective": np.concatenate([source.images for source in sources]),
        "masks": np.concatenate([source.masks for source in sources]),
        "good": np.concatenate([source.good for source in sources]),
    }
    run = runs.Run(folder, config, model)
    return trained(run, state, split, rows, held_out, steps, callbacks)


def checked_steps(chosen: dict[str, Any], name: str) -> dict[str, int]:
    """Returns the steps of a training by the name of their setting.

    Raises:
        UsageError: they are no number, or a batch is of less than two images.
    """
    size = chosen["batch_size"]
    if size < 2:
        hint = "give 2 or more: half of a batch is of good fabric"
        raise UsageError("batch_size", size, "is too small", hint)
    return runs.stage_steps(chosen[name], segmenter.Segmenter.stages)


def load_segmenter(folder: str | Path) -> runs.Run:
    """Loads a run of `train_segmenter` or `adaptation.adapt_segmenter`.

    Raises:
        UsageError: it is of something else, or cannot be read.
    """
    run = runs.load_run(folder)
    if not isinstance(run.model, segmenter.Segmenter):
        hint = "give a run of `tfgad segment train`"
        raise UsageError("run", folder, f"is a {run.config['method']}", hint)
    return run


def trained(run: runs.Run, state: str, split, rows, held_out, steps, callbacks) -> runs.Run:
    """Trains a run's segmenter on arrays, sets its threshold on good images, and writes it.

    Args:
        run: with all of its configuration that is known beforehand (`runs.new_config`).
        state: of its folder; see `runs.state_of`.
        split: the files of its data, if it is of files; see `tfgad.training.held_out.write_split`.
        rows: `defective`, `masks` and `good`; see `segmentation_batches`.
        held_out: good images `[N, H, W, C]` for the threshold.
        steps: as `checked_steps` returns them.
        callbacks: as `train_segmenter` takes them.
    """
    begun, config, model = time.monotonic(), run.config, run.model
    config |= {"window": list(model.window), "score": model.score, "versions": runs.versions()}
    config["images"] = {
        "train": len(rows["good"]),
        "defective": len(rows["defective"]),
        "calibration": len(held_out),
        "test": 0,
        "skipped": 0,
    }
    if state == runs.NEW:
        runs.remove(run.folder)
        write_split(run.folder, split)
    files.write_json(run.folder / runs.CONFIG, config)

    def batches(start):
        size, seed = config["settings"]["batch_size"], config["seed"]
        return segmentation_batches(**rows, batch_size=size, seed=seed, start=start)

    checkpoint = run.folder / runs.CHECKPOINT
    runs.fit_stages(model, steps, batches, checkpoint, callbacks)
    model.adapt(tf.data.Dataset.from_tensor_slices(rows["good"]), len(rows["good"]))
    rate, images = runs.FALSE_POSITIVE_RATE, tf.data.Dataset.from_tensor_slices(held_out)
    threshold = model.calibrate(images, rate)
    config["training_seconds"] = round(time.monotonic() - begun, 1)
    config["calibration"] = runs.calibration_metadata(threshold, rate, config["data"])
    run.save()
    checkpoint.unlink(missing_ok=True)
    return run
