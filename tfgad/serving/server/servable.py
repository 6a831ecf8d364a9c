"""One version of a model, loaded: its signatures, ready to be called from any thread."""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import math
import os
import re
import types
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tfgad.data.image_files import PNG_BITS
from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.errors import UsageError
from tfgad.export import decoding
from tfgad.export.saved_model import METADATA
from tfgad.inference.predictor import SavedModelPredictor, saved_model_metadata
from tfgad.serving.server.batching import Arrays, Batcher, Batching, ClosedError
from tfgad.serving.server.errors import ServingError
from tfgad.serving.server.image_sizes import IMAGE_BYTES, Rows
from tfgad.serving.server.limits import MEBI, Turns, give_memory_back
from tfgad.serving.server.signature import Signature

DEFAULT_SIGNATURE = "serving_default"
SCORE_BYTES, RECONSTRUCT = (
    "score_bytes",
    "reconstruct",
)  # what else `tfgad.export.saved_model` writes
IMAGES = "images"  # the input of `tfgad.export.saved_model` that takes arrays
# Pixels of an image from which on it has a queue of its own, where it does not keep small ones
# waiting, and may go by blocks. After a run of it memory goes back to the system.
LARGE = MEBI
# Of a run of a large one. A block overlaps others by the model's tile and window, 160 pixels a side
# for those of `saved_models/`, so that the work grows as blocks shrink: 2048x2048 pixels take 1.3
# times as much in blocks of 2^21 pixels, 1.7 in blocks of 2^20.
BLOCK_PIXELS = 4 * MEBI
BLOCK_PIXELS_EARLIER = 2 * MEBI  # where memory grows with the image: 1.4 GB for the `ganomaly`
MOST_SIDE = 2**14  # of images that metadata may say a model is made for
SERVED_AS_OTHER = "it is served as another program's, without warm-up and inspection page"
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
        metadata: of the file `METADATA`; None of a model that it did not write, or whose
            metadata cannot be read.
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
        self.metadata = self._read_metadata()
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
        # A large image that is scored as it is goes by blocks: its memory does not grow with it,
        # and it can be given up. Others have to be scored in one piece.
        self._by_block = {
            each: _ByBlock(self.folder, self._model, each)
            for each in (DEFAULT_SIGNATURE, SCORE_BYTES, RECONSTRUCT)
            if each in self.signatures and self.metadata and not self.metadata["resized"]
        }
        self._large = {
            each: Batcher(
                lambda inputs, is_over, each=each: self._run_by_block(each, inputs, is_over),
                dataclasses.replace(batching, enabled=False, threads=1, timeout=0.0),
                in_parts=True,
                on_batch=lambda rows, each=each: on_batch(each, rows),
            )
            for each in self._by_block
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
        is_large = rows.cost > LARGE
        if is_large and rows.kind is not None and signature.name in self._large:
            return self._large[signature.name].submit(inputs, rows)
        answer = self._batchers[signature.name].submit(inputs, rows)
        if is_large:
            answer.add_done_callback(lambda done: done.cancelled() or give_memory_back())
        return answer

    @functools.cached_property
    def judge(self) -> SavedModelPredictor:
        """Scores images of any size, block by block if need be.

        Raises:
            UsageError: the model is no detector of tfgad's, or its metadata cannot be read.
            ClosedError: the version was retired.
        """
        model = self._model  # `close` takes it away meanwhile
        if model is None:
            raise ClosedError
        if self.metadata is None:
            problem = f"has no {METADATA} that can be used, so that the page cannot score by it"
            raise UsageError("model", self.name, problem, "export it again: tfgad export RUN DIR")
        return SavedModelPredictor(self.folder, model)

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a run."""
        batchers = [*self._batchers.values(), *self._large.values()]
        return sum(batcher.queued_rows for batcher in batchers)

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

    def _run_by_block(
        self, name: str, inputs: Arrays, is_over: Callable[[], bool]
    ) -> dict[str, np.ndarray]:
        """Runs a large image block by block, as `SavedModelPredictor` does.

        Args:
            name: of the signature.
            inputs: one image.
            is_over: says whether no caller waits any longer.

        Raises:
            ServingError: what the graph says; CANCELLED, no caller waits.
        """
        judge = self._by_block[name]
        judge.is_over = is_over
        try:
            if name == SCORE_BYTES:
                outputs = judge.predict_pixels(_decoded(inputs[IMAGE_BYTES][0]))
            elif name == RECONSTRUCT:
                outputs = {"reconstruction": judge.reconstruct(from_uint8(inputs[IMAGES][0]))}
                outputs = {key: to_uint8(image) for key, image in outputs.items()}
            else:
                outputs = judge.predict_pixels(inputs[IMAGES][0])
        except tf.errors.OpError as error:
            raise _as_serving_error(error) from error
        finally:
            give_memory_back()
        return {
            key: tf.constant(outputs[key], spec.dtype)[None].numpy()
            for key, spec in self.signatures[name].outputs.items()
        }

    def close(self) -> None:
        """Answers what is queued, then takes no more and lets the model go."""
        for batcher in [*self._batchers.values(), *self._large.values()]:
            batcher.close()
        self._model = None
        self._by_block.clear()

    def _read_metadata(self) -> dict[str, Any] | None:
        """Reads the metadata of the model; where it cannot, the log says so."""
        try:
            metadata = saved_model_metadata(self.folder)
            problem = "" if _is_sound(metadata) else f"has a {METADATA} with wrong values"
        except UsageError as error:
            problem = error.problem
        except (OverflowError, RecursionError):  # of numbers and lists that no export writes
            problem = f"has a {METADATA} with wrong values"
        if not problem:
            return metadata
        log.warning("%s version %d %s; %s", self.name, self.number, problem, SERVED_AS_OTHER)
        return None

    def _warm_up(self) -> None:
        """Runs an image through each signature of a model of ours.

        The first run of a graph takes ten times as long as others. It also shows that the model
        runs, before anyone relies on it.
        """
        if self.metadata is None:
            return  # nothing says what its inputs look like
        height, width, channels = self.metadata["image_shape"]
        file = io.BytesIO()
        Image.new("L" if channels == 1 else "RGB", (width, height)).save(file, "PNG")
        examples = {
            IMAGE_BYTES: np.array([file.getvalue()], object),
            IMAGES: np.zeros((1, height, width, channels), np.uint8),
        }
        for signature in self.signatures.values():
            if signature.inputs.keys() <= examples.keys():
                self.run(signature, {name: examples[name] for name in signature.inputs})


class _ByBlock(SavedModelPredictor):
    """Scores by blocks so small that one sees in time whether anyone waits for the rest.

    It is not thread-safe: its `Batcher` has one thread.

    Args:
        folder: of the version.
        model: it, loaded.
        name: of the signature to score by.

    Attributes:
        is_over: says whether no caller waits any longer.
    """

    def __init__(self, folder: Path, model: Any, name: str):
        self._loaded, self._name = model, name
        self.is_over: Callable[[], bool] = lambda: False
        score = functools.partial(self._in_turn)
        # What a model's outputs lack is said by the first of its signatures.
        is_first = name == DEFAULT_SIGNATURE
        outputs = model.signatures[DEFAULT_SIGNATURE].structured_outputs
        score.structured_outputs = outputs if is_first else {"reason": None}
        signatures = {DEFAULT_SIGNATURE: score, RECONSTRUCT: score}
        super().__init__(folder, types.SimpleNamespace(signatures=signatures))

    def _in_turn(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.is_over():
            raise ServingError("CANCELLED", "no caller waits any longer")
        inputs = {IMAGES: images}
        if self._name == SCORE_BYTES:  # its pixels may have 16 bits, and colours that become grey
            inputs = {IMAGE_BYTES: tf.map_fn(_encoded, images, tf.string)}
        with RUNS.taken():
            return self._loaded.signatures[self._name](**inputs)

    @property
    def _at_once(self) -> int:
        return BLOCK_PIXELS if self.metadata.get("by_block") else BLOCK_PIXELS_EARLIER


def _is_sound(metadata: Mapping[str, Any]) -> bool:
    """Returns whether metadata have the types and ranges that `tfgad.export.saved_model` writes."""

    def is_size(value, axes):
        return (
            isinstance(value, list)
            and len(value) == axes
            and all(isinstance(side, int) and 0 < side <= MOST_SIDE for side in value)
        )

    return (
        is_size(metadata["image_shape"], 3)
        and is_size(metadata["window"], 3)
        and is_size(metadata["tile"], 2)
        and is_size([metadata["stride"]], 1)
        and isinstance(metadata["resized"], bool)
        and isinstance(metadata["score"], str)
        and all(
            isinstance(metadata[key], (int, float)) and math.isfinite(metadata[key])
            for key in ("threshold", "scale")
        )
    )


def _decoded(file: bytes) -> np.ndarray:
    """Decodes a PNG or JPEG to uint8 or uint16 `[H, W, 3]`, as a graph of `tfgad.export` does."""
    if file.startswith(decoding.JPEG_START):
        pixels = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
    else:
        dtype = tf.uint16 if file[PNG_BITS] == 16 else tf.uint8
        pixels = tf.io.decode_png(file, channels=3, dtype=dtype)
    block = decoding.exif_block(tf.constant(file))
    return decoding.upright(pixels, decoding.orientation(block)).numpy()


def _encoded(pixels: tf.Tensor) -> tf.Tensor:
    """Encodes a block of what `_decoded` returns, without a loss."""
    return tf.io.encode_png(pixels, compression=0)


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
