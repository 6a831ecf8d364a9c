"""TF Serving's gRPC interface: PredictionService, ModelService, and grpc.health.v1."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.server import messages
from tfgad.serving.server.grpc_arrivals import MAX_ARRIVING, Arrivals
from tfgad.serving.server.limits import Limits
from tfgad.serving.server.service import Call, Service
from tfgad.serving.server.signature import Signature

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
SIGNATURE_DEF = "signature_def"
SPARE_THREADS = 8  # for health and status while all others wait for a run

# Messages of the protocol are Any to the type checker.
Request = Any


def set_serving(checks: health.HealthServicer) -> None:
    """Sets the health of the server and of its service to `SERVING`."""
    for name in ("", PREDICTION_SERVICE):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)


def build(
    service: Service, interceptors: Sequence[grpc.ServerInterceptor] = ()
) -> tuple[grpc.Server, health.HealthServicer]:
    """Returns a server without a port, and its health service.

    Args:
        service: the service that answers.
        interceptors: interceptors of all calls.
    """
    limits = service.limits
    threads = limits.max_concurrency + SPARE_THREADS + MAX_ARRIVING
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
        options=[
            ("grpc.max_receive_message_length", limits.max_body),
            ("grpc.max_send_message_length", -1),  # maps are larger than their images
            ("grpc.so_reuseport", 0),  # a second server must not share the port
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

    def Predict(  # noqa: N802
        self, request: Request, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
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
            if not context.add_callback(future.cancel):  # the client has disconnected already
                future.cancel()
            remaining = context.time_remaining()  # None or very large without a deadline
            timeout = min(limits.request_timeout, math.inf if remaining is None else remaining)
            outputs = self._service.outputs(future, timeout)
            name = request.model_spec.signature_name or "serving_default"
            answer = predict_pb2.PredictResponse(model_spec=messages.model_spec(servable, name))
            for each in request.output_filter or outputs:
                answer.outputs[each].CopyFrom(messages.tensor(outputs[each]))
            return answer

    def GetModelMetadata(  # noqa: N802
        self, request: Request, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
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
    """`GetModelStatus`; `HandleReloadConfigRequest` answers UNIMPLEMENTED."""

    def __init__(self, service: Service):
        self._service = service

    def GetModelStatus(  # noqa: N802
        self, request: Request, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        with _answering(self._service, "GetModelStatus", context) as call:
            call.model, number = _model_of(request)
            return messages.model_status(self._service.models, call.model, number)


@contextlib.contextmanager
def _answering(service: Service, method: str, context: grpc.ServicerContext) -> Iterator[Call]:
    try:
        with Call(service, "gRPC", method) as call:
            yield call
    except ServingError as error:
        context.abort(grpc.StatusCode[error.code], error.message)


def _model_of(request: Request) -> tuple[str, int | None]:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    if spec.version_label:
        raise invalid(f"Unrecognized servable version label: {spec.version_label}")
    return spec.name, spec.version.value if spec.HasField("version") else None


def _named_model_of(request: Request) -> tuple[str, int | None]:
    name, number = _model_of(request)
    if not name:
        raise invalid("ModelSpec has no name specified.")
    return name, number


def _inputs(
    request: Request, signature: Signature, limits: Limits, hold: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """Returns the arrays of a request; `Signature.check` checks them.

    Raises:
        ServingError: an input or a requested output is not in the signature, or an input cannot be
            read.
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
        hold(max(0, size - proto.ByteSize()))  # the message itself is counted already
        try:
            inputs[name] = tf.make_ndarray(proto)
        except (ValueError, TypeError, OverflowError) as error:
            raise invalid(f"tensor parsing error: {name}: {error}") from None
    _check_filter(request.output_filter, signature)
    return inputs


def _checked_size(name: str, proto: tensor_pb2.TensorProto, dtype: tf.DType, most: int) -> int:
    """Returns the bytes of a tensor's values; 0 for strings.

    A message of a few bytes may stand for any number of repetitions of one value. Strings may not
    be repeated that way, since they are whole files.

    Raises:
        ServingError: it is too large, or the number of its strings does not fit its shape.
    """
    lengths = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(length < 0 for length in lengths):
        raise invalid(f"tensor parsing error: {name}: its shape is unknown")
    count = math.prod(lengths)
    if dtype == tf.string:
        if count != len(proto.string_val):
            problem = f"it holds {len(proto.string_val)} strings, but its shape is of {count}"
            raise invalid(f"tensor parsing error: {name}: {problem}")
        return 0
    if count * dtype.size > most:
        problem = f"it is larger than {most} bytes (--max-body)"
        raise invalid(f"tensor parsing error: {name}: {problem}")
    return count * dtype.size


def _check_filter(names: Sequence[str], signature: Signature) -> None:
    """Raises ServingError if a requested output is not in the signature, or is named twice."""
    for i, name in enumerate(names):
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(signature.outputs)}}}."
            )
        if name in names[:i]:
            raise invalid(f"duplicate output tensor alias: {name}")
