"""Adapts a segmenter to a new fabric, of which there are good images alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError
from tfgad.multistage import segmenter
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.painter import Painter
from tfgad.multistage.segmenter_training import METHOD, checked_steps, trained
from tfgad.multistage.settings import changed
from tfgad.multistage.sources import Source, good_images
from tfgad.multistage.transplants import transplanted
from tfgad.networks.layers import Adam
from tfgad.training import runs
from tfgad.training.held_out import check_same_files, together, with_paths

POWER = 0.9  # of the falling rate (Chen et al. 2017, section 4.1)
# Settings of a segmenter that adapting uses; the others are of the network, which is there already.
SETTINGS = ("painted", "transplanted", "rehearsed", "adapt_rate", "adapt_steps", "batch_size")


def adapt_segmenter(
    run: runs.Run,
    painter: Painter | None,
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
    """Trains a segmenter further on a new fabric's good images with defects put on them.

    These are of three sorts, as many as the settings of their names say:

    - `painted` in the style of the fabric, as the paper has it;
    - `transplanted`, known defects cut out of their own fabrics: they are real, but do not suit the
      new one. By default none, unless there is no painter;
    - `rehearsed`, the known defects where they were: without them it learns what defects look like
      that were put there and forgets what the others do (Robins 1995).

    Args:
        run: of the segmenter; it stays as it is.
        painter: trained on fabrics of the same channels. Without one, what it would have painted is
            transplanted.
        images: the new fabric; its training and calibration images alone are used.
        known: the fabrics that the run was trained on.
        out: folder of the new run.
        settings: those of `SETTINGS` that differ from the run's.
        seed: of painting and training.
        resume: go on with a run that was broken off; the arguments must be the same, and so must
            the images of folders.
        overwrite: put a new run in the place of an old one.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.

    Raises:
        UsageError: images of another size or resized otherwise, too few good ones, a setting that
            is unknown or will not do, a folder in the way. Nothing is changed then.
    """
    folder = Path(out)
    if folder.resolve() == run.folder.resolve():
        hint = "name another folder: the run stays as it is"
        raise UsageError("out", folder, "is the run that is to be adapted", hint)
    _check_alike(run, images)
    runs.check_enough(images.spec, images.calibration_size)
    given = run.config["settings"]
    adapting = {name: given[name] for name in SETTINGS}
    chosen = given | changed(adapting, settings or {}, "adapting")
    steps = checked_steps(chosen, "adapt_steps")
    shape, resized = images.image_shape, images.resized
    config = runs.new_config(METHOD, images.spec, seed, chosen, shape, resized, images.depth)
    config |= {"sources": run.config["sources"], **_made_by(run, painter)}
    config |= {"learnt_from": [*config["sources"], *(config["painter"] or ())]}
    split = together([with_paths(images), *(source.files for source in known)])
    state = runs.state_of(folder, config, resume, overwrite)
    if state != runs.NEW:
        check_same_files(folder, split, state == runs.FINISHED)
    if state == runs.FINISHED:
        return runs.load_run(folder)
    good = good_images(images.train, images.train_size)
    painted = list(painter.paint(good, chosen["painted"], seed=seed)) if painter else []
    count = chosen["transplanted"] + (0 if painter else chosen["painted"])
    moved, masks, _ = transplanted(known, good, count, seed)
    rows = {
        "defective": np.stack([*(each.image for each in painted), *moved]),
        "masks": np.stack([*(each.mask for each in painted), *masks]),
        "good": good,
    }
    rows = rehearsing(rows, known, chosen["rehearsed"], seed)
    held_out = good_images(images.calibration, images.calibration_size)
    model = renewed(run.model, chosen["adapt_rate"], steps["train"], seed)
    made = runs.Run(folder, config, model)
    return trained(made, state, split, rows, held_out, steps, callbacks)


def _made_by(run: runs.Run, painter: Painter | None) -> dict[str, Any]:
    """What a new run is of, by which `resume` knows it: the run adapted, and the painter."""
    base = {f"base_{name}": run.config[name] for name in ("data", "seed", "settings")}
    base |= {"backbone_weights": run.config.get("backbone_weights")}
    names = {"data": "painter", "seed": "painter_seed", "settings": "painter_settings"}
    names |= {"vgg_weights": "vgg_weights"}
    return base | {ours: painter and painter.config[name] for name, ours in names.items()}


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
    steps = checked_steps(chosen, "adapt_steps")["train"]
    model = renewed(run.model, chosen["adapt_rate"], steps, seed)
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


def renewed(
    model: segmenter.Segmenter, rate: float, steps: int, seed: int = 0
) -> segmenter.Segmenter:
    """Returns a copy that has not trained a step, to be trained for a number of them.

    The rate falls to nothing by (1 - step / steps)^0.9, the "poly" schedule of DeepLab V3 (section
    4.1): where a training at one rate happens to stop decides its threshold, and with it the IoU.

    Its batch normalisation keeps the statistics it has, as in DeepLab V3's second training (the
    same section): those of the few images of one fabric differ between training and inference,
    and a segmenter adapted with them may mark everything (IoU 0.06 instead of 0.75, on twill).

    Args:
        model: stays as it is.
        rate: of Adam, at the first step.
        steps: at the end of which the rate is 0.
        seed: of the training.
    """
    keras.utils.set_random_seed(seed)  # of dropout and of tf.data's shuffling
    network = keras.models.clone_model(model.network, clone_function=_unnormalising, recursive=True)
    network.set_weights(model.network.get_weights())
    copy = segmenter.Segmenter(network=network, stride=model.stride, seed=model.seed)
    poly = keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.0, power=POWER)
    copy.compile(network=Adam(poly))
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
        hint = f"load it as the run's data was, {side} pixels wide, channels={channels}"
        raise UsageError("data", given, problem, hint)
