"""What there is to say of a model, as the messages of TF Serving's interface."""

from __future__ import annotations

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from tfgad.serving.repository import Repository
from tfgad.serving.servable import Servable


def model_status(
    models: Repository, name: str, number: int | None
) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the states of a model's versions, the highest first.

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
    """Returns the name of a version."""
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature)
    spec.version.value = servable.number
    return spec


def signature_defs(servable: Servable) -> get_model_metadata_pb2.SignatureDefMap:
    """Returns the signatures of a version."""
    answer = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in servable.signature_defs.items():
        answer.signature_def[name].CopyFrom(definition)
    return answer
