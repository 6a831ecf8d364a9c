"""The gRPC side of `tfgad.serving.client.client`, by TF Serving's own stubs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfgad.quiet import import_tensorflow
from tfgad.serving.client.client import BACKOFF, Arrays, ClientError

import_tensorflow()  # tensorflow-serving-api's messages hold TensorFlow's
import grpc  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.framework import types_pb2  # noqa: E402
from tensorflow.core.protobuf import error_codes_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# Milliseconds between attempts to connect, growing from the first to the most. gRPC's own go up to
# two minutes: a server was back for 43 s before a client got an answer. The least is the time that
# an attempt may take (gRPC's is 20 s): what is sent to a machine that is off is never answered.
RECONNECT = {"initial": 100, "min": 3000, "max": 2000}


class Grpc:
    """The gRPC interface; see `tfgad.serving.client.client.Client`."""

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
        # gRPC's own credentials of a call want TLS; the server may be behind what ends it.
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
        """Calls a signature."""
        request = predict_pb2.PredictRequest(model_spec=self._spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        answer = self._ask(self._predictions.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """Returns the signatures."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        answer = self._ask(self._predictions.GetModelMetadata, request)
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
        """Returns the states of the versions."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec)
        answer = self._ask(self._models.GetModelStatus, request)
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
        """Ends the connection."""
        self._channel.close()

    def _ask(self, method, request):
        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ClientError(error.code().name, error.details()) from error


def _spec(info) -> dict[str, Any]:
    shape = info.tensor_shape
    lengths = None if shape.unknown_rank else [dim.size for dim in shape.dim]
    return {"dtype": types_pb2.DataType.Name(info.dtype), "shape": lengths}


def _options(retries: int) -> list[tuple[str, Any]]:
    """Returns the options of a channel: gRPC's own retries and pauses, and no limit for maps."""
    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": f"{BACKOFF}s",
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
