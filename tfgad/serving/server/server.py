"""A server: REST and gRPC for a folder of SavedModels, from start to orderly stop.

with Server(Path("saved_models"), ServerOptions(rest_port=0, grpc_port=0)) as server:
    requests.get(f"{server.url}/v1/models/weave_twill_ganomaly")
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import logging
import os
import signal
import socket
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from tfgad.errors import UsageError
from tfgad.serving.credentials import Tls, check_token
from tfgad.serving.server import grpc_access, grpc_service, rest
from tfgad.serving.server.access import Gate, Hosts, is_loopback
from tfgad.serving.server.batching import Batching
from tfgad.serving.server.connections import Connections, protocol
from tfgad.serving.server.limits import Limits, most_connections, raise_open_files
from tfgad.serving.server.repository import Repository
from tfgad.serving.server.service import Service

LOOPBACK = "127.0.0.1"
KEEP_ALIVE = 75  # seconds for the next request of a connection, as nginx gives
PAGE_PATH = "/"
BACKLOG = 1024  # connections that wait to be accepted

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, and what it offers.

    Attributes:
        host: address to listen at; others than this machine reach no server at `127.0.0.1`.
        rest_port: 0 for any that is free.
        grpc_port: likewise.
        poll_seconds: between two looks for new versions; TF Serving's default is 1, too.
        page: whether to show the inspection page; None for where only this machine reaches it, and
            what it needs is installed.
        allowed_hosts: further names that callers know the server by, such as those of a proxy or a
            cluster; addresses, the machine's name and `host` need not be among them.
        token: that REST, gRPC and page ask for; None for no other lock than the network.
        tls: certificate and key for all three; None for plain connections.
        batching: how requests share runs.
        limits: of requests.
    """

    host: str = LOOPBACK
    rest_port: int = 8501  # both are TF Serving's
    grpc_port: int = 8500
    poll_seconds: float = 1.0
    page: bool | None = None
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = dataclasses.field(default=None, repr=False)
    tls: Tls | None = None
    batching: Batching = dataclasses.field(default_factory=Batching)
    limits: Limits = dataclasses.field(default_factory=Limits)


class Server:
    """A server of a folder's models; it answers between `start` and `stop`.

    Attributes:
        models: what it serves.
        has_page: whether the inspection page is there.
    """

    def __init__(self, folder: Path, options: ServerOptions | None = None):
        self._folder, self._options = folder, options or ServerOptions()
        files, wanted = raise_open_files(), self._options.limits.max_connections
        most = most_connections(self._options.limits, files)
        if most < wanted:
            problem = "--max-connections %d: %d are possible where %d files may be open; %s"
            log.warning(problem, wanted, most, files, "raise `ulimit -n`")
        limits = dataclasses.replace(self._options.limits, max_connections=most)
        self._service = Service(folder, self._options.batching, limits)
        self.models = self._service.models
        self.has_page = False
        self._connections = Connections(most)
        self._service.make_room = self._connections.close_slow_body
        self._grpc_port = 0
        self._socket: socket.socket | None = None

    @property
    def url(self) -> str:
        """Of the REST interface, such as `http://127.0.0.1:8501`."""
        scheme = "https" if self._options.tls else "http"
        return f"{scheme}://{_address(self._options.host, self._socket.getsockname()[1])}"

    @property
    def grpc_address(self) -> str:
        """Of the gRPC interface, such as `127.0.0.1:8500`."""
        return _address(self._options.host, self._grpc_port)

    @property
    def is_local(self) -> bool:
        """Whether it listens where only its own machine reaches it."""
        return is_loopback(self._socket.getsockname()[0])

    @property
    def opened(self) -> str | None:
        """What other machines reach, in one line; None if nothing."""
        if self.is_local:
            return None
        options = self._options
        what = "REST, gRPC and page" if self.has_page else "REST and gRPC, not the page (--page)"
        lacks = [
            each
            for each, given in (
                ("TLS (--tls-certificate, --tls-key)", options.tls),
                ("token (--token-file)", options.token),
            )
            if not given
        ]
        how = f", without {' and without '.join(lacks)}" if lacks else ", by TLS and token"
        return f"open to the network at {options.host}: {what}{how}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Loads the models and begins to answer.

        Raises:
            UsageError: the folder holds no model that can be loaded; a port is taken.
        """
        options = self._options
        if options.tls:
            options.tls.check()
        if options.token is not None:
            check_token("token", "...", options.token)
        self._socket = _listen(options.host, options.rest_port)
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            self._load()
            undo.callback(self.models.close)
            app = rest.build(self._service)
            wants_page = self.is_local if options.page is None else options.page
            self.has_page = wants_page and mount_page(app, self.models, self._service.limits)
            if options.page and not self.has_page:
                problem = "needs gradio, which is not installed"
                raise UsageError("--page", True, problem, "run: pip install 'tfgad[serve]'")
            locks = [] if options.token is None else [grpc_access.TokenInterceptor(options.token)]
            self._grpc, self._health = grpc_service.build(self._service, locks)
            # A name is looked up once, so that both listen where `opened` says.
            address = self._socket.getsockname()[0]
            self._grpc_port = _bind_grpc(self._grpc, address, options)
            hosts = Hosts(options.host, self.is_local, options.allowed_hosts)
            self._start_rest(Gate(app, hosts, options.token))
            undo.pop_all()
        self._grpc.start()
        grpc_service.say_serving(self._health)
        self.models.watch(options.poll_seconds)
        if self.opened:
            log.warning(self.opened)

    def stop(self) -> None:
        """Takes no more requests, answers those in progress, and unloads the models."""
        seconds = self._options.limits.drain_timeout
        self._health.enter_graceful_shutdown()
        grpc_stopped = self._grpc.stop(seconds)
        self._rest.should_exit = True
        self._rest_thread.join()
        grpc_stopped.wait()
        self.models.close()

    def wait(self) -> None:
        """Returns once the process is told to stop, by SIGTERM or SIGINT.

        A second signal ends the process as usual.
        """
        told = threading.Event()
        previous = {}

        def tell(number, frame):
            told.set()
            for each, handler in previous.items():
                signal.signal(each, handler)

        for each in (signal.SIGTERM, signal.SIGINT):
            previous[each] = signal.signal(each, tell)
        # Without a limit the wait could not be interrupted on every platform.
        while not told.wait(1) and self._rest_thread.is_alive():
            pass

    def _load(self) -> None:
        """Loads the models; one that can be loaded is enough."""
        folder = self._folder
        try:
            problem = (
                "" if folder.is_dir() else "is no folder" if folder.exists() else "is not there"
            )
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        if problem:
            raise UsageError("DIR", folder, problem, "name a folder of exported models")
        self.models.poll()
        if self.models.names():
            return
        broken = self.models.failures()
        problem = f"holds no model that can be loaded ({broken[0]})" if broken else "holds no model"
        hint = "export one into it: tfgad export RUN DIR/NAME"
        raise UsageError("DIR", folder, problem, hint)

    def _start_rest(self, app: ASGIApp) -> None:
        tls = self._options.tls
        config = uvicorn.Config(
            app,
            http=protocol(self._options.limits, self._connections),
            ws="none",
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(self._options.limits.drain_timeout),
            log_config=None,
            log_level=logging.ERROR,  # whoever sends garbage shall not fill the log
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody stands before it whom it should believe
            ssl_certfile=tls and tls.certificate,
            ssl_keyfile=tls and tls.key,
        )
        self._rest = _Rest(config, self._connections)
        # Outside of the main thread uvicorn leaves the signals alone.
        self._rest_thread = threading.Thread(
            target=self._rest.run, args=([self._socket],), daemon=True, name="rest"
        )
        self._rest_thread.start()
        while not self._rest.started and self._rest_thread.is_alive():
            self._rest_thread.join(0.01)
        if not self._rest.started:
            raise RuntimeError("the REST server did not start")


class _Rest(uvicorn.Server):
    """Uvicorn's server, whose event loop says once what it would say of each connection."""

    def __init__(self, config: uvicorn.Config, connections: Connections):
        super().__init__(config)
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._connections.on_loop_error)
        await super().startup(sockets)


def mount_page(app: Starlette, models: Repository, limits: Limits | None = None) -> bool:
    """Mounts the inspection page (`serving.inspection`) at `PAGE_PATH`, if gradio is installed.

    Args:
        app: the application.
        models: the models in service.
        limits: of the server. Streams of the page take half of its connections at most.

    Returns:
        Whether it is there.
    """
    if importlib.util.find_spec("gradio") is None:
        log.info("there is no inspection page: it needs pip install 'tfgad[serve]'")
        return False
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # a server reports to nobody
    from tfgad.serving.inspection import page
    from tfgad.serving.inspection.uploads import UploadLimits, Uploads

    limits = limits or Limits()
    uploads = Uploads(UploadLimits(timeout=limits.body_timeout))
    page.mount(app, models, PAGE_PATH, uploads, max(1, limits.max_connections // 2))
    return True


def _listen(host: str, port: int) -> socket.socket:
    """Opens the socket of the REST interface.

    Raises:
        UsageError: the port is taken, or the address is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise _cannot_listen("--rest-port", host, port, error) from error
    # What it accepts inherits this; asyncio sees to it for sockets that name their protocol only.
    # Without it an answer waits 40 ms for the client to acknowledge its head (Nagle, RFC 896).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _bind_grpc(server, host: str, options: ServerOptions) -> int:
    """Opens the port of the gRPC interface at an address; see `_listen`."""
    port = options.grpc_port
    # gRPC says no more than that it failed; a socket of our own says why.
    _probe("--grpc-port", host, port)
    try:
        if options.tls:
            credentials = grpc_access.server_credentials(options.tls)
            return server.add_secure_port(_address(host, port), credentials)
        return server.add_insecure_port(_address(host, port))
    except RuntimeError as error:
        raise _cannot_listen("--grpc-port", host, port, error) from error


def _probe(option: str, host: str, port: int) -> None:
    try:
        _listen(host, port).close()
    except UsageError as error:
        raise _cannot_listen(option, host, port, error.__cause__) from error


def _cannot_listen(option: str, host: str, port: int, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or str(error)
    problem = f"cannot listen there ({reason[:1].lower()}{reason[1:]})"
    return UsageError(option, _address(host, port), problem, "choose another; 0 takes a free one")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
