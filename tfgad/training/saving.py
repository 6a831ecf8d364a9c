"""Models to `.keras` files and back."""

from __future__ import annotations

import importlib
import json
import os
import textwrap
import zipfile
from pathlib import Path

import keras

from tfgad import files
from tfgad.core.detector import Detector
from tfgad.errors import UsageError, first_line
from tfgad.training.run_folder import RunFolder

SEGMENTER = "tfgad.multistage.segmenter"  # a layer above this one


def load_model(path: str | os.PathLike[str]) -> Detector:
    """Loads a detector that `model.save` or a run wrote, ready to predict and to train further.

    `keras.saving.load_model` does the same once the class is imported: `import tfgad.methods`, or
    for a segmenter `import tfgad.multistage.segmenter`.

    Args:
        path: of a `.keras` file, or of the folder of a finished run.

    Raises:
        UsageError: the file does not exist, or holds no detector; or the folder holds no run, or
            one that is not finished.
    """
    path = Path(path)
    if path.is_dir():
        RunFolder(path).read_finished()
        path = RunFolder(path).model
    if not path.is_file():
        raise UsageError("model", path, "is not there", "give a run, or a .keras file")
    hint = "give a .keras file that tfgad wrote"
    if not zipfile.is_zipfile(path):
        raise UsageError("model", path, "is no .keras file, or one that was cut off", hint)
    try:
        _import_class(path)
        model = keras.saving.load_model(path)
    except Exception as error:  # on damaged configurations Keras raises almost anything
        # Its message may go on with the whole configuration.
        reason = textwrap.shorten(first_line(error).partition(" Full object config")[0], 200)
        problem = f"is no model that can be read ({reason})"
        raise UsageError("model", path, problem, hint) from error
    if not isinstance(model, Detector):
        raise UsageError("model", path, f"is a {type(model).__name__}, no detector", hint)
    return model


def _import_class(path: Path) -> None:
    """Imports the module of a segmenter, which Keras looks for among registered classes alone.

    The methods are registered already. A file may name any module: no other one is imported.
    """
    with zipfile.ZipFile(path) as archive:
        named = json.loads(archive.read("config.json")).get("module")
    if named == SEGMENTER:
        importlib.import_module(named)


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a `.keras` file whole or not at all.

    Raises:
        UsageError: the path cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial.keras")
    try:
        model.save(partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise files.unwritable("output", path, error) from error


def check_same_networks(path: Path, old: Detector, new: Detector) -> None:
    """Checks that a run can be trained on: that its settings still make the networks it has.

    Args:
        path: of the run, for the message.
        old: its model.
        new: a model of its settings.

    Raises:
        UsageError: an earlier version of tfgad made other networks.
    """
    of_old, of_new = (
        {name: [tuple(each.shape) for each in network.weights] for name, network in model}
        for model in (old.networks().items(), new.networks().items())
    )
    if of_old != of_new:
        problem = "has networks of an earlier version of tfgad"
        hint = "train it on with that version, or train a new run"
        raise UsageError("run", path, problem, hint)
