"""The client where a server is slow or away; what it gets from a quick one, `test_server` tests."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("requests")

from tfgad.serving.client.client import Client, ClientError

from .conftest import kept_port, until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


@contextlib.contextmanager
def stalling(answer):
    """The address of a server that sends the beginning of an answer, and no more."""
    held = []

    def serve(listening):
        with contextlib.suppress(OSError):
            while True:
                held.append(listening.accept()[0])
                held[-1].sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", held
    for each in held:
        each.close()


@pytest.mark.parametrize("answer", [b"", HEAD], ids=["nothing", "the beginning"])
def test_who_answers_too_late_is_not_taken_for_absent(answer):
    """Nor is asked again: the server may still be at work."""
    with (
        stalling(answer) as (url, held),
        Client(url, "parts", timeout=0.3, retries=3) as client,
        pytest.raises(ClientError) as told,
    ):
        client.status()
    assert told.value.code == "DEADLINE_EXCEEDED"
    assert len(held) == 1


def test_a_grpc_client_finds_a_server_that_comes_back():
    """It tries eight times in some seconds; gRPC by itself takes 43 s for as many."""
    grpc = pytest.importorskip("grpc")
    apis = pytest.importorskip("tensorflow_serving.apis.model_service_pb2_grpc")
    from tensorflow_serving.apis import get_model_status_pb2

    class Service(apis.ModelServiceServicer):
        def GetModelStatus(self, request, context):  # noqa: N802
            answer = get_model_status_pb2.GetModelStatusResponse()
            answer.model_version_status.add(version=3, state="AVAILABLE")
            return answer

    attempts = []

    def hang_up(listening):
        for _ in range(8):
            listening.accept()[0].close()
            attempts.append(time.monotonic())

    def version(client):
        with contextlib.suppress(ClientError):
            return list(client.status())

    port = kept_port()
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=hang_up, args=(listening,), daemon=True).start()
        client = Client(f"grpc://127.0.0.1:{port}", "parts", timeout=5, retries=0)
        until(lambda: version(client) is None and len(attempts) == 8)
    # On a slow machine some take longer; by itself gRPC waits 5 s at least before each of the last.
    assert min(np.diff(attempts[-4:])) < 5
    server = grpc.server(ThreadPoolExecutor(1))
    apis.add_ModelServiceServicer_to_server(Service(), server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    until(lambda: version(client) == [3])
    client.close()
    server.stop(None)
