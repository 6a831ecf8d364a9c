"""Trains a painter on fabrics whose defects are known: stages 1 and 2 of the Multistage GAN."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad import files, recipes, runs
from tfgad.errors import UsageError
from tfgad.multistage import defect_generator, fusion
from tfgad.multistage.batches import endless
from tfgad.multistage.painter import CONFIG, MODELS, Painter, load_painter
from tfgad.multistage.pasting import VIEW, paste_examples
from tfgad.multistage.patches import PATCH, Patches, cut_patches
from tfgad.multistage.sources import Source, kinds_of
from tfgad.multistage.style import CODE_DIM, LAYER, style_network
from tfgad.networks.defects import FUSER_STEP
from tfgad.networks.vgg import feature_extractor, grey_or_colour
from tfgad.recipes.recipe import chosen

# `r1` is of both stages. `own_share` and what follows are of the fusion; see `DefectFusion`.
SETTINGS = {
    "patches": 6000, "ground": "fabric", "latent_dim": 64, "width": 32,
    "learning_rate": 2e-4, "batch_size": 32, "r1": 0.1,
    "fusions": 2000, "fusion_width": 24, "fusion_rate": 2e-4, "fusion_batch_size": 16,
    "own_share": 0.5, "margin": 0.1, "reconstruction": 10.0, "feature": 1.0, "adversarial": 0.1,
    "steps": "1500+400",
}  # fmt: skip
# To see it all at work: too short to be of use.
QUICK = {"patches": 600, "width": 8, "fusions": 160, "fusion_width": 8, "steps": "60+30"}

STAGES = ("generator", "fusion")
STYLES = 1500  # patches that the style's components are fitted to
BATCH = 64
PARTS = {CONFIG, *MODELS, *(f"{stage}.weights.h5" for stage in STAGES)}


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
        resume: go on with a training that was broken off; the arguments must be the same.
        overwrite: put a new painter in the place of an old one.
        callbacks: stage name and its number of steps still to go -> Keras callbacks.

    Raises:
        UsageError: a setting that is unknown or will not do, images that are too small or of
            several sizes, weights that are not VGG19's, or a folder in the way. Nothing is changed
            then.
    """
    folder, seconds = Path(out), _Seconds()
    _check_sizes(sources)
    of_all = recipes.changed(SETTINGS, settings or {}, "the painter")
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
    state = _state(folder, config, resume, overwrite)
    if state == runs.FINISHED:
        return load_painter(folder)
    channels = sources[0].images.shape[-1]
    features, vgg_source = feature_extractor(LAYER, vgg_weights)
    if state == runs.BEGUN:
        runs.check_same(folder, _read(folder), config | {"vgg_weights": vgg_source})
    style = style_network(features, channels)
    generator = defect_generator.build(
        (PATCH, PATCH, channels + 1), CODE_DIM, len(config["kinds"]), seed=seed,
        rate=of_all["learning_rate"], **chosen(of_all, "ground", "latent_dim", "width", "r1"),
    )  # fmt: skip
    weights = chosen(of_all, "margin", "reconstruction", "feature", "adversarial", "r1")
    fuser = fusion.build(
        channels, grey_or_colour(features, channels), seed=seed, rate=of_all["fusion_rate"],
        width=of_all["fusion_width"], **weights,
    )  # fmt: skip
    if state == runs.NEW:
        _remove(folder)
    config |= {"vgg_weights": vgg_source, "versions": runs.versions()}
    files.write_json(folder / CONFIG, config)

    def trained(model, stage, rows, batch_size):
        runs.fit_stages(
            model,
            {"train": steps[stage]},
            lambda start: endless(rows, batch_size, seed, start),
            folder / f"{stage}.weights.h5",
            lambda _, togo: callbacks(stage, togo),
        )
        seconds.lap(stage)
        return model

    patches = cut_patches(sources, config["kinds"], of_all["patches"], seed=seed)
    codes = _fit_style(style, patches)
    seconds.lap("patches and styles")
    rows = {
        "patches": patches.defects,
        "fabric": patches.fabrics,
        "style": codes,
        "kind": patches.kinds,
    }
    trained(generator, "generator", rows, of_all["batch_size"])

    painter = Painter(style, generator, fuser, config)
    pasted = paste_examples(sources, painter.patches, of_all["fusions"], of_all["own_share"], seed)
    seconds.lap("examples for the fusion")
    trained(fuser, "fusion", vars(pasted), of_all["fusion_batch_size"])
    config["seconds"] = seconds.taken
    painter.save(folder)
    for stage in STAGES:
        (folder / f"{stage}.weights.h5").unlink(missing_ok=True)
    return painter


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
            mend = f"give a size or tile of at least {PATCH}"
            raise UsageError("data", spec, "is too small to cut patches from", mend)
        if len(sides) > 1 or side % FUSER_STEP:
            mend = f"give a size or tile of {VIEW} or more to all"
            raise UsageError("data", spec, f"gives views {side} pixels wide", mend)


def _read(folder: Path) -> dict[str, Any] | None:
    """Returns what is known of a painter, trained to the end or not; None if there is none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def _state(folder: Path, config: dict[str, Any], resume: bool, overwrite: bool) -> str:
    """Returns what stands at the painter's place; raises UsageError if that must not be touched."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return runs.NEW
    old = _read(folder)
    others = not folder.is_dir() or any(not _is_part(path) for path in folder.iterdir())
    if old is None or others:
        raise UsageError("out", folder, "holds something else than a painter", "name a new folder")
    if overwrite:
        return runs.NEW
    if not resume:
        mend = "give --resume to go on with it, --overwrite to replace it"
        raise UsageError("out", folder, "holds a painter already", mend)
    runs.check_same(folder, old, config)
    return runs.FINISHED if "seconds" in old else runs.BEGUN


def _remove(folder: Path) -> None:
    """Removes what a painter consists of; the configuration last, as `runs.remove` does."""
    parts = [path for path in folder.glob("*") if _is_part(path)]
    for path in sorted(parts, key=lambda path: path.name == CONFIG):
        path.unlink()


def _is_part(path: Path) -> bool:
    return path.is_file() and files.is_or_becomes(path.name, PARTS)
