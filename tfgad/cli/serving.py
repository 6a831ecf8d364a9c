"""`tfgad serve`: exported models behind TF Serving's interface."""

from __future__ import annotations

import gc
import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from tfgad.cli import console
from tfgad.cli.progress import Progress
from tfgad.errors import UsageError
from tfgad.quiet import import_tensorflow
from tfgad.serving.credentials import Tls, read_token
from tfgad.serving.file_cost import MEBI
from tfgad.serving.server.limits import Limits

# Packages that a server needs, besides TensorFlow. Only the inspection page needs gradio.
REQUIRED = (
    "tensorflow_serving",
    "grpc_health",
    "starlette",
    "uvicorn",
    "orjson",
    "prometheus_client",
)
LIMITS = Limits()
MAX_MEBI = 2047  # gRPC counts the bytes of a message in 31 bits


def serve(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of exported models, or of one model."),
    ],
    rest_port: Annotated[
        int,
        typer.Option("--rest-port", "--port", help="REST and page; 0 for a free port."),
    ] = 8501,
    grpc_port: Annotated[int, typer.Option(help="gRPC; 0 for a free port.")] = 8500,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all networks.")] = (
        "127.0.0.1"
    ),
    max_batch_size: Annotated[int, typer.Option(min=1, help="Images of a batch.")] = 32,
    max_batch_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of a batch; more for an accelerator.")
    ] = 2**17,
    batch_timeout: Annotated[
        float, typer.Option(min=0, help="Milliseconds that an idle model waits for a batch.")
    ] = 0,
    no_batching: Annotated[
        bool, typer.Option("--no-batching", help="Run each request alone.")
    ] = False,
    max_queue: Annotated[int, typer.Option(min=1, help="Images in the queue of a model.")] = 1024,
    max_body: Annotated[int, typer.Option(min=1, max=MAX_MEBI, help="MiB of a request's body.")] = (
        LIMITS.max_body // MEBI
    ),
    max_bodies: Annotated[int, typer.Option(min=1, help="MiB of all bodies in progress.")] = (
        LIMITS.max_bodies // MEBI
    ),
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of an image, by REST and gRPC.")
    ] = LIMITS.max_pixels,
    max_images: Annotated[
        int, typer.Option(min=1, help="A request may have this many times --max-pixels.")
    ] = LIMITS.max_images,
    max_files: Annotated[int, typer.Option(min=1, help="Images of a request.")] = (
        LIMITS.max_files
    ),
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests in progress.")] = (
        LIMITS.max_concurrency
    ),
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections of REST, and of gRPC.")
    ] = LIMITS.max_connections,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for an answer.")] = (
        LIMITS.request_timeout
    ),
    body_timeout: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds for a body, and 1 more per 64 KiB."),
    ] = LIMITS.body_timeout,
    header_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for the head of a request.")
    ] = LIMITS.header_timeout,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for requests in progress after SIGTERM.")
    ] = LIMITS.drain_timeout,
    poll_seconds: Annotated[
        float, typer.Option(min=0.01, help="Seconds between two polls for new versions.")
    ] = 1,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="Show the inspection page; by default only if --host is local.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A further host name of the server; may be repeated."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file, with --tls-key: TLS for REST, gRPC and page.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of a token that REST, gRPC and page require; else the variable TFGAD_TOKEN."
        ),
    ] = None,
) -> None:
    """Serve exported models as TF Serving does, by REST and gRPC."""
    _check_installed()
    import_tensorflow()
    from tfgad.serving.app import build_server
    from tfgad.serving.server.batching import Batching
    from tfgad.serving.server.server import ServerOptions

    batching = Batching(
        max_batch_size=max_batch_size,
        max_cost=max_batch_pixels,
        timeout=batch_timeout / 1000,
        max_queue=max_queue,
        enabled=not no_batching,
        threads=(os.cpu_count() or 1) if no_batching else 1,
    )
    limits = Limits(
        max_body=max_body * MEBI,
        max_bodies=max_bodies * MEBI,
        max_pixels=max_pixels,
        max_images=max_images,
        max_files=max_files,
        max_concurrency=max_concurrency,
        max_connections=max_connections,
        request_timeout=timeout,
        body_timeout=body_timeout,
        header_timeout=header_timeout,
        drain_timeout=drain_timeout,
    )
    options = ServerOptions(
        host=host,
        rest_port=rest_port,
        grpc_port=grpc_port,
        poll_seconds=poll_seconds,
        page=page,
        allowed_hosts=tuple(allowed_host or ()),
        token=read_token(token_file),
        tls=_tls(tls_certificate, tls_key),
        batching=batching,
        limits=limits,
    )
    server = build_server(folder, options)
    with Progress() as progress:
        progress.phase("loading the models")
        server.start()
    names = ", ".join(f"{name} {server.models.version(name)}" for name in server.models.names())
    also = ", page at the same address" if server.has_page else ""
    console.say(f"ready: {names}; REST {server.url}, gRPC {server.grpc_address}{also}")
    _relax_collection()
    server.wait()
    server.stop()
    console.say("stopped")


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """Returns certificate and key; None if neither is given.

    Raises:
        UsageError: only one of them is given.
    """
    if certificate is None and key is None:
        return None
    if certificate is None:
        hint = "add --tls-certificate FILE"
        raise UsageError("--tls-key", key, "needs a certificate", hint)
    if key is None:
        hint = "add --tls-key FILE"
        raise UsageError("--tls-certificate", certificate, "needs a key", hint)
    return Tls(certificate, key)


def _relax_collection() -> None:
    """Excludes the loaded objects from garbage collection, and makes it less frequent.

    Otherwise it runs while a large JSON body is parsed to lists, which have no cycles. 64 tiles of
    128x128 took 1.3 to 2.7 s to parse by default, 0.6 s with the loaded objects excluded, 0.25 s
    with both.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def _check_installed() -> None:
    """Raises UsageError if what the server needs is not installed."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"needs {', '.join(missing)}"
        raise UsageError("command", "serve", problem, "run: pip install 'tfgad[serve]'")
