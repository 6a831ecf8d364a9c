"""The folder of a training: its files, its state, and when it may be resumed or replaced.

    config.json             method, settings, data, seed, versions; calibration, once finished
    split.json              of a data set of files: which of them train and which calibrate
    checkpoint.weights.h5   weights, optimizers and step, until the training is finished
    model.keras             the fitted, calibrated model, once the training is finished
    .lock                   while it is written, see `tfgad.training.lock`
    logs/                   TensorBoard: losses, samples, reconstructions
    previews/               the same pictures as PNG
    metrics.json, report.html, scores.csv, gallery.png   results of an evaluation
    check.json              results of a check on good images alone

A training is `NEW` until its configuration is written, then `STARTED`, and `FINISHED` once its last
file is written. Every file is written whole or not at all, so a training can be killed at any time
and resumed.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from tfgad import files
from tfgad.errors import UsageError
from tfgad.training.lock import LOCK
from tfgad.training.run_config import check_same, learnt_from
from tfgad.training.split_file import SPLIT, Split, check_same_files, write_split

CONFIG, CHECKPOINT, MODEL = "config.json", "checkpoint.weights.h5", "model.keras"
CHECK = "check.json"
# Of the configuration's values, where it has them.
TYPES: dict[str, type | tuple[type, ...]] = {
    "method": str,
    "data": (str, list),  # of a painter, several
    **dict.fromkeys(("settings", "calibration", "versions"), dict),
    "seed": int,
    "resized": bool,
    "image_shape": list,
}
RESULTS = "metrics.json", "report.html", "scores.csv", "gallery.png"


class RunState(enum.IntEnum):
    """How far a training is."""

    NEW = 0
    STARTED = 1
    FINISHED = 2


class RunFolder:
    """The folder of a run.

    A training with other files derives from this class and names them.

    Args:
        path: of the folder, which need not exist.

    Attributes:
        kind: what the folder holds, as error messages call it.
        config_name: the file of the configuration.
        keys: those that every configuration has.
        parts: names of all files that belong to a run.
        folders: names of all folders that belong to a run.
    """

    kind: ClassVar[str] = "run"
    config_name: ClassVar[str] = CONFIG
    keys: ClassVar[frozenset[str]] = frozenset(
        {"method", "data", "seed", "settings", "image_shape", "resized"}
    )
    parts: ClassVar[frozenset[str]] = frozenset(
        {CONFIG, CHECKPOINT, MODEL, SPLIT, LOCK, CHECK, *RESULTS}
    )
    folders: ClassVar[frozenset[str]] = frozenset({"logs", "previews"})

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def config_path(self) -> Path:
        """The file of the configuration."""
        return self.path / self.config_name

    @property
    def checkpoint(self) -> Path:
        """The file of weights, optimizers and step during training."""
        return self.path / CHECKPOINT

    @property
    def model(self) -> Path:
        """The file of the trained model."""
        return self.path / MODEL

    def read_config(self) -> dict[str, Any] | None:
        """Returns the configuration, of a finished training or not; None if there is none.

        Raises:
            UsageError: one of its values has another type than trainings write.
        """
        config = files.read_object(self.config_path)
        if config is None or not config.keys() >= self.keys:
            return None
        for key, kind in TYPES.items():
            if key in config and not isinstance(config[key], kind):
                problem = f"is damaged: {key} is {config[key]!r}"
                hint = "restore the file, or name a new folder"
                raise UsageError(self.kind, self.config_path, problem, hint)
        if "sources" in config:  # of a segmenter, perhaps of a version without the key
            config.setdefault("learnt_from", learnt_from(config))
        return config

    def read_finished(self) -> dict[str, Any]:
        """Returns the configuration of a finished training.

        Raises:
            UsageError: the folder does not exist, is no training, or one that is not finished.
        """
        if not self.path.is_dir():
            raise UsageError(self.kind, self.path, "is not there", "give the folder of a run")
        config = self.read_config()
        if config is None:
            hint = "give a folder that `tfgad train` wrote"
            raise UsageError(self.kind, self.path, "is not a run", hint)
        if not self.is_finished():
            hint = "continue it with its command and --resume"
            raise UsageError(self.kind, self.path, "is not finished", hint)
        return config

    def is_finished(self) -> bool:
        """Returns whether the training has written its last file."""
        return self.model.is_file()

    def state(
        self,
        config: dict[str, Any],
        split: Split | None,
        *,
        resume: bool,
        overwrite: bool,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> RunState:
        """Returns the state of a training that is to be started, resumed or replaced here.

        Args:
            config: of the training, without what is found on the way.
            split: its files, if its data consist of files.
            resume: continue a training that was interrupted.
            overwrite: replace a training; the state is then `NEW`.
            upgrade: adds to the configuration of an older run what has been added since.

        Raises:
            UsageError: the folder holds something else; or a training, and neither `resume` nor
                `overwrite` is set; or one with another configuration or other files.
        """
        if self._is_empty():
            return RunState.NEW
        old = self.read_config()
        if overwrite or old is None:
            self.check_removable()
            return RunState.NEW
        if not resume:
            hint = "give --resume to continue it, --overwrite to replace it"
            raise UsageError("out", self.path, f"holds a {self.kind} already", hint)
        check_same(self.path, upgrade(old), config)
        is_finished = self.is_finished()
        check_same_files(self.path, split, is_finished)
        return RunState.FINISHED if is_finished else RunState.STARTED

    def start(self, state: RunState, config: dict[str, Any], split: Split | None) -> None:
        """Writes the configuration of a training; if it is new, replaces what was here before."""
        if state == RunState.NEW:
            self.remove()
            write_split(self.path, split)  # first: a run without it cannot be resumed
        self.write_config(config)

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes the configuration."""
        files.write_json(self.config_path, config)

    def check_removable(self) -> None:
        """Raises UsageError unless the folder holds a training and nothing else."""
        if self.read_config() is None:
            problem = f"is something else than a {self.kind}"
            raise UsageError("out", self.path, problem, "name a new folder")
        others = sorted(path.name for path in self.path.iterdir() if not self._is_part(path.name))
        if others:
            hint = "move it away, or name a new folder"
            raise UsageError("out", self.path, f"holds {others[0]} beside the {self.kind}", hint)

    def remove(self) -> None:
        """Removes the files of a training, if there is one, but not the folder, which may be `.`.

        The configuration goes last: after an interrupted removal the folder still counts as a
        training, which can be replaced.
        """
        files.remove_parts(
            self.path,
            lambda path: self._is_part(path.name) and path.name != LOCK,  # held by whoever removes
            last=self.config_name,
        )

    def remove_results(self) -> None:
        """Removes the model of a finished run and what was found with it."""
        for name in (*RESULTS, CHECK):
            (self.path / name).unlink(missing_ok=True)
        self.model.unlink(missing_ok=True)

    def _is_part(self, name: str) -> bool:
        """Returns whether a training writes such a child, or leaves one when it is killed."""
        return files.is_or_becomes(name, self.parts) or name in self.folders

    def _is_empty(self) -> bool:
        """Returns whether the folder does not exist, or holds no trace of a training or others.

        A training that is killed before its configuration is written may leave `split.json`.
        """
        if not self.path.is_dir():
            return not self.path.exists()
        names = {path.name for path in self.path.iterdir()}
        return self.config_name not in names and all(
            files.is_or_becomes(name, (self.config_name, SPLIT, LOCK)) for name in names
        )
