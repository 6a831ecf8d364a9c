"""Which files a training learns from and is calibrated by, as `split.json` keeps them.

The names of the files come with a hash of their content. Other data sets are made anew from their
spec, or never change: for them the spec is enough. A training on several data sets keeps the full
paths of its files, since two folders may hold files of one name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfgad import files
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.spec import Spec
from tfgad.errors import UsageError

SPLIT = "split.json"
PARTS = ("train", "calibration")
# Each of `PARTS` -> name of a file -> hash of its content.
Split = dict[str, dict[str, str]]


def split_of(images: AnomalyData) -> Split | None:
    """Returns the files of a data set to train on and to calibrate by; None if it has no files."""
    if not images.files:
        return None
    return {"train": dict(images.files.train), "calibration": dict(images.files.calibration)}


def split_with_paths(images: AnomalyData, learnt: Iterable[str] = ()) -> Split | None:
    """Returns `split_of` a data set by full paths, with the test files that are trained on.

    Args:
        images: the data set.
        learnt: names of these test files.
    """
    split, of_images = split_of(images), images.files
    if split is None or of_images is None:
        return None
    split["train"] |= {name: of_images.test[name] for name in learnt}
    return with_folder(split, images)


def with_folder(split: Split, images: AnomalyData) -> Split:
    """Returns the split of a data set by full paths; names that are full paths stay."""
    folder = folder_of(images)
    return {
        part: {str(folder / name): digest for name, digest in of_part.items()}
        for part, of_part in split.items()
    }


def merged(splits: Iterable[Split | None]) -> Split | None:
    """Returns the files of several data sets in one split; None if none of them has files."""
    given = [split for split in splits if split]
    if not given:
        return None
    return {
        part: {name: digest for split in given for name, digest in split[part].items()}
        for part in PARTS
    }


def write_split(folder: Path, split: Split | None) -> None:
    """Writes `split.json`, if the data of the training consist of files."""
    if split:
        files.write_json(folder / SPLIT, split)


def read_split(folder: Path) -> Split | None:
    """Returns what `write_split` wrote; None of a run from before there was such a file.

    Raises:
        UsageError: the file exists, but is damaged. Without it the run's own images could test it.
    """
    if not (folder / SPLIT).exists():
        return None
    split = files.read_object(folder / SPLIT) or {}
    if not all(_are_digests(split.get(part)) for part in PARTS):
        problem = f"has a {SPLIT} that cannot be read"
        raise UsageError("run", folder, problem, "put it back, or train again")
    return split


def check_same_files(folder: Path, split: Split | None, is_finished: bool) -> None:
    """Raises UsageError if the files of a training that is to be resumed have changed.

    Mask files are not compared.

    Args:
        folder: of the training.
        split: of its data now; None if they do not consist of files.
        is_finished: whether the training is finished. Older runs have no `split.json`: a finished
            one is accepted without.
    """
    old = read_split(folder)
    if not split or (old is None and is_finished):
        return
    if old is None:
        problem = f"has no {SPLIT}, which names the files that it was started with"
        raise UsageError("out", folder, problem, "give --overwrite to train anew")
    before, now = _by_name(old), _by_name(split)
    differences = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
    }
    said = [f"{files.summarize(names)} {how}" for how, names in differences.items() if names]
    if said:
        problem = f"was started with other images: {', '.join(said)}"
        hint = "put the files back, or give --overwrite to train anew"
        raise UsageError("out", folder, problem, hint)


def folder_of(images: AnomalyData) -> Path:
    """Returns the absolute path of the folder that a data set of files names."""
    return Path(Spec.parse(images.spec).name).expanduser().resolve()


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _by_name(split: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, str]]:
    """Returns part and hash of each file."""
    return {name: (part, digest) for part in PARTS for name, digest in split[part].items()}
