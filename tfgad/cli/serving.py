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
from tfgad.serving.server.limits import MEBI, Limits

# Beside TensorFlow; the inspection page alone needs gradio.
NEEDED = (
    "tensorflow_serving",
    "grpc_health",
    "starlette",
    "uvicorn",
    "orjson",
    "prometheus_client",
)
LIMITS = Limits()
MOST_MEBI = 2047  # gRPC counts the bytes of a message in 31 bits


def serve(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of exported models, or of one's versions.")
    ],
    rest_port: Annotated[
        int, typer.Option("--rest-port", "--port", help="Of REST and the page; 0 for a free one.")
    ] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Of gRPC; 0 for a free one.")] = 8500,
    host: Annotated[str, typer.Option(help="Address; 0.0.0.0 lets other machines in.")] = (
        "127.0.0.1"
    ),
    max_batch_size: Annotated[int, typer.Option(min=1, help="Images that share a run.")] = 32,
    max_batch_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels that share a run; more for an accelerator.")
    ] = 2**17,
    batch_timeout: Annotated[
        float, typer.Option(min=0, help="Milliseconds that an idle model waits for others.")
    ] = 0,
    no_batching: Annotated[
        bool, typer.Option("--no-batching", help="Give each request a run of its own.")
    ] = False,
    max_queue: Annotated[int, typer.Option(min=1, help="Images that wait for a run.")] = 1024,
    max_body: Annotated[int, typer.Option(min=1, max=MOST_MEBI, help="MiB of a request.")] = (
        LIMITS.max_body // MEBI
    ),
    max_bodies: Annotated[int, typer.Option(min=1, help="MiB of all requests at once.")] = (
        LIMITS.max_bodies // MEBI
    ),
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of an image, by REST and gRPC.")
    ] = LIMITS.max_pixels,
    max_images: Annotated[
        int, typer.Option(min=1, help="Images of --max-pixels that a request may amount to.")
    ] = LIMITS.max_images,
    max_files: Annotated[int, typer.Option(min=1, help="Image files of a request.")] = (
        LIMITS.max_files
    ),
    max_concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = (
        LIMITS.max_concurrency
    ),
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections of REST, and of gRPC.")
    ] = LIMITS.max_connections,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for an answer.")] = (
        LIMITS.request_timeout
    ),
    body_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for a body, beside those of its size.")
    ] = LIMITS.body_timeout,
    header_timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds for the head of a request.")
    ] = LIMITS.header_timeout,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for requests in progress at the end.")
    ] = LIMITS.drain_timeout,
    poll_seconds: Annotated[
        float, typer.Option(min=0.01, help="Between two looks for new versions.")
    ] = 1,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="The inspection page; by default not with a --host that lets others in.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name that callers know the server by; may be repeated."),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file, with --tls-key: TLS for REST, gRPC and page.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of a token that REST, gRPC and page ask for; else the variable TFGAD_TOKEN."
        ),
    ] = None,
) -> None:
    """Serve exported models as TF Serving does, by REST and gRPC."""
    _check_installed()
    import_tensorflow()
    from tfgad.serving.server.batching import Batching
    from tfgad.serving.server.server import Server, ServerOptions

    batching = Batching(
        max_batch_size=max_batch_size,
        max_cost=max_batch_pixels,
        timeout=batch_timeout / 1000,
        max_queue=max_queue,
        enabled=not no_batching,
        threads=os.cpu_count() if no_batching else 1,
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
    server = Server(folder, options)
    with Progress() as progress:
        progress.phase("loading the models")
        server.start()
    names = ", ".join(f"{name} {server.models.version(name)}" for name in server.models.names())
    also = ", page at the same address" if server.has_page else ""
    console.say(f"ready: {names}; REST {server.url}, gRPC {server.grpc_address}{also}")
    _ease_collection()
    server.wait()
    server.stop()
    console.say("stopped")


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """Returns certificate and key, of which there are both or none."""
    if certificate is None and key is None:
        return None
    if certificate is None:
        hint = "add --tls-certificate FILE"
        raise UsageError("--tls-key", key, "is of no use without a certificate", hint)
    if key is None:
        hint = "add --tls-key FILE"
        raise UsageError("--tls-certificate", certificate, "is of no use without its key", hint)
    return Tls(certificate, key)


def _ease_collection() -> None:
    """Lets Python's collector of cycles run seldom, and leave alone what was loaded.

    It runs while a large JSON becomes lists, which are no cycles: 64 tiles of 128x128 took 1.3 to
    2.7 s to parse as things are by default, 0.6 s without what was loaded, 0.25 s this way.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)


def _check_installed() -> None:
    """Raises UsageError if what the server needs is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"needs {', '.join(missing)}"
        raise UsageError("command", "serve", problem, "run: pip install 'tfgad[serve]'")
