"""Keeps the images that a run was trained on out of its calibration and its test.

Files are recognised by the hash of their content, or by their name in the run's own folder
(`split.json`). Images of other data sets are recognised by their specs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.mnist import normal_classes
from tfgad.data.origins import joined
from tfgad.data.products import SEPARATOR
from tfgad.data.spec import Spec
from tfgad.errors import UsageError
from tfgad.files import summarize
from tfgad.training.split_file import PARTS, folder_of, read_split

if TYPE_CHECKING:
    from tfgad.training.run import Run

logger = logging.getLogger(__name__)

DIGITS = ("mnist", "fashion_mnist", "digits")


def for_calibration(run: Run, images: AnomalyData) -> AnomalyData:
    """Returns the data set with every good image as calibration image that was not trained on.

    Good images that the data set needs for its test stay there. In a folder with groups, those of
    a group with images that were trained on are left out as well.

    Raises:
        UsageError: the data set mixes images that the run was trained on with others, or no group
            is left, or the run's `split.json` is damaged.
    """
    if images.files:
        good = images.files.train | images.files.calibration
        seen = _seen(run, images, good)
        if seen is None:
            return images
        if seen and not _is_its_folder(run, images):
            logger.warning("left out, as %s was trained on them: %s", run.folder, summarize(seen))
        used = _with_their_groups(run, images, seen)
        if others := used - set(seen):
            logger.warning(
                "left out, as %s was trained on others of their group: %s",
                *(run.folder, summarize(sorted(others))),
            )
        left = good.keys() - used
        of, size = images.files.of_good(left)
        origins = images.files.origins_of(left)
        return dataclasses.replace(
            images,
            calibration=of,
            calibration_size=size,
            calibration_origins=origins,
            calibration_products=_products_of(images, left),
        )
    if any(shares_images(Spec.parse(spec), Spec.parse(images.spec)) for spec in _trained_on(run)):
        return images
    return all_good(images)


def all_good(images: AnomalyData) -> AnomalyData:
    """Returns the data set with every good image as calibration image, but those of its test."""
    return dataclasses.replace(
        images,
        calibration=images.train.concatenate(images.calibration),
        calibration_size=images.train_size + images.calibration_size,
        calibration_origins=joined([images.train_origins, images.calibration_origins]),
        calibration_products=np.concatenate([images.train_products, images.calibration_products])
        if images.products
        else None,
    )


def _products_of(images: AnomalyData, names: Collection[str]) -> np.ndarray | None:
    """Returns the product of each image that `Files.of_good` streams; None without products."""
    of = images.files.products_of if images.files else None
    return of(names) if of else None


def for_test(run: Run, images: AnomalyData) -> AnomalyData:
    """Returns the data set without the test files that the run was trained on or calibrated by.

    Raises:
        UsageError: no test file is left, or the run's `split.json` is damaged.
    """
    if not images.files:
        return images
    seen = _seen(run, images, images.files.test, PARTS)
    if not seen:
        return images
    left = images.files.test.keys() - set(seen)
    if not left:
        problem = f"holds only test images that {run.folder} was trained on or calibrated by"
        raise UsageError("data", images.spec, problem, "give other test images")
    logger.warning(
        "left out of the test, as %s was trained on or calibrated by them: %s",
        *(run.folder, summarize(seen)),
    )
    of, size = images.files.of_test(left)
    return dataclasses.replace(images, test=of, test_size=size)


def known_files(run: Run, images: AnomalyData, given: Mapping[str, str]) -> list[str]:
    """Returns the names of those files that a run was trained on or calibrated by.

    Args:
        run: the run.
        images: the data set of the files.
        given: name of each file -> hash of its content.

    Raises:
        UsageError: the run does not know, as it has no `split.json`.
    """
    seen = _seen(run, images, given, PARTS)
    if seen is None:
        problem = "has no split.json, which names the images that it was trained on"
        raise UsageError("run", run.folder, problem, "train it again")
    return seen


def unseen(run: Run, images: AnomalyData) -> AnomalyData:
    """Returns the data set without all that the run was trained on or calibrated by.

    Its good images besides those of the test are its calibration images.

    Raises:
        UsageError: the data set mixes images that the run was trained on with others, or no group
            is left, or the run's `split.json` is damaged.
    """
    if not images.files:
        others = for_calibration(run, images)
        if others is not images:
            return others
        # The run's own data set, of which the test alone is left.
        none = images.calibration.take(0)
        return dataclasses.replace(
            images,
            calibration=none,
            calibration_size=0,
            calibration_origins=None,
            calibration_products=None,
        )
    good = images.files.train | images.files.calibration
    seen = _seen(run, images, good, PARTS)
    used = set(good) if seen is None else _with_their_groups(run, images, seen)
    used_test = set(_seen(run, images, images.files.test, PARTS) or ())
    left, tested = good.keys() - used, images.files.test.keys() - used_test
    if used or used_test:
        logger.warning(
            "left out, as %s has used them or others of their group: %s",
            *(run.folder, summarize(sorted(used | used_test))),
        )
    of_good, good_size = images.files.of_good(left)
    of_test, test_size = images.files.of_test(tested)
    return dataclasses.replace(
        images,
        calibration=of_good,
        calibration_size=good_size,
        calibration_origins=images.files.origins_of(left),
        calibration_products=_products_of(images, left),
        test=of_test,
        test_size=test_size,
    )


def _seen(
    run: Run, images: AnomalyData, given: Mapping[str, str], parts: Iterable[str] = ("train",)
) -> list[str] | None:
    """Returns the names of those files that a run has used.

    Args:
        run: the run.
        images: the data set of the files.
        given: name of each file -> hash of its content.
        parts: of the run's split that count as used.

    Returns:
        The names; None if the run has no `split.json`, but was trained on the same folder.
    """
    split, same = read_split(run.folder), _is_its_folder(run, images)
    if split is None:
        if same:
            logger.warning(
                "%s has no split.json, as it comes from an older version: "
                "it may have been trained on some of these images; train it again",
                run.folder,
            )
        return None if same else []
    known = {name: digest for part in parts for name, digest in split[part].items()}
    digests, own = set(known.values()), folder_of(images)

    def is_seen(name: str, digest: str) -> bool:
        return digest in digests or (same and not known.keys().isdisjoint((name, f"{own}/{name}")))

    return sorted(name for name, digest in given.items() if is_seen(name, digest))


def _with_their_groups(run: Run, images: AnomalyData, seen: Iterable[str]) -> set[str]:
    """Returns the names of files that a run was trained on, and of all others of their groups.

    Raises:
        UsageError: these are all good images.
    """
    groups = images.files.groups if images.files else None
    if groups is None:
        return set(seen)
    known = {groups[name] for name in seen}
    names = {name for name, group in groups.items() if group in known}
    if names and names >= groups.keys():
        problem = f"has no group of which {run.folder} was not trained on an image"
        hint = "give images of further groups, or train with group= in the data"
        raise UsageError("data", images.spec, problem, hint)
    return names


def _trained_on(run: Run) -> set[str]:
    """Returns the specs of all data sets that a run was trained on."""
    learned = [spec for entry in run.config.get("learned", ()) for spec in entry.values()]
    return {run.config["data"], *(run.config.get("sources") or ()), *learned}


def _is_its_folder(run: Run, images: AnomalyData) -> bool:
    """Returns whether a run was trained on the folder of a data set."""
    given = folder_of(images)
    own = [Spec.parse(spec) for spec in _trained_on(run)]
    return any(each.kind == "folder" and Path(each.name).resolve() == given for each in own)


def shares_images(own: Spec, given: Spec) -> bool:
    """Returns whether two specs name the same good images with the same split.

    Raises:
        UsageError: the same good images with another split.
    """
    if own.kind != given.kind:
        return False
    of_own, of_given = (set(each.name.split(SEPARATOR)) for each in (own, given))  # products
    if own.kind == "weave":
        return bool(of_own & of_given) and _option(own, "seed", 0) == _option(given, "seed", 0)
    if own.kind in DIGITS:
        shared = bool(normal_classes(own.name) & normal_classes(given.name))
    else:
        shared = bool(of_own & of_given)
    same_name = own.name == given.name or own.kind not in DIGITS
    alike = same_name and all(
        _option(own, key, default) == _option(given, key, default)
        for key, default in (("seed", 0), ("calibration", 0.2))
    )
    if shared and not alike:
        problem = f"holds images that the run was trained on, as {own}"
        raise UsageError("data", given, problem, "give that, or data without such images")
    return shared


def _option(spec: Spec, name: str, default: Any) -> float:
    return float(spec.options.get(name, default))
