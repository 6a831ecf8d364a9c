"""Fabrics with known defects, on which painter and segmenter are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad import data
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.aitex_strips import fabrics
from tfgad.data.datasets.weave.cloth import FABRICS
from tfgad.data.origins import Origins
from tfgad.data.pixels import STRETCH
from tfgad.data.sampling import spread, spread_positions
from tfgad.data.spec import Spec
from tfgad.errors import UsageError, nearest
from tfgad.training.split_file import Split, split_with_paths

MOST_GOOD = 200  # good images of one fabric that are used
ALL = "*"  # name of every fabric of a kind of data set
OWN_KIND = "defect"  # of images that are not named by their kind, such as those of AITEX


@dataclasses.dataclass(frozen=True)
class Source:
    """A fabric with known defects: good images, and defective ones with masks.

    Attributes:
        spec: the data set's.
        good: float32 `[N, H, W, C]` in [-1, 1], at most `MOST_GOOD`.
        held_out: further good images, `[K, H, W, C]`, for a threshold.
        origins: the groups of `held_out`; None if each has its own.
        images: defective ones, `[M, H, W, C]`.
        masks: uint8 `[M, H, W, 1]`, 1 on the defect; none is empty.
        kinds: the kind of each defect, M names.
        resized: whether whole images were resized; see `AnomalyData`.
        depth: bits of the grey levels; see `AnomalyData`.
        files: those of a folder, the defective ones among those to train on; see
            `tfgad.training.split_file.split_with_paths`.
    """

    spec: str
    good: np.ndarray
    held_out: np.ndarray
    images: np.ndarray
    masks: np.ndarray
    kinds: tuple[str, ...]
    resized: bool = False
    depth: int = 8
    files: Split | None = None
    origins: Origins | None = None


def expand(specs: Sequence[str], leave_out: Sequence[str] = ()) -> list[str]:
    """Returns the specs with `weave:*` replaced by every weave, without those to leave out.

    Args:
        specs: of data sets. `*` stands for every weave or every AITEX fabric.
        leave_out: names such as `twill`.

    Raises:
        UsageError: a name to leave out that is not among them, or nothing is left.
    """
    parsed = [each for spec in specs for each in _expanded(Spec.parse(spec))]
    names = [each.name for each in parsed]
    for name in leave_out:
        if name not in names:
            hint = nearest(name, names)
            raise UsageError("--except", name, "is not one of the data sets", hint)
    left = [str(each) for each in parsed if each.name not in leave_out]
    if not left:
        raise UsageError("--except", ", ".join(leave_out), "leaves nothing", "leave out fewer")
    return left


def _expanded(spec: Spec) -> list[Spec]:
    if spec.name != ALL:
        return [spec]
    names = {"weave": lambda: tuple(FABRICS), "aitex": lambda: fabrics(spec.options.get("root"))}
    if spec.kind not in names:
        hint = "name each data set, or give weave:* or aitex:*"
        raise UsageError("data set", spec, "cannot be listed", hint)
    return [dataclasses.replace(spec, name=name) for name in names[spec.kind]()]


def read_sources(specs: Sequence[str], **defaults: Any) -> list[Source]:
    """Loads data sets by their specs; see `read_source`.

    Raises:
        UsageError: one of them has no known defects, or is given twice, or they differ in
            channels, or some are resized images and others tiles.
    """
    for spec in specs:
        if specs.count(spec) > 1:  # its images would count twice for the threshold
            raise UsageError("data", spec, "is given more than once", "give each data set once")
    sources = [read_source(data.load(spec, **defaults)) for spec in specs]
    channels = {source.images.shape[-1]: source.spec for source in sources}
    if len(channels) > 1:
        given = " and ".join(channels.values())
        raise UsageError("data", given, "differ in colour", "give channels=1 or channels=3 to all")
    resized = {source.resized: source.spec for source in sources}
    if len(resized) > 1:
        problem = f"has resized images, {resized[False]} has tiles"
        raise UsageError("data", resized[True], problem, "give tile=SIDE to it")
    return sources


def read_source(images: AnomalyData) -> Source:
    """Reads a data set with masks of its defects.

    The defects are those of its test images, which can no longer evaluate what is trained on them.

    Raises:
        UsageError: it has no masks, or no defects.
    """
    if not images.has_masks:
        hint = "give one whose folder has ground_truth/, or weave:NAME, or aitex:FF"
        raise UsageError("data", images.spec, "has no masks of its defects", hint)
    rows = [row for row in images.test.as_numpy_iterator() if row["mask"].any()]
    if not rows:
        hint = "add images of defects beside the good ones"
        raise UsageError("data", images.spec, "has no defects to learn from", hint)
    refuse_letterboxed(images)
    return Source(
        spec=images.spec,
        good=good_images(images.train, images.train_size),
        held_out=good_images(images.calibration, images.calibration_size),
        origins=held_out_origins(images),
        images=np.stack([row["image"] for row in rows]),
        masks=np.stack([row["mask"] for row in rows]),
        kinds=tuple(_kind(row["name"].decode(), images.kinds) for row in rows),
        resized=images.resized,
        depth=images.depth,
        files=split_with_paths(images, {images.image_of(row["name"].decode()) for row in rows}),
    )


def refuse_letterboxed(images: AnomalyData) -> None:
    """Raises UsageError for padded images: a painter and a segmenter know stretched ones alone."""
    if images.fit != STRETCH:
        hint = "leave fit= out, or give tile="
        raise UsageError("data option fit", images.fit, "is not for segmenters", hint)


def good_images(images: tf.data.Dataset, size: int) -> np.ndarray:
    """Reads at most `MOST_GOOD` of `size` images, evenly spread: `[N, H, W, C]`."""
    return np.stack(list(spread(images, size, MOST_GOOD).as_numpy_iterator()))


def held_out_origins(images: AnomalyData) -> Origins | None:
    """Returns the origins of the calibration images that `good_images` reads."""
    if images.calibration_origins is None:
        return None
    return images.calibration_origins.at(spread_positions(images.calibration_size, MOST_GOOD))


def joined_origins(sources: Sequence[Source]) -> Origins | None:
    """Returns the origins of the `held_out` images of all sources; None if each has its own."""
    if all(source.origins is None for source in sources):
        return None
    groups: list[str] = []
    for number, source in enumerate(sources):  # two fabrics may have groups of one name
        names = range(len(source.held_out)) if source.origins is None else source.origins.groups
        groups += [f"{number}/{name}" for name in names]
    return Origins(np.array(groups))


def _kind(name: str, known: Sequence[str]) -> str:
    """Returns the innermost folder of a name that is a kind: `slub` of `slub/5.png/x0_y0`."""
    return next((each for each in reversed(name.split("/")[:-1]) if each in known), OWN_KIND)


def kinds_of(sources: Sequence[Source]) -> tuple[str, ...]:
    """Returns the names of all kinds of defect, sorted."""
    return tuple(sorted({kind for source in sources for kind in source.kinds}))
