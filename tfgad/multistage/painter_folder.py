"""The folder of a defect painter.

painter.json            kinds of defect, data, settings, seed, versions; seconds, once finished
split.json              of data sets of files: which of them train
generator.weights.h5, fusion.weights.h5   checkpoints of the two stages, during training
style.keras, generator.keras, fusion.keras   the three models, once finished
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from tfgad.errors import UsageError
from tfgad.inference.metadata import is_size
from tfgad.training.lock import LOCK
from tfgad.training.run_folder import RunFolder
from tfgad.training.split_file import SPLIT

CONFIG = "painter.json"
MODELS = ("style.keras", "generator.keras", "fusion.keras")
STAGES = ("generator", "fusion")
SEPARATORS = "/\\"  # of folders in a path


def is_kind(name: object) -> bool:
    """Returns whether a value can name a kind of defect, and so a folder of painted images."""
    return (
        isinstance(name, str)
        and name.strip() != ""
        and name.isprintable()
        and not name.startswith(".")
        and not any(each in name for each in SEPARATORS)
    )


def _are_kinds(names: object) -> bool:
    return isinstance(names, list) and names != [] and all(map(is_kind, names))


def _are_specs(specs: object) -> bool:
    return isinstance(specs, list) and specs != [] and all(isinstance(each, str) for each in specs)


def _are_seconds(seconds: object) -> bool:
    """Returns whether a value is the time of each part of the training; None before its end."""
    return seconds is None or (
        isinstance(seconds, dict)
        and all(isinstance(each, int | float) for each in seconds.values())
    )


# Key of the configuration -> whether its value is as trainings write it.
VALID: dict[str, Callable[[object], bool]] = {
    "kinds": _are_kinds,
    "data": _are_specs,
    "image_shape": lambda value: is_size(value, 3),
    "resized": lambda value: isinstance(value, bool),
    "seconds": _are_seconds,
}


class PainterFolder(RunFolder):
    """The folder of a defect painter; it is finished once its configuration has `seconds`."""

    kind: ClassVar[str] = "painter"
    config_name: ClassVar[str] = CONFIG
    keys: ClassVar[frozenset[str]] = frozenset({"kinds", "data", "settings", "seed"})
    parts: ClassVar[frozenset[str]] = frozenset(
        {CONFIG, SPLIT, LOCK, *MODELS, *(f"{stage}.weights.h5" for stage in STAGES)}
    )
    folders: ClassVar[frozenset[str]] = frozenset()

    def checkpoint_of(self, stage: str) -> Path:
        """The file of weights, optimizers and step while a stage is trained."""
        return self.path / f"{stage}.weights.h5"

    def read_config(self) -> dict[str, Any] | None:
        """Returns the configuration; see `RunFolder.read_config`."""
        config = super().read_config()
        for key, is_valid in VALID.items():
            if config is not None and not is_valid(config.get(key)):
                problem = f"is damaged: {key} is {config.get(key)!r}"
                hint = "restore the file, or train the painter again"
                raise UsageError(self.kind, self.config_path, problem, hint)
        return config

    def is_finished(self) -> bool:
        """Returns whether the configuration was written last, after the three models."""
        return "seconds" in (self.read_config() or {})
