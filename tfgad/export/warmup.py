"""The requests that TF Serving runs through a model before its first caller's.

TF Serving reads `assets.extra/tf_serving_warmup_requests` beside a SavedModel: a TFRecord file of
`tensorflow.serving.PredictionLog`. Without it the first request of each signature takes several
times as long as the following ones. The messages are written by hand: their classes are in
tensorflow-serving-api, which only the server needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

from tfgad.export.wire import field

FILE = "assets.extra/tf_serving_warmup_requests"
GREY = 128  # all pixels of the image of a request
# The numbers of the fields in TF Serving's apis/prediction_log.proto, predict.proto, model.proto.
PREDICT_LOG, REQUEST, MODEL_SPEC, INPUTS, SIGNATURE_NAME = 6, 1, 1, 2, 3
KEY, VALUE = 1, 2  # of an entry of a map


def write(
    version: Path, image_shape: Sequence[int], others: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes the warm-up requests of an exported version, one for each signature.

    Args:
        version: the folder of the SavedModel.
        image_shape: `(height, width, channels)` of the image that each request holds.
        others: further inputs by name, beside those of `_examples`.

    Raises:
        OSError: the version cannot be read.
        tf.errors.OpError: the file cannot be written.
        KeyError: a signature has an input that is neither given nor listed in `_examples`.
    """
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    examples = _examples(image_shape)
    examples |= {name: tf.make_tensor_proto(value) for name, value in (others or {}).items()}
    (version / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(version / FILE)) as records:
        for name, signature in sorted(saved.meta_graphs[0].signature_def.items()):
            if signature.inputs:  # not so `calibration`, and those that Keras and TensorFlow add
                inputs = {each: examples[each] for each in sorted(signature.inputs)}
                records.write(_prediction_log(name, inputs))


def _examples(image_shape: Sequence[int]) -> dict[str, tensor_pb2.TensorProto]:
    """Returns the input of each signature by its name."""
    image = np.full(image_shape, GREY, np.uint8)
    return {
        "images": tf.make_tensor_proto(GREY, tf.uint8, (1, *image_shape)),  # a value for all pixels
        "product": tf.make_tensor_proto([""]),  # it is recognised
        "image_bytes": tf.make_tensor_proto([tf.io.encode_png(image).numpy()]),
    }


def _prediction_log(signature: str, inputs: Mapping[str, tensor_pb2.TensorProto]) -> bytes:
    """Returns a `PredictionLog` that holds a `PredictRequest`."""
    request = field(MODEL_SPEC, field(SIGNATURE_NAME, signature.encode()))
    for name, tensor in inputs.items():
        content = tensor.SerializeToString(deterministic=True)
        request += field(INPUTS, field(KEY, name.encode()) + field(VALUE, content))
    return field(PREDICT_LOG, field(REQUEST, request))
