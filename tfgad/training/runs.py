"""The names of `tfgad.training` in one place, for modules that have not moved to its parts yet."""

import os
from pathlib import Path

from tfgad.training.loop import stage_steps, train
from tfgad.training.run import (
    FALSE_POSITIVE_RATE,
    Run,
    calibrate,
    calibration_numbers,
    check_shape,
    load_run,
)
from tfgad.training.run_config import absolute_spec as from_anywhere
from tfgad.training.run_config import versions
from tfgad.training.run_folder import CHECKPOINT, CONFIG, MODEL, RunFolder
from tfgad.training.saving import first_line, load_model, save_model

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "FALSE_POSITIVE_RATE",
    "MODEL",
    "Run",
    "calibrate",
    "calibration_numbers",
    "check_removable",
    "check_shape",
    "first_line",
    "from_anywhere",
    "load_model",
    "load_run",
    "read_config",
    "remove",
    "save_model",
    "stage_steps",
    "train",
    "versions",
]


def read_config(folder: str | os.PathLike) -> dict | None:
    """See `RunFolder.read_config`."""
    return RunFolder(folder).read_config()


def check_removable(folder: Path) -> None:
    """See `RunFolder.check_removable`."""
    RunFolder(folder).check_removable()


def remove(folder: Path) -> None:
    """See `RunFolder.remove`."""
    RunFolder(folder).remove()
