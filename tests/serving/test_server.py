"""A server's life: versions come under load, requests are too many, it is killed and started."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import inspect
import io
import json
import signal
import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from typer.testing import CliRunner

from tfgad.cli import main
from tfgad.serving.server.limits import Turns

from .conftest import PATIENCE, REASONS, ServerProcess, encoded, export_small, kept_port, until

IN_PROGRESS = "tfgad_serving_requests_in_progress "


def tfgad(*arguments):
    """Runs the command in this process; returns exit code, standard output and error."""
    return CliRunner().invoke(main.app, [str(each) for each in arguments])


def ask(url, image, model="as_is"):
    body = {"instances": [image.tolist()]}
    return requests.post(f"{url}/v1/models/{model}:predict", json=body, timeout=PATIENCE)


def score_of(answer):
    assert answer.status_code == 200, answer.text[:300]
    return answer.json()["predictions"][0]["score"]


def states_of(server, model):
    answer = requests.get(f"{server.url}/v1/models/{model}").json()
    return {int(each["version"]): each for each in answer.get("model_version_status", ())}


# Versions


def test_a_version_comes_under_load_and_no_request_fails(server, models_folder, fitted, pictures):
    old, new = fitted("ganomaly"), fitted("wgan_gp")
    folder = models_folder / "switching"
    export_small(old, folder)
    until(lambda: states_of(server, "switching").get(1, {}).get("state") == "AVAILABLE")
    as_floats = pictures.astype("float32") / 127.5 - 1
    expected = [np.asarray(each.anomaly(as_floats)["score"]) for each in (old, new)]
    done, given = threading.Event(), [[] for _ in range(8)]

    def keep_asking(i):
        while not done.is_set():
            given[i].append(
                (len(given[i]) % 20, ask(server.url, pictures[len(given[i]) % 20], "switching"))
            )

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(keep_asking, i) for i in range(8)]
        try:
            until(lambda: all(given))
            export_small(new, folder)
            until(lambda: states_of(server, "switching").get(1, {}).get("state") == "END")
            asked = [len(each) for each in given]
            until(
                lambda: all(len(each) > before for each, before in zip(given, asked, strict=True))
            )
        finally:
            done.set()
        for each in asking:
            each.result()
    for answers in given:
        versions = [_version(score_of(answer), i, expected) for i, answer in answers]
        assert set(versions) == {0, 1}
        assert versions == sorted(versions)  # and never back
    refused = requests.post(f"{server.url}/v1/models/switching/versions/1:predict", data=b"{}")
    assert refused.status_code == 400  # of the body, which comes first


def _version(score, i, expected):
    """Which of two models gave a score."""
    close = [np.isclose(score, each[i], rtol=1e-4, atol=1e-5) for each in expected]
    assert sum(close) == 1
    return close.index(True)


def test_a_broken_version_is_reported_and_the_old_serves_on(
    server, models_folder, fitted, pictures
):
    folder = models_folder / "breaking"
    export_small(fitted("ganomaly"), folder)
    until(lambda: 1 in states_of(server, "breaking"))
    (folder / ".partial").mkdir()
    (folder / ".partial" / "saved_model.pb").write_bytes(b"no model")
    (folder / ".partial").rename(folder / "2")
    until(lambda: 2 in states_of(server, "breaking"))
    until(lambda: states_of(server, "breaking")[2]["state"] == "END")
    states = states_of(server, "breaking")
    assert list(states) == [2, 1]
    assert states[2]["status"]["error_code"] == "UNKNOWN"
    assert states[2]["status"]["error_message"]
    assert str(models_folder) not in states[2]["status"]["error_message"]
    assert states[1]["state"] == "AVAILABLE"
    score_of(ask(server.url, pictures[0], "breaking"))


# Start and stop


def test_kill_and_restart_then_an_orderly_stop(models_folder, pictures, expected):
    folder = models_folder / "as_is"  # one model alone
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(
            ServerProcess(folder, "--port", kept_port(), "--grpc-port", kept_port())
        )
        kill(first, pictures, expected)
        second = servers.enter_context(ServerProcess(folder, *first.ports))
        assert (second.url, second.grpc) == (first.url, first.grpc)
        stop_in_order(second, pictures, expected)


def kill(first, pictures, expected):
    """Kills a server that has answered and has a connection open."""
    np.testing.assert_allclose(score_of(ask(first.url, pictures[0])), expected["score"][0], 1e-5)
    with requests.Session() as session:
        session.get(f"{first.url}/healthz")
        assert first.end(signal.SIGKILL) == -signal.SIGKILL


def stop_in_order(second, pictures, expected):
    """Stops a server that has requests in progress; they are answered."""
    assert second.lines[-1].startswith("ready: as_is 1; REST http://127.0.0.1:")
    images = np.concatenate([pictures] * 10)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(ask_all, second.url, images) for _ in range(2)]
        until(lambda: in_progress(second) == 2)
        assert second.end() == 0, second.lines
        for answer in answers:
            scores = [row["score"] for row in answer.result().json()["predictions"]]
            np.testing.assert_allclose(scores, np.tile(expected["score"], 10), 1e-4, 1e-5)
    assert second.lines[-1] == "stopped\n"
    assert not any("Traceback" in line for line in second.lines)


def ask_all(url, images):
    body = {"instances": images.tolist()}
    return requests.post(f"{url}/v1/models/as_is:predict", json=body, timeout=PATIENCE)


def in_progress(server):
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics").text
    line = next(each for each in page.splitlines() if each.startswith(IN_PROGRESS))
    return float(line.split()[1])


def test_mistakes_are_told_in_one_line(tmp_path, models_folder):
    pytest.importorskip("starlette")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"no model")
    free = ["--port", "0", "--grpc-port", "0"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        mistakes = [
            ([tmp_path / "none", *free], "is not there"),
            ([tmp_path / "file", *free], "is no folder"),
            ([tmp_path / "empty", *free], "holds no model;"),
            ([tmp_path / "broken", *free], "holds no model that can be loaded (broken version 1"),
            ([models_folder, "--port", port, "--grpc-port", "0"], "--rest-port"),
            ([models_folder / "as_is", "--port", "0", "--grpc-port", port], "--grpc-port"),
            ([models_folder, "--port", "70000"], "cannot listen there"),
            ([models_folder, *free, "--host", "192.0.2.1"], "cannot listen there"),
        ]
        for arguments, problem in mistakes:
            result = tfgad("serve", *arguments, "--no-page")
            assert result.exit_code == 2, result.output
            last = result.stderr.strip().splitlines()[-1]
            assert problem in last
            assert "Traceback" not in result.stderr


def test_every_limit_has_an_option():
    from tfgad.cli.serving import serve
    from tfgad.serving.server.limits import Limits

    names = {each.name for each in dataclasses.fields(Limits)}
    options = inspect.signature(serve).parameters.keys()
    assert names - {"request_timeout"} | {"timeout"} <= options


def test_a_missing_extra_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = tfgad("serve", tmp_path)
    assert result.exit_code == 2
    assert "pip install 'tfgad[serve]'" in result.stderr


# Limits, in this process so that they can be small


@contextlib.contextmanager
def limited_server(folder, seconds, page=False, **limits):
    """A server that waits some seconds for a head, a body and an answer."""
    pytest.importorskip("starlette")
    pytest.importorskip("tensorflow_serving")
    from tfgad.serving.server.limits import Limits
    from tfgad.serving.server.server import Server, ServerOptions

    times = dict.fromkeys(("header_timeout", "body_timeout", "request_timeout"), seconds)
    options = ServerOptions(rest_port=0, grpc_port=0, page=page, limits=Limits(**times, **limits))
    with Server(folder / "as_is", options) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(models_folder):
    """A server that waits half a second: for what never comes, not for any work."""
    with limited_server(models_folder, 0.5) as server:
        yield server


@pytest.fixture(scope="module")
def small(models_folder):
    """A server that takes two requests at once, of 64 KiB together; it waits long for each."""
    with limited_server(models_folder, PATIENCE, max_concurrency=2, max_bodies=2**16) as server:
        yield server


@contextlib.contextmanager
def connected(server, sent):
    """A connection that has sent some bytes."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        yield connection


def received(connection):
    """All that comes until the server hangs up."""
    return b"".join(iter(lambda: connection.recv(2**16), b""))


@contextlib.contextmanager
def asking_by_grpc(server):
    """A function that asks for pictures by gRPC."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask_for(pictures, **form):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "as_is"
            request.inputs["images"].CopyFrom(tf.make_tensor_proto(pictures, **form))
            return stub.Predict(request, timeout=PATIENCE)

        yield ask_for


HEAD = b"POST /v1/models/as_is:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "half a head"])
def test_who_does_not_finish_the_head_is_left(impatient, sent):
    with connected(impatient, sent) as connection:
        assert received(connection) == b""


def test_who_does_not_finish_the_body_is_told(impatient):
    with connected(impatient, HEAD + b"\r\n{") as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"it has 0.5 s (--body-timeout) and 1 s for each 64 KiB" in answer


def test_a_body_that_is_no_http_is_told_without_a_traceback(small, caplog):
    head = HEAD.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked")
    with connected(small, head + b"\r\n") as connection:
        connection.sendall(b"no chunk\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400 ")
    score_of(ask(small.url, np.zeros((48, 48, 1), "u1")))
    assert "Traceback" not in caplog.text


def test_too_many_at_once_are_told_to_come_again(small, pictures, monkeypatch):
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
    """Holds all runs of models until `go_on` of what it yields, or until the end."""
    turns = Turns(1)
    monkeypatch.setattr("tfgad.serving.server.servable.RUNS", turns)
    with contextlib.ExitStack() as held:
        held.enter_context(turns.taken())
        turns.go_on = held.close
        yield turns


def test_bodies_that_do_not_come_hold_no_place(small, pictures):
    with contextlib.ExitStack() as slow:
        for _ in range(10):  # of two places
            slow.enter_context(connected(small, HEAD + b"\r\n{"))
        score_of(ask(small.url, pictures[0]))


def test_bodies_that_come_slowly_give_way(small, pictures, monkeypatch):
    monkeypatch.setattr("tfgad.serving.server.connections.SLOW_SECONDS", 0)
    head = HEAD.replace(b"100", b"65536") + b"\r\n"
    with connected(small, head + b" " * (2**16 - 1)) as slow:
        until(lambda: small._service.memory._held >= 2**16 - 1)
        score_of(ask(small.url, pictures[0]))
        with contextlib.suppress(ConnectionResetError):
            assert received(slow) == b""


def test_a_caller_who_hung_up_leaves_the_queue(small, pictures, monkeypatch):
    with held_runs(monkeypatch) as turns, concurrent.futures.ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, small.url, pictures[0])
        until(lambda: turns.waiting)
        with connected(small, request_of(pictures[1])):
            until(lambda: small.models.queued_rows("as_is") == 1)
        until(lambda: small.models.queued_rows("as_is") == 0)
        until(lambda: small._service._admission.in_progress == 1)
        turns.go_on()
        score_of(first.result(PATIENCE))


def test_a_grpc_caller_who_hung_up_leaves_the_queue(small, pictures, monkeypatch):
    import grpc

    with (
        held_runs(monkeypatch) as turns,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
        asking_by_grpc(small) as ask_for,
    ):
        first = threads.submit(ask, small.url, pictures[0])
        until(lambda: turns.waiting)
        with asking_by_grpc(small) as ask_and_go:
            gone = threads.submit(ask_and_go, pictures[:1])
            until(lambda: small.models.queued_rows("as_is") == 1)
        with pytest.raises((grpc.RpcError, ValueError)):
            gone.result(PATIENCE)
        until(lambda: small.models.queued_rows("as_is") == 0)
        until(lambda: small._service._admission.in_progress == 1)
        turns.go_on()
        score_of(first.result(PATIENCE))
        assert ask_for(pictures[:1]).outputs


def request_of(image):
    """The bytes of a whole request by REST."""
    body = json.dumps({"instances": [image.tolist()]}).encode()
    return HEAD.replace(b"100", str(len(body)).encode()) + b"\r\n" + body


@pytest.mark.parametrize("also", [b"", b"Connection: close\r\n"], ids=["open", "close"])
def test_who_sends_no_more_is_answered(small, pictures, monkeypatch, also):
    monkeypatch.setattr("tfgad.serving.server.connections.PROBE_SECONDS", 0.05)
    request = request_of(pictures[0]).replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + also)
    with held_runs(monkeypatch) as turns, connected(small, request) as connection:
        until(lambda: turns.waiting)
        connection.shutdown(socket.SHUT_WR)
        proceed = b"HTTP/1.1 100 "  # which shows whether anyone is there
        until(lambda: connection.recv(2**16, socket.MSG_PEEK).startswith(proceed))
        turns.go_on()
        answer = received(connection)
    assert answer.startswith(proceed)
    assert b"HTTP/1.1 200 " in answer
    assert b"predictions" in answer


def test_grpc_calls_without_a_message_give_way(small, pictures):
    import grpc

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


def test_a_connection_too_many_closes_that_which_is_idle_for_longest(models_folder, pictures):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        limited_server(models_folder, PATIENCE, max_connections=3) as server,
        contextlib.ExitStack() as opened,
    ):
        idle = [opened.enter_context(connected(server, head)) for _ in range(3)]
        for connection in idle:
            healthy(connection)
        score_of(ask(server.url, pictures[0]))
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
        for connection in idle[1:]:
            connection.sendall(head)
            healthy(connection)


def test_streams_of_the_page_leave_room_for_others(models_folder, pictures):
    pytest.importorskip("gradio")
    stream = b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
    limits = {"max_connections": 8, "drain_timeout": 1}  # streams do not end by themselves
    with (
        limited_server(models_folder, PATIENCE, page=True, **limits) as server,
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
        score_of(ask(server.url, pictures[0]))


def healthy(connection):
    """Reads the whole answer of a server that says it is well."""
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        answer += connection.recv(2**16) or pytest.fail(f"it hung up after {answer}")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_what_cannot_be_accepted_is_said_once(caplog):
    import errno

    from tfgad.serving.server.connections import Connections

    class Connection:
        transport = SimpleNamespace(abort=lambda: None)

    connections = Connections(20)
    for _ in range(20):
        connections.opened(Connection())
    error = OSError(errno.EMFILE, "Too many open files")
    for _ in range(1000):
        connections.on_loop_error(None, {"exception": error})
    assert caplog.text.count("no connection can be accepted") == 1
    assert len(connections) == 12  # of 1000 errors at once, one makes room


def test_whoever_does_not_read_the_answer_is_left(impatient):
    # The answers to these fill what the system holds of them, and then nobody reads on.
    request = b"GET /v1/models/as_is/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n"
    left = pytest.raises((ConnectionResetError, BrokenPipeError))
    with connected(impatient, b"") as connection, left:
        connection.sendall(request * 10**6)


def test_as_many_files_may_be_open_as_the_system_lets(monkeypatch, caplog, tmp_path):
    resource = pytest.importorskip("resource")
    pytest.importorskip("tensorflow_serving")
    from tfgad.serving.server.limits import Limits, most_connections, raise_open_files
    from tfgad.serving.server.server import Server, ServerOptions

    given = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: given.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    assert raise_open_files() == 4096
    assert raise_open_files(512) == 1024
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, resource.RLIM_INFINITY))
    assert raise_open_files(2000) == 2000
    assert given == [(4096, 4096), (2000, resource.RLIM_INFINITY)]
    assert most_connections(Limits(), 1024) == 416
    monkeypatch.setattr("tfgad.serving.server.server.raise_open_files", lambda: 1024)
    Server(tmp_path)
    assert "--max-connections 4096: 416 are possible where 1024 files may be open" in caplog.text
    caplog.clear()
    Server(tmp_path, ServerOptions(limits=Limits(max_connections=416)))
    assert not caplog.text
    assert most_connections(Limits(), 2**16) == most_connections(Limits(), None) == 4096


def test_bodies_that_are_too_much_together_are_refused():
    from tfgad.serving.server.errors import ServingError
    from tfgad.serving.server.limits import Memory

    memory = Memory(10)
    with memory.held() as hold:
        hold(6)
        with memory.held() as hold_more:
            hold_more(4)
            with pytest.raises(ServingError, match="hold 10 bytes"):
                hold(1)
        hold(4)
    with memory.held() as hold:
        hold(10)


def test_messages_that_are_too_much_together_are_refused(small, pictures, monkeypatch):
    import grpc

    turns = Turns(1)
    monkeypatch.setattr("tfgad.serving.server.servable.RUNS", turns)
    with asking_by_grpc(small) as ask_for, concurrent.futures.ThreadPoolExecutor(1) as threads:
        with turns.taken():
            first = threads.submit(ask_for, pictures)  # 45 KiB
            until(lambda: turns.waiting)
            with pytest.raises(grpc.RpcError) as told:
                ask_for(pictures)
            assert told.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "hold 65536 bytes" in told.value.details()
        first.result(PATIENCE)
        with pytest.raises(grpc.RpcError, match="hold 65536 bytes"):  # as large as it unfolds
            ask_for(7, dtype="uint8", shape=(1, 300, 300, 1))
        ask_for(pictures)


def test_rest_and_grpc_share_what_bodies_may_hold(small, pictures):
    import grpc

    head, half = HEAD.replace(b"100", b"65536") + b"\r\n", b" " * 2**15
    with asking_by_grpc(small) as ask_for, connected(small, head + half):
        until(lambda: small._service.memory._held >= 2**15)
        with pytest.raises(grpc.RpcError, match="hold 65536 bytes"):
            ask_for(pictures)
    until(lambda: small._service.memory._held == 0)


def test_runs_wait_for_a_turn_that_all_models_share(small, pictures, monkeypatch):
    turns = Turns(1)
    monkeypatch.setattr("tfgad.serving.server.servable.RUNS", turns)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        with turns.taken():
            answer = threads.submit(ask, small.url, pictures[0])
            until(lambda: turns.waiting)
        score_of(answer.result(PATIENCE))


def test_who_waits_too_long_is_told(impatient, pictures, monkeypatch):
    import grpc

    go_on = threading.Event()
    servable = impatient.models.find("as_is")
    run = servable.run
    monkeypatch.setattr(servable, "run", lambda *args: go_on.wait(PATIENCE) and run(*args))
    try:
        answer = ask(impatient.url, pictures[0])
        assert answer.status_code == 504
        assert "time" in answer.json()["error"]
        with asking_by_grpc(impatient) as ask_for, pytest.raises(grpc.RpcError) as told:
            ask_for(pictures[:1])
        assert told.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        go_on.set()
    until(lambda: impatient.models.queued_rows("as_is") == 0)


def test_a_mistake_of_the_servers_own_is_not_laid_open(small, pictures, monkeypatch, caplog):
    def fail(*_):
        raise KeyError("/secret/place")

    monkeypatch.setattr(small.models.find("as_is"), "run", fail)
    answer = ask(small.url, pictures[0])
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "/secret/place" in caplog.text


def test_without_batching_the_answers_are_the_same(models_folder, pictures, expected):
    pytest.importorskip("tensorflow_serving")
    from tfgad.serving.server.batching import Batching
    from tfgad.serving.server.server import Server, ServerOptions

    batching = Batching(enabled=False, threads=2)
    options = ServerOptions(rest_port=0, grpc_port=0, page=False, batching=batching)
    with (
        Server(models_folder / "as_is", options) as server,
        concurrent.futures.ThreadPoolExecutor(8) as threads,
    ):
        answers = threads.map(lambda image: score_of(ask(server.url, image)), pictures)
        np.testing.assert_allclose(list(answers), expected["score"], rtol=1e-5, atol=1e-5)


def test_a_judge_is_that_of_the_version_in_service(impatient, pictures, expected):
    judged = impatient.models.judge("as_is")(pictures[0] / np.float32(127.5) - 1)
    np.testing.assert_allclose(judged["score"], expected["score"][0], rtol=1e-5)
    assert impatient.models.judge("as_is") is impatient.models.judge("as_is")


def test_the_page_is_mounted_beside_the_interface(impatient):
    """The page itself has tests of its own."""
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from tfgad.serving.inspection import page
    from tfgad.serving.server import rest, server

    app = rest.build(impatient._service)
    assert server.mount_page(app, impatient.models)
    with TestClient(app) as client:
        assert page.TITLE in client.get("/").text
        assert client.get("/v1/models/as_is").json()["model_version_status"]
        assert client.get("/healthz").status_code == 200


# The client


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    """A client of either interface."""
    pytest.importorskip("tensorflow_serving")
    from tfgad.serving.client.client import Client

    url = server.url if request.param == "http" else f"grpc://{server.grpc}"
    with Client(url, "as_is", timeout=PATIENCE) as client:
        yield client


def test_the_client_scores_arrays_files_and_paths(client, pictures, expected, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(pictures[0]))
    three = [encoded(each) for each in pictures[:3]]
    for images, count in (
        (pictures[:3], 3),
        (list(pictures[:3]), 3),
        (pictures[0], 1),
        (pictures[0, :, :, 0], 1),
        (three, 3),
        (three[0], 1),
        (path, 1),
        ([str(path)], 1),
    ):
        given = client.score(images)
        assert {name: value.dtype.name for name, value in given.items()} == {
            "score": "float32",
            "probability": "float32",
            "is_anomalous": "bool",
            "map": "float32",
            "reason": "object",
        }
        for name in ("score", "map"):
            np.testing.assert_allclose(given[name], expected[name][:count], rtol=1e-5, atol=1e-5)


def test_the_client_calls_a_signature(client, pictures):
    rebuilt = client.predict({"images": pictures[:2]}, "reconstruct")
    assert rebuilt["reconstruction"].shape == (2, 48, 48, 1)
    assert rebuilt["reconstruction"].dtype == np.uint8


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_client_reads_strings(server, scheme):
    pytest.importorskip("tensorflow_serving")
    from tfgad.serving.client.client import Client

    url = server.url if scheme == "http" else f"grpc://{server.grpc}"
    with Client(url, "foreign", timeout=PATIENCE) as client:
        given = client.predict({"x": np.float32([1, 0, 3])}, "described")
    reasons = [REASONS[i].encode() for i in (1, 0, 3)]
    assert given["reason"].tolist() == reasons
    assert given["file_bytes"].tolist() == [b"\xff" + each for each in reasons]
    assert given["score"].tolist() == [0.25, 0, 0.75]


def test_the_client_says_what_a_model_is(client):
    assert client.status() == {1: {"state": "AVAILABLE", "error_code": "OK", "error_message": ""}}
    metadata = client.metadata()
    assert (metadata["name"], metadata["version"]) == ("as_is", 1)
    default = metadata["signatures"]["serving_default"]
    assert default["inputs"] == {"images": {"dtype": "DT_UINT8", "shape": [-1, -1, -1, 1]}}
    assert default["outputs"]["map"] == {"dtype": "DT_FLOAT", "shape": [-1, -1, -1]}


def test_the_client_tells_what_the_server_says(client, pictures):
    from tfgad.serving.client.client import ClientError

    for images, message in ((b"no image", "no PNG or JPEG"), (pictures[:, :20], "smaller than")):
        with pytest.raises(ClientError, match=message) as told:
            client.score(images)
        assert told.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_client_tells_that_nothing_answers(scheme):
    pytest.importorskip("tensorflow_serving")
    from tfgad.serving.client.client import Client, ClientError

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        Client(f"{scheme}://127.0.0.1:{port}", "parts", timeout=5, retries=1) as client,
        pytest.raises(ClientError) as told,
    ):
        client.status()
    assert told.value.code == "UNAVAILABLE"


def test_the_client_comes_again_when_the_server_is_busy():
    """Against a server of two answers, by hand: busy, then a state."""
    from tfgad.serving.client.client import Client

    content = b'{"model_version_status":[{"version":"3","state":"AVAILABLE","status":{}}]}'
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}"
    ready = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_twice():
            connection, _ = listening.accept()
            with connection, io.BufferedReader(connection.makefile("rb", 0)) as lines:
                for answer in (busy, ready):
                    while lines.readline() != b"\r\n":
                        pass
                    connection.sendall(answer)

        answering = threading.Thread(target=answer_twice)
        answering.start()
        with Client(f"http://127.0.0.1:{listening.getsockname()[1]}", "parts") as client:
            assert client.status() == {3: {"state": "AVAILABLE"}}
        answering.join(PATIENCE)


def test_the_rest_client_needs_no_tensorflow(server, pictures):
    import subprocess
    import sys

    script = f"""
import base64, sys
from tfgad.serving.client.client import Client
file = base64.b64decode("{base64.b64encode(encoded(pictures[0])).decode()}")
assert Client("{server.url}", "as_is").score(file)["map"].shape == (1, 48, 48)
assert not {{"tensorflow", "grpc", "keras"}} & sys.modules.keys()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_answers_do_not_wait_for_an_acknowledgement():
    pytest.importorskip("starlette")
    from tfgad.serving.server.server import _listen

    with (
        _listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
