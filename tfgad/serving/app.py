"""The whole application of `tfgad serve`: a server, with the inspection page if possible."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette

from tfgad.serving.server.limits import Limits
from tfgad.serving.server.repository import Repository
from tfgad.serving.server.server import Server, ServerOptions

PAGE_PATH = "/"

log = logging.getLogger(__name__)


def build_server(folder: Path, options: ServerOptions | None = None) -> Server:
    """Returns a server that also shows the inspection page, if its options ask for it.

    Args:
        folder: folder of the models.
        options: options of the server; the defaults if not given.
    """
    return Server(folder, options, mount_page)


def mount_page(app: Starlette, models: Repository, limits: Limits) -> Callable[[], None] | None:
    """Adds the inspection page to an application, at `PAGE_PATH`, if gradio is installed.

    Args:
        app: the application.
        models: the models in service.
        limits: limits of the server. Streams of the page take at most half of its connections.

    Returns:
        A function that ends the page's streams, see `PageGate.close_streams`; None if the page was
        not added.
    """
    if importlib.util.find_spec("gradio") is None:
        log.info("no inspection page: it needs pip install 'tfgad[serve]'")
        return None
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no telemetry
    from tfgad.serving.inspection import page  # imports gradio
    from tfgad.serving.inspection.uploads import UploadLimits, Uploads

    uploads = Uploads(UploadLimits(timeout=limits.body_timeout))
    streams = max(1, limits.max_connections // 2)
    return page.mount(app, models, PAGE_PATH, uploads, streams).close_streams
