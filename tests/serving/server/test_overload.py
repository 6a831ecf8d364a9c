"""A server with too many, slow or large requests; it runs in this process with small limits."""

import concurrent.futures
import contextlib
import json
import socket
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf

for package in ("starlette", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'tfgad[serve]'")

from starlette.testclient import TestClient  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfgad.serving.app import build_server, mount_page  # noqa: E402
from tfgad.serving.server import rest  # noqa: E402
from tfgad.serving.server.batching import Batching  # noqa: E402
from tfgad.serving.server.limits import Limits, Turns  # noqa: E402
from tfgad.serving.server.server import Server, ServerOptions  # noqa: E402

from ..conftest import PATIENCE, ask, assert_answers, score_of, until  # noqa: E402

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def limited_server(folder, seconds, page=False, **limits):
    """A server that waits some seconds for a head, a body and an answer."""
    times = dict.fromkeys(("header_timeout", "body_timeout", "request_timeout"), seconds)
    options = ServerOptions(rest_port=0, grpc_port=0, page=page, limits=Limits(**times, **limits))
    with build_server(folder, options) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(models_folder, load_once):
    """A server that waits half a second for what never arrives."""
    with limited_server(models_folder / "native", 0.5) as server:
        yield server


@pytest.fixture(scope="module")
def small(models_folder, load_once):
    """A server that takes two requests at once, of 64 KiB together; it waits long for each."""
    limits = {"max_concurrency": 2, "max_bodies": 2**16}
    with limited_server(models_folder / "native", PATIENCE, **limits) as server:
        yield server


@contextlib.contextmanager
def connected(server, sent):
    """A connection that has sent some bytes."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        yield connection


def received(connection):
    """All bytes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(2**16), b""))


@contextlib.contextmanager
def asking_by_grpc(server):
    """A function that sends pictures by gRPC."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask_for(pictures, **form):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "native"
            request.inputs["images"].CopyFrom(tf.make_tensor_proto(pictures, **form))
            return stub.Predict(request, timeout=PATIENCE)

        yield ask_for


HEAD = b"POST /v1/models/native:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "half a head"])
def test_an_unfinished_head_is_disconnected(impatient, sent):
    with connected(impatient, sent) as connection:
        assert received(connection) == b""


def test_an_unfinished_body_is_refused(impatient):
    with connected(impatient, HEAD + b"\r\n{") as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"it has 0.5 s (--body-timeout) and 1 s for each 64 KiB" in answer


def test_an_invalid_http_body_gives_no_traceback(small, caplog):
    head = HEAD.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")
    with connected(small, head + b"\r\n") as connection:
        connection.sendall(b"no chunk\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400 ")
    score_of(ask(small.url, np.zeros((48, 48, 1), "u1")))
    assert "Traceback" not in caplog.text


def test_too_many_requests_are_refused_with_retry_after(small, pictures, monkeypatch):
    with held_runs(monkeypatch) as turns, concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(ask, small.url, pictures[i]) for i in range(2)]
        until(lambda: turns.waiting and small._service._admission.in_progress == 2)
        answer = ask(small.url, pictures[0])
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "2 requests are in progress" in answer.json()["error"]
        assert "--max-concurrency" in answer.json()["error"]
        turns.go_on()
        for each in answers:
            score_of(each.result(PATIENCE))


@contextlib.contextmanager
def held_runs(monkeypatch):
    """Holds all runs of models until `go_on()` of the yielded object, or until the end."""
    turns = Turns(1)
    monkeypatch.setattr("tfgad.serving.server.graph_runs.RUNS", turns)
    with contextlib.ExitStack() as held:
        held.enter_context(turns.taken())
        turns.go_on = held.close
        yield turns


def test_unfinished_bodies_do_not_count_as_requests(small, pictures):
    with contextlib.ExitStack() as slow:
        for _ in range(10):  # of two places
            slow.enter_context(connected(small, HEAD + b"\r\n{"))
        score_of(ask(small.url, pictures[0]))


def test_slow_bodies_are_dropped_for_others(small, pictures, monkeypatch):
    monkeypatch.setattr("tfgad.serving.server.connections.SLOW_SECONDS", 0)
    head = HEAD.replace(b"100", b"65536") + b"\r\n"
    with connected(small, head + b" " * (2**16 - 1)) as slow:
        until(lambda: small._service.memory._held >= 2**16 - 1)
        score_of(ask(small.url, pictures[0]))
        with contextlib.suppress(ConnectionResetError):
            assert received(slow) == b""


def test_a_disconnected_client_leaves_the_queue(small, pictures, monkeypatch):
    with held_runs(monkeypatch) as turns, concurrent.futures.ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, small.url, pictures[0])
        until(lambda: turns.waiting)
        with connected(small, request_of(pictures[1])):
            until(lambda: small.models.queued_rows("native") == 1)
        until(lambda: small.models.queued_rows("native") == 0)
        until(lambda: small._service._admission.in_progress == 1)
        turns.go_on()
        score_of(first.result(PATIENCE))


def test_a_disconnected_grpc_client_leaves_the_queue(small, pictures, monkeypatch):
    with (
        held_runs(monkeypatch) as turns,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
        asking_by_grpc(small) as ask_for,
    ):
        first = threads.submit(ask, small.url, pictures[0])
        until(lambda: turns.waiting)
        with asking_by_grpc(small) as ask_and_go:
            gone = threads.submit(ask_and_go, pictures[:1])
            until(lambda: small.models.queued_rows("native") == 1)
        with pytest.raises((grpc.RpcError, ValueError)):
            gone.result(PATIENCE)
        until(lambda: small.models.queued_rows("native") == 0)
        until(lambda: small._service._admission.in_progress == 1)
        turns.go_on()
        score_of(first.result(PATIENCE))
        assert ask_for(pictures[:1]).outputs


def request_of(image):
    """The bytes of a whole request by REST."""
    body = json.dumps({"instances": [image.tolist()]}).encode()
    return HEAD.replace(b"100", str(len(body)).encode()) + b"\r\n" + body


@pytest.mark.parametrize("also", [b"", b"Connection: close\r\n"], ids=["open", "close"])
def test_a_half_closed_connection_is_answered(small, pictures, monkeypatch, also):
    monkeypatch.setattr("tfgad.serving.server.connections.PROBE_SECONDS", 0.05)
    request = request_of(pictures[0]).replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + also)
    with held_runs(monkeypatch) as turns, connected(small, request) as connection:
        until(lambda: turns.waiting)
        connection.shutdown(socket.SHUT_WR)
        proceed = b"HTTP/1.1 100 "  # which shows whether the client is still connected
        until(lambda: connection.recv(2**16, socket.MSG_PEEK).startswith(proceed))
        turns.go_on()
        answer = received(connection)
    assert answer.startswith(proceed)
    assert b"HTTP/1.1 200 " in answer
    assert b"predictions" in answer


def test_grpc_calls_without_a_message_are_cancelled_for_others(small, pictures):
    never = threading.Event()
    with grpc.insecure_channel(small.grpc_address) as channel:
        call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        calls = [call.future(iter(never.wait, True)) for _ in range(100)]
        try:
            with asking_by_grpc(small) as ask_for:
                assert ask_for(pictures[:1]).outputs
            until(lambda: any(each.done() for each in calls))
        finally:
            for each in calls:
                each.cancel()
            never.set()


def test_one_connection_too_many_closes_the_longest_idle(models_folder):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        limited_server(models_folder / "foreign", PATIENCE, max_connections=3) as server,
        contextlib.ExitStack() as opened,
    ):
        idle = [opened.enter_context(connected(server, head)) for _ in range(3)]
        for connection in idle:
            healthy(connection)
        assert_answers(server.url)
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        for connection in idle[1:]:
            connection.sendall(head)
            healthy(connection)


def test_streams_of_the_page_leave_room_for_others(models_folder):
    pytest.importorskip("gradio")
    stream = b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    folder = models_folder / "foreign"
    with (
        limited_server(folder, PATIENCE, page=True, max_connections=8) as server,
        contextlib.ExitStack() as opened,
    ):
        streams = [opened.enter_context(connected(server, stream)) for _ in range(2)]
        for connection in streams:
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
        for _ in range(20):  # one address has two of the four
            refused = opened.enter_context(connected(server, stream))
            assert b" 503 " in refused.recv(2**16)
        alive = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with connected(server, alive) as connection:
            healthy(connection)
        assert_answers(server.url)


def healthy(connection):
    """Reads the complete answer of a health check."""
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        answer += connection.recv(2**16) or pytest.fail(f"it hung up after {answer}")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_disconnected(impatient):
    # The answers fill the system's buffers, since the client does not read them.
    request = b"GET /v1/models/native/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n"
    left = pytest.raises((ConnectionResetError, BrokenPipeError))
    with connected(impatient, b"") as connection, left:
        connection.sendall(request * 10**6)


def test_messages_over_the_limit_of_all_are_refused(small, pictures, monkeypatch):
    turns = Turns(1)
    monkeypatch.setattr("tfgad.serving.server.graph_runs.RUNS", turns)
    with asking_by_grpc(small) as ask_for, concurrent.futures.ThreadPoolExecutor(1) as threads:
        with turns.taken():
            first = threads.submit(ask_for, pictures)  # 45 KiB
            until(lambda: turns.waiting)
            with pytest.raises(grpc.RpcError) as raised:
                ask_for(pictures)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "hold 65536 bytes" in raised.value.details()
        first.result(PATIENCE)
        with pytest.raises(grpc.RpcError, match="hold 65536 bytes"):  # of its pixels
            ask_for(7, dtype="uint8", shape=(1, 300, 300, 1))
        ask_for(pictures)


def test_rest_and_grpc_share_the_limit_of_all_bodies(small, pictures):
    head, half = HEAD.replace(b"100", b"65536") + b"\r\n", b" " * 2**15
    with asking_by_grpc(small) as ask_for, connected(small, head + half):
        until(lambda: small._service.memory._held >= 2**15)
        with pytest.raises(grpc.RpcError, match="hold 65536 bytes"):
            ask_for(pictures)
    until(lambda: small._service.memory._held == 0)


def test_runs_of_all_models_share_the_turns(small, pictures, monkeypatch):
    turns = Turns(1)
    monkeypatch.setattr("tfgad.serving.server.graph_runs.RUNS", turns)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        with turns.taken():
            answer = threads.submit(ask, small.url, pictures[0])
            until(lambda: turns.waiting)
        score_of(answer.result(PATIENCE))


def test_a_request_times_out(impatient, pictures, monkeypatch):
    go_on = threading.Event()
    servable = impatient.models.find("native")
    run = servable.run
    monkeypatch.setattr(servable, "run", lambda *args: go_on.wait(PATIENCE) and run(*args))
    try:
        answer = ask(impatient.url, pictures[0])
        assert answer.status_code == 504
        assert "time" in answer.json()["error"]
        with asking_by_grpc(impatient) as ask_for, pytest.raises(grpc.RpcError) as raised:
            ask_for(pictures[:1])
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        go_on.set()
    until(lambda: impatient.models.queued_rows("native") == 0)


def test_internal_errors_are_logged_but_not_returned(small, pictures, monkeypatch, caplog):
    def fail(*_):
        raise KeyError("/secret/place")

    monkeypatch.setattr(small.models.find("native"), "run", fail)
    answer = ask(small.url, pictures[0])
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "/secret/place" in caplog.text


def test_without_batching_the_answers_are_the_same(models_folder, load_once, pictures, expected):
    batching = Batching(enabled=False, threads=2)
    options = ServerOptions(rest_port=0, grpc_port=0, page=False, batching=batching)
    with (
        Server(models_folder / "native", options) as server,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        answers = threads.map(lambda image: score_of(ask(server.url, image)), pictures)
        np.testing.assert_allclose(list(answers), expected["score"], rtol=1e-5, atol=1e-5)


def test_the_predictor_is_that_of_the_version_in_service(impatient, pictures, expected):
    predictor = impatient.models.predictor("native")
    prediction = predictor(pictures[0] / np.float32(127.5) - 1)
    np.testing.assert_allclose(prediction["score"], expected["score"][0], rtol=1e-5)
    assert impatient.models.predictor("native") is predictor


def test_the_page_and_the_interface_share_an_application(impatient):
    """For the page itself see `tests/serving/inspection`."""
    page = pytest.importorskip("tfgad.serving.inspection.page")
    app = rest.build(impatient._service)
    assert mount_page(app, impatient.models, Limits())
    with TestClient(app) as client:
        assert page.TITLE in client.get("/").text
        assert client.get("/v1/models/native").json()["model_version_status"]
        assert client.get("/healthz").status_code == 200
