"""Adapts a segmenter to a new fabric of which there are good images alone.

The segmenter is fine-tuned on defects put on the new fabric, with replay of the fabrics that it was
trained on: without their defects it learns what painted ones look like and forgets the real ones
(Robins 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfgad.core import settings as settings_of
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError
from tfgad.multistage import segmenter
from tfgad.multistage.batches import segmentation_batches
from tfgad.multistage.painter import Painter
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.segmenter_config import AdaptationConfig, SegmenterConfig, settings_of_run
from tfgad.multistage.segmenter_training import METHOD, Rows, fit, upgraded_settings
from tfgad.multistage.sources import (
    Source,
    good_images,
    held_out_origins,
    refuse_letterboxed,
)
from tfgad.multistage.transplants import transplanted
from tfgad.networks.layers import Adam
from tfgad.networks.pretrained import keys_of
from tfgad.training.lock import locked
from tfgad.training.run import Run, check_enough, load_run
from tfgad.training.run_config import learnt_from, new_config
from tfgad.training.run_folder import RunFolder, RunState
from tfgad.training.split_file import merged, split_with_paths
from tfgad.training.stages import Callbacks, no_callbacks

POWER = 0.9  # of the falling rate (Chen et al. 2017, section 4.1)


def adapt_segmenter(
    run: Run,
    painter: Painter | None,
    images: AnomalyData,
    known: Sequence[Source],
    out: str | Path,
    *,
    settings: AdaptationConfig | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = no_callbacks,
) -> Run:
    """Fine-tunes a segmenter on a new fabric's good images with defects put on them.

    It learns from three sorts of defects, as many of each as the setting of that name says:

    - `painted` in the style of the new fabric, as in the paper;
    - `transplanted`: known defects cut out of their own fabrics. They are real, but do not suit the
      new fabric. By default there are none, unless there is no painter;
    - `rehearsed`: known defects on their own fabrics (replay).

    Args:
        run: of the segmenter; it is not changed.
        painter: trained on fabrics of the same channels. Without one, transplanted defects take the
            place of painted ones.
        images: the new fabric; only its training and calibration images are used.
        known: the fabrics that the run was trained on.
        out: folder of the new run.
        settings: hyper-parameters; those of the run if None.
        seed: of painting and training.
        resume: continue an interrupted run. The arguments must be the same, and so must the images
            of folders.
        overwrite: replace an old run.
        callbacks: name of a stage and its number of remaining steps -> Keras callbacks.

    Raises:
        UsageError: images of another size or resized otherwise, too few good ones, or a folder that
            must not be replaced. Nothing is changed then.
    """
    folder = RunFolder(out)
    if folder.path.resolve() == run.folder.resolve():
        hint = "name another folder: the run stays as it is"
        raise UsageError("out", folder.path, "is the run that is to be adapted", hint)
    _check_alike(run, images)
    check_enough(images.spec, images.calibration_size)
    settings = settings or adaptation_of_run(run)
    config = _new_config(run, painter, images, settings, seed)
    split = merged([split_with_paths(images), *(source.files for source in known)])
    with locked(folder.path):
        state = folder.state(
            config,
            split,
            resume=resume,
            overwrite=overwrite,
            upgrade=lambda old: _upgraded(old, images.depth),
        )
        if state == RunState.FINISHED:
            return load_run(folder.path)
        good = good_images(images.train, images.train_size)
        rows = _with_defects(good, painter, known, settings, seed)
        rows = with_replay(rows, known, settings.rehearsed, seed)
        held_out = good_images(images.calibration, images.calibration_size)
        model = copy_to_fine_tune(run.model, settings.adapt_rate, settings.adapt_steps, seed)
        adapted = Run(folder.path, config, model)
        origins = held_out_origins(images)
        fit(adapted, state, split, rows, held_out, settings.adapt_steps, callbacks, origins)
        return adapted


def adaptation_of_run(run: Run) -> AdaptationConfig:
    """Returns the hyper-parameters of adaptation that a segmenter was trained with."""
    base = settings_of_run(run.config)
    return settings_of.parse(AdaptationConfig, {}, of="adaptation", base=base)


def fine_tune(run: Run, rows: Rows, known: Sequence[Source], seed: int = 0) -> segmenter.Segmenter:
    """Returns a copy of a run's segmenter, fine-tuned as by `adapt_segmenter` on any images.

    Args:
        run: of the segmenter.
        rows: `defective`, `masks` and `good`; see `segmentation_batches`.
        known: the fabrics that the run was trained on.
        seed: of the training.
    """
    settings = settings_of_run(run.config)
    rows = with_replay(rows, known, settings.rehearsed, seed)
    model = copy_to_fine_tune(run.model, settings.adapt_rate, settings.adapt_steps, seed)
    batches = segmentation_batches(
        rows["defective"], rows["masks"], rows["good"], batch_size=settings.batch_size, seed=seed
    )
    model.fit(batches, steps_per_epoch=settings.adapt_steps, shuffle=False, verbose=0)
    return model


def with_replay(rows: Rows, known: Sequence[Source], count: int, seed: int) -> Rows:
    """Returns the rows with known defects, drawn at random, beside the defective ones.

    Args:
        rows: `defective`, `masks` and `good`; see `segmentation_batches`.
        known: the fabrics of the defects.
        count: of the defects; none is drawn twice while there are enough.
        seed: of the drawing.
    """
    places = [(source, i) for source in known for i in range(len(source.kinds))]
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(places), count, replace=count > len(places))
    replayed = [(source.images[i], source.masks[i]) for source, i in (places[n] for n in drawn)]
    return rows | {
        "defective": np.stack([*rows["defective"], *(image for image, _ in replayed)]),
        "masks": np.stack([*rows["masks"], *(mask for _, mask in replayed)]),
    }


def copy_to_fine_tune(
    model: segmenter.Segmenter, rate: float, steps: int, seed: int = 0
) -> segmenter.Segmenter:
    """Returns a compiled copy at step 0, to be trained for a number of steps.

    The rate falls to zero by (1 - step / steps)^0.9, the "poly" schedule of DeepLab V3 (section
    4.1): at a constant rate the threshold, and with it the IoU, depends on the step at which a
    training happens to stop.

    Batch normalisation keeps its statistics, as in DeepLab V3's second training (the same section):
    those of the few images of one fabric differ between training and inference, and a segmenter
    adapted with them may mark everything (IoU 0.06 instead of 0.75, on twill).

    Args:
        model: is not changed.
        rate: of Adam at the first step.
        steps: the rate is zero after so many.
        seed: of the training.
    """
    keras.utils.set_random_seed(seed)  # of dropout and of tf.data's shuffling
    network = keras.models.clone_model(model.network, clone_function=_frozen_copy, recursive=True)
    network.set_weights(model.network.get_weights())
    copy = segmenter.Segmenter(
        model.config,
        model.window,
        network=network,
        stride=model.stride,
        seed=model.seed,
    )
    poly = keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.0, power=POWER)
    copy.compile({"network": Adam(poly)})
    return copy


def _frozen_copy(layer: keras.Layer) -> keras.Layer:
    """Returns a copy of a layer, which is frozen if it normalises batches."""
    copy = type(layer).from_config(layer.get_config())
    if isinstance(copy, keras.layers.BatchNormalization):
        copy.trainable = False
    return copy


def _with_defects(
    good: np.ndarray,
    painter: Painter | None,
    known: Sequence[Source],
    settings: AdaptationConfig,
    seed: int,
) -> Rows:
    """Returns good images, and painted and transplanted defects on them with their masks."""
    painted = list(painter.paint(good, settings.painted, seed=seed)) if painter else []
    count = settings.transplanted + (0 if painter else settings.painted)
    moved, masks, _ = transplanted(known, good, count, seed)
    return {
        "defective": np.stack([*(each.image for each in painted), *moved]),
        "masks": np.stack([*(each.mask for each in painted), *masks]),
        "good": good,
    }


def _new_config(
    run: Run, painter: Painter | None, images: AnomalyData, settings: AdaptationConfig, seed: int
) -> dict[str, Any]:
    """Returns the configuration of the new run, with the segmenter and the painter it is made of.

    By these a run is recognised when it is resumed.
    """
    base = settings_of.as_dict(settings_of_run(run.config))
    config = new_config(
        METHOD,
        images.spec,
        seed,
        base | settings_of.as_dict(settings),
        images.image_shape,
        images.resized,
        images.depth,
    )
    learnt = [*learnt_from(run.config), *(painter.learnt_from if painter else ())]
    return config | {
        "sources": run.config["sources"],
        "learnt_from": list(dict.fromkeys(learnt)),
        "base_data": run.config["data"],
        "base_seed": run.config["seed"],
        "base_settings": base,
        **{key: run.config.get(key) for key in keys_of("backbone_weights")},
        "painter": painter and painter.config["data"],
        "painter_seed": painter and painter.config["seed"],
        "painter_settings": painter and _painter_settings(painter.config["settings"]),
        **{key: painter and painter.config.get(key) for key in keys_of("vgg_weights")},
    }


def _painter_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return settings_of.as_dict(settings_of.parse(PainterConfig, settings, of="the painter"))


def _upgraded(config: dict[str, Any], depth: int) -> dict[str, Any]:
    """Returns the configuration of an older adaptation with what was added since."""
    base, painter = config.get("base_settings"), config.get("painter_settings")
    base = base and settings_of.as_dict(
        settings_of.parse(SegmenterConfig, base, of="the segmenter")
    )
    settings = {"base_settings": base, "painter_settings": painter and _painter_settings(painter)}
    return upgraded_settings(config, depth) | settings


def _check_alike(run: Run, images: AnomalyData) -> None:
    """Raises UsageError unless the images have the form that the run was trained on."""
    refuse_letterboxed(images)
    side, _, channels = trained_on = run.model.window
    resized = run.config["resized"]
    if (images.image_shape, images.resized) != (trained_on, resized):
        given = f"images of {images.image_shape}, {'' if images.resized else 'not '}resized"
        problem = f"but the run has {trained_on}, {'' if resized else 'not '}resized"
        hint = f"load it as the run's data was, {side} pixels wide, channels={channels}"
        raise UsageError("data", given, problem, hint)
