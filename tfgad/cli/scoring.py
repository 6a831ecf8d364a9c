"""`tfgad score`: images of any size, here or with Apache Beam."""

from __future__ import annotations

import collections
import dataclasses
import enum
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgad.cli import console
from tfgad.cli.arguments import Depth, MaxPixels
from tfgad.cli.own_masks import masks_of
from tfgad.cli.progress import Progress
from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.quiet import import_tensorflow

if TYPE_CHECKING:
    from tfgad.scores.map_regions import Region

WARNED = 20  # broken files of a Beam job that are named one by one; the dead letters list them all


class Runner(str, enum.Enum):
    """Beam runners of `score`."""

    DIRECT = "DirectRunner"
    FLINK = "FlinkRunner"
    SPARK = "SparkRunner"
    DATAFLOW = "DataflowRunner"


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
    one without a mask is scored whole.

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


@dataclasses.dataclass
class _Tables:
    """The rows of both tables so far, and what was left out of them."""

    output: results.Output
    products: tuple[str, ...] = ()  # of the model
    images: list[dict[str, str]] = dataclasses.field(default_factory=list)
    regions: list[dict[str, str]] = dataclasses.field(default_factory=list)
    small: int = 0  # regions that --min-area left out
    bare: int = 0  # defective images that it left without a region

    def add_verdict(self, result: Any, found: Sequence[Region] | None) -> None:
        """Adds an image with its regions; None if these are unknown."""
        listed = results.listed(found, self.output.min_area, result.is_anomalous)
        row = results.row(result, listed.regions)
        self.images.append(row)
        self.regions += results.region_rows(row["image"], listed.regions, self.output.mm_per_pixel)
        self.small += listed.small
        self.bare += listed.is_bare

    def write(self) -> None:
        """Writes both, if a table is asked for."""
        if self.output.table:
            columns = results.region_columns(self.output.mm_per_pixel)
            path = Path(results.regions_path(self.output.table))
            results.write_csv(path, self.regions, columns)
            columns = results.columns(self.products)
            results.write_csv(Path(self.output.table), self.images, columns)


def _score(
    model: Path,
    images: list[Path],
    output: results.Output,
    reading: dict[str, Any],
    mask: Path | None,
    product: str | None = None,
) -> None:
    """Scores files one after another; see `score`."""
    paths = results.find_images(images)
    if mask:
        reading = {**reading, "masks": masks_of(mask, images, paths)}
    if output.table:
        results.check_writable("csv", Path(output.table))
        results.check_writable("csv", Path(results.regions_path(output.table)))
    map_paths = _map_paths("maps", output.maps, paths, ".png")
    raw_paths = _map_paths("raw-maps", output.raw_maps, paths, ".tiff")
    import_tensorflow()
    from tfgad.inference import predictor, scoring

    tables = _Tables(output)
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
                    scored.append((result.image.shape, result.score))
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
        _report_scores(tables, broken)
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
    _say_small(scored.small, scored.bare, output.min_area)
    for fitting, count in scored.doubtful.items():
        console.warn(doubt(f"{count} images", fitting))
    for name, reason in scored.broken[:WARNED]:
        console.warn(f"not scored: {name}: {reason}")
    if len(scored.broken) > WARNED:
        console.warn(f"not scored: {len(scored.broken) - WARNED} others")
    _say_hints(scored.beyond)
    if scored.broken:
        console.warn(f"all files that were not scored: {scored.dead_letters}")
        raise typer.Exit(console.BROKEN_IMAGES)


def _report_scores(tables: _Tables, broken: list[ImageError]) -> None:
    """Writes the tables or prints the rows, and names the files that could not be scored.

    Raises:
        UsageError: none could be scored; nothing is written then.
        typer.Exit: some could not.
    """
    beyond = sorted({error.beyond for error in broken if error.beyond})
    if len(broken) == len(tables.images):
        first = broken[0]
        others = f", nor {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UsageError("image", first.path, f"{first.reason}{others}", results.hint(beyond))
    tables.write()
    for row in tables.images:
        if not tables.output.table and row["score"]:
            console.say(verdict_line(row))
    say_counts(tables.output.table, collections.Counter(row["verdict"] for row in tables.images))
    _say_small(tables.small, tables.bare, tables.output.min_area)
    for error in broken:
        console.warn(f"not scored: {error}")
    _say_hints(beyond)
    if broken:
        raise typer.Exit(console.BROKEN_IMAGES)


def _say_small(small: int, bare: int, min_area: int) -> None:
    """Says how many regions were left out, and how many defective images have no others."""
    if small:
        left_out = f"{small} region{'s' * (small != 1)}"
        have = "image has" if bare == 1 else "images have"
        without = f"; {bare} defective {have} no other region" if bare else ""
        console.warn(f"--min-area {min_area} left out {left_out}{without}")


def _say_hints(beyond: Sequence[str]) -> None:
    if beyond:
        console.warn(results.hint(beyond))


def verdict_line(row: Mapping[str, str]) -> str:
    """Returns the row of an image that was scored, as one line for people."""
    numbers = f"probability {float(row['probability']):.3f}  score {row['score']:<8}"
    regions = f"regions {row['regions'] or '-':<2}"
    product = f"{row[results.PRODUCT]}  " if results.PRODUCT in row else ""
    reason = row["reason"] and f"  ({row['reason']})"
    return f"{row['verdict']:<9}  {numbers}  {regions}  {product}{row['image']}{reason}"


def say_counts(csv: Path | str | None, counts: Mapping[str, int]) -> None:
    """Writes how many images have each verdict, and where the table is."""
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.say(f"{csv}: {summary}" if csv else summary)
