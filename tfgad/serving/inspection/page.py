"""The inspection page: upload images, see verdicts, heat maps and reconstructions in a browser.

It is one page of gradio's components that needs nothing from the network: no fonts, no scripts, no
telemetry. `build` creates the page, `mount` adds it to a web application.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from tfgad.errors import UsageError

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
try:
    import gradio
except ImportError as error:
    problem = f"is not installed ({error})"
    raise UsageError("page", "gradio", problem, "run: pip install 'tfgad[serve]'") from error

from tfgad.serving.inspection import assets
from tfgad.serving.inspection.gate import MAX_STREAMS, PageGate
from tfgad.serving.inspection.handlers import Handlers, Models
from tfgad.serving.inspection.layout import Layout
from tfgad.serving.inspection.sessions import Sessions
from tfgad.serving.inspection.uploads import Uploads

TITLE = "tfgad inspection"
MAX_SCORING = 2  # visitors whose files are scored at the same time; others wait in a queue
MAX_WAITING = 256  # queued events; further ones are refused


def mount(
    app: Starlette,
    models: Models,
    path: str = "/inspect",
    uploads: Uploads | None = None,
    max_streams: int = MAX_STREAMS,
    sessions: Sessions | None = None,
) -> PageGate:
    """Adds the page to a web application.

    Args:
        app: the application.
        models: the models in service.
        path: path of the page.
        uploads: the visitors' files; by default new ones with limits of their own.
        max_streams: limit of open streams; see `PageGate`.
        sessions: the visitors' sessions; new ones if not given.

    Returns:
        What answers at the path.
    """
    uploads, sessions = uploads or Uploads(), sessions or Sessions()
    blocks = build(models, uploads, sessions)
    gradio.mount_gradio_app(
        app,
        blocks,
        path,
        theme=theme(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,  # the table shows the errors that concern the visitor
    )
    # Gradio checks the files that events name only in apps that it has launched itself.
    blocks.has_launched = True
    mounted = app.routes[-1]
    if not isinstance(mounted, Mount):
        raise RuntimeError("gradio has not mounted its application")
    drop = functools.partial(_drop, blocks)
    running = functools.partial(_is_running, blocks)
    mounted.app = gate = PageGate(mounted.app, uploads, max_streams, sessions, drop, running)
    return gate


def theme() -> gradio.themes.Base:
    """Returns gradio's default theme in fonts that are installed on the visitor's machine."""
    names = ("Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif")
    sans, mono = [gradio.themes.Font(name) for name in names], gradio.themes.Font("monospace")
    return gradio.themes.Default(
        primary_hue="sky", neutral_hue="slate", radius_size="md", font=sans, font_mono=mono
    ).set(
        layout_gap="10px",
        body_text_color_subdued="*neutral_500",  # 4.8 to 1 on white; gradio's own has 2.6
    )


def build(
    models: Models, uploads: Uploads | None = None, sessions: Sessions | None = None
) -> gradio.Blocks:
    """Returns the page.

    Args:
        models: the models in service, which may change while the page is open.
        uploads: the visitors' files; by default new ones with limits of their own.
        sessions: the visitors' sessions; None if all results are read.
    """
    with gradio.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        layout = Layout()
        connect(blocks, layout, Handlers(layout, models, uploads or Uploads(), sessions))
    return blocks.queue(default_concurrency_limit=MAX_SCORING, max_size=MAX_WAITING)


def connect(blocks: gradio.Blocks, ui: Layout, handlers: Handlers) -> None:
    """Connects the events of the components with their handlers."""
    verdict = [ui.headline, ui.pictures]
    table = [ui.summary, ui.table, ui.csv]
    model = [ui.metadata, ui.rate, ui.rate_line, ui.examples_note, ui.gallery]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    opened = blocks.load(handlers.list_models, ui.model, [ui.model, ui.headline], **quiet)
    opened.then(handlers.show_model, ui.model, model, **quiet)
    selected = ui.model.input(handlers.replace, ui.batch, None, **quiet)
    changed = selected.then(handlers.show_model, ui.model, model, **quiet)
    uploaded = ui.files.change(handlers.replace, ui.batch, None, **quiet)
    for trigger in (changed, uploaded):
        trigger.then(
            handlers.score,
            [ui.files, ui.model, ui.rate],
            [ui.batch, ui.reconstruction, *verdict, *table],
            trigger_mode="multiple",  # `replace` ends the previous one
            preprocess=False,  # gradio would create an empty file for each image
            **quiet,
        )
    ui.stop.click(handlers.stop, ui.batch, None, **quiet)
    shown = ui.table.select(handlers.select, ui.batch, [ui.reconstruction, *verdict], **quiet)
    shown.then(handlers.reconstruct, ui.batch, ui.reconstruction, **quiet)
    ui.rate.input(
        handlers.change_rate,
        [ui.batch, ui.rate, ui.model],
        [ui.rate_line, *verdict, *table],
        trigger_mode="always_last",
        **quiet,
    )
    # The opacity is a variable of the style sheet, which the browser changes by itself.
    ui.opacity.input(None, ui.opacity, js=assets.read("opacity.js"), **quiet)
    ui.gallery.select(handlers.take_example, ui.model, [ui.files, ui.gallery], **quiet)
    ui.all_examples.click(handlers.take_examples, ui.model, ui.files, **quiet)
    # Gradio keeps the state of a visitor who has left for an hour; this frees what is large in it.
    blocks.unload(handlers.leave)


async def _drop(blocks: gradio.Blocks, session: str, only_if_idle: bool) -> None:
    """Drops the events of a session that nobody reads, and their results.

    Gradio itself does so when a visitor disconnects. It keeps the results of the last 2000
    sessions, and its queue ends with a KeyError if those of a queued event are no longer there. If
    another version of gradio keeps them elsewhere, nothing is dropped.

    Args:
        blocks: the page.
        session: the session.
        only_if_idle: whether to do nothing if one of its events is running.
    """
    with contextlib.suppress(AttributeError):
        queue = blocks._queue
        if only_if_idle and queue.pending_event_ids_session.get(session):
            return
        await queue.clean_events(session_hash=session)  # first, so that no event sends a message
        queue.pending_messages_per_session.pop(session, None)
        queue.pending_event_ids_session.pop(session, None)


def _is_running(blocks: gradio.Blocks, session: str) -> bool:
    """Returns whether an event of a session is queued or running; True if gradio does not tell."""
    try:
        return bool(blocks._queue.pending_event_ids_session.get(session))
    except AttributeError:  # another version of gradio keeps them elsewhere
        return True
