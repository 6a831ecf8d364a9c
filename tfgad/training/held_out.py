"""Which images a run was trained on, so that none of them sets its threshold or tests it.

A run on a folder keeps the names of its files with a hash of their content. Other data sets are
made anew from their spec, or never change: there the specs tell. What learns from several data sets
keeps the full paths of its files, since two folders may have files of one name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfgad import files
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.mnist import normal_classes
from tfgad.data.spec import Spec
from tfgad.errors import UsageError

if TYPE_CHECKING:
    from tfgad.training.runs import Run

logger = logging.getLogger(__name__)

SPLIT = "split.json"
DIGITS = ("mnist", "fashion_mnist", "digits")
# Parts `"train"` and `"calibration"` -> name of a file -> hash of its content.
Split = dict[str, dict[str, str]]


def split_of(images: AnomalyData) -> Split | None:
    """Returns the files of a data set to train on and to calibrate by; None if it has no files."""
    if not images.files:
        return None
    return {"train": images.files.train, "calibration": images.files.calibration}


def with_paths(images: AnomalyData, tested: Iterable[str] = ()) -> Split | None:
    """Returns `split_of` a data set, by full paths, with test files that are learnt from, too.

    Args:
        images: the data set.
        tested: names of such test files.
    """
    split = split_of(images)
    if split is None:
        return None
    split["train"] = split["train"] | {name: images.files.test[name] for name in tested}
    folder = _folder_of(images)
    return {
        part: {f"{folder}/{name}": digest for name, digest in of_part.items()}
        for part, of_part in split.items()
    }


def together(splits: Iterable[Split | None]) -> Split | None:
    """Returns the files of several data sets, of those that have some; None if none has."""
    given = [split for split in splits if split]
    parts = given and given[0].keys()
    return {p: {k: v for each in given for k, v in each[p].items()} for p in parts} or None


def write_split(folder: Path, split: Split | None) -> None:
    """Writes which files a training learns from and is calibrated by, if its data is of files."""
    if split:
        files.write_json(folder / SPLIT, split)


def check_same_files(folder: Path, split: Split | None, is_finished: bool) -> None:
    """Raises UsageError if the files of a training that is to be resumed have changed.

    Mask files are not looked at.
    """
    old = _read_split(folder)
    if not split or (old is None and is_finished):  # from before runs had the names
        return
    hint = "put the files back, or give --overwrite to train anew"
    if old is None:
        problem = f"has no {SPLIT}, which says what it was started with"
        raise UsageError("out", folder, problem, "give --overwrite to train anew")
    before, now = _by_part(old), _by_part(split)
    differences = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
    }
    said = [f"{files.summarize(names)} {how}" for how, names in differences.items() if names]
    if said:
        problem = f"was started with other images: {', '.join(said)}"
        raise UsageError("out", folder, problem, hint)


def for_calibration(run: Run, images: AnomalyData) -> AnomalyData:
    """Returns a data set with all good images to calibrate by that the run was not trained on.

    Those that the data set needs for its test stay there.

    Raises:
        UsageError: the data set mixes images that the run was trained on with others, or the run's
            file of names is damaged.
    """
    if images.files:
        good = images.files.train | images.files.calibration
        seen = _seen(run, images, good)
        if seen is None:
            return images
        if seen and not _is_its_folder(run, images):
            logger.warning(
                "left out, as %s was trained on them: %s", run.folder, files.summarize(seen)
            )
        of, size = images.files.of_good(good.keys() - seen)
        return dataclasses.replace(images, calibration=of, calibration_size=size)
    if any(_shares_images(Spec.parse(spec), Spec.parse(images.spec)) for spec in _trained_on(run)):
        return images
    return dataclasses.replace(
        images,
        calibration=images.train.concatenate(images.calibration),
        calibration_size=images.train_size + images.calibration_size,
    )


def for_test(run: Run, images: AnomalyData) -> AnomalyData:
    """Returns a data set whose test holds no file that the run was trained on or calibrated by.

    Raises:
        UsageError: it holds no other files, or the run's file of names is damaged.
    """
    if not images.files:
        return images
    seen = _seen(run, images, images.files.test, ("train", "calibration"))
    if not seen:
        return images
    left = images.files.test.keys() - set(seen)
    if not left:
        problem = f"holds only test images that {run.folder} was trained on or calibrated by"
        raise UsageError("data", images.spec, problem, "give other test images")
    logger.warning(
        "left out of the test, as %s was trained on or calibrated by them: %s",
        *(run.folder, files.summarize(seen)),
    )
    of, size = images.files.of_test(left)
    return dataclasses.replace(images, test=of, test_size=size)


def _seen(
    run: Run, images: AnomalyData, given: Mapping[str, str], parts: Iterable[str] = ("train",)
) -> list[str] | None:
    """Returns those of the given files that a run has seen, by content or by name in its folder.

    Returns:
        Their names; None where the run does not know its files, but they may be the same.
    """
    split, same = _read_split(run.folder), _is_its_folder(run, images)
    if split is None:
        if same:
            logger.warning(
                "%s was trained before runs kept the names of their images: "
                "some of these may be among them; train it again",
                run.folder,
            )
        return None if same else []
    known = {name: digest for part in parts for name, digest in split[part].items()}
    digests, own = set(known.values()), _folder_of(images)

    def is_seen(name: str, digest: str) -> bool:
        return digest in digests or (same and not known.keys().isdisjoint((name, f"{own}/{name}")))

    return sorted(name for name, digest in given.items() if is_seen(name, digest))


def _read_split(folder: Path) -> Split | None:
    """Returns what `write_split` wrote; None of a run from before there was such a file.

    Raises:
        UsageError: the file is there, but damaged. Without it the run's own images could test it.
    """
    if not (folder / SPLIT).exists():
        return None
    split = files.read_object(folder / SPLIT) or {}
    if not all(_are_digests(split.get(part)) for part in ("train", "calibration")):
        problem = f"has a {SPLIT} that cannot be read"
        raise UsageError("run", folder, problem, "put it back, or train again")
    return split


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _by_part(split: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    return {
        name: (part, digest)
        for part in ("train", "calibration")
        for name, digest in split[part].items()
    }


def _trained_on(run: Run) -> set[str]:
    return {run.config["data"], *(run.config.get("sources") or ())}


def _is_its_folder(run: Run, images: AnomalyData) -> bool:
    given = _folder_of(images)
    own = [Spec.parse(spec) for spec in _trained_on(run)]
    return any(each.kind == "folder" and Path(each.name).resolve() == given for each in own)


def _folder_of(images: AnomalyData) -> Path:
    return Path(Spec.parse(images.spec).name).expanduser().resolve()


def _shares_images(own: Spec, given: Spec) -> bool:
    """Returns whether good images of two specs are the same ones, split alike.

    Raises:
        UsageError: they are the same ones, but split otherwise.
    """
    if own.kind != given.kind:
        return False
    if own.kind == "weave":
        return own.name == given.name and _option(own, "seed", 0) == _option(given, "seed", 0)
    if own.kind in DIGITS:
        shared = bool(normal_classes(own.name) & normal_classes(given.name))
    else:
        shared = own.name == given.name
    alike = own.name == given.name and all(
        _option(own, key, default) == _option(given, key, default)
        for key, default in (("seed", 0), ("calibration", 0.2))
    )
    if shared and not alike:
        problem = f"holds images that the run was trained on, as {own}"
        raise UsageError("data", given, problem, "give that, or data without such images")
    return shared


def _option(spec: Spec, name: str, default: Any) -> float:
    return float(spec.options.get(name, default))
