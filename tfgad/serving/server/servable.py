"""One loaded version of a model: its signatures, ready to be called from any thread."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tfgad.errors import UsageError
from tfgad.export.saved_model import METADATA
from tfgad.inference.predictor import SavedModelPredictor
from tfgad.inference.scoring import calibrated_size
from tfgad.serving.errors import ServingError
from tfgad.serving.file_cost import MEBI
from tfgad.serving.server.batch import Arrays
from tfgad.serving.server.batching import Batcher, Batching, ClosedError
from tfgad.serving.server.graph_runs import graph_run
from tfgad.serving.server.image_sizes import IMAGE_BYTES, Rows
from tfgad.serving.server.large_images import (
    DEFAULT_SIGNATURE,
    IMAGES,
    PRODUCT,
    RECONSTRUCT,
    SCORE_BYTES,
    WITH_MAP,
    LargeImages,
)
from tfgad.serving.server.model_files import load_saved_model, read_metadata, read_signature_defs
from tfgad.serving.server.score_watch import ScoreWatch
from tfgad.serving.server.signature import Signature
from tfgad.serving.server.system import release_memory

# Pixels above which an image is large: it goes by blocks if it can, in a queue of its own so that
# small images need not wait, and memory is released after its run.
LARGE = MEBI
# Pixels of a block of a large image. Blocks overlap by the model's tile and window, 160 pixels a
# side for those of `saved_models/`, so that smaller blocks mean more work: an image of 2048x2048
# pixels takes 1.3 times as long in blocks of 2^21 pixels, 1.7 times in blocks of 2^20.
BLOCK_PIXELS = 4 * MEBI
# For models of earlier exports, whose memory grows with the image: 1.4 GB for the `ganomaly`.
BLOCK_PIXELS_EARLIER = 2 * MEBI


class Servable:
    """A loaded version.

    Attributes:
        name: name of the model.
        number: number of the version.
        folder: folder of the version.
        metadata: the metadata that `tfgad export` wrote; None if they are missing or invalid.
        signatures: the signatures that can be called, by name.
        signature_defs: `SignatureDef` messages of the SavedModel by name, for `GetModelMetadata`.
        scores: the scores of requests; None if the model has no valid metadata of tfgad.
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

        Args:
            name: name of the model.
            number: number of the version.
            folder: folder of the version.
            batching: settings of batching.
            on_batch: called with signature and number of rows of each run.

        Raises:
            Exception: whatever TensorFlow raises for damaged files or a model that does not run.
        """
        self.name, self.number, self.folder = name, number, folder
        self.signature_defs = read_signature_defs(folder)
        self._model = load_saved_model(folder)
        self.signatures = {
            each: Signature.from_proto(each, self.signature_defs[each])
            for each in self._model.signatures
        }
        self.metadata = read_metadata(name, number, folder)
        self._predictor: SavedModelPredictor | None = None
        self.scores: ScoreWatch | None = None
        if self.metadata and DEFAULT_SIGNATURE in self.signatures:
            self._predictor = known = SavedModelPredictor(folder, self._model)
            size = calibrated_size(known)
            self.scores = ScoreWatch(name, known.calibration_scores, known.threshold, size)
        self._is_closed = False
        self._warm_up()
        self._batchers = {
            each.name: Batcher(
                lambda inputs, each=each: self._watched(self.run(each, inputs)),
                batching,
                splits=each.is_batched,
                on_batch=functools.partial(on_batch, each.name),
            )
            for each in self.signatures.values()
        }
        self._large_images, self._large_batchers = self._large_queues(batching, on_batch)

    def _large_queues(
        self, batching: Batching, on_batch: Callable[[str, int], None]
    ) -> tuple[dict[str, LargeImages], dict[str, Batcher]]:
        """Returns by signature what scores large images, and its queue.

        A model that resizes its images has none: it scores them in one piece.
        """
        if self._predictor is None or self._predictor.resized:
            return {}, {}
        names = (DEFAULT_SIGNATURE, SCORE_BYTES, *WITH_MAP, RECONSTRUCT)
        by_block = self._predictor.metadata.get("by_block")
        pixels = BLOCK_PIXELS if by_block else BLOCK_PIXELS_EARLIER
        large = {
            each: LargeImages(self.folder, self._model, self.signatures[each], pixels)
            for each in names
            if each in self.signatures
        }
        alone = dataclasses.replace(batching, enabled=False, threads=1, timeout=0.0)
        queues = {
            each: Batcher(
                functools.partial(self._run_large, each),
                alone,
                in_parts=True,
                on_batch=functools.partial(on_batch, each),
            )
            for each in large
        }
        return large, queues

    def signature(self, name: str) -> Signature:
        """Returns a signature.

        Args:
            name: its name; empty for `serving_default`.

        Raises:
            ServingError: FAILED_PRECONDITION, there is no such signature.
        """
        name = name or DEFAULT_SIGNATURE
        if name not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def submit(self, signature: Signature, inputs: Arrays, rows: Rows) -> Future:
        """Queues inputs that fit the signature; see `Batcher.submit`."""
        is_large = rows.cost > LARGE
        if is_large and rows.kind is not None and signature.name in self._large_batchers:
            return self._large_batchers[signature.name].submit(inputs, rows)
        answer = self._batchers[signature.name].submit(inputs, rows)
        if is_large:
            answer.add_done_callback(lambda done: None if done.cancelled() else release_memory())
        return answer

    @property
    def predictor(self) -> SavedModelPredictor:
        """A predictor that scores images of any size by this version.

        Raises:
            UsageError: the model has no valid metadata of tfgad.
            ClosedError: the version was retired.
        """
        predictor = self._predictor  # `close` may remove it meanwhile
        if self._is_closed:
            raise ClosedError
        if predictor is None:
            problem = f"has no valid {METADATA}, so that the page cannot use it"
            raise UsageError("model", self.name, problem, "export it again: tfgad export RUN DIR")
        return predictor

    @property
    def queued_rows(self) -> int:
        """The number of rows that wait for a run."""
        return sum(batcher.queued_rows for batcher in self._all_batchers())

    def run(self, signature: Signature, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs inputs that fit the signature, when it is their turn.

        Raises:
            ServingError: the graph raised an error.
        """
        tensors = {
            name: tf.constant(array, signature.inputs[name].dtype) for name, array in inputs.items()
        }
        with graph_run():
            outputs = self._model.signatures[signature.name](**tensors)
            # `numpy()` of a scalar string is no array
            return {
                name: np.asarray(value.numpy(), value.dtype.as_numpy_dtype)
                for name, value in outputs.items()
            }

    def _run_large(self, name: str, inputs: Arrays, is_over: Callable[[], bool]) -> Arrays:
        return self._watched(self._large_images[name].run(inputs, is_over))

    def _watched(self, outputs: Arrays) -> Arrays:
        """Returns the outputs of a run, once their scores are counted."""
        if self.scores is not None:
            self.scores.add(outputs)
        return outputs

    def close(self) -> None:
        """Answers the queued requests, then refuses further ones and frees the model."""
        for batcher in self._all_batchers():
            batcher.close()
        self._is_closed = True
        self._model = self._predictor = None
        self._large_images.clear()  # they own the model, too

    def _all_batchers(self) -> list[Batcher]:
        return [*self._batchers.values(), *self._large_batchers.values()]

    def _warm_up(self) -> None:
        """Runs an image through each signature, if the metadata give the shape of its inputs.

        The first run of a graph takes ten times as long as further ones. This also shows that the
        model runs before it is put into service.
        """
        if self.metadata is None:
            return
        height, width, channels = self.metadata["image_shape"]
        file = io.BytesIO()
        Image.new("L" if channels == 1 else "RGB", (width, height)).save(file, "PNG")
        examples: dict[str, Any] = {
            IMAGE_BYTES: np.array([file.getvalue()], object),
            IMAGES: np.zeros((1, height, width, channels), np.uint8),
            PRODUCT: np.array([b""], object),
        }
        for signature in self.signatures.values():
            if signature.inputs.keys() <= examples.keys():
                self.run(signature, {name: examples[name] for name in signature.inputs})
