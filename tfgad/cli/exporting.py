"""`tfgad export`: a run's model as a SavedModel, as LiteRT or as ONNX."""

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
    ONNX = "onnx"


def export(
    run: RunFolder,
    directory: Annotated[
        Path,
        typer.Argument(
            help="Folder for the model's versions; for litert and onnx, for their files."
        ),
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="SavedModel for TensorFlow Serving, LiteRT for phones and boards, or ONNX."
        ),
    ] = ExportFormat.SAVED_MODEL,
    data: Annotated[
        str | None,
        typer.Option(
            help="For litert and onnx: images to compare scores on; by default the run's own."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The product, as the inspection page calls it; for savedmodel."),
    ] = None,
) -> None:
    """Write a run's model for other programs, with preprocessing and threshold.

    LiteRT and ONNX models take only images of the run's size. They are written only if their scores
    equal those of the run's model. A second LiteRT file holds the weights in 8 bits; the command
    prints how much its scores differ.
    """
    if format is not ExportFormat.SAVED_MODEL:
        if name is not None:
            problem = f"is not kept in {format.value} files"
            raise UsageError("--name", name, problem, "leave it out")
        _export_for_one_size(run, directory, data, format)
        return
    import_tensorflow()
    from tfgad import training
    from tfgad.export.saved_model import export_run

    with Progress() as progress:
        progress.phase("exporting")
        written = export_run(training.load_run(run), directory, name)
    console.say(str(written))


def _export_for_one_size(
    run: Path, directory: Path, spec: str | None, format: ExportFormat
) -> None:
    loaded, images = load_run_and_data(run, spec)
    from tfgad.export import litert, onnx

    with Progress() as progress:
        progress.phase("converting, and comparing scores")
        export_as = litert.export_litert if format is ExportFormat.LITERT else onnx.export_onnx
        variants = export_as(loaded, images, directory)
    unit = images.counted_unit
    for each in variants:
        line = (
            f"{directory / each.name}: {each.size / 1e6:.2f} MB, {each.milliseconds:.1f} ms per "
            f"image, scores differ by {each.largest_difference:.2g} at most"
        )
        if each.image_auroc is not None:
            line += f", {unit} AUROC {each.image_auroc:.3f} (loss {each.auroc_loss:.4f})"
        console.say(line)
