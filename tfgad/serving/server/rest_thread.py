"""The REST interface and the page in a thread: uvicorn's server from start to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from tfgad.serving.credentials import Tls
from tfgad.serving.server.connections import Connections, protocol
from tfgad.serving.server.limits import Limits
from tfgad.serving.server.sockets import BACKLOG

KEEP_ALIVE = 75  # seconds that an idle connection is kept open, as by nginx


class RestThread:
    """A thread that answers requests between `start` and `stop`.

    Args:
        app: answers the requests.
        limits: limits of time.
        tls: certificate and key; None for plain connections.
        connections: the open connections.
        close_page: ends the streams of the page when the server is stopped; None without a page.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        tls: Tls | None,
        connections: Connections,
        close_page: Callable[[], None] | None = None,
    ):
        config = uvicorn.Config(
            app,
            http=protocol(limits, connections),
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(limits.drain_timeout),
            log_config=None,
            log_level=logging.ERROR,  # invalid requests must not fill the log
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `X-Forwarded-For` of an unknown proxy is not trusted
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
        self._server = _Server(config, connections, close_page)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self, listening: socket.socket) -> None:
        """Starts to answer the connections of a socket.

        Raises:
            RuntimeError: uvicorn did not start.
        """
        # uvicorn installs no signal handlers outside the main thread.
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), daemon=True, name="rest"
        )
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        if not self._server.started:
            raise RuntimeError("the REST server did not start")

    def stop(self) -> None:
        """Refuses new connections, and answers the requests in progress."""
        self._server.should_exit = True
        self._thread.join()


class _Server(uvicorn.Server):
    """Uvicorn's server with two changes.

    1. `Connections.on_loop_error` is its event loop's error handler.
    2. It ends the streams of the page before it waits for the requests in progress.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        close_page: Callable[[], None] | None,
    ):
        super().__init__(config)
        self._connections, self._close_page = connections, close_page

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._connections.on_loop_error)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._close_page is not None:
            self._close_page()
        await super().shutdown(sockets)
