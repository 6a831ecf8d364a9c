"""A server: REST and gRPC for a folder of SavedModels, from start to graceful shutdown.

with Server(Path("saved_models"), ServerOptions(rest_port=0, grpc_port=0)) as server:
    requests.get(f"{server.url}/v1/models/weave_twill_ganomaly")
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from starlette.applications import Starlette

from tfgad.errors import UsageError
from tfgad.serving.credentials import Tls, check_token
from tfgad.serving.server import grpc_access, grpc_service, rest
from tfgad.serving.server.access import Gate, Hosts, is_loopback
from tfgad.serving.server.batching import Batching
from tfgad.serving.server.connections import Connections
from tfgad.serving.server.limits import Limits
from tfgad.serving.server.repository import Repository
from tfgad.serving.server.rest_thread import RestThread
from tfgad.serving.server.service import Service
from tfgad.serving.server.sockets import address_of, bind_grpc, listen
from tfgad.serving.server.system import max_connections, raise_open_files

LOOPBACK = "127.0.0.1"

# Adds the inspection page to an application. Returns a function that ends the streams which keep
# the page open, to be called in the event loop; None if the page cannot be added.
MountPage = Callable[[Starlette, Repository, Limits], Callable[[], None] | None]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Options of a server.

    Attributes:
        host: address to listen at; other machines cannot reach a server at `127.0.0.1`.
        rest_port: port of REST; 0 for any free one.
        grpc_port: port of gRPC; 0 for any free one.
        poll_seconds: between two polls for new versions; TF Serving's default is 1, too.
        page: whether to show the inspection page. None shows it if only this machine can reach the
            server and gradio is installed.
        allowed_hosts: further host names of the server, such as those of a proxy or a cluster. IP
            addresses, the machine's name and `host` need not be among them.
        token: token that REST, gRPC and page require; None for no authentication.
        tls: certificate and key for all three; None for plain connections.
        batching: settings of batching.
        limits: limits of requests.
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

    Args:
        folder: folder of the models.
        options: options; the defaults if not given.
        mount_page: adds the inspection page, see `tfgad.serving.app`; None for no page.

    Attributes:
        models: the models it serves.
        has_page: whether it shows the inspection page.
    """

    def __init__(
        self,
        folder: Path,
        options: ServerOptions | None = None,
        mount_page: MountPage | None = None,
    ):
        self._folder, self._options = folder, options or ServerOptions()
        self._mount_page = mount_page
        files, wanted = raise_open_files(), self._options.limits.max_connections
        most = max_connections(self._options.limits, files)
        if most < wanted:
            problem = "--max-connections %d: limited to %d, since %d files may be open; %s"
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
        """URL of the REST interface, such as `http://127.0.0.1:8501`."""
        scheme = "https" if self._options.tls else "http"
        return f"{scheme}://{address_of(self._options.host, self._bound_to()[1])}"

    @property
    def grpc_address(self) -> str:
        """Address of the gRPC interface, such as `127.0.0.1:8500`."""
        return address_of(self._options.host, self._grpc_port)

    @property
    def is_local(self) -> bool:
        """Whether only its own machine can reach it."""
        return is_loopback(self._bound_to()[0])

    @property
    def exposure(self) -> str | None:
        """One line on what other machines can reach; None if they can reach nothing."""
        if self.is_local:
            return None
        options = self._options
        parts = "REST, gRPC and page" if self.has_page else "REST and gRPC, not the page (--page)"
        missing = [
            each
            for each, given in (
                ("TLS (--tls-certificate, --tls-key)", options.tls),
                ("token (--token-file)", options.token),
            )
            if not given
        ]
        how = f", without {' and without '.join(missing)}" if missing else ", by TLS and token"
        return f"open to the network at {options.host}: {parts}{how}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Loads the models and starts to answer.

        Raises:
            UsageError: the folder holds no model that can be loaded; a port is taken; a token or
                certificate is invalid; the page was requested and gradio is not installed.
        """
        options = self._options
        if options.tls:
            options.tls.check()
        if options.token is not None:
            check_token("token", "...", options.token)
        self._socket = listen(options.host, options.rest_port)
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            app = rest.build(self._service)
            close_page = self._add_page(app)
            self._load()
            undo.callback(self.models.close)
            locks = [] if options.token is None else [grpc_access.TokenInterceptor(options.token)]
            self._grpc, self._health = grpc_service.build(self._service, locks)
            # The host name is resolved once, so that both interfaces listen at the same address.
            address = self._bound_to()[0]
            self._grpc_port = bind_grpc(self._grpc, address, options.grpc_port, options.tls)
            hosts = Hosts(options.host, self.is_local, options.allowed_hosts)
            gate = Gate(app, hosts, options.token)
            self._rest = RestThread(
                gate, self._service.limits, options.tls, self._connections, close_page
            )
            self._rest.start(self._socket)
            undo.pop_all()
        self._grpc.start()
        grpc_service.set_serving(self._health)
        self.models.watch(options.poll_seconds)
        if self.exposure:
            log.warning(self.exposure)

    def stop(self) -> None:
        """Refuses new requests, answers those in progress, and unloads the models.

        Streams that only keep the page open are ended at once.
        """
        seconds = self._options.limits.drain_timeout
        self._health.enter_graceful_shutdown()
        grpc_stopped = self._grpc.stop(seconds)
        self._rest.stop()
        grpc_stopped.wait()
        self.models.close()

    def wait(self) -> None:
        """Blocks until the process receives SIGTERM or SIGINT.

        A second signal ends the process as usual.
        """
        received = threading.Event()
        previous: dict[signal.Signals, Any] = {}

        def receive(number: int, frame: FrameType | None) -> None:
            received.set()
            for each, handler in previous.items():
                signal.signal(each, handler)

        for each in (signal.SIGTERM, signal.SIGINT):
            previous[each] = signal.signal(each, receive)
        # A wait without timeout cannot be interrupted on every platform.
        while not received.wait(1) and self._rest.is_alive:
            pass

    def _bound_to(self) -> tuple[str, int]:
        """Returns address and port of the REST interface."""
        if self._socket is None:
            raise RuntimeError("the server was not started")
        host, port, *_ = self._socket.getsockname()
        return host, port

    def _load(self) -> None:
        """Loads the models.

        Raises:
            UsageError: there is none that can be loaded.
        """
        folder = self._folder
        try:
            problem = (
                "" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
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

    def _add_page(self, app: Starlette) -> Callable[[], None] | None:
        """Adds the inspection page if the options ask for it; returns what `MountPage` returns.

        Raises:
            UsageError: it was requested explicitly and cannot be added.
        """
        wanted = self.is_local if self._options.page is None else self._options.page
        close_page = None
        if wanted and self._mount_page is not None:
            close_page = self._mount_page(app, self.models, self._service.limits)
        self.has_page = close_page is not None
        if self._options.page and not self.has_page:
            problem = "needs gradio, which is not installed"
            raise UsageError("--page", True, problem, "run: pip install 'tfgad[serve]'")
        return close_page
