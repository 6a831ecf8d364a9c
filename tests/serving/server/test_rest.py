"""The REST interface of a server process."""

import base64
import codecs
import concurrent.futures
import gzip
import http.client
import itertools
import json
import struct
import threading
import zlib

import numpy as np
import pytest
import requests

from ..conftest import MAX_BODY, MAX_PIXELS, REASONS, encoded, export_small, until

pytestmark = pytest.mark.integration

OUTPUTS = {"score", "probability", "is_anomalous", "map", "reason", "brightness"}


def predict(server, body, model="native", **options):
    return requests.post(f"{server.url}/v1/models/{model}:predict", timeout=60, **body, **options)


def b64(file):
    return {"b64": base64.b64encode(file).decode()}


def assert_close(answers, expected):
    for name in ("score", "map"):
        given = np.array([answer[name] for answer in answers], np.float32)
        np.testing.assert_allclose(given, expected[name][: len(answers)], rtol=1e-5, atol=1e-5)


def refused(answer, status, *parts):
    """Asserts that an answer is an error of TF Serving's form."""
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content.keys() == {"error"}
    for part in parts:
        assert part in content["error"]


# Answers


def test_rows_give_the_values_of_python(server, pictures, expected):
    answer = predict(server, {"json": {"instances": pictures[:3].tolist()}})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    rows = answer.json()["predictions"]
    assert [row.keys() for row in rows] == [OUTPUTS] * 3
    assert_close(rows, expected)
    assert {type(row["is_anomalous"]) for row in rows} == {bool}


def test_rows_may_name_their_input(server, pictures, expected):
    rows = [{"images": image.tolist()} for image in pictures[:2]]
    assert_close(predict(server, {"json": {"instances": rows}}).json()["predictions"], expected)


@pytest.mark.parametrize("named", [False, True])
def test_columns_give_the_values_of_python(server, pictures, expected, named):
    images = pictures[:3].tolist()
    body = {"inputs": {"images": images} if named else images}
    columns = predict(server, {"json": body}).json()["outputs"]
    assert columns.keys() == OUTPUTS
    for name in ("score", "map"):
        np.testing.assert_allclose(columns[name], expected[name][:3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["rows", "named rows", "columns"])
def test_files_in_base_64(server, pictures, expected, form):
    files = [b64(encoded(image)) for image in pictures[:3]]
    body = {
        "rows": {"instances": files},
        "named rows": {"instances": [{"image_bytes": file} for file in files]},
        "columns": {"inputs": {"image_bytes": files}},
    }[form]
    answer = predict(server, {"json": {"signature_name": "score_bytes", **body}}).json()
    if form == "columns":
        columns = answer["outputs"]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        assert_close(rows, expected)
    else:
        assert_close(answer["predictions"], expected)


def test_a_single_output_goes_without_its_name(server, fitted, pictures):
    images, signature = pictures[:2].tolist(), {"signature_name": "reconstruct"}
    rows = predict(server, {"json": {**signature, "instances": images}}).json()["predictions"]
    column = predict(server, {"json": {**signature, "inputs": images}}).json()["outputs"]
    assert rows == column
    reconstruction = fitted("ganomaly").reconstruct(pictures[:2].astype("float32") / 127.5 - 1)
    difference = np.array(rows) - (np.asarray(reconstruction) + 1) * 127.5
    assert np.abs(difference).max() <= 0.5 + 1e-3  # half a grey level


def test_more_rows_than_a_batch_are_answered_in_order(server, pictures, expected):
    images = np.concatenate([pictures] * 4)  # 80, where a batch has 32
    rows = predict(server, {"json": {"instances": images.tolist()}}).json()["predictions"]
    np.testing.assert_allclose(
        [row["score"] for row in rows], np.tile(expected["score"], 4), rtol=1e-5, atol=1e-5
    )


def test_files_may_differ_in_size_if_the_model_resizes(server, models_folder, fitted, pictures):
    export_small(fitted("ganomaly"), models_folder / "resizing", resized=True)
    until(lambda: requests.get(f"{server.url}/v1/models/resizing/versions/1").ok)
    states = f"{server.url}/v1/models/resizing"
    until(lambda: requests.get(states).json()["model_version_status"][0]["state"] == "AVAILABLE")
    files = [b64(encoded(pictures[0])), b64(encoded(pictures[1, :40]))]
    body = {"json": {"signature_name": "score_bytes", "instances": files}}
    rows = predict(server, body, "resizing").json()["predictions"]
    assert np.shape([row["map"] for row in rows]) == (2, 48, 48)
    refused(predict(server, body), 400, "[48,48,1] vs. [40,48,1]")


def test_the_state_of_a_model(server):
    state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}
    for path in ("", "/versions/1"):
        answer = requests.get(f"{server.url}/v1/models/native{path}").json()
        (given,) = answer["model_version_status"]
        assert given == {**state, "status": {"error_code": "OK", "error_message": ""}}


def test_the_signatures_of_a_model(server):
    answer = requests.get(f"{server.url}/v1/models/native/versions/1/metadata").json()
    assert answer["model_spec"] == {"name": "native", "version": "1", "signature_name": ""}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() >= {"serving_default", "score_bytes", "reconstruct"}
    images = signatures["serving_default"]["inputs"]["images"]
    assert images["dtype"] == "DT_UINT8"
    assert [dim["size"] for dim in images["tensor_shape"]["dim"]] == ["-1", "-1", "-1", "1"]


def metrics_of(server):
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    return dict(line.rsplit(" ", 1) for line in page.text.splitlines() if line[0] != "#")


def test_health_and_metrics(server, pictures):
    assert requests.get(f"{server.url}/healthz").status_code == 200
    assert requests.get(f"{server.url}/readyz").json() == {"status": "ready"}

    def counted():
        values = metrics_of(server)
        labels = 'api="REST",code="OK",method="Predict",model="native"'
        assert values['tfgad_serving_version{model="native"}'] == "1.0"
        return float(values.get(f"tfgad_serving_requests_total{{{labels}}}", 0))

    before = counted()
    predict(server, {"json": {"instances": pictures[:1].tolist()}})
    assert counted() == before + 1


# A model that is not tfgad's


def foreign(server, signature, **content):
    return predict(server, {"json": {"signature_name": signature, **content}}, "foreign")


def test_strings_and_numbers_are_returned_together(server):
    """Outputs named `_bytes` are base64; invalid UTF-8 in others is replaced."""
    reasons = [REASONS[i] for i in (1, 0, 3)]
    columns = {
        "score": [0.25, 0.0, 0.75],
        "reason": reasons,
        "file_bytes": [b64(b"\xff" + each.encode()) for each in reasons],
        "raw": ["\ufffd" + each for each in reasons],
    }
    answer = foreign(server, "described", inputs=[1, 0, 3])
    assert answer.json() == {"outputs": columns}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert foreign(server, "described", instances=[1, 0, 3]).json() == {"predictions": rows}


def test_more_strings_than_a_batch_are_answered_in_order(server):
    values = [i % 4 for i in range(80)]
    rows = foreign(server, "described", instances=values).json()["predictions"]
    assert [row["reason"] for row in rows] == [REASONS[i] for i in values]


def test_a_signature_may_return_fewer_rows(server):
    values = [-1, *range(50)]  # a batch has 32
    assert foreign(server, "positive", inputs=values).json() == {"outputs": list(range(1, 50))}
    assert foreign(server, "positive", instances=values[:4]).json() == {"predictions": [1, 2]}


def test_what_json_cannot_express_is_refused(server):
    """As in TF Serving, JSON cannot call a signature without inputs."""
    for content in ({"inputs": {}}, {"instances": [{}]}, {"inputs": []}):
        refused(foreign(server, "named", **content), 400, "input map for signature: named")
    refused(foreign(server, "turned", inputs=[1]), 400, "tensor type: complex64")


# Invalid requests

WRONG = {
    "no JSON": (b'{"instances": [1, 2', 400, "JSON Parse error"),
    "nothing": (b"", 400, "The document is empty"),
    "no object": (b"[1, 2]", 400, "Is not object"),
    "neither rows nor columns": (b"{}", 400, "Missing 'inputs' or 'instances' key"),
    "rows and columns": (b'{"instances": [1], "inputs": [1]}', 400, "only one of"),
    "no rows": (b'{"instances": []}', 400, "No values in 'instances'"),
    "rows that are no list": (b'{"instances": 7}', 400, "to be an list/array"),
    "ragged": (b'{"instances": [[[[1],[2]],[[3]]]]}', 400, "unexpected size: 1 at level: 2"),
    "lists beside numbers": (b'{"instances": [[[1]], [2]]}', 400, "incorrect level"),
    "too few axes": (b'{"instances": [[1, 2]]}', 400, "shape [1,2], expected [-1,-1,-1,1]"),
    "fractions": (b'{"instances": [[[[0.5]]]]}', 400, "0.5 is not of expected type: uint8"),
    "too large": (b'{"instances": [[[[256]]]]}', 400, "256 is not of expected type: uint8"),
    "negative": (b'{"instances": [[[[-1]]]]}', 400, "-1 is not of expected type: uint8"),
    "huge": (b'{"instances": [[[[1e400]]]]}', 400, "JSON Parse error"),
    "truth": (b'{"instances": [[[[true]]]]}', 400, "true is not of expected type: uint8"),
    "nothing in a list": (b'{"instances": [[[[null]]]]}', 400, "null is not of expected type"),
    "text": (b'{"instances": [[[["7"]]]]}', 400, "is not of expected type: uint8"),
    "another input": (b'{"instances": [{"pixels": 1}]}', 400, "must only have keys: images"),
    "a column missing": (b'{"inputs": {"pixels": 1}}', 400, "Missing named input: images"),
    "signature": (b'{"signature_name": "none", "inputs": 1}', 400, '"none" not found'),
    "nothing after the byte order mark": (b"\xef\xbb\xbf", 400, "The document is empty"),
    "signature's type": (b'{"signature_name": 7, "inputs": 1}', 400, "must be a string value"),
    "nested deeply": (b'{"instances": ' + b"[" * 10**5, 400, "JSON Parse error"),
    "nested deeply, NaN": (b'{"instances": [NaN,' + b"[" * 10**5, 400, "JSON Parse error"),
    "nested, but closed": (
        b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}",
        400,
        "nested deeper than 32",
    ),
    "deep objects": (
        b'{"inputs": ' + b'{"a":' * 900 + b"1" + b"}" * 901,
        400,
        "Missing named input",
    ),
    "deep values": (b'{"inputs": [' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"]}", 400, "not of"),
    "smaller than a window": (
        str({"instances": np.zeros((1, 8, 48, 1), int).tolist()}).replace("'", '"').encode(),
        400,
        "images are smaller than 32x32 pixels",
    ),
    "colour for grey": (
        str({"instances": np.zeros((1, 48, 48, 3), int).tolist()}).replace("'", '"').encode(),
        400,
        "shape [1,48,48,3], expected [-1,-1,-1,1]",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_invalid_requests_are_refused(server, mistake):
    body, status, message = WRONG[mistake]
    refused(predict(server, {"data": body}), status, message)


NOISE = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
BROKEN = {
    "no image": (b"no image", "image 0 is not a readable PNG or JPEG"),
    "empty": (b"", "image 0 is not a readable PNG or JPEG"),
    "a GIF": (encoded(np.zeros((48, 48), "u1"), "GIF"), "image 0 is not a readable PNG or JPEG"),
    "half a PNG": (encoded(NOISE)[:1000], "PNG"),
    "half a JPEG": (encoded(NOISE, "JPEG")[:500], "JPEG"),
    "small": (encoded(np.zeros((20, 20), "u1")), "smaller than 32x32"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_images_are_refused(server, kind):
    file, message = BROKEN[kind]
    body = {"signature_name": "score_bytes", "instances": [b64(file)]}
    refused(predict(server, {"json": body}), 400, message)


@pytest.mark.parametrize("value", [{"b64": "%%%"}, {"b64": 7}, {"b64": "", "more": 1}, 7])
def test_broken_base_64_is_refused(server, value):
    body = {"signature_name": "score_bytes", "inputs": {"image_bytes": [value]}}
    refused(predict(server, {"json": body}), 400)


PATHS = {
    "GET /v1/models/none": (404, "Could not find any versions of model none"),
    "GET /v1/models/native/versions/7": (404, "Could not find version 7 of model native"),
    "GET /v1/models/none/metadata": (404, "Servable not found for request: Latest(none)"),
    "POST /v1/models/none:predict": (404, "Servable not found for request: Latest(none)"),
    "POST /v1/models/native/versions/7:predict": (404, "request: Specific(native, 7)"),
    "POST /v1/models/native/versions/-1:predict": (400, "Malformed request: POST"),
    "POST /v1/models/native/versions/99999999999999999999:predict": (400, "to convert version"),
    f"GET /v1/models/native/versions/{'0' * 5000}7": (
        404,
        "Could not find version 7 of model native",
    ),
    "POST /v1/models/native/labels/stable:predict": (400, "version label: stable"),
    "POST /v1/models/..%2F..%2Fetc:predict": (404, "request: Latest(../../etc)"),
    "POST /v1/models/../../etc:predict": (400, "Malformed request"),
    "POST /v1/models/native:classify": (501, "not supported"),
    "POST /v1/models/native": (400, "Malformed request"),
    "GET /v1/models/native:predict": (400, "Malformed request"),
    "DELETE /v1/models/native": (400, "Malformed request"),
    "GET /v1/models": (400, "Missing model name"),
    "GET /v1": (400, "Malformed request"),
    "GET /elsewhere": (404, "Not found"),
}


@pytest.mark.parametrize("request_line", PATHS)
def test_unknown_paths(server, request_line):
    status, message = PATHS[request_line]
    method, path = request_line.split(" ")
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    body = b'{"instances": [1]}' if method == "POST" else None
    connection.request(method, path, body)  # requests would tidy the path
    answer = connection.getresponse()
    answer.status_code, answer.text = answer.status, answer.read().decode()
    answer.json = lambda: requests.models.complexjson.loads(answer.text)
    refused(answer, status, message)
    connection.close()


# Limits


def picture_head(height, width):
    """The header of a PNG, without pixels."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1001, 1000), (15_000, 12_000), (60_000, 60_000)])
def test_a_large_image_is_refused_before_it_is_decoded(server, size):
    body = {"signature_name": "score_bytes", "instances": [b64(picture_head(*size))]}
    refused(predict(server, {"json": body}), 400, "pixels")
    assert size[0] * size[1] > MAX_PIXELS


def test_large_images_together_are_refused(server):
    files = [b64(encoded(np.zeros((1000, 1000), "u1")))] * 5  # 6 kB in all
    body = {"signature_name": "score_bytes", "instances": files}
    refused(predict(server, {"json": body}), 400, "more than 4000000")


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_a_body_of_50_megabytes_is_refused_without_being_held(server, announced):
    before = server.memory()
    body = bytes(50 * 2**20) if announced else itertools.repeat(bytes(2**20), 50)
    answer = predict(server, {"data": body})
    refused(answer, 413, f"larger than {MAX_BODY} bytes")
    assert answer.headers["connection"] == "close"
    assert answer.elapsed.total_seconds() < 10
    # Twice the limit may be held for a moment, but never the whole body.
    assert server.memory() - before < 3 * MAX_BODY


def test_expect_continue_is_refused_before_the_body(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/v1/models/native:predict")
    connection.putheader("Content-Length", str(50 * 2**20))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def compressed(server, body, encoding="gzip"):
    return predict(server, {"data": body}, headers={"Content-Encoding": encoding})


def test_compressed_bodies_are_read(server, pictures, expected):
    """Also gzip with several members (concatenated files), and text with a byte order mark."""
    text = json.dumps({"instances": pictures[:2].tolist()}).encode()
    in_two = gzip.compress(text[:1000]) + gzip.compress(text[1000:])
    for body in (gzip.compress(text), in_two, gzip.compress(codecs.BOM_UTF8 + text)):
        answer = compressed(server, body)
        assert answer.status_code == 200, answer.text
        assert_close(answer.json()["predictions"], expected)
        assert "content-encoding" not in answer.headers  # TF Serving compresses no answer either
    answer = predict(server, {"data": codecs.BOM_UTF8 + text})
    assert_close(answer.json()["predictions"], expected)


def test_an_invalid_compressed_body_is_refused(server):
    whole = gzip.compress(b'{"instances": []}')
    for body in (b"{}", whole[:-1], whole[:15] + whole[16:], zlib.compress(b"{}")):
        refused(compressed(server, body), 400, "not valid gzip")
    refused(compressed(server, gzip.compress(b"") * 100_000), 400, "more than 16 gzip members")
    refused(compressed(server, b""), 400, "The document is empty")
    refused(compressed(server, whole, "br"), 415, "Content-Encoding 'br'")


def test_a_compressed_body_is_not_held_beyond_the_limit(server):
    before = server.memory()
    body = gzip.compress(bytes(500 * 2**20))  # half a megabyte
    refused(compressed(server, body), 413, f"larger than {MAX_BODY} bytes")
    assert server.memory() - before < 3 * MAX_BODY


# Concurrent requests


def test_200_concurrent_requests_get_their_own_answers(server, pictures, expected):
    start = threading.Barrier(200)
    runs = 'tfgad_serving_batch_rows_count{model="native",signature="score_bytes"}'
    before = float(metrics_of(server).get(runs, 0))

    def ask(i):
        image = pictures[i % 20]
        as_file = {"signature_name": "score_bytes", "instances": [b64(encoded(image))]}
        body = as_file if i % 2 else {"instances": [image.tolist()]}
        start.wait()
        return predict(server, {"json": body})

    with concurrent.futures.ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(ask, range(200)))
    assert {answer.status_code for answer in answers} == {200}
    rows = [answer.json()["predictions"][0] for answer in answers]
    every = {name: np.concatenate([values] * 10) for name, values in expected.items()}
    assert_close(rows, every)
    assert float(metrics_of(server)[runs]) - before < 100  # some requests shared a run
