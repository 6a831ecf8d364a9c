"""`tfgad export`: a run's model as a SavedModel or in LiteRT's format."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from tfgad.cli import console
from tfgad.cli.arguments import RunFolder
from tfgad.cli.loading import load_run_and_data
from tfgad.cli.progress import Progress
from tfgad.errors import UsageError
from tfgad.quiet import import_tensorflow


class ExportFormat(str, enum.Enum):
    """File formats of `export`."""

    SAVED_MODEL = "savedmodel"
    LITERT = "litert"


def export(
    run: RunFolder,
    directory: Annotated[
        Path, typer.Argument(help="Folder for the model's versions; for litert, for its files.")
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(help="SavedModel for TensorFlow Serving, or LiteRT for phones and boards."),
    ] = ExportFormat.SAVED_MODEL,
    data: Annotated[
        str | None,
        typer.Option(help="For litert: images to compare scores on; by default the run's own."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The product, as the inspection page calls it; for savedmodel."),
    ] = None,
) -> None:
    """Write a run's model for other programs, with preprocessing and threshold.

    A LiteRT model takes only images of the run's size. It is written only if its scores equal
    those of the run's model. A second file holds the weights in 8 bits; the command prints how
    much its scores differ.
    """
    if format is ExportFormat.LITERT:
        if name is not None:
            raise UsageError("--name", name, "is not kept in LiteRT files", "leave it out")
        _export_litert(run, directory, data)
        return
    import_tensorflow()
    from tfgad import training
    from tfgad.export.saved_model import export_run

    with Progress() as progress:
        progress.phase("exporting")
        written = export_run(training.load_run(run), directory, name)
    console.say(str(written))


def _export_litert(run: Path, directory: Path, spec: str | None) -> None:
    loaded, images = load_run_and_data(run, spec)
    from tfgad.export import litert

    with Progress() as progress:
        progress.phase("converting, and comparing scores")
        variants = litert.export_litert(loaded, images, directory)
    unit = images.counted_unit
    for each in variants:
        line = (
            f"{directory / each.name}: {each.size / 1e6:.2f} MB, {each.milliseconds:.1f} ms per "
            f"image, scores differ by {each.largest_difference:.2g} at most"
        )
        if each.image_auroc is not None:
            line += f", {unit} AUROC {each.image_auroc:.3f} (loss {each.auroc_loss:.4f})"
        console.say(line)
