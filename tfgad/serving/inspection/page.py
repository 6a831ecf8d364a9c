"""The inspection page: drop images, see verdicts, heat maps and reconstructions, in a browser.

Gradio's components in one page that needs nothing from the network: no fonts, no scripts, no
telemetry. `build` makes the page, `mount` puts it into a web application.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfgad.errors import UsageError

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
try:
    import gradio
except ImportError as error:
    problem = f"is not installed ({error})"
    raise UsageError("page", "gradio", problem, "run: pip install 'tfgad[serve]'") from error

from tfgad.data.image_files import ImageError
from tfgad.inference.predictor import SavedModelPredictor
from tfgad.inference.results import NOT_SCORED
from tfgad.serving.inspection import viewer
from tfgad.serving.inspection.inspection import Batch, Batches, Models, rows, thresholds_of
from tfgad.serving.inspection.page_examples import Examples, examples_for
from tfgad.serving.inspection.page_gate import MOST_STREAMS, PageGate, Sessions
from tfgad.serving.inspection.page_style import CSS, OPACITY
from tfgad.serving.inspection.uploads import Uploads
from tfgad.serving.server.errors import ServingError

TITLE = "tfgad inspection"
HEADERS = ["No.", "Image", "Verdict", "Score", "Probability", "Remark"]
TYPES = ["number", "str", "html", "number", "str", "str"]
WIDTHS = ["7%", "30%", "15%", "12%", "13%", "23%"]
JUDGING_AT_ONCE = 2  # visitors whose files are judged at the same time; others wait in line
MOST_WAITING = 256  # events in line; whose is one more is told to try again
GONE = "The server has given up the pictures of these files. Predictor them again to see them."

# The opacity is a variable of the style sheet, so that the browser alone changes it.
SET_OPACITY = "(v) => { document.documentElement.style.setProperty('--tfgad-heat', v / 100) }"


def mount(
    app,
    models: Models,
    path: str = "/inspect",
    uploads: Uploads | None = None,
    most_streams: int = MOST_STREAMS,
    sessions: Sessions | None = None,
):
    """Puts the page into a web application, in the page's own theme.

    Args:
        app: a FastAPI application.
        models: the models in service.
        path: where the page is to be.
        uploads: where visitors' files go; a new one with limits of its own, if not given.
        most_streams: see `PageGate`.
        sessions: who reads the results of events; a new one, if not given.

    Returns:
        The application.
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
        show_error=False,  # what a visitor may know of an error is a row of the table
    )
    # Gradio checks which files are named only in what it launches by itself.
    blocks.has_launched = True
    mounted = app.routes[-1]
    drop = functools.partial(_drop, blocks)
    mounted.app = PageGate(mounted.app, uploads, most_streams, sessions, drop)
    return app


def theme() -> gradio.themes.Base:
    """Returns gradio's plain theme, in fonts that are installed where the page is read."""
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
    """Returns the page for the models in service, which may change while it is open."""
    page = _Page(models, uploads or Uploads(), sessions)
    with gradio.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        page.lay_out()
        page.connect(blocks)
    return blocks.queue(default_concurrency_limit=JUDGING_AT_ONCE, max_size=MOST_WAITING)


async def _drop(blocks: gradio.Blocks, session: str, is_idle: bool) -> None:
    """Drops the events of a session that nobody reads, and their results.

    As gradio itself does for a reader who hangs up. It keeps the results of 2000 sessions; that of
    an event in line must never be pushed out, since gradio's line would end with a KeyError. Where
    another version of gradio keeps them elsewhere, they stay.

    Args:
        blocks: the page.
        session: whose events they are.
        is_idle: only if none of them is under way.
    """
    with contextlib.suppress(AttributeError):
        queue = blocks._queue
        if is_idle and queue.pending_event_ids_session.get(session):
            return
        await queue.clean_events(session_hash=session)  # first: none sends a message from now on
        queue.pending_messages_per_session.pop(session, None)
        queue.pending_event_ids_session.pop(session, None)


class _Page:
    """The components of the page, and what happens between them.

    What a handler returns is a dict of the components that it changes. The style sheet hides what
    there is no use for yet: opacity, stop and table.
    """

    def __init__(self, models: Models, uploads: Uploads, sessions: Sessions | None = None):
        self.models, self.uploads, self._sessions = models, uploads, sessions
        self._batches = Batches()
        self._examples = functools.cache(self._draw_examples)

    # Layout

    def lay_out(self) -> None:
        """Lays the components out: what is given on the left, what is found on the right."""
        self.batch = gradio.State(None)
        gradio.HTML(f"<style>{CSS}</style>", elem_id="tfgad-style")
        gradio.HTML(
            "<h1>Inspection</h1><p>Finds what does not belong, and shows where.</p>",
            elem_id="tfgad-title",
            elem_classes="tfgad",
        )
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                self._lay_out_input()
            with gradio.Column(scale=5, min_width=320):
                self._lay_out_result()

    def _lay_out_input(self) -> None:
        self.model = gradio.Dropdown([], label="Model", elem_id="tfgad-model")
        self.metadata = gradio.HTML()
        self.files = gradio.File(
            file_count="multiple", label="Images", height=170, elem_id="tfgad-files"
        )
        self.stop = gradio.Button("Stop", size="sm", variant="stop", elem_id="tfgad-stop")
        self.rate = gradio.Slider(
            0, 1, step=1, label="False-positive rate", elem_id="tfgad-rate", interactive=False
        )
        self.rate_line = gradio.HTML(elem_id="tfgad-rate-line")
        self.examples_note = gradio.HTML()
        self.gallery = gradio.Gallery(
            show_label=False,
            columns=4,
            height="auto",
            allow_preview=False,
            interactive=False,
            buttons=[],
            object_fit="contain",
            elem_id="tfgad-examples",
        )
        self.all_examples = gradio.Button("Predictor all examples", size="sm")

    def _lay_out_result(self) -> None:
        self.headline = gradio.HTML(viewer.nothing_yet(True), elem_id="tfgad-headline")
        with gradio.Row(equal_height=False, elem_id="tfgad-shown"):
            self.pictures = gradio.HTML(elem_id="tfgad-pictures", min_width=300)
            self.rebuilt = gradio.HTML(elem_id="tfgad-rebuilt", min_width=300)
        self.opacity = gradio.Slider(
            0,
            100,
            OPACITY,
            step=1,
            label="Opacity of the heat map, %",
            elem_id="tfgad-opacity",
        )
        with gradio.Column(elem_id="tfgad-batch"):
            with gradio.Row():
                self.summary = gradio.HTML(elem_id="tfgad-summary", min_width=200)
                self.csv = gradio.DownloadButton(
                    "Download CSV", size="sm", min_width=150, elem_id="tfgad-csv"
                )
            self.table = gradio.Dataframe(
                headers=HEADERS,
                datatype=TYPES,
                column_widths=WIDTHS,
                interactive=False,
                show_label=False,
                max_height=360,
                buttons=[],
                wrap=True,
                elem_id="tfgad-table",
            )

    # What happens

    def connect(self, blocks: gradio.Blocks) -> None:
        """Says which component's event calls which handler."""
        verdict = [self.headline, self.pictures]
        table = [self.summary, self.table, self.csv]
        of_model = [self.metadata, self.rate, self.rate_line, self.examples_note, self.gallery]
        rebuilt = {"fn": self.reconstruct, "inputs": self.batch, "outputs": self.rebuilt}
        quiet = {"show_progress": "hidden", "api_visibility": "private"}

        opened = blocks.load(self.list_models, self.model, [self.model, self.headline], **quiet)
        chosen = self.model.input(self.replace, self.batch, None, **quiet)
        opened.then(self.show_model, self.model, of_model, **quiet)
        changed = chosen.then(self.show_model, self.model, of_model, **quiet)
        dropped = self.files.change(self.replace, self.batch, None, **quiet)
        for trigger in (changed, dropped):
            trigger.then(
                self.judge,
                [self.files, self.model, self.rate],
                [self.batch, self.rebuilt, *verdict, *table],
                trigger_mode="multiple",  # the one before ends by itself: it was replaced
                preprocess=False,  # gradio would leave an empty file on the disk for each
                **quiet,
            )
        self.stop.click(self.stop_judging, self.batch, None, **quiet)
        self.table.select(self.choose, self.batch, [self.rebuilt, *verdict], **quiet).then(
            **rebuilt, **quiet
        )
        self.rate.input(
            self.change_rate,
            [self.batch, self.rate, self.model],
            [self.rate_line, *verdict, *table],
            trigger_mode="always_last",
            **quiet,
        )
        self.opacity.input(None, self.opacity, js=SET_OPACITY, **quiet)
        self.gallery.select(self.take_example, self.model, [self.files, self.gallery], **quiet)
        self.all_examples.click(self.take_examples, self.model, self.files, **quiet)
        # Gradio keeps the state of who has left for an hour; what is large in it goes at once.
        blocks.unload(self.leave)

    def list_models(self, chosen: str | None) -> dict:
        """Offers the models that are in service as the page is opened."""
        names = self.models.names()
        value = chosen if chosen in names else next(iter(names), None)
        return {
            self.model: gradio.update(choices=names, value=value),
            self.headline: viewer.nothing_yet(bool(names)),
        }

    def show_model(self, model: str | None) -> dict:
        """Says what a model is, and offers its false-positive rates and its examples."""
        if model is None:
            return {self.metadata: ""}
        try:
            metadata = self._in_service(model).metadata
        except UsageError as error:  # another program's, or its metadata are lost
            return {
                self.metadata: viewer.note(f"The model {error.problem}; {error.hint}."),
                self.rate: gradio.update(interactive=False),
                self.rate_line: "",
                self.examples_note: "",
                self.gallery: gradio.update(value=[]),
            }
        rates = list(thresholds_of(metadata))
        own = rates.index(metadata["false_positive_rate"]) if rates else 0
        slider = {"maximum": max(len(rates) - 1, 1), "value": own, "interactive": bool(rates)}
        examples = self._examples(model, _kind(metadata))
        return {
            self.metadata: viewer.model_facts(metadata),
            self.rate: gradio.update(**slider),
            self.rate_line: _rate_line(metadata, own, model),
            self.examples_note: viewer.note(examples.note),
            self.gallery: gradio.update(
                value=[(str(path), label) for path, label in examples.files], selected_index=None
            ),
        }

    def judge(
        self,
        files: list[dict[str, Any]] | None,
        model: str | None,
        rate: int,
        request: gradio.Request | None = None,
    ) -> Iterator[dict]:
        """Judges the files one after another, and shows the first as soon as it is judged.

        It ends where nobody reads what it shows, and leaves no pictures then.

        Args:
            files: what gradio says of each; its `path` is checked once more as it is read.
            model: its name.
            rate: the place of the slider.
            request: whose files they are.
        """
        visitor = request and request.session_hash
        paths = [str(each["path"]) for each in files or ()]
        self.uploads.claim(visitor, paths)
        if not paths or model not in self.models.names():
            self._batches.leave(visitor)
            yield self._nothing()
            return
        if not self._is_read(visitor):
            self._batches.leave(visitor)
            return
        try:
            batch = Batch(model, self._in_service(model), visitor, self.uploads.folder)
        except UsageError as error:
            self._batches.leave(visitor)
            reason = viewer.note(f"{model} {error.problem}; {error.hint}.")
            yield {**self._nothing(), self.headline: reason}
            return
        batch.threshold = _threshold(batch.metadata, rate)
        self._batches.start(batch)
        yield {
            **self._nothing(),
            self.batch: batch,
            self.headline: viewer.waiting(len(paths)),
        }
        for path in paths:
            batch.add(Path(path))
            self._batches.use(batch)
            if batch.replaced:
                return
            if not self._is_read(visitor):
                self._batches.leave(visitor)
                return
            if len(batch) == 1:
                yield {**self._verdict(batch), **self._table(batch, len(paths))}
                yield {self.rebuilt: self.reconstruct(batch)}
            else:
                yield self._table(batch, len(paths))
            if batch.stopped:
                break
        yield self._table(batch)

    def replace(self, batch: Batch | None) -> None:
        """Lets a batch that is still being judged end unseen, since other images are given."""
        if batch is not None:
            batch.replaced = True

    def stop_judging(self, batch: Batch | None) -> None:
        """Lets a batch end with the image that is being judged."""
        if batch is not None:
            batch.stopped = True

    def leave(self, request: gradio.Request) -> None:
        """Frees what is kept of a visitor who has closed or reloaded the page."""
        self._batches.leave(request.session_hash)
        self.uploads.leave(request.session_hash)

    def change_rate(self, batch: Batch | None, rate: int, model: str | None) -> dict:
        """Shows the verdicts at another false-positive rate."""
        if batch is None:
            metadata = self._in_service(model).metadata if model else None
            return {self.rate_line: _rate_line(metadata, rate, model)} if metadata else {}
        batch.threshold = _threshold(batch.metadata, rate)
        line = {self.rate_line: _rate_line(batch.metadata, rate, batch.model)}
        return {**line, **self._verdict(batch), **self._table(batch)} if len(batch) else line

    def choose(self, batch: Batch | None, event: gradio.SelectData) -> dict:
        """Shows the image of the row that was clicked."""
        if batch is None:
            return {self.rebuilt: ""}
        batch.shown = int(event.row_value[0]) - 1  # not its place: the table can be sorted
        return {self.rebuilt: "", **self._verdict(batch)}

    def reconstruct(self, batch: Batch | None) -> str:
        """Shows what the model makes of the image, which takes as long as judging it."""
        if batch is None or isinstance(batch.results[batch.shown], ImageError):
            return ""
        if not batch.reconstructs:
            method = batch.metadata.get("method", "This method")
            return viewer.note(f"{method} reconstructs nothing.")
        rebuilt = batch.reconstruction(batch.shown)
        self._batches.use(batch)
        return "" if rebuilt is None else viewer.reconstruction(rebuilt)

    def take_example(self, model: str, event: gradio.SelectData) -> dict:
        """Takes the example that was clicked for the images to judge."""
        files = self._files_of_examples(model)
        return {
            self.files: [files[event.index]],
            self.gallery: gradio.update(selected_index=None),
        }

    def take_examples(self, model: str | None) -> list[str]:
        """Takes all examples."""
        try:
            return self._files_of_examples(model) if model else []
        except UsageError:  # `show_model` has said why
            return []

    # Parts

    def _is_read(self, visitor: str | None) -> bool:
        """Returns whether a visitor reads what is shown; waits for a slow one a little."""
        return self._sessions is None or self._sessions.is_read(visitor or "")

    def _in_service(self, model: str) -> SavedModelPredictor:
        """Returns a model's version in service; that there is none is told, not its traceback."""
        try:
            return self.models.judge(model)
        except ServingError as error:
            raise gradio.Error(error.message, print_exception=False) from error

    def _draw_examples(self, model: str, kind: tuple) -> Examples:
        folder = tempfile.mkdtemp(prefix="examples-", dir=self.uploads.folder)
        return examples_for(dict(kind), Path(folder))

    def _files_of_examples(self, model: str) -> list[str]:
        examples = self._examples(model, _kind(self._in_service(model).metadata))
        return [str(path) for path, _ in examples.files]

    def _nothing(self) -> dict:
        return {
            self.batch: None,
            self.headline: viewer.nothing_yet(True),
            self.pictures: "",
            self.rebuilt: "",
            self.summary: "",
        }

    def _verdict(self, batch: Batch) -> dict:
        result = batch.verdicts[batch.shown]
        return {
            self.headline: viewer.headline(result, batch.threshold, batch.metadata["scale"]),
            self.pictures: "" if isinstance(result, ImageError) else self._pictures(batch),
        }

    def _pictures(self, batch: Batch) -> str:
        self._batches.use(batch)
        verdict = batch.with_pictures(batch.shown)
        return viewer.note(GONE) if verdict is None else viewer.pictures(verdict)

    def _table(self, batch: Batch, expected: int = 0) -> dict:
        judged = rows(batch.verdicts)
        return {
            self.summary: viewer.summary(judged, max(expected, len(judged))),
            self.table: [_cells(number, row) for number, row in enumerate(judged, start=1)],
            self.csv: str(batch.write_csv()),
        }


def _cells(number: int, row: dict[str, str]) -> list[Any]:
    """Returns a row as the page's table shows it."""
    if row["verdict"] == NOT_SCORED:
        numbers = [None, ""]
    else:
        numbers = [float(f"{float(row['score']):.4g}"), f"{float(row['probability']):.3f}"]
    return [number, row["image"], viewer.mark(row["verdict"]), *numbers, row["reason"]]


def _kind(metadata: dict[str, Any]) -> tuple:
    """Returns what the examples depend on, in a form to remember them by."""
    return (("data", metadata.get("data")), ("image_shape", tuple(metadata["image_shape"])))


def _threshold(metadata: dict[str, Any], rate: int) -> float:
    """Returns the threshold at the slider's place, or the model's own if it has no other."""
    thresholds = list(thresholds_of(metadata).values()) or [metadata["threshold"]]
    return thresholds[_place(rate, thresholds)]


def _rate_line(metadata: dict[str, Any], rate: int, model: str) -> str:
    rates = list(thresholds_of(metadata))
    if not rates:
        return viewer.no_rates(model)
    chosen = rates[_place(rate, rates)]
    is_own = chosen == metadata["false_positive_rate"]
    return viewer.rate_line(chosen, _threshold(metadata, rate), is_own)


def _place(rate: int, values: list[float]) -> int:
    """Returns the place of the slider among as many values as the model has."""
    return max(0, min(int(rate), len(values) - 1))
