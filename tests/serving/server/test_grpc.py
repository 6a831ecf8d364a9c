"""The gRPC interface of a server process, by TF Serving's stubs."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf

grpc = pytest.importorskip("grpc")
apis = pytest.importorskip("tensorflow_serving.apis")
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
from grpc_health.v1 import health_pb2_grpc  # noqa: E402
from tensorflow.core.framework import types_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfgad.serving.server import messages  # noqa: E402

from ..conftest import MAX_BODY, REASONS, encoded  # noqa: E402

pytestmark = pytest.mark.integration

TIMEOUT = 60


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def predictions(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def statuses(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def spec(name="native", version=None, signature=""):
    model = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        model.version.value = version
    return model


def request_of(model, **inputs):
    request = predict_pb2.PredictRequest(model_spec=model)
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def arrays(answer):
    return {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}


def refused(code, message, method, request):
    with pytest.raises(grpc.RpcError) as raised:
        method(request, timeout=TIMEOUT)
    assert raised.value.code().name == code
    assert message in raised.value.details()


def test_pixels_and_files_give_the_values_of_python(predictions, pictures, expected):
    pixels = request_of(spec(), images=pictures)
    files = request_of(
        spec(version=1, signature="score_bytes"), image_bytes=[encoded(each) for each in pictures]
    )
    for request in (pixels, files):
        answer = predictions.Predict(request, timeout=TIMEOUT)
        given = arrays(answer)
        for name in ("score", "map"):
            np.testing.assert_allclose(given[name], expected[name], rtol=1e-5, atol=1e-5)
        assert given["is_anomalous"].dtype == bool
        assert answer.model_spec.name == "native"
        assert answer.model_spec.version.value == 1


def test_typed_fields_hold_the_values_of_all_images(predictions, pictures, expected):
    """They read the field of the dtype, not `tensor_content`."""
    pictures = pictures[[0, 1, 2, 2, 2]]  # the last score is repeated like its image
    result = predictions.Predict(request_of(spec(), images=pictures), timeout=TIMEOUT)
    scores = list(result.outputs["score"].float_val)
    np.testing.assert_allclose(scores, expected["score"][[0, 1, 2, 2, 2]], rtol=1e-5)
    assert len(result.outputs["is_anomalous"].bool_val) == 5
    assert len(result.outputs["map"].float_val) == 5 * 48 * 48
    again = request_of(spec(signature="reconstruct"), images=pictures)
    (reconstruction,) = predictions.Predict(again, timeout=TIMEOUT).outputs.values()
    assert len(reconstruction.int_val) == pictures.size
    assert [dim.size for dim in reconstruction.tensor_shape.dim] == [5, 48, 48, 1]


def test_only_requested_outputs_are_returned(predictions, pictures):
    request = request_of(spec(), images=pictures[:1])
    request.output_filter.append("score")
    assert list(predictions.Predict(request, timeout=TIMEOUT).outputs) == ["score"]
    request.output_filter.append("score")
    refused("INVALID_ARGUMENT", "duplicate output", predictions.Predict, request)


def test_outputs_are_checked_before_the_run(predictions, pictures):
    """A run would report that the image is too small."""
    request = request_of(spec(), images=pictures[:1, :31])
    request.output_filter.append("none")
    refused("INVALID_ARGUMENT", "not found in signature: none", predictions.Predict, request)


def test_strings_and_numbers_are_returned_together(predictions):
    request = request_of(spec("foreign", signature="described"), x=np.float32([1, 0, 3]))
    answer = predictions.Predict(request, timeout=TIMEOUT)
    reasons = [REASONS[i].encode() for i in (1, 0, 3)]
    assert list(answer.outputs["reason"].string_val) == reasons
    assert arrays(answer)["file_bytes"].tolist() == [b"\xff" + each for each in reasons]
    assert list(answer.outputs["score"].float_val) == [0.25, 0, 0.75]


def test_signatures_with_other_rows_and_without_inputs(predictions):
    request = request_of(spec("foreign", signature="positive"), x=np.float32([-1, 2, 3]))
    assert arrays(predictions.Predict(request, timeout=TIMEOUT))["y"].tolist() == [2, 3]
    request = request_of(spec("foreign", signature="named"))
    answer = predictions.Predict(request, timeout=TIMEOUT)
    assert list(answer.outputs["name"].string_val) == [b"foreign"]
    assert not answer.outputs["name"].tensor_shape.dim
    request = request_of(spec("foreign", signature="turned"), x=np.float32([1, 2]))
    assert arrays(predictions.Predict(request, timeout=TIMEOUT))["y"].tolist() == [1 + 1j, 2 + 2j]


@pytest.mark.parametrize("dtype", [*messages.PACKED, *messages.LISTED])
def test_an_output_of_any_type_fills_the_field_of_its_type(dtype):
    dtype = tf.dtypes.as_dtype(dtype)
    values = [b"", b"\0\xff", b"\0\xff"] if dtype == tf.string else [0, 1, 1]
    array = np.array([values], dtype.as_numpy_dtype)
    for each in (array, array[0, 1:2].reshape(()), array[:, :0]):
        tensor = messages.tensor(each)
        assert not tensor.tensor_content
        (*_, held) = tensor.ListFields()
        assert not each.size or len(held[1]) == each.size * (2 if dtype.is_complex else 1)
        read = tf.make_ndarray(tensor)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, each)
        if dtype != tf.string:
            assert tf.io.parse_tensor(tensor.SerializeToString(), dtype).shape == each.shape


def test_concurrent_requests_get_their_own_answers(predictions, pictures, expected):
    def ask(i):
        request = request_of(spec(), images=pictures[i % 20][None])
        return arrays(predictions.Predict(request, timeout=TIMEOUT))["score"][0]

    with concurrent.futures.ThreadPoolExecutor(200) as threads:
        scores = list(threads.map(ask, range(200)))
    np.testing.assert_allclose(scores, np.tile(expected["score"], 10), rtol=1e-5, atol=1e-5)


def test_signatures(predictions):
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec())
    refused("INVALID_ARGUMENT", "at least one", predictions.GetModelMetadata, request)
    request.metadata_field.append("signature_def")
    answer = predictions.GetModelMetadata(request, timeout=TIMEOUT)
    assert answer.model_spec.version.value == 1
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    request.model_spec.name = ""
    refused("INVALID_ARGUMENT", "no name", predictions.GetModelMetadata, request)
    images = signatures.signature_def["serving_default"].inputs["images"]
    assert images.dtype == types_pb2.DT_UINT8
    assert [dim.size for dim in images.tensor_shape.dim] == [-1, -1, -1, 1]


def test_states(statuses):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec())
    (state,) = statuses.GetModelStatus(request, timeout=TIMEOUT).model_version_status
    assert state.version == 1
    assert state.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    request.model_spec.version.value = 7
    refused("NOT_FOUND", "Could not find version 7", statuses.GetModelStatus, request)


def test_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_invalid_requests_are_refused(predictions, pictures):
    image = pictures[:1]
    mistakes = [
        ("NOT_FOUND", "request: Latest(none)", request_of(spec("none"), images=image)),
        ("NOT_FOUND", "Specific(native, 7)", request_of(spec(version=7), images=image)),
        ("NOT_FOUND", "Specific(native, -1)", request_of(spec(version=-1), images=image)),
        ("NOT_FOUND", "Latest(../etc)", request_of(spec("../etc"), images=image)),
        ("INVALID_ARGUMENT", "Missing ModelSpec", predict_pb2.PredictRequest()),
        ("INVALID_ARGUMENT", "no name", request_of(spec(""), images=image)),
        ("FAILED_PRECONDITION", 'key "no" not found', request_of(spec(signature="no"), x=image)),
        ("INVALID_ARGUMENT", "alias not found", request_of(spec(), pixels=image)),
        ("INVALID_ARGUMENT", "Missing but required: {images}", request_of(spec())),
        ("INVALID_ARGUMENT", "expected 4 (uint8)", request_of(spec(), images=image / 255.0)),
        ("INVALID_ARGUMENT", "shape [1,48,48]", request_of(spec(), images=image[..., 0])),
        ("INVALID_ARGUMENT", "have no rows", request_of(spec(), images=image[:0])),
        ("INVALID_ARGUMENT", "smaller than 32x32", request_of(spec(), images=image[:, :31])),
    ]
    for code, message, request in mistakes:
        refused(code, message, predictions.Predict, request)


def test_a_tensor_must_have_the_size_of_its_shape(predictions):
    request = predict_pb2.PredictRequest(model_spec=spec())
    tensor = request.inputs["images"]
    tensor.dtype = types_pb2.DT_UINT8
    for length in (1, 10**5, 10**5, 1):
        tensor.tensor_shape.dim.add(size=length)
    tensor.int_val.append(7)  # stands for all of them
    refused("INVALID_ARGUMENT", "larger than", predictions.Predict, request)
    tensor.tensor_shape.dim[1].size = -1
    refused("INVALID_ARGUMENT", "shape is unknown", predictions.Predict, request)
    tensor.tensor_shape.dim[1].size = 48
    tensor.tensor_shape.dim[2].size = 48
    tensor.tensor_content = b"short"
    refused("INVALID_ARGUMENT", "parsing error: images", predictions.Predict, request)


@pytest.mark.parametrize("value", [300, -1])
def test_values_must_be_in_the_range_of_their_type(predictions, value):
    request = predict_pb2.PredictRequest(model_spec=spec())
    tensor = request.inputs["images"]
    tensor.dtype = types_pb2.DT_UINT8
    for length in (1, 48, 48, 1):
        tensor.tensor_shape.dim.add(size=length)
    tensor.int_val.append(value)
    refused("INVALID_ARGUMENT", "parsing error: images", predictions.Predict, request)


@pytest.mark.parametrize(("length", "held"), [(2**26, 1), (1, 0), (1, 2)])
def test_a_tensor_of_files_must_hold_all_files(predictions, pictures, length, held):
    request = predict_pb2.PredictRequest(model_spec=spec(signature="score_bytes"))
    tensor = request.inputs["image_bytes"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=length)
    tensor.string_val.extend([encoded(pictures[0])] * held)
    message = f"it holds {held} strings, but its shape is of {length}"
    refused("INVALID_ARGUMENT", message, predictions.Predict, request)


def test_a_large_message_is_refused(predictions):
    image = np.zeros((1, MAX_BODY, 1, 1), "u1")
    refused("RESOURCE_EXHAUSTED", "larger", predictions.Predict, request_of(spec(), images=image))


def test_requests_cannot_change_what_is_loaded(statuses):
    request = model_management_pb2.ReloadConfigRequest()
    refused("UNIMPLEMENTED", "", statuses.HandleReloadConfigRequest, request)
