"""`tfgad score`: images of any size, here or with Apache Beam."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tfgad.cli import console
from tfgad.cli.arguments import Depth, MaxPixels
from tfgad.cli.own_masks import masks_of
from tfgad.cli.progress import Progress
from tfgad.cli.score_report import Tables, report, say_counts, say_hints, say_small
from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.quiet import import_tensorflow

WARNED = 20  # broken files of a Beam job that are named one by one; the dead letters list them all


class Runner(str, enum.Enum):
    """Beam runners of `score`."""

    DIRECT = "DirectRunner"
    FLINK = "FlinkRunner"
    SPARK = "SparkRunner"
    DATAFLOW = "DataflowRunner"
    DASK = "DaskRunner"


def score(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a run or of an exported model.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files or folders; with --runner also patterns."),
    ],
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Table to write; with --runner .csv or .parquet."),
    ] = None,
    maps: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for a heat map of each image.")
    ] = None,
    raw_maps: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for the values of each map, as float32 TIFF."),
    ] = None,
    min_area: Annotated[
        int,
        typer.Option(min=1, help="Pixels of the smallest region to list; no verdict changes."),
    ] = 1,
    mm_per_pixel: Annotated[
        float | None, typer.Option(help="Side of a pixel in mm: lists areas in mm², too.")
    ] = None,
    runner: Annotated[
        Runner | None,
        typer.Option(help="Score with Apache Beam; MODEL must then be an exported model."),
    ] = None,
    runner_options: Annotated[
        list[str] | None,
        typer.Option(
            "--runner-option",
            metavar="NAME=VALUE",
            help="An option of Beam's, such as direct_num_workers=4.",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of masks, NAME.png of NAME.png: white is ignored."
        ),
    ] = None,
    product: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Product of all images; by default it is recognised."),
    ] = None,
    depth: Depth = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Score images of any size; files that cannot be read are reported and skipped.

    Beside the table NAME.csv, NAME.defects.csv lists the regions of each image's
    map above the threshold: box, area, peak, mean and centroid, in pixels of the
    image. The verdict is that of the score, whatever regions --min-area leaves
    out: the false-positive rate was set for scores.

    With --mask the white pixels of an image's mask are ignored in this image;
    one without a mask is scored whole. The masks themselves are not scored.

    With --runner Apache Beam scores them, on this machine or on a cluster. Model,
    images, table and maps may then be remote. Files that cannot be scored are
    listed in NAME.dead_letters.csv beside the table.
    """
    if mm_per_pixel is not None:
        if not 0 < mm_per_pixel < float("inf"):
            problem = "is no length above 0"
            raise UsageError("--mm-per-pixel", mm_per_pixel, problem, "give millimetres")
        if csv is None:
            hint = "add --csv FILE"
            raise UsageError("--mm-per-pixel", mm_per_pixel, "needs a table to write", hint)
    reading = {"depth": depth, "max_pixels": max_pixels}
    output = results.Output(csv, maps, raw_maps, min_area, mm_per_pixel)
    if runner and mask:
        raise UsageError("--mask", mask, "cannot go with --runner", "score without a runner")
    if runner:
        _score_with_beam(model, images, output, runner, runner_options or [], reading, product)
    elif runner_options:
        raise UsageError("--runner-option", runner_options[0], "needs a runner", "add --runner")
    else:
        _score(Path(model), [Path(image) for image in images], output, reading, mask, product)


def _score(
    model: Path,
    images: list[Path],
    output: results.Output,
    reading: dict[str, Any],
    mask: Path | None,
    product: str | None = None,
) -> None:
    """Scores files one after another; see `score`."""
    paths = results.find_images(images, [mask] if mask else [])
    for argument, folder in (("maps", output.maps), ("raw-maps", output.raw_maps)):
        if folder:
            results.check_outside(argument, Path(folder), images)
    if mask:
        reading = {**reading, "masks": masks_of(mask, images, paths)}
    if output.table:
        results.check_writable("csv", Path(output.table))
        results.check_writable("csv", Path(results.regions_path(output.table)))
    map_paths = _map_paths("maps", output.maps, paths, ".png")
    raw_paths = _map_paths("raw-maps", output.raw_maps, paths, ".tiff")
    import_tensorflow()
    from tfgad.inference import predictor, scoring

    tables = Tables(output)
    broken, scored = [], []
    with Progress() as progress:
        progress.phase("loading the model")
        loaded = predictor.load_predictor(model, product)
        if mask and loaded.products:
            hint = "score with a model of one product"
            raise UsageError("--mask", mask, "does not go with a model of several products", hint)
        tables.products = loaded.products
        progress.phase("scoring", len(paths))
        try:
            for result in scoring.score_files(loaded, paths, **reading):
                if isinstance(result, ImageError):
                    tables.images.append(results.row(result))
                    broken.append(result)
                else:
                    tables.add_verdict(result, scoring.regions_of(result))
                    scored.append((result.image.shape, result.score, result.brightness))
                    if map_paths:
                        results.write_map(map_paths[result.path], result)
                    if raw_paths:
                        results.write_raw_map(raw_paths[result.path], result)
                del result  # frees a large image before the next one is read
                progress.advance()
        except UsageError:  # such as a full disk: the scores so far are written all the same
            if output.table and tables.images:
                tables.write()
                console.warn(f"{output.table} holds {len(tables.images)} of {len(paths)} images")
            raise
    try:
        report(tables, broken)
    finally:
        size = scoring.calibrated_size(loaded)
        if notice := scoring.drift_notice(loaded.calibration_scores, size, scored):
            console.warn(notice)


def _map_paths(
    argument: str, folder: str | None, images: Sequence[Path], suffix: str
) -> dict[Path, Path]:
    """Returns the path of each image's map; empty if no folder is given for them."""
    if folder is None:
        return {}
    results.check_writable(argument, Path(folder), folder=True)
    return results.map_paths(argument, Path(folder), images, suffix)


def _score_with_beam(
    model: str,
    images: list[str],
    output: results.Output,
    runner: Runner,
    options: list[str],
    reading: dict[str, Any],
    product: str | None = None,
) -> None:
    """Scores files with Apache Beam; see `score`."""
    if output.table is None:
        hint = "add --csv FILE, a .csv or .parquet file"
        raise UsageError("--runner", runner.value, "needs a table to write", hint)
    import_tensorflow()
    # Without a handler Beam's first warning would let all libraries log to the terminal.
    logging.getLogger().addHandler(logging.NullHandler())
    from tfgad.inference import beam
    from tfgad.inference.scoring import doubt

    with Progress() as progress:
        progress.phase(f"scoring with {runner.value}")
        scored = beam.score(
            model,
            images,
            output.table,
            maps=output.maps,
            raw_maps=output.raw_maps,
            min_area=output.min_area,
            mm_per_pixel=output.mm_per_pixel,
            runner=runner.value,
            options=options,
            product=product,
            **reading,
        )
    say_counts(output.table, scored.counts)
    say_small(scored.small, scored.bare, output.min_area)
    for fitting, count in scored.doubtful.items():
        console.warn(doubt(f"{count} images", fitting))
    for name, reason in scored.broken[:WARNED]:
        console.warn(f"not scored: {name}: {reason}")
    if len(scored.broken) > WARNED:
        console.warn(f"not scored: {len(scored.broken) - WARNED} others")
    say_hints(scored.beyond)
    if scored.broken:
        console.warn(f"all files that were not scored: {scored.dead_letters}")
        raise typer.Exit(console.BROKEN_IMAGES)
