"""The client where a server is slow; what it gets from a quick one, `test_server` tests."""

import contextlib
import socket
import threading

import pytest

pytest.importorskip("requests")

from tfgad.serving.client import Client, ClientError

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
