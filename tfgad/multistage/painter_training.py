"""Trains a painter on fabrics whose defects are known: stages 1 and 2 of the Multistage GAN."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad import files
from tfgad.errors import UsageError
from tfgad.multistage import defect_generator, fusion, painter_folder
from tfgad.multistage.batches import endless
from tfgad.multistage.painter import CONFIG, Painter, load_painter
from tfgad.multistage.painter_folder import STAGES, weights_of
from tfgad.multistage.pasting import VIEW, paste_examples
from tfgad.multistage.patches import PATCH, Patches, cut_patches
from tfgad.multistage.settings import changed, chosen
from tfgad.multistage.sources import Source, kinds_of
from tfgad.multistage.style import CODE_DIM, LAYER, style_network
from tfgad.networks.defects import FUSER_STEP
from tfgad.networks.vgg import feature_extractor, grey_or_colour
from tfgad.training import held_out, runs

# A narrow generator makes more steps in the same time, and it is steps that it lacks: 32 wide, at a
# rate of 2e-4 and with a critic of wholes alone, it made 1,500, and its holes and stains were pale
# patches (looked at). `r1` is of both stages. `own_share` and what follows are of the fusion; see
# `DefectFusion`. What G draws on the fabric itself has no seam to repair, and a T that learns on
# defects out of place besides blurs it: told from real ones of twill 84 times in 100 at an
# `own_share` of 0.5, 73 at 0, and 76 before the fusion. A `ground` of nothing is drawn along and
# has a seam: take 0.5.
SETTINGS = {
    "patches": 6000, "ground": "fabric", "latent_dim": 64, "width": 16,
    "learning_rate": 1e-3, "batch_size": 32, "r1": 0.1,
    "fusions": 2000, "fusion_width": 24, "fusion_rate": 2e-4, "fusion_batch_size": 16,
    "own_share": 0.0, "margin": 0.1, "reconstruction": 10.0, "feature": 1.0, "adversarial": 0.1,
    "steps": "4000+400",
}  # fmt: skip
# To see it all at work: too short to be of use.
QUICK = {"patches": 1200, "width": 8, "fusions": 160, "fusion_width": 8, "steps": "1000+30"}

STYLES = 1500  # patches that the style's components are fitted to
BATCH = 64


def train_painter(
    sources: Sequence[Source],
    out: str | Path,
    *,
    settings: dict[str, Any] | None = None,
    vgg_weights: str | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: runs.Callbacks = runs.no_callbacks,
) -> Painter:
    """Trains stages 1 and 2 on fabrics whose defects are known, and writes them to a folder.

    Args:
        sources: the fabrics.
        out: the folder.
        settings: what differs from `SETTINGS`.
        vgg_weights: see `tfgad.networks.vgg.feature_extractor`.
        seed: of weights, patches and training.
        resume: go on with a training that was broken off; the arguments must be the same, and so
            must the images of folders.
        overwrite: put a new painter in the place of an old one.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.

    Raises:
        UsageError: a setting that is unknown or will not do, images that are too small or of
            several sizes, weights that are not VGG19's, or a folder in the way. Nothing is changed
            then.
    """
    folder = Path(out)
    _check_sizes(sources)
    of_all = changed(SETTINGS, settings or {}, "the painter")
    steps = runs.stage_steps(of_all["steps"], STAGES)
    if of_all["patches"] <= CODE_DIM:
        raise UsageError("patches", of_all["patches"], "are too few", f"give more than {CODE_DIM}")
    config = {
        "kinds": list(kinds_of(sources)),
        "data": [runs.from_anywhere(source.spec) for source in sources],
        "image_shape": list(sources[0].images.shape[1:]),
        "resized": sources[0].resized,
        "settings": of_all,
        "seed": seed,
    }
    state = painter_folder.state_of(folder, config, resume, overwrite)
    split = held_out.together(source.files for source in sources)
    if state != runs.NEW:
        held_out.check_same_files(folder, split, state == runs.FINISHED)
        begun_with = painter_folder.read(folder)
        vgg_weights = runs.weights_begun_with(folder, begun_with, "vgg_weights", vgg_weights)
    if state == runs.FINISHED:
        return load_painter(folder)
    features, vgg_source = feature_extractor(LAYER, vgg_weights)
    config |= {"vgg_weights": vgg_source}
    painter = _untrained(config | {"versions": runs.versions()}, features)
    if state == runs.NEW:
        painter_folder.remove(folder)
        held_out.write_split(folder, split)
    files.write_json(folder / CONFIG, painter.config)
    _train(painter, sources, steps, folder, callbacks)
    painter.save(folder)
    for stage in STAGES:
        (folder / weights_of(stage)).unlink(missing_ok=True)
    return painter


def _untrained(config: dict[str, Any], features: keras.Model) -> Painter:
    """Makes a painter that has learnt nothing yet, of VGG19's features."""
    of_all, seed = config["settings"], config["seed"]
    channels = config["image_shape"][-1]
    generator = defect_generator.build(
        (PATCH, PATCH, channels + 1), CODE_DIM, len(config["kinds"]), seed=seed,
        rate=of_all["learning_rate"], **chosen(of_all, "ground", "latent_dim", "width", "r1"),
    )  # fmt: skip
    weights = chosen(of_all, "margin", "reconstruction", "feature", "adversarial", "r1")
    fuser = fusion.build(
        channels, grey_or_colour(features, channels), seed=seed, rate=of_all["fusion_rate"],
        width=of_all["fusion_width"], **weights,
    )  # fmt: skip
    return Painter(style_network(features, channels), generator, fuser, config)


def _train(painter: Painter, sources: Sequence[Source], steps, folder: Path, callbacks) -> None:
    """Fits the style's code, then the generator, then the fusion to what the generator makes."""
    seconds, of_all, seed = _Seconds(), painter.config["settings"], painter.config["seed"]

    def train(model, stage, rows, batch_size):
        runs.fit_stages(
            model,
            {"train": steps[stage]},
            lambda start: endless(rows, batch_size, seed, start),
            folder / weights_of(stage),
            lambda _, remaining_steps: callbacks(stage, remaining_steps),
        )
        seconds.lap(stage)

    patches = cut_patches(sources, painter.kinds, of_all["patches"], seed=seed)
    codes = _fit_style(painter.style, patches)
    seconds.lap("patches and styles")
    rows = {
        "patches": patches.defects,
        "fabric": patches.fabrics,
        "style": codes,
        "kind": patches.kinds,
    }
    train(painter.generator, "generator", rows, of_all["batch_size"])
    pasted = paste_examples(sources, painter.draw, of_all["fusions"], of_all["own_share"], seed)
    seconds.lap("examples for the fusion")
    train(painter.fusion, "fusion", vars(pasted), of_all["fusion_batch_size"])
    painter.config["seconds"] = seconds.taken


def _fit_style(style: keras.Model, patches: Patches) -> np.ndarray:
    """Fits the code of styles to the patches, and returns theirs, `[N, d]`."""
    grams = _in_batches(lambda x: style(x)["gram"], patches.fabrics[:STYLES])
    style.get_layer("gram_code").adapt(grams)
    return _in_batches(lambda x: style(x)["code"], patches.fabrics)


def _in_batches(network, images: np.ndarray) -> np.ndarray:
    compiled = tf.function(network, reduce_retracing=True)
    starts = range(0, len(images), BATCH)
    return np.concatenate([compiled(tf.constant(images[i : i + BATCH])).numpy() for i in starts])


class _Seconds:
    """How long each part took."""

    def __init__(self):
        self.taken, self.last = {}, time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.taken[part], self.last = round(now - self.last, 1), now


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
