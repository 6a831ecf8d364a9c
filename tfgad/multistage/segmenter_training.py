"""Trains a segmenter on fabrics whose defects are known, and adapts it to a new one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad import files, recipes, runs
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError
from tfgad.multistage import segmenter
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.painter import Painter
from tfgad.multistage.sources import Source, good_images
from tfgad.networks.layers import Adam

SETTINGS = {
    "backbone": "small", "width": 32, "learning_rate": 1e-3, "batch_size": 16, "steps": "1000",
    "painted": 500, "rehearsed": 500, "adapt_rate": 3e-4, "adapt_steps": "200",
}  # fmt: skip
# To see it all at work: too short to be of use.
QUICK = {"width": 8, "steps": "60", "painted": 60, "rehearsed": 60, "adapt_steps": "30"}

METHOD = "segmenter"


def train_segmenter(
    sources: Sequence[Source],
    out: str | Path,
    *,
    settings: dict[str, Any] | None = None,
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
        seed: of weights and training.
        resume: go on with a run that was broken off; the arguments must be the same.
        overwrite: put a new run in the place of an old one.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.

    Raises:
        UsageError: an unknown setting, images of several sizes, or a folder in the way. Nothing is
            changed then.
    """
    shapes = {source.images.shape[1:] for source in sources}
    if len(shapes) > 1:
        given = " and ".join(str(shape) for shape in sorted(shapes))
        raise UsageError("data", given, "are of several sizes", "give one size or tile to all")
    chosen = recipes.changed(SETTINGS, settings or {}, "the segmenter")
    specs = [runs.from_anywhere(source.spec) for source in sources]
    config = _config(specs[0], seed, chosen, *shapes, sources[0].resized) | {"sources": specs}
    folder = Path(out)
    state = runs.state_of(folder, config, resume, overwrite)
    if state == runs.FINISHED:
        return runs.load_run(folder)
    model = segmenter.build(
        *shapes, backbone=chosen["backbone"], width=chosen["width"], rate=chosen["learning_rate"],
        seed=seed,
    )  # fmt: skip
    rows = {
        "defective": np.concatenate([source.images for source in sources]),
        "masks": np.concatenate([source.masks for source in sources]),
        "good": np.concatenate([source.good for source in sources]),
    }
    held_out = np.concatenate([source.held_out for source in sources])
    run = runs.Run(folder, config, model)
    return _trained(run, state, rows, held_out, chosen["steps"], callbacks)


def load_segmenter(folder: str | Path) -> runs.Run:
    """Loads a run of `train_segmenter` or `adapt_segmenter`.

    Raises:
        UsageError: it is of something else, or cannot be read.
    """
    run = runs.load_run(folder)
    if not isinstance(run.model, segmenter.Segmenter):
        mend = "give a run of `tfgad segment train`"
        raise UsageError("run", folder, f"is a {run.config['method']}", mend)
    return run


def adapt_segmenter(
    run: runs.Run,
    painter: Painter,
    images: AnomalyData,
    known: Sequence[Source],
    out: str | Path,
    *,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: runs.Callbacks = runs.no_callbacks,
) -> runs.Run:
    """Trains a segmenter further on what a painter makes of a new fabric's good images.

    And on some of the defects it knows already, as many as the setting `rehearsed` says: without
    them it learns what painted defects look like and forgets what real ones do (Robins 1995).

    Args:
        run: of the segmenter; it stays as it is.
        painter: trained on fabrics of the same channels.
        images: the new fabric; its training and calibration images alone are used.
        known: the fabrics that the run was trained on.
        out: folder of the new run.
        settings: what differs from the run's, such as `painted` and `adapt_steps`.
        seed: of painting and training.
        resume: go on with a run that was broken off; the arguments must be the same.
        overwrite: put a new run in the place of an old one.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.

    Raises:
        UsageError: images of another size or resized otherwise, an unknown setting, a folder in the
            way. Nothing is changed then.
    """
    _check_alike(run, images)
    chosen = recipes.changed(run.config["settings"], settings or {}, "the segmenter")
    config = _config(images.spec, seed, chosen, run.model.window, images.resized)
    config |= {"sources": run.config["sources"], "painter": painter.config["data"]}
    folder = Path(out)
    state = runs.state_of(folder, config, resume, overwrite)
    if state == runs.FINISHED:
        return runs.load_run(folder)
    good = good_images(images.train, images.train_size)
    painted = list(painter.paint(good, chosen["painted"], seed=seed))
    rows = {
        "defective": np.stack([each.image for each in painted]),
        "masks": np.stack([each.mask for each in painted]),
        "good": good,
    }
    rows = rehearsing(rows, known, chosen["rehearsed"], seed)
    held_out = good_images(images.calibration, images.calibration_size)
    model = renewed(run.model, chosen["adapt_rate"], seed)
    made = runs.Run(folder, config | {"vgg_weights": painter.config["vgg_weights"]}, model)
    return _trained(made, state, rows, held_out, chosen["adapt_steps"], callbacks)


def further(
    run: runs.Run, rows: dict[str, np.ndarray], known: Sequence[Source], seed: int = 0
) -> segmenter.Segmenter:
    """Trains a copy of a run's segmenter as `adapt_segmenter` does, on whatever images are given.

    Args:
        run: of the segmenter.
        rows: `defective`, `masks` and `good`; see `segmentation_batches`.
        known: the fabrics that the run was trained on.
        seed: of the training.
    """
    chosen = run.config["settings"]
    rows = rehearsing(rows, known, chosen["rehearsed"], seed)
    model = renewed(run.model, chosen["adapt_rate"], seed)
    steps = runs.stage_steps(chosen["adapt_steps"], model.stages)["train"]
    batches = segmentation_batches(**rows, batch_size=chosen["batch_size"], seed=seed)
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
    return model


def rehearsing(
    rows: dict[str, np.ndarray], known: Sequence[Source], count: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns the rows, and `count` known defects drawn by chance beside the defective ones."""
    places = [(source, i) for source in known for i in range(len(source.kinds))]
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(places), count, replace=count > len(places))
    rehearsed = [
        (source.images[i], source.masks[i]) for source, i in map(places.__getitem__, drawn)
    ]
    images, masks = zip(*rehearsed, strict=True) if rehearsed else ((), ())
    return rows | {
        "defective": np.stack([*rows["defective"], *images]),
        "masks": np.stack([*rows["masks"], *masks]),
    }


def renewed(model: segmenter.Segmenter, rate: float, seed: int = 0) -> segmenter.Segmenter:
    """Returns a copy that has not trained a step, to be trained at another rate.

    Its batch normalisation keeps the statistics it has, as in DeepLab V3's second training (section
    4.1 of the paper): those of the few images of one fabric differ between training and inference,
    and a segmenter adapted with them may mark everything (IoU 0.06 instead of 0.75, on twill).

    Args:
        model: stays as it is.
        rate: of Adam.
        seed: of the training.
    """
    keras.utils.set_random_seed(seed)  # of dropout and of tf.data's shuffling
    network = keras.models.clone_model(model.network, clone_function=_unnormalising, recursive=True)
    network.set_weights(model.network.get_weights())
    copy = segmenter.Segmenter(network=network, stride=model.stride, seed=model.seed)
    copy.compile(network=Adam(rate))
    return copy


def _unnormalising(layer: keras.Layer) -> keras.Layer:
    """Returns a copy; one of batch normalisation is frozen."""
    copy = type(layer).from_config(layer.get_config())
    if isinstance(copy, keras.layers.BatchNormalization):
        copy.trainable = False
    return copy


def _check_alike(run: runs.Run, images: AnomalyData) -> None:
    """Raises UsageError unless the images are such as the run was trained on."""
    side, _, channels = made_for = run.model.window
    resized = run.config["resized"]
    if (images.image_shape, images.resized) != (made_for, resized):
        given = f"images of {images.image_shape}, {'' if images.resized else 'not '}resized"
        problem = f"but the run has {made_for}, {'' if resized else 'not '}resized"
        mend = f"load it as the run's data was, {side} pixels wide, channels={channels}"
        raise UsageError("data", given, problem, mend)


def _config(spec: str, seed: int, chosen: dict[str, Any], shape, resized) -> dict[str, Any]:
    return {
        "method": METHOD,
        "data": runs.from_anywhere(spec),
        "seed": seed,
        "settings": chosen,
        "image_shape": list(shape),
        "resized": resized,
    }


def _trained(run: runs.Run, state: str, rows, held_out, steps: str, callbacks) -> runs.Run:
    """Trains a run's segmenter on arrays, sets its threshold on good images, and writes it."""
    begun, config, model = time.monotonic(), run.config, run.model
    togo = runs.stage_steps(steps, model.stages)
    size = config["settings"]["batch_size"]
    if size < 2:
        mend = "give 2 or more: half of a batch is of good fabric"
        raise UsageError("batch_size", size, "is too small", mend)
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
    files.write_json(run.folder / runs.CONFIG, config)

    def batches(start):
        return segmentation_batches(**rows, batch_size=size, seed=config["seed"], start=start)

    checkpoint = run.folder / runs.CHECKPOINT
    runs.fit_stages(model, togo, batches, checkpoint, callbacks)
    rate, images = runs.FALSE_POSITIVE_RATE, tf.data.Dataset.from_tensor_slices(held_out)
    threshold = model.calibrate(images, rate)
    config["training_seconds"] = round(time.monotonic() - begun, 1)
    config["calibration"] = runs.calibration_facts(threshold, rate, config["data"])
    run.save()
    checkpoint.unlink(missing_ok=True)
    return run
