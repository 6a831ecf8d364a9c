"""The folder of a painter: what stands there, and what may be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tfgad import files
from tfgad.errors import UsageError
from tfgad.multistage.painter import CONFIG, MODELS
from tfgad.training import runs
from tfgad.training.held_out import SPLIT

STAGES = ("generator", "fusion")


def weights_of(stage: str) -> str:
    """The file of a stage's weights while it is being trained."""
    return f"{stage}.weights.h5"


PARTS = {CONFIG, SPLIT, *MODELS, *map(weights_of, STAGES)}


def read(folder: Path) -> dict[str, Any] | None:
    """Returns what is known of a painter, trained to the end or not; None if there is none."""
    return files.read_object(folder / CONFIG)


def state_of(folder: Path, config: dict[str, Any], resume: bool, overwrite: bool) -> str:
    """Returns what stands at the painter's place; raises UsageError if that must not be touched."""
    if runs.is_empty(folder, CONFIG):
        return runs.NEW
    old = read(folder)
    others = not folder.is_dir() or any(not _is_part(path) for path in folder.iterdir())
    if old is None or others:
        raise UsageError("out", folder, "holds something else than a painter", "name a new folder")
    if overwrite:
        return runs.NEW
    if not resume:
        hint = "give --resume to go on with it, --overwrite to replace it"
        raise UsageError("out", folder, "holds a painter already", hint)
    runs.check_same(folder, old, config)
    return runs.FINISHED if "seconds" in old else runs.STARTED


def remove(folder: Path) -> None:
    """Removes what a painter consists of; the configuration last, as `runs.remove` does."""
    files.remove_parts(folder, _is_part, last=CONFIG)


def _is_part(path: Path) -> bool:
    return path.is_file() and files.is_or_becomes(path.name, PARTS)
