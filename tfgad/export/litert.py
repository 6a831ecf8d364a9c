"""A run's model as LiteRT (formerly TensorFlow Lite), for phones and small boards.

    DIRECTORY/
      model.tflite                  float32
      model_dynamic_range.tflite    weights of 8 bits; a quarter of the size, another AUROC
      tfgad.json                    metadata of the model, and the measurements of both files

It has one signature, `serving_default`, of LiteRT's own operations, so that the plain runtime runs
it. `one_size.py` has its inputs and outputs, and the comparison of the scores.
"""

from __future__ import annotations

import os
import re
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError
from tfgad.export import one_size
from tfgad.quiet import silent_standard_error
from tfgad.training import Run

FLOAT, DYNAMIC_RANGE = "model.tflite", "model_dynamic_range.tflite"
VARIANTS = {FLOAT: [], DYNAMIC_RANGE: [tf.lite.Optimize.DEFAULT]}  # the converter's optimizations
MISSING_OPERATION = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


def export_litert(
    run: Run, images: AnomalyData, directory: str | os.PathLike
) -> list[one_size.Variant]:
    """Writes a run's model as LiteRT; see `one_size.export`.

    Returns:
        The float and the dynamic-range variant.

    Raises:
        UsageError: as there; or LiteRT's runtime is not installed.
    """
    _runtime()
    file_format = one_size.Format("LiteRT", tuple(VARIANTS), convert, scores_of)
    return one_size.export(run, images, directory, file_format)


def convert(model: Detector, image_shape: tuple[int, int, int]) -> dict[str, bytes]:
    """Converts a calibrated model for images of one size.

    Args:
        model: the model.
        image_shape: `(height, width, channels)`.

    Returns:
        The content of each of the files.

    Raises:
        UsageError: the model needs an operation that LiteRT does not have.
    """
    # The weights alone, not the model with every graph that it holds.
    module = tf.Module()
    module.weights = [weight.value for weight in model.variables]
    signature = one_size.score_function(model, image_shape).get_concrete_function()
    # From a SavedModel: directly from the function, the converter leaves out the weights.
    with tempfile.TemporaryDirectory() as folder, silent_standard_error():
        tf.saved_model.save(module, folder, {"serving_default": signature})
        return {
            name: _from_saved_model(model, folder, options) for name, options in VARIANTS.items()
        }


def _from_saved_model(model: Detector, folder: str, optimizations: list[Any]) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, ["serving_default"])
    converter.optimizations = optimizations
    try:
        return converter.convert()
    except Exception as error:  # the converter's own class is not public
        missing = sorted(set(MISSING_OPERATION.findall(str(error))))
        if not missing:
            raise
        problem = f"needs operations that LiteRT does not have ({', '.join(missing)})"
        hint = "export it as a SavedModel: LiteRT takes no bfloat16 and no latent search"
        raise UsageError("method", type(model).__name__, problem, hint) from error


def scores_of(content: bytes, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Scores images uint8 `[N, H, W, C]` with a converted model, one after another.

    Returns:
        Scores float32 `[N]`, and the median of milliseconds per image.
    """
    with silent_standard_error():  # the runtime prints the processor it uses
        interpreter = _runtime()(model_content=content, num_threads=one_size.threads())
        predict = interpreter.get_signature_runner("serving_default")
        predict(images=pixels[:1])
    return one_size.timed(lambda image: predict(images=image)["score"], pixels)


def _runtime() -> Any:
    """Returns the class of LiteRT's interpreter; that of TensorFlow itself is deprecated.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        hint = "pip install 'tfgad[litert]'"
        raise UsageError("--format", "litert", "needs LiteRT's runtime", hint) from error
    return Interpreter
