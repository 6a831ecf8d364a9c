"""The numbered versions of an exported model: TF Serving's layout, `DIRECTORY/1/saved_model.pb`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfgad import files

# The functions of signatures, each with its inputs; they return dicts, whose keys name the outputs.
Forms = dict[str, tuple[Callable[..., Mapping[str, tf.Tensor]], list[Any]]]


def write_version(
    directory: str | os.PathLike, write: Callable[[Path], None], argument: str = "directory"
) -> Path:
    """Writes the next version of a model, whole or not at all.

    Args:
        directory: of all versions; it is made if it is not there.
        write: makes the folder of a version.
        argument: the name of the directory in the interface, for messages.

    Returns:
        The folder of the version, `directory/<number>`.

    Raises:
        UsageError: the directory cannot be written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Servers load folders named by a number; this one is not until it is renamed.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".partial-") as partial:
            unfinished = Path(partial) / "version"
            write(unfinished)
            return unfinished.rename(directory / str(_next_version(directory)))
    except (OSError, tf.errors.OpError) as error:
        hint = "name a folder you can write"
        raise files.unwritable(argument, directory, error, hint) from error


def _next_version(directory: Path) -> int:
    return 1 + max((int(p.name) for p in directory.iterdir() if p.name.isdecimal()), default=0)


def save_signatures(forms: Forms, folder: Path) -> None:
    """Writes signatures and the weights they use, not a model with all it holds.

    Each signature is traced once. `keras.export.ExportArchive` traces each twice, and every graph
    of the model again.
    """
    signatures = {
        name: tf.function(function, form, autograph=False).get_concrete_function()
        for name, (function, form) in forms.items()
    }
    used = {id(weight): weight for each in signatures.values() for weight in each.variables}
    module = tf.Module()
    module.weights = list(used.values())
    tf.saved_model.save(module, str(folder), signatures)
