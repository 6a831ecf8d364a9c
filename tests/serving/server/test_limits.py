"""Limits of requests, connections and open files, without a server."""

import dataclasses
import errno
import inspect
import socket
from types import SimpleNamespace

import pytest

for package in ("starlette", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'tfgad[serve]'")

from tfgad.cli.serving import serve  # noqa: E402
from tfgad.serving.errors import ServingError  # noqa: E402
from tfgad.serving.server.connections import Connections  # noqa: E402
from tfgad.serving.server.limits import Limits, Memory  # noqa: E402
from tfgad.serving.server.server import Server, ServerOptions  # noqa: E402
from tfgad.serving.server.sockets import listen  # noqa: E402
from tfgad.serving.server.system import max_connections, raise_open_files  # noqa: E402


def test_every_limit_has_an_option():
    names = {each.name for each in dataclasses.fields(Limits)}
    options = inspect.signature(serve).parameters.keys()
    assert names - {"request_timeout"} | {"timeout"} <= options


def test_connections_that_cannot_be_accepted_are_logged_once(caplog):
    class Connection:
        transport = SimpleNamespace(abort=lambda: None)

    connections = Connections(20)
    for _ in range(20):
        connections.opened(Connection())
    error = OSError(errno.EMFILE, "Too many open files")
    for _ in range(1000):
        connections.on_loop_error(None, {"exception": error})
    assert caplog.text.count("no connection can be accepted") == 1
    assert len(connections) == 12  # only the first of 1000 errors closes connections


def test_the_limit_of_open_files_is_raised(monkeypatch, caplog, tmp_path):
    resource = pytest.importorskip("resource")
    given = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: given.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    assert raise_open_files() == 4096
    assert raise_open_files(512) == 1024
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, resource.RLIM_INFINITY))
    assert raise_open_files(2000) == 2000
    assert given == [(4096, 4096), (2000, resource.RLIM_INFINITY)]
    assert max_connections(Limits(), 1024) == 416
    monkeypatch.setattr("tfgad.serving.server.server.raise_open_files", lambda: 1024)
    Server(tmp_path)
    assert "--max-connections 4096: limited to 416, since 1024 files may be open" in caplog.text
    caplog.clear()
    Server(tmp_path, ServerOptions(limits=Limits(max_connections=416)))
    assert not caplog.text
    assert max_connections(Limits(), 2**16) == max_connections(Limits(), None) == 4096


def test_bodies_over_the_limit_of_all_are_refused():
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


def test_accepted_sockets_have_no_delay():
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
