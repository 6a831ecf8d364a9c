"""Trains a defect painter on fabrics with known defects: stages 1 and 2 of the Multistage GAN."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.core import settings as settings_of
from tfgad.errors import UsageError
from tfgad.multistage import defect_generator, fusion
from tfgad.multistage.batches import endless
from tfgad.multistage.painter import Painter, load_painter
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.painter_folder import STAGES, PainterFolder, is_kind
from tfgad.multistage.pasting import VIEW, paste_examples
from tfgad.multistage.patches import PATCH, Patches, cut_patches
from tfgad.multistage.sources import Source, kinds_of
from tfgad.multistage.style import CODE_DIM, LAYER, style_network
from tfgad.networks.defects import FUSER_STEP
from tfgad.networks.vgg import feature_extractor, grey_or_colour
from tfgad.training.lock import locked
from tfgad.training.run_config import absolute_spec, upgraded, versions, weights_to_resume
from tfgad.training.run_folder import RunState
from tfgad.training.split_file import merged
from tfgad.training.stages import Callbacks, fit_stages, no_callbacks

STYLES = 1500  # patches that the components of the style code are fitted to
BATCH = 64


def train_painter(
    sources: Sequence[Source],
    out: str | Path,
    *,
    settings: PainterConfig | None = None,
    vgg_weights: str | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks = no_callbacks,
) -> Painter:
    """Trains stages 1 and 2 on fabrics with known defects, and writes the painter to a folder.

    Args:
        sources: the fabrics.
        out: the folder.
        settings: hyper-parameters; the defaults of `PainterConfig` if None.
        vgg_weights: see `tfgad.networks.vgg.feature_extractor`.
        seed: of weights, patches and training.
        resume: continue an interrupted training. The arguments must be the same, and so must the
            images of folders.
        overwrite: replace an old painter.
        callbacks: name of a stage and its number of remaining steps -> Keras callbacks.

    Raises:
        UsageError: images that are too small or of several sizes, a kind that cannot name a folder,
            weights that are not VGG's, or a folder that must not be replaced. Nothing is changed
            then.
    """
    settings, folder = settings or PainterConfig(), PainterFolder(out)
    _check_sizes(sources)
    _check_kinds(sources)
    config = {
        "kinds": list(kinds_of(sources)),
        "data": [absolute_spec(source.spec) for source in sources],
        "image_shape": list(sources[0].images.shape[1:]),
        "resized": sources[0].resized,
        "settings": settings_of.as_dict(settings),
        "seed": seed,
    }
    split = merged(source.files for source in sources)
    with locked(folder.path):
        state = folder.state(config, split, resume=resume, overwrite=overwrite, upgrade=_upgraded)
        if state != RunState.NEW:
            started_with = folder.read_config() or {}
            vgg_weights = weights_to_resume(folder.path, started_with, "vgg_weights", vgg_weights)
        if state == RunState.FINISHED:
            return load_painter(folder.path)
        features, vgg_source = feature_extractor(LAYER, vgg_weights)
        config |= vgg_source.as_config("vgg_weights") | {"versions": versions()}
        painter = _untrained(config, settings, features)
        folder.start(state, config, split)
        _train(painter, settings, sources, folder, callbacks)
        painter.save(folder.path)
        for stage in STAGES:
            folder.checkpoint_of(stage).unlink(missing_ok=True)
        return painter


def _upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of an older painter with the settings that were added since."""
    parsed = settings_of.parse(PainterConfig, config["settings"], of="the painter")
    return upgraded(config, settings_of.as_dict(parsed))


def _untrained(config: dict[str, Any], settings: PainterConfig, features: keras.Model) -> Painter:
    """Makes a painter with its first weights.

    Args:
        config: kinds of defect, image shape and seed.
        settings: hyper-parameters.
        features: φ up to the layer of the style.
    """
    channels, seed = config["image_shape"][-1], config["seed"]
    patch_shape = (PATCH, PATCH, channels + 1)
    generator = defect_generator.build(settings, patch_shape, CODE_DIM, len(config["kinds"]), seed)
    fuser = fusion.build(settings, channels, grey_or_colour(features, channels), seed)
    return Painter(style_network(features, channels), generator, fuser, config)


def _train(
    painter: Painter,
    settings: PainterConfig,
    sources: Sequence[Source],
    folder: PainterFolder,
    callbacks: Callbacks,
) -> None:
    """Fits the style code, then the generator, then the fusion network to generated defects."""
    stopwatch, seed = _Stopwatch(), painter.config["seed"]
    steps = dict(zip(STAGES, settings.steps, strict=True))

    def fit(model: keras.Model, stage: str, rows: dict[str, np.ndarray], batch_size: int) -> None:
        fit_stages(
            model,
            {"train": steps[stage]},
            lambda first: endless(rows, batch_size, seed, first),
            folder.checkpoint_of(stage),
            lambda _, remaining_steps: callbacks(stage, remaining_steps),
        )
        stopwatch.lap(stage)

    patches = cut_patches(sources, painter.kinds, settings.patches, seed=seed)
    codes = _fit_style(painter.style, patches)
    stopwatch.lap("patches and styles")
    rows = {
        "patches": patches.defects,
        "fabric": patches.fabrics,
        "style": codes,
        "kind": patches.kinds,
    }
    fit(painter.generator, "generator", rows, settings.batch_size)
    examples = paste_examples(sources, painter.draw, settings.fusions, settings.own_share, seed)
    stopwatch.lap("examples for the fusion")
    fit(painter.fusion, "fusion", vars(examples), settings.fusion_batch_size)
    painter.config["seconds"] = stopwatch.seconds


def _fit_style(style: keras.Model, patches: Patches) -> np.ndarray:
    """Fits the style code to the patches of fabric, and returns their codes `[N, d]`."""
    grams = _in_batches(lambda x: style(x)["gram"], patches.fabrics[:STYLES])
    style.get_layer("gram_code").adapt(grams)
    return _in_batches(lambda x: style(x)["code"], patches.fabrics)


def _in_batches(network: Callable[[tf.Tensor], tf.Tensor], images: np.ndarray) -> np.ndarray:
    compiled = tf.function(network, reduce_retracing=True)
    starts = range(0, len(images), BATCH)
    return np.concatenate([compiled(tf.constant(images[i : i + BATCH])).numpy() for i in starts])


class _Stopwatch:
    """Measures how long each part of the training takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def lap(self, part: str) -> None:
        """Notes the seconds since the last lap."""
        now = time.monotonic()
        self.seconds[part], self.last = round(now - self.last, 1), now


def _check_kinds(sources: Sequence[Source]) -> None:
    """Raises UsageError unless each kind can name a folder of painted images."""
    for source in sources:
        for kind in source.kinds:
            if not is_kind(kind):
                problem = f"has a kind of defect {kind!r}, which cannot name a folder of images"
                raise UsageError("data", source.spec, problem, "rename the folder of this kind")


def _check_sizes(sources: Sequence[Source]) -> None:
    """Raises UsageError unless patches, and views of one size, can be cut from all sources."""
    sides = {min(VIEW, *source.images.shape[1:3]): source.spec for source in sources}
    for side, spec in sides.items():
        if side < PATCH:
            hint = f"give a size or tile of at least {PATCH}"
            raise UsageError("data", spec, "is too small to cut patches from", hint)
        if len(sides) > 1 or side % FUSER_STEP:
            hint = f"give a size or tile of {VIEW} or more to all"
            raise UsageError("data", spec, f"gives views {side} pixels wide", hint)
