"""The folder of a defect painter.

painter.json            kinds of defect, data, settings, seed, versions; seconds, once finished
split.json              of data sets of files: which of them train
generator.weights.h5, fusion.weights.h5   checkpoints of the two stages, during training
style.keras, generator.keras, fusion.keras   the three models, once finished
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tfgad.training.lock import LOCK
from tfgad.training.run_folder import RunFolder
from tfgad.training.split_file import SPLIT

CONFIG = "painter.json"
MODELS = ("style.keras", "generator.keras", "fusion.keras")
STAGES = ("generator", "fusion")


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

    def is_finished(self) -> bool:
        """Returns whether the configuration was written last, after the three models."""
        return "seconds" in (self.read_config() or {})
