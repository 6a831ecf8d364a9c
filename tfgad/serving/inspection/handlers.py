"""The event handlers of the inspection page."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import gradio

from tfgad.data.image_files import ImageError
from tfgad.errors import UsageError
from tfgad.inference.predictor import SavedModelPredictor
from tfgad.scores.verdicts import NOT_SCORED
from tfgad.serving.errors import ServingError
from tfgad.serving.inspection import viewer
from tfgad.serving.inspection.batch import Batch, Batches
from tfgad.serving.inspection.examples import Examples, examples_for
from tfgad.serving.inspection.layout import Layout
from tfgad.serving.inspection.sessions import Sessions
from tfgad.serving.inspection.thresholds import rate_at, threshold_at, thresholds_of
from tfgad.serving.inspection.uploads import Uploads

REMOVED = (
    "The pictures of these files were removed, since the server was busy. Score the files again to "
    "see them."
)

# New values of components.
Update = dict[Any, Any]


class Models(Protocol):
    """The models in service, as the page needs them."""

    def names(self) -> list[str]:
        """Returns the names of the models, in the order to list them in."""

    def predictor(self, name: str) -> SavedModelPredictor:
        """Returns a predictor of the version in service."""

    def drift(self, name: str) -> str:
        """Returns in words how the images of requests have drifted; empty if they have not."""


class Handlers:
    """The event handlers of one page; each returns the components that it changes.

    Args:
        layout: the components.
        models: the models in service.
        uploads: the visitors' files.
        sessions: the visitors' sessions; None if all results are read.
    """

    def __init__(
        self, layout: Layout, models: Models, uploads: Uploads, sessions: Sessions | None = None
    ):
        self.layout, self.models, self.uploads = layout, models, uploads
        self._sessions = sessions
        self._batches = Batches()
        self._examples = functools.cache(self._create_examples)

    def list_models(self, selected: str | None) -> Update:
        """Lists the models in service when the page is opened."""
        names = self.models.names()
        value = selected if selected in names else next(iter(names), None)
        return {
            self.layout.model: gradio.update(choices=names, value=value),
            self.layout.headline: viewer.no_result(bool(names)),
        }

    def show_model(self, model: str | None) -> Update:
        """Shows a model's metadata, false-positive rates and examples."""
        ui = self.layout
        if model is None:
            return {ui.metadata: ""}
        try:
            metadata = self._in_service(model).metadata
        except UsageError as error:  # not tfgad's model, or its metadata are missing
            return {
                ui.metadata: viewer.note(f"The model {error.problem}; {error.hint}."),
                ui.rate: gradio.update(interactive=False),
                ui.rate_line: "",
                ui.examples_note: "",
                ui.gallery: gradio.update(value=[]),
            }
        rates = list(thresholds_of(metadata))
        own = rates.index(metadata["false_positive_rate"]) if rates else 0
        maximum = max(len(rates) - 1, 1)
        examples = self._examples(model, _example_key(metadata))
        return {
            ui.metadata: viewer.model(metadata) + viewer.notice(self.models.drift(model)),
            ui.rate: gradio.update(maximum=maximum, value=own, interactive=bool(rates)),
            ui.rate_line: _rate_line(metadata, own, model),
            ui.examples_note: viewer.note(examples.note),
            ui.gallery: gradio.update(
                value=[(str(path), label) for path, label in examples.files], selected_index=None
            ),
        }

    def score(
        self,
        files: list[dict[str, Any]] | None,
        model: str | None,
        rate: int,
        request: gradio.Request | None = None,
    ) -> Iterator[Update]:
        """Scores files one after another; the first is shown as soon as it is scored.

        It ends if nobody reads the results, and frees the pictures then.

        Args:
            files: gradio's description of each file. Its `path` is checked again when it is read.
            model: name of the model.
            rate: position of the slider.
            request: the request of the visitor.
        """
        ui, visitor = self.layout, _visitor_of(request)
        paths = [str(each["path"]) for each in files or ()]
        self.uploads.claim(visitor, paths)
        if not paths or model is None or model not in self.models.names():
            self._batches.leave(visitor)
            yield self._cleared()
            return
        if not self._is_read(visitor):
            self._batches.leave(visitor)
            return
        try:
            batch = Batch(model, self._in_service(model), visitor, self.uploads.folder)
        except UsageError as error:
            self._batches.leave(visitor)
            reason = viewer.note(f"{model} {error.problem}; {error.hint}.")
            yield {**self._cleared(), ui.headline: reason}
            return
        batch.threshold = threshold_at(batch.metadata, rate)
        self._batches.start(batch)
        yield {**self._cleared(), ui.batch: batch, ui.headline: viewer.progress(len(paths))}
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
                yield {ui.reconstruction: self.reconstruct(batch)}
            else:
                yield self._table(batch, len(paths))
            if batch.stopped:
                break
        yield self._table(batch)

    def replace(self, batch: Batch | None) -> None:
        """Ends the scoring of a batch, since the visitor has given other files."""
        if batch is not None:
            batch.replaced = True

    def stop(self, batch: Batch | None) -> None:
        """Ends the scoring of a batch after the current image."""
        if batch is not None:
            batch.stopped = True

    def leave(self, request: gradio.Request) -> None:
        """Frees the data of a visitor who has closed or reloaded the page."""
        self._batches.leave(request.session_hash)
        self.uploads.leave(request.session_hash)

    def change_rate(self, batch: Batch | None, rate: int, model: str | None) -> Update:
        """Shows the verdicts at another false-positive rate."""
        if batch is None:
            if model is None:
                return {}
            metadata = self._in_service(model).metadata
            return {self.layout.rate_line: _rate_line(metadata, rate, model)}
        batch.threshold = threshold_at(batch.metadata, rate)
        line = {self.layout.rate_line: _rate_line(batch.metadata, rate, batch.model)}
        return {**line, **self._verdict(batch), **self._table(batch)} if len(batch) else line

    def select(self, batch: Batch | None, event: gradio.SelectData) -> Update:
        """Shows the image of the clicked row."""
        if batch is None:
            return {self.layout.reconstruction: ""}
        batch.shown = int(event.row_value[0]) - 1  # by its number, since the table may be sorted
        return {self.layout.reconstruction: "", **self._verdict(batch)}

    def reconstruct(self, batch: Batch | None) -> str:
        """Returns the reconstruction of the shown image, which takes as long as scoring it."""
        if batch is None or isinstance(batch.results[batch.shown], ImageError):
            return ""
        if not batch.reconstructs:
            method = batch.metadata.get("method", "This method")
            return viewer.note(f"{method} makes no reconstructions.")
        reconstruction = batch.reconstruction(batch.shown)
        self._batches.use(batch)
        return "" if reconstruction is None else viewer.reconstruction(reconstruction)

    def take_example(self, model: str, event: gradio.SelectData) -> Update:
        """Gives the clicked example as the file to score."""
        files = self._files_of_examples(model)
        return {
            self.layout.files: [files[event.index]],
            self.layout.gallery: gradio.update(selected_index=None),
        }

    def take_examples(self, model: str | None) -> list[str]:
        """Gives all examples as the files to score."""
        try:
            return self._files_of_examples(model) if model else []
        except UsageError:  # `show_model` has shown the reason
            return []

    def _is_read(self, visitor: str | None) -> bool:
        """Returns whether the visitor's results are read; waits a little for a slow connection."""
        return self._sessions is None or self._sessions.is_read(visitor or "")

    def _in_service(self, model: str) -> SavedModelPredictor:
        """Returns a predictor of a model.

        Raises:
            gradio.Error: it is not in service; the page shows the message.
            UsageError: it is no model of tfgad.
        """
        try:
            return self.models.predictor(model)
        except ServingError as error:
            raise gradio.Error(error.message, print_exception=False) from error

    def _create_examples(self, model: str, key: tuple) -> Examples:
        folder = tempfile.mkdtemp(prefix="examples-", dir=self.uploads.folder)
        return examples_for(dict(key), Path(folder))

    def _files_of_examples(self, model: str) -> list[str]:
        examples = self._examples(model, _example_key(self._in_service(model).metadata))
        return [str(path) for path, _ in examples.files]

    def _cleared(self) -> Update:
        return {
            self.layout.batch: None,
            self.layout.headline: viewer.no_result(has_models=True),
            self.layout.pictures: "",
            self.layout.reconstruction: "",
            self.layout.summary: "",
        }

    def _verdict(self, batch: Batch) -> Update:
        result = batch.verdicts[batch.shown]
        pictures = ""
        if not isinstance(result, ImageError):
            self._batches.use(batch)
            verdict = batch.with_pictures(batch.shown)
            pictures = viewer.note(REMOVED) if verdict is None else viewer.pictures(verdict)
        return {
            self.layout.headline: viewer.headline(result, batch.threshold, batch.metadata["scale"]),
            self.layout.pictures: pictures,
        }

    def _table(self, batch: Batch, expected: int = 0) -> Update:
        table = batch.rows()
        return {
            self.layout.summary: viewer.summary(table, max(expected, len(table)))
            + viewer.notice("" if expected else batch.drift()),
            self.layout.table: [_cells(number, row) for number, row in enumerate(table, start=1)],
            self.layout.csv: str(batch.write_csv()),
        }


def _visitor_of(request: gradio.Request | None) -> str | None:
    return None if request is None else request.session_hash


def _cells(number: int, row: dict[str, str]) -> list[Any]:
    """Returns a row of the page's table."""
    score, probability = None, ""
    if row["verdict"] != NOT_SCORED:
        score, probability = float(f"{float(row['score']):.4g}"), f"{float(row['probability']):.3f}"
    mark = viewer.mark(row["verdict"])
    return [number, row["image"], mark, score, probability, row["reason"]]


def _example_key(metadata: dict[str, Any]) -> tuple:
    """Returns the metadata that the examples depend on, in a hashable form."""
    return (("data", metadata.get("data")), ("image_shape", tuple(metadata["image_shape"])))


def _rate_line(metadata: dict[str, Any], position: int, model: str) -> str:
    rate = rate_at(metadata, position)
    if rate is None:
        return viewer.no_rates(model)
    is_own = rate == metadata["false_positive_rate"]
    return viewer.rate(rate, threshold_at(metadata, position), is_own)
