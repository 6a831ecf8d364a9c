"""Scoring of large images block by block, so that a run can end between two blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.data.image_files import PNG_BITS
from tfgad.data.image_headers import JPEG_START
from tfgad.data.pixels import from_uint8, to_uint8, white_of
from tfgad.export import decoding
from tfgad.export.map_png import maps_as_png
from tfgad.export.saved_model import MAP_PNG, REGIONS, REGIONS_BYTES
from tfgad.inference.predictor import SavedModelPredictor, map_threshold
from tfgad.scores.map_regions import as_outputs, find_regions
from tfgad.serving.errors import ServingError
from tfgad.serving.server.batch import Arrays
from tfgad.serving.server.graph_runs import graph_errors, graph_run
from tfgad.serving.server.image_sizes import IMAGE_BYTES
from tfgad.serving.server.signature import Signature
from tfgad.serving.server.system import release_memory

# The signatures that `tfgad.export.saved_model` writes.
DEFAULT_SIGNATURE, SCORE_BYTES, RECONSTRUCT = "serving_default", "score_bytes", "reconstruct"
# The others need the whole map.
WITH_MAP = {REGIONS: DEFAULT_SIGNATURE, REGIONS_BYTES: SCORE_BYTES, MAP_PNG: SCORE_BYTES}
IMAGES = "images"  # the input of `tfgad.export.saved_model` that takes arrays
PRODUCT = "product"  # and that which takes the products of images


class LargeImages:
    """One signature of a model, applied to large images block by block.

    It is not thread-safe: its `Batcher` has one thread.

    Args:
        folder: folder of the version.
        model: the loaded SavedModel.
        signature: the signature.
        max_pixels: pixels of a block.
    """

    def __init__(self, folder: Path, model: Any, signature: Signature, max_pixels: int):
        self._signature = signature
        self._name = WITH_MAP.get(signature.name, signature.name)  # of what each block is given to
        self._function = model.signatures[self._name]
        self._is_over: Callable[[], bool] = lambda: False
        self._predictor = SavedModelPredictor(
            folder,
            model,
            signatures={DEFAULT_SIGNATURE: self._run_block, RECONSTRUCT: self._run_block},
            max_pixels=max_pixels,
        )

    def run(self, inputs: Arrays, is_over: Callable[[], bool]) -> Arrays:
        """Applies the signature to an image.

        Args:
            inputs: one image.
            is_over: returns whether all callers have cancelled.

        Returns:
            The outputs of the signature.

        Raises:
            ServingError: the graph raised an error; CANCELLED, all callers have cancelled.
        """
        self._is_over = is_over
        try:
            with graph_errors():
                outputs = self._outputs(inputs)
        finally:
            release_memory()
        return {
            key: tf.constant(outputs[key], spec.dtype)[None].numpy()
            for key, spec in self._signature.outputs.items()
        }

    def _outputs(self, inputs: Arrays) -> dict[str, Any]:
        if self._name == RECONSTRUCT:
            image = self._predictor.reconstruct(from_uint8(inputs[IMAGES][0]))
            return {"reconstruction": to_uint8(image)}
        is_file = self._name == SCORE_BYTES
        pixels = _decode(inputs[IMAGE_BYTES][0]) if is_file else inputs[IMAGES][0]
        outputs = self._predictor.predict_pixels(pixels, self._levels_of_file if is_file else None)
        if self._signature.name not in WITH_MAP:
            return outputs
        threshold = map_threshold(self._predictor, pixels.shape)
        if self._signature.name == MAP_PNG:
            found = maps_as_png(outputs["map"][None], -np.inf if threshold is None else threshold)
            return {**outputs, **{name: value[0] for name, value in found.items()}}
        regions = None if threshold is None else find_regions(outputs["map"], threshold)
        return {**outputs, **as_outputs(regions)}

    def _levels_of_file(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what `_decode` returns as levels from 0 to 255, as the graph converts a file."""
        white = 255 if pixels.dtype == np.uint8 else white_of(self._predictor.depth)
        scaled = decoding.scaled(pixels, self._predictor.image_shape[2], white)
        return 127.5 * (1 + scaled.numpy())

    def _run_block(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._is_over():
            raise ServingError("CANCELLED", "all callers have cancelled")
        inputs = {IMAGES: images}
        if self._name == SCORE_BYTES:
            # The signature converts 16 bits and colours, so it is given the block as a file.
            inputs = {IMAGE_BYTES: tf.map_fn(_encode, images, tf.string)}
        with graph_run():
            return self._function(**inputs)


def _decode(file: bytes) -> np.ndarray:
    """Decodes a PNG or JPEG to uint8 or uint16 `[H, W, 3]`, as a graph of `tfgad.export` does."""
    if file.startswith(JPEG_START):
        pixels = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
    else:
        dtype = tf.uint16 if file[PNG_BITS] == 16 else tf.uint8
        pixels = tf.io.decode_png(file, channels=3, dtype=dtype)
    block = decoding.exif_block(tf.constant(file))
    return decoding.upright(pixels, decoding.orientation(block)).numpy()


def _encode(pixels: tf.Tensor) -> tf.Tensor:
    """Encodes a block of what `_decode` returns as a lossless PNG."""
    return tf.io.encode_png(pixels, compression=0)
