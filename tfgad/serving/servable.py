"""One version of a model, loaded: its signatures, ready to be called from any thread."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tfgad.export import FACTS
from tfgad.scoring import SavedModelJudge
from tfgad.serving.batching import Arrays, Batcher, Batching
from tfgad.serving.errors import ServingError
from tfgad.serving.image_sizes import IMAGE_BYTES, Rows
from tfgad.serving.limits import Turns
from tfgad.serving.signature import Signature

DEFAULT_SIGNATURE = "serving_default"
GRAPH_FILE = "saved_model.pb"
# TensorFlow puts lines about the node before its message, and the node's and function's name after.
BEFORE_MESSAGE = re.compile(r"\AGraph execution error:.*?<stack traces unavailable>\n", re.S)
AFTER_MESSAGE = re.compile(r"\s*\[\[\{\{node [^\n]*|\s*\[Op:\w+\]")
# Codes of a graph's errors that are the request's fault; the others are the model's.
CALLERS_FAULT = ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION", "UNIMPLEMENTED")
# All signatures of all versions share these, as they share TensorFlow's threads: more runs at once
# than cores end no sooner, and each holds its memory. Two at least, so that a short one need not
# wait for a long one.
RUNS = Turns(max(2, os.cpu_count() or 1))

log = logging.getLogger(__name__)


class Servable:
    """A loaded version.

    Attributes:
        name: of the model.
        number: of the version.
        folder: that it was loaded from.
        signatures: by name; those that can be called.
        signature_defs: as the SavedModel has them, by name, for `GetModelMetadata`.
    """

    def __init__(
        self,
        name: str,
        number: int,
        folder: Path,
        batching: Batching,
        on_batch: Callable[[str, int], None] = lambda signature, rows: None,
    ):
        """Loads a version and warms it up.

        Raises:
            Exception: whatever TensorFlow raises on damaged files, or on a model that does not run.
        """
        self.name, self.number, self.folder = name, number, folder
        self.signature_defs = _signature_defs(folder)
        self._model = tf.saved_model.load(str(folder))  # it owns what the signatures use
        self.signatures = {
            each: Signature.from_proto(each, self.signature_defs[each])
            for each in self._model.signatures
        }
        self._warm_up()
        self._batchers = {
            each.name: Batcher(
                lambda inputs, each=each: self.run(each, inputs),
                batching,
                splits=each.is_batched,
                on_batch=lambda rows, each=each: on_batch(each.name, rows),
            )
            for each in self.signatures.values()
        }

    def signature(self, name: str) -> Signature:
        """Returns a signature; the empty name stands for `serving_default`.

        Raises:
            ServingError: FAILED_PRECONDITION, it has none of that name.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def submit(self, signature: Signature, inputs: Arrays, rows: Rows) -> Future:
        """Queues inputs that fit the signature; see `Batcher.submit`."""
        return self._batchers[signature.name].submit(inputs, rows)

    @functools.cached_property
    def judge(self) -> SavedModelJudge:
        """Judges images of any size, block by block if need be; loaded when first asked for.

        Raises:
            UsageError: the model is no detector of tfgad's.
        """
        return SavedModelJudge(self.folder)

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a run."""
        return sum(batcher.queued_rows for batcher in self._batchers.values())

    def run(self, signature: Signature, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs inputs that fit the signature, once there are not too many other runs.

        Raises:
            ServingError: what the graph says.
        """
        tensors = {
            name: tf.constant(array, signature.inputs[name].dtype) for name, array in inputs.items()
        }
        try:
            with RUNS.taken():
                outputs = self._model.signatures[signature.name](**tensors)
                # of a single string, `numpy()` is no array
                return {
                    name: np.asarray(value.numpy(), value.dtype.as_numpy_dtype)
                    for name, value in outputs.items()
                }
        except tf.errors.OpError as error:
            raise _as_serving_error(error) from error

    def close(self) -> None:
        """Answers what is queued, then takes no more and lets the model go."""
        for batcher in self._batchers.values():
            batcher.close()
        self._model = None

    def _warm_up(self) -> None:
        """Runs an image through each signature of a model of ours.

        The first run of a graph takes ten times as long as others. It also shows that the model
        runs, before anyone relies on it.
        """
        try:
            height, width, channels = json.loads((self.folder / FACTS).read_text())["image_shape"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # another program's: nothing says what its inputs look like
        file = io.BytesIO()
        Image.new("L" if channels == 1 else "RGB", (width, height)).save(file, "PNG")
        examples = {
            IMAGE_BYTES: np.array([file.getvalue()], object),
            "images": np.zeros((1, height, width, channels), np.uint8),
        }
        for signature in self.signatures.values():
            if signature.inputs.keys() <= examples.keys():
                self.run(signature, {name: examples[name] for name in signature.inputs})


def _signature_defs(folder: Path) -> Mapping[str, Any]:
    """Reads the signatures of the graph that is tagged for serving."""
    saved = saved_model_pb2.SavedModel.FromString((folder / GRAPH_FILE).read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return dict(graph.signature_def)
    raise ValueError(f"{folder} has no graph that is tagged 'serve'")


def _as_serving_error(error: tf.errors.OpError) -> ServingError:
    """Returns TensorFlow's message without what it says of nodes and of Python."""
    code = _CODES.get(error.error_code, "UNKNOWN")
    message = BEFORE_MESSAGE.sub("", error.message)
    message = AFTER_MESSAGE.sub("", message).strip()
    if code not in CALLERS_FAULT:
        log.error("a model failed: %s", error.message)
    return ServingError(code, message)


_CODES = {
    getattr(tf.errors, name): name
    for name in dir(tf.errors)
    if name.isupper() and isinstance(getattr(tf.errors, name), int)
}
