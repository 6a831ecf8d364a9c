"""The gRPC transport of a client, by TF Serving's own stubs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfgad.quiet import import_tensorflow
from tfgad.serving.client.transport import INITIAL_BACKOFF, Arrays, ClientError

import_tensorflow()  # the messages of tensorflow-serving-api need TensorFlow's
import grpc  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import types_pb2  # noqa: E402
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# Milliseconds between attempts to connect. gRPC's own defaults grow up to two minutes: a client got
# no answer for 43 s after a server was back. `min` is also the time that one attempt may take
# (20 s by default): a machine that is switched off never answers.
RECONNECT = {"initial": 100, "min": 3000, "max": 2000}


class GrpcTransport:
    """A connection to one model by gRPC; see `tfgad.serving.client.client.Client`."""

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None,
        timeout: float,
        retries: int,
        token: str | None = None,
        ca_certificate: Path | None = None,
        *,
        is_secure: bool = False,
    ):
        self._timeout = timeout
        # gRPC's call credentials require TLS, but a proxy may terminate TLS before the server.
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._spec = model_pb2.ModelSpec(name=model)
        if version is not None:
            self._spec.version.value = version
        if is_secure:
            roots = None if ca_certificate is None else ca_certificate.read_bytes()
            credentials = grpc.ssl_channel_credentials(roots)
            self._channel = grpc.secure_channel(address, credentials, options=_options(retries))
        else:
            self._channel = grpc.insecure_channel(address, options=_options(retries))
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(self, inputs: Arrays, signature: str) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name."""
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        answer = self._call(self._predictions.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """Returns the model's signatures."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        answer = self._call(self._predictions.GetModelMetadata, request)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(definitions)
        return {
            "name": answer.model_spec.name,
            "version": answer.model_spec.version.value,
            "signatures": {
                name: {
                    "inputs": {each: _spec(info) for each, info in definition.inputs.items()},
                    "outputs": {each: _spec(info) for each, info in definition.outputs.items()},
                }
                for name, definition in definitions.signature_def.items()
            },
        }

    def status(self) -> dict[int, dict[str, str]]:
        """Returns the states of the model's versions."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec)
        answer = self._call(self._models.GetModelStatus, request)
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {
            each.version: {
                "state": state_name(each.state),
                "error_code": error_codes_pb2.Code.Name(each.status.error_code),
                "error_message": each.status.error_message,
            }
            for each in answer.model_version_status
        }

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        """Calls a method of a stub."""
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ClientError(error.code().name, error.details()) from error


def _spec(info: meta_graph_pb2.TensorInfo) -> dict[str, Any]:
    shape = info.tensor_shape
    lengths = None if shape.unknown_rank else [dim.size for dim in shape.dim]
    return {"dtype": types_pb2.DataType.Name(info.dtype), "shape": lengths}


def _options(retries: int) -> list[tuple[str, Any]]:
    """Returns the options of a channel: gRPC's own retries, and no limit on the size of maps."""
    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": f"{INITIAL_BACKOFF}s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]} if retries else {}
    return [
        ("grpc.service_config", json.dumps(config)),
        *((f"grpc.{name}_reconnect_backoff_ms", pause) for name, pause in RECONNECT.items()),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
