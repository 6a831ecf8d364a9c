"""Messages of TF Serving's interface: states, metadata and outputs of a model."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from tfgad.export.wire import field
from tfgad.serving.errors import ServingError
from tfgad.serving.server.repository import Repository
from tfgad.serving.server.servable import Servable

# The fields of `TensorProto` (tensorflow/core/framework/tensor.proto) for each dtype. Values of
# packed fields have the same bytes in a message as in memory: copying two million floats took 1 ms,
# `float_val.extend` 137 ms.
PACKED = {"float32": 5, "float64": 6, "complex64": 9, "bool": 11, "complex128": 12}
LISTED = {
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val"),
    **dict.fromkeys(("float16", "bfloat16"), "half_val"),  # their bits as integers
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "string": "string_val",
}


def model_status(
    models: Repository, name: str, number: int | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of a model's versions, the highest first.

    Args:
        models: the models in service.
        name: name of the model.
        number: number of the version; None for all.

    Raises:
        ServingError: NOT_FOUND.
    """
    answer = get_model_status_pb2.GetModelStatusResponse()
    for each, state in models.states(name, number).items():
        status = answer.model_version_status.add(version=each, state=state.state)
        status.status.error_code = error_codes_pb2.Code.Value(state.code)
        status.status.error_message = state.message
    return answer


def model_spec(servable: Servable, signature: str = "") -> model_pb2.ModelSpec:
    """Returns the spec that names a version."""
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature)
    spec.version.value = servable.number
    return spec


def signature_defs(servable: Servable) -> get_model_metadata_pb2.SignatureDefMap:
    """Returns the signatures of a version."""
    answer = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        answer.signature_def[name].CopyFrom(definition)
    return answer


def tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Returns an output as TF Serving answers it: all values in the field of its dtype.

    This is C++'s `Tensor::AsProtoField`. `tf.make_tensor_proto` fills `tensor_content` instead,
    which clients that read `float_val` do not see.

    Raises:
        ServingError: UNIMPLEMENTED, there is no field for its dtype.
    """
    dtype = tf.dtypes.as_dtype(array.dtype)
    answer = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for length in array.shape:
        answer.tensor_shape.dim.add(size=length)
    if dtype.name in PACKED:
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        answer.MergeFromString(field(PACKED[dtype.name], content))
    elif dtype.name in LISTED:
        values = array.view(np.uint16) if LISTED[dtype.name] == "half_val" else array
        getattr(answer, LISTED[dtype.name]).extend(values.ravel().tolist())
    else:
        raise ServingError("UNIMPLEMENTED", f"outputs of type {dtype.name} are not supported")
    return answer
