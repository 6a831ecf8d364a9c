"""TF Serving's gRPC interface: PredictionService, ModelService, and grpc.health.v1."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfgad.serving.server import messages
from tfgad.serving.server.errors import ServingError, invalid
from tfgad.serving.server.grpc_arrivals import MOST_ARRIVING, Arrivals
from tfgad.serving.server.limits import Limits
from tfgad.serving.server.service import Call, Service
from tfgad.serving.server.signature import Signature

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
SIGNATURE_DEF = "signature_def"
SPARE_THREADS = 8  # for health and status while all others wait for a run


def say_serving(checks: health.HealthServicer) -> None:
    """Says of the server and of its service that they answer."""
    for name in ("", PREDICTION_SERVICE):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)


def build(
    service: Service, interceptors: Sequence[grpc.ServerInterceptor] = ()
) -> tuple[grpc.Server, health.HealthServicer]:
    """Returns a server without a port, and what it says of its health."""
    limits = service.limits
    threads = limits.max_concurrency + SPARE_THREADS + MOST_ARRIVING
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", limits.max_body),
            ("grpc.max_send_message_length", -1),  # maps are larger than the images they are of
            ("grpc.so_reuseport", 0),  # else a second server would take half of the requests
            ("grpc.max_allowed_incoming_connections", limits.max_connections),
            ("grpc.server_handshake_timeout_ms", int(1000 * limits.header_timeout)),
        ],
        maximum_concurrent_rpcs=threads,
        interceptors=[Arrivals(limits.body_timeout), *interceptors],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _PredictionService(service), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(service), server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return server, checks


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`; the methods for `tf.Example` answer UNIMPLEMENTED."""

    def __init__(self, service: Service):
        self._service = service

    def Predict(self, request, context):  # noqa: N802
        with (
            _answering(self._service, "Predict", context) as call,
            self._service.admitted(),
            self._service.memory.held() as hold,
        ):
            call.model, number = _named_model_of(request)
            hold(request.ByteSize())
            limits = self._service.limits
            servable, future = self._service.submit(
                call.model,
                number,
                request.model_spec.signature_name,
                lambda signature: _inputs(request, signature, limits, hold),
            )
            if not context.add_callback(future.cancel):  # the caller has hung up already
                future.cancel()
            patience = context.time_remaining()  # None or very large without a deadline
            patience = min(limits.request_timeout, math.inf if patience is None else patience)
            outputs = self._service.outputs(future, patience)
            name = request.model_spec.signature_name or "serving_default"
            answer = predict_pb2.PredictResponse(model_spec=messages.model_spec(servable, name))
            for each in request.output_filter or outputs:
                answer.outputs[each].CopyFrom(messages.tensor(outputs[each]))
            return answer

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _answering(self._service, "GetModelMetadata", context) as call:
            call.model, number = _named_model_of(request)
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != SIGNATURE_DEF:
                    raise invalid(f"Metadata field {field} is not supported")
            servable = self._service.models.find(call.model, number)
            answer = get_model_metadata_pb2.GetModelMetadataResponse(
                model_spec=messages.model_spec(servable)
            )
            answer.metadata[SIGNATURE_DEF].Pack(messages.signature_defs(servable))
            return answer


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus`; no request may say what is loaded, so reloading is UNIMPLEMENTED."""

    def __init__(self, service: Service):
        self._service = service

    def GetModelStatus(self, request, context):  # noqa: N802
        with _answering(self._service, "GetModelStatus", context) as call:
            call.model, number = _model_of(request)
            return messages.model_status(self._service.models, call.model, number)


@contextlib.contextmanager
def _answering(service: Service, method: str, context) -> Iterator[Call]:
    try:
        with Call(service, "gRPC", method) as call:
            yield call
    except ServingError as error:
        context.abort(grpc.StatusCode[error.code], error.message)


def _model_of(request) -> tuple[str, int | None]:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if spec.version_label:
        raise invalid(f"Unrecognized servable version label: {spec.version_label}")
    return spec.name, spec.version.value if spec.HasField("version") else None


def _named_model_of(request) -> tuple[str, int | None]:
    name, number = _model_of(request)
    if not name:
        raise invalid("ModelSpec has no name specified.")
    return name, number


def _inputs(
    request, signature: Signature, limits: Limits, hold: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """Returns the arrays of a request; the signature checks them.

    Raises:
        ServingError: an input or a wanted output is none of the signature's, or cannot be read.
    """
    inputs = {}
    for name, proto in request.inputs.items():
        if name not in signature.inputs:
            raise invalid(f"input tensor alias not found in signature: {name}.")
        wanted = signature.inputs[name].dtype
        if proto.dtype != wanted.as_datatype_enum:
            problem = f"is of type number {proto.dtype}, expected {wanted.as_datatype_enum}"
            raise invalid(f"input {name!r} {problem} ({wanted.name})")
        size = _checked_size(name, proto, wanted, limits.max_body)
        hold(max(0, size - proto.ByteSize()))  # what the message, counted already, stands for
        try:
            inputs[name] = tf.make_ndarray(proto)
        except (ValueError, TypeError, OverflowError) as error:
            raise invalid(f"tensor parsing error: {name}: {error}") from None
    _check_filter(request.output_filter, signature)
    return inputs


def _checked_size(name: str, proto, dtype: tf.DType, most: int) -> int:
    """Returns the bytes of a tensor's values, those of strings left out.

    A message of a few bytes may stand for any number of repetitions of one value; of strings, which
    are whole files, it must hold each.

    Raises:
        ServingError: it is too large, or not as large as it says.
    """
    lengths = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(length < 0 for length in lengths):
        raise invalid(f"tensor parsing error: {name}: its shape is not known")
    count = math.prod(lengths)
    if dtype == tf.string:
        if count != len(proto.string_val):
            problem = f"it holds {len(proto.string_val)} strings, and its shape is of {count}"
            raise invalid(f"tensor parsing error: {name}: {problem}")
        return 0
    if count * dtype.size > most:
        problem = f"it is larger than {most} bytes (--max-body)"
        raise invalid(f"tensor parsing error: {name}: {problem}")
    return count * dtype.size


def _check_filter(names: Sequence[str], signature: Signature) -> None:
    """Raises ServingError if a wanted output is none of the signature's, or is named twice."""
    for i, name in enumerate(names):
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(signature.outputs)}}}."
            )
        if name in names[:i]:
            raise invalid(f"duplicate output tensor alias: {name}")
