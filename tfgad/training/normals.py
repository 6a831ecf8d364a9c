"""The good images of a run and new ones beside them, for `tfgad.training.learning`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf

from tfgad import data
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import IMAGE, AnomalyData, Files
from tfgad.data.origins import Origins
from tfgad.data.sampling import batched
from tfgad.errors import UsageError
from tfgad.files import summarize
from tfgad.scores.calibration import largest_of_images
from tfgad.scores.products import UNKNOWN
from tfgad.training import held_out
from tfgad.training.run import Run, check_enough, check_shape, products_of
from tfgad.training.split_file import Split, folder_of, merged, read_split, split_of, with_folder

logger = logging.getLogger(__name__)

GROUP = "group"  # the kind of origins whose groups have names


@dataclasses.dataclass(frozen=True)
class Normals:
    """A stream of good images.

    Attributes:
        images: float32 `[H, W, C]` in [-1, 1], one at a time.
        size: how many they are.
        origins: of each.
        products: int `[size]`, the product of each as the model numbers them, -1 where it is to be
            recognised; None of a model of one product.
    """

    images: tf.data.Dataset
    size: int
    origins: Origins
    products: np.ndarray | None = None


def earlier(
    run: Run, own: AnomalyData, old_held: AnomalyData
) -> tuple[list[Normals], Normals, Split | None]:
    """Returns what a run was trained on, what set its threshold, and the files of both.

    Raises:
        UsageError: files that it was trained on are gone or have changed; or their product is not
            known.
    """
    split = read_split(run.folder)
    if own.files and split is None:
        problem = "has no split.json, which names the images that it was trained on"
        raise UsageError("run", run.folder, problem, "train it again")
    check_enough(old_held.spec, old_held.calibration_size)
    origins = old_held.calibration_origins
    size, products = old_held.calibration_size, products_of(run, old_held)
    if run.model.product_names and products is None:
        products = np.full(size, UNKNOWN)
    held = [_normals(old_held.calibration, size, origins, "old", products)]
    products = products_of(run, own, own.train_products)
    trained = [_normals(own.train, own.train_size, own.train_origins, "old", products)]
    if own.files and split:
        trained = [_of_files(run, own, split, "train", "old")]
        split = merged([with_folder(split, own)])
    for number, entry in enumerate(run.config.get("learned", ())):
        for spec in entry.values():
            images = data.load(spec)
            check_products(run, images)
            trained.append(_of_files(run, images, split or {}, "train", f"learned {number}"))
        held.append(
            _of_files(run, data.load(entry["good"]), split or {}, "calibration", f"{number}")
        )
    return trained, together(held), split


def _of_files(run: Run, images: AnomalyData, split: Split, part: str, source: str) -> Normals:
    """Returns the images of a folder that a part of a run's split has.

    Raises:
        UsageError: none of them is there as it was.
    """
    if not images.files:
        raise UsageError("data", images.spec, "has no files", "give folder:PATH")
    digests = set(split.get(part, {}).values())
    good = images.files.train | images.files.calibration
    names = {name for name, digest in good.items() if digest in digests}
    if not names:
        problem = f"has none of the images that {run.folder} was made from"
        raise UsageError("data", images.spec, problem, "put them back")
    own = f"{folder_of(images)}/"
    expected = sum(not n.startswith("/") or n.startswith(own) for n in split.get(part, ()))
    if len(names) < expected:
        text = "%s: %d of %d images that %s was made from are gone or have changed"
        logger.warning(text, images.spec, expected - len(names), expected, run.folder)
    return _good(run, images, names, source)


def check_products(run: Run, images: AnomalyData) -> None:
    """Raises UsageError if a model of several products is given images of none or another."""
    known = run.model.product_names
    if known and not images.products:
        problem = "does not say of which products its images are"
        hint = f"give folder:PATH?products=NAME, a folder for each of {', '.join(known)}"
        raise UsageError("data", images.spec, problem, hint)
    if known:
        run.model.product_indices(images.products, len(images.products))


def groups_of(parts: Sequence[Normals]) -> set[str]:
    """Returns the names of the groups of images, where groups have names, as by `group=`."""
    return {
        str(name) for each in parts if each.origins.kind == GROUP for name in each.origins.groups
    }


def new_images(
    run: Run,
    images: AnomalyData,
    *,
    hold_out: bool,
    known: Split | None = None,
    groups: Collection[str] = (),
) -> tuple[Normals, Normals, Split]:
    """Returns new images to learn from, those to hold out, and the files of both.

    Args:
        run: images that it knows already are left out.
        images: a folder of good images.
        hold_out: False to learn from all of them; the second is then the first.
        known: images that are left out, too.
        groups: those that the run was trained on: a new image of one is learned from, since it says
            little about new groups.

    Raises:
        UsageError: the images have another shape, or too few are new; or a model of several
            products is not told those of the images.
    """
    check_shape(run, images)
    check_products(run, images)
    split = split_of(images)
    if not images.files or split is None:
        hint = "give a folder of good images"
        raise UsageError("good", images.spec, "is no folder of image files", hint)
    if not hold_out:
        split = {"train": split["train"] | split["calibration"], "calibration": {}}
    both = split["train"] | split["calibration"]
    seen = set(held_out.known_files(run, images, both))
    again = {digest for part in (known or {}).values() for digest in part.values()}
    seen |= {name for name, digest in both.items() if digest in again}
    if seen:
        logger.warning("left out, as they are known already: %s", summarize(sorted(seen)))
    split = {part: {n: d for n, d in of.items() if n not in seen} for part, of in split.items()}
    of_file = images.files.groups or {}
    moved = {n: d for n, d in split["calibration"].items() if of_file.get(n) in groups}
    if moved:
        text = "learned from, as the run was trained on others of their group: %s"
        logger.warning(text, summarize(sorted(moved)))
        stays = {n: d for n, d in split["calibration"].items() if n not in moved}
        split = {"train": split["train"] | moved, "calibration": stays}
    if hold_out:
        check_enough(images.spec, len(split["train"]), "that are new to learn from")
        check_enough(images.spec, len(split["calibration"]), "that are new for the threshold")
    elif not split["train"]:
        raise UsageError("data", images.spec, "leaves no image that is new", "give other images")

    source = images.spec
    learned = _good(run, images, split["train"], source)
    held = _good(run, images, split["calibration"], source) if hold_out else learned
    return learned, held, with_folder(split, images)


def _good(run: Run, images: AnomalyData, names: Collection[str], source: str) -> Normals:
    """Returns the good images of some names, of a data set of files."""
    files: Files = images.files  # type: ignore[assignment]
    products = products_of(run, images, files.products_of(names)) if files.products_of else None
    return _normals(*files.of_good(names), files.origins_of(names), source, products)


def _normals(
    images: tf.data.Dataset,
    size: int,
    origins: Origins | None,
    source: str,
    products: np.ndarray | None,
) -> Normals:
    """Returns a stream whose origins differ from those of other sources.

    Groups keep their names: a roll of old and of new images is one roll. Names of files may be the
    same in two folders, and mean nothing then.
    """
    if origins is None:
        groups = np.array([f"{source}/{i}" for i in range(size)], str)
        return Normals(images, size, Origins(groups, kind=IMAGE), products)

    def own(names: np.ndarray) -> np.ndarray:
        return np.array([f"{source}/{name}" for name in names], str)

    groups = origins.groups if origins.kind == GROUP else own(origins.groups)
    tiles_of = None if origins.images is None else own(origins.images)
    return Normals(images, size, Origins(groups, tiles_of, origins.kind), products)


def together(parts: Sequence[Normals]) -> Normals:
    """Returns streams one after another. An image that is no tile is its own image."""
    first, *others = parts
    images = first.images
    for each in others:
        images = images.concatenate(each.images)
    origins = [each.origins for each in parts]
    tiles = any(each.images is not None for each in origins)
    joined = Origins(
        np.concatenate([each.groups for each in origins]),
        np.concatenate([e.groups if e.images is None else e.images for e in origins])
        if tiles
        else None,
        first.origins.kind,
    )
    products = [each.products for each in parts if each.products is not None]
    return Normals(
        images,
        sum(each.size for each in parts),
        joined,
        np.concatenate(products) if products else None,
    )


def alarms_of(model: Detector, normals: Normals, per: str) -> np.ndarray:
    """Returns which tiles or images a model calls anomalous, as its rate counts: bool `[N]`."""
    found: list[np.ndarray] = []
    names = np.array([*model.product_names, ""])  # -1 is the last, which is recognised
    products = None if normals.products is None else names[normals.products].tolist()
    done = 0
    for batch in batched(normals.images):
        of_batch = None if products is None else products[done : done + len(batch)]
        score = model.anomaly(batch, product=of_batch)["score"]
        predicted = model.prediction(batch, score, of_batch)
        found.append(predicted["is_anomalous"].numpy())
        done += len(batch)
    alarms = np.concatenate(found)
    if per == IMAGE:
        alarms, _ = largest_of_images(alarms.astype(float), normals.origins)
    return alarms.astype(bool)
