"""A run's model as ONNX, for ONNX Runtime and other programs that read this format.

    DIRECTORY/
      model.onnx    float32
      tfgad.json    metadata of the model, and the measurements of the file

`one_size.py` has its inputs and outputs, and the comparison of the scores. `docs/scale.md` compares
the runtimes: for one image of a small network ONNX Runtime is several times as fast as TensorFlow.
"""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import numpy as np

from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError, first_line
from tfgad.export import one_size
from tfgad.quiet import silent_standard_error
from tfgad.training import Run

log = logging.getLogger(__name__)

FLOAT = "model.onnx"
OPSET = 18  # the highest that tf2onnx 1.17 writes; ONNX Runtime reads it since 1.14
MISSING_OPERATION = re.compile(r"No Op registered for (\w+)")


def export_onnx(
    run: Run, images: AnomalyData, directory: str | os.PathLike
) -> list[one_size.Variant]:
    """Writes a run's model as ONNX; see `one_size.export`.

    Returns:
        The one variant.

    Raises:
        UsageError: as there; or the converter or ONNX Runtime is not installed.
    """
    _packages()
    return one_size.export(
        run, images, directory, one_size.Format("ONNX", (FLOAT,), convert, scores_of)
    )


def convert(model: Detector, image_shape: tuple[int, int, int]) -> dict[str, bytes]:
    """Converts a calibrated model for images of one size.

    Args:
        model: the model.
        image_shape: `(height, width, channels)`.

    Returns:
        The content of the file.

    Raises:
        UsageError: the model needs an operation that ONNX does not have.
    """
    converter, runtime = _packages()
    function = one_size.score_function(model, image_shape)
    function.get_concrete_function()  # whose errors are not those of the converter
    try:
        with silent_standard_error():
            converted, _ = converter.convert.from_function(
                function,
                function.input_signature,
                opset=OPSET,
                custom_op_handlers={"Expm1": (_expm1, [])},
            )
            content = converted.SerializeToString()
            _session(runtime, content)  # what the converter does not know it leaves as it is
    except Exception as error:  # of both packages, neither of which has public classes for it
        missing = sorted(set(MISSING_OPERATION.findall(str(error))))
        if not missing and not isinstance(error, ValueError):  # which the converter raises
            raise
        log.info("tf2onnx: %s", first_line(error))
        problem = "cannot be written as ONNX"
        if missing:
            problem = f"needs operations that ONNX does not have ({', '.join(missing)})"
        hint = "export it as a SavedModel: ONNX takes no latent search"
        raise UsageError("method", type(model).__name__, problem, hint) from error
    return {FLOAT: content}


def _expm1(graph: Any, node: Any, name: str, _: Any) -> None:
    """Writes exp(x) - 1, for which ONNX has no operation of its own."""
    source, target = list(node.input), list(node.output)
    graph.remove_node(name)
    exponential = graph.make_node("Exp", source)
    one = graph.make_const(f"{name}/one", np.float32(1))
    graph.make_node("Sub", [exponential.output[0], one.output[0]], outputs=target, name=name)


def scores_of(content: bytes, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Scores images uint8 `[N, H, W, C]` with a converted model, one after another.

    Returns:
        Scores float32 `[N]`, and the median of milliseconds per image.
    """
    session = _session(_packages()[1], content)
    return one_size.timed(lambda image: session.run(["score"], {"images": image})[0], pixels)


def _session(runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = one_size.threads()
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _packages() -> tuple[Any, Any]:
    """Returns the modules of the converter and of the runtime.

    Raises:
        UsageError: one of them is not installed.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        hint = "pip install 'tfgad[onnx]'"
        raise UsageError("--format", "onnx", "needs tf2onnx and ONNX Runtime", hint) from error
    return tf2onnx, onnxruntime
