"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfgad.errors import UsageError

Data = Annotated[str, typer.Option(help="Data set, such as weave:twill or folder:PATH?size=128.")]
OtherData = Annotated[
    str | None, typer.Option("--data", help="Data set to use in place of the run's own.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a run or of an exported model.")
]
Rate = Annotated[
    float, typer.Option(help="Share of good images that the threshold may classify as defective.")
]
Depth = Annotated[
    int | None,
    typer.Option(min=9, max=16, help="Bits of 16-bit files, if not those of the training."),
]
MaxPixels = Annotated[int, typer.Option(min=1, help="Pixels of the largest image that is read.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]


def settings_given(pairs: list[str], steps: str | None) -> dict[str, str]:
    """Returns the settings given by `--set` and `--steps`, by name.

    Args:
        pairs: texts of the form `name=value`.
        steps: training steps, or None.

    Raises:
        UsageError: a pair without a name, or without a value.
    """
    settings = {"steps": steps} if steps else {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value:
            hint = "write --set name=value, such as --set latent_dim=64"
            raise UsageError("--set", pair, "is not of the form name=value", hint)
        settings[name] = value
    return settings
