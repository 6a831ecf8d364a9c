"""The files of an exported version: its signatures and its metadata."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfgad.errors import UsageError
from tfgad.export.saved_model import METADATA
from tfgad.inference.metadata import saved_model_metadata, wrong_key

GRAPH_FILE = "saved_model.pb"
MAX_METADATA_SIDE = 2**14  # of the image shape, window and tile that metadata may give
WRONG_VALUES = f"has a {METADATA} with wrong values"

log = logging.getLogger(__name__)


def read_signature_defs(folder: Path) -> dict[str, Any]:
    """Returns the `SignatureDef` messages, by name, of the graph that is tagged for serving.

    Raises:
        OSError: the graph file cannot be read.
        ValueError: the SavedModel has no such graph.
    """
    saved = saved_model_pb2.SavedModel.FromString((folder / GRAPH_FILE).read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    raise ValueError(f"{folder} has no graph that is tagged 'serve'")


def load_saved_model(folder: Path) -> Any:
    """Returns the loaded SavedModel, which owns the variables of its signatures."""
    return tf.saved_model.load(str(folder))


def read_metadata(name: str, number: int, folder: Path) -> dict[str, Any] | None:
    """Returns the metadata of a version; None if they are missing or invalid, which is logged.

    Args:
        name: name of the model, for the log.
        number: its version, likewise.
        folder: folder of the version.
    """
    try:
        metadata = saved_model_metadata(folder)
        problem = "" if is_valid(metadata) else WRONG_VALUES
    except UsageError as error:
        problem = error.problem
    except (OverflowError, RecursionError):  # numbers and lists that no export writes
        problem = WRONG_VALUES
    if not problem:
        return metadata
    consequence = "it is served without warm-up and without the inspection page"
    log.warning("%s version %d %s; %s", name, number, problem, consequence)
    return None


def is_valid(metadata: Mapping[str, Any]) -> bool:
    """Returns whether metadata have the types and ranges that `tfgad.export.saved_model` writes."""
    if wrong_key(metadata):
        return False
    sizes = (*metadata["image_shape"], *metadata["window"], *metadata["tile"], metadata["stride"])
    return max(sizes) <= MAX_METADATA_SIDE
