"""`tfgad score`: images of any size, here or with Apache Beam."""

from __future__ import annotations

import collections
import enum
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tfgad.cli import console
from tfgad.cli.progress import Progress
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
    depth: Annotated[
        int | None,
        typer.Option(min=9, max=16, help="Bits of 16-bit files, if not those of the training."),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of the largest image that is read.")
    ] = MAX_PIXELS,
) -> None:
    """Score images of any size; files that cannot be read are reported and skipped.

    With --runner Apache Beam scores them, on this machine or on a cluster. Model, images, table
    and maps may then be remote. Files that cannot be scored are listed in NAME.dead_letters.csv
    beside the table.
    """
    reading = {"depth": depth, "max_pixels": max_pixels}
    if runner:
        _score_with_beam(model, images, csv, maps, runner, runner_options or [], reading)
    elif runner_options:
        raise UsageError("--runner-option", runner_options[0], "needs a runner", "add --runner")
    else:
        paths = [Path(image) for image in images]
        table, map_folder = (Path(given) if given else None for given in (csv, maps))
        _score(Path(model), paths, table, map_folder, reading)


def _score(
    model: Path, images: list[Path], csv: Path | None, maps: Path | None, reading: dict[str, Any]
) -> None:
    """Scores files one after another; see `score`."""
    paths = results.find_images(images)
    if csv:
        results.check_writable("csv", csv)
    if maps:
        results.check_writable("maps", maps, folder=True)
    map_paths = results.map_paths(maps, paths) if maps else {}
    import_tensorflow()
    from tfgad.inference import predictor, scoring

    rows, broken, scored = [], [], []
    with Progress() as progress:
        progress.phase("loading the model")
        loaded = predictor.load_predictor(model)
        progress.phase("scoring", len(paths))
        try:
            for result in scoring.score_files(loaded, paths, **reading):
                rows.append(results.row(result))
                if isinstance(result, ImageError):
                    broken.append(result)
                else:
                    scored.append((result.image.shape, result.score))
                    if maps:
                        results.write_map(map_paths[result.path], result)
                del result  # frees a large image before the next one is read
                progress.advance()
        except UsageError:  # such as a full disk: the scores so far are written all the same
            if csv and rows:
                results.write_csv(csv, rows)
                console.warn(f"{csv} holds {len(rows)} of {len(paths)} images")
            raise
    try:
        _report_scores(rows, broken, csv)
    finally:
        size = scoring.calibrated_size(loaded)
        if notice := scoring.drift_notice(loaded.calibration_scores, size, scored):
            console.warn(notice)


def _score_with_beam(
    model: str,
    images: list[str],
    csv: str | None,
    maps: str | None,
    runner: Runner,
    options: list[str],
    reading: dict[str, Any],
) -> None:
    """Scores files with Apache Beam; see `score`."""
    if csv is None:
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
            model, images, csv, maps=maps, runner=runner.value, options=options, **reading
        )
    say_counts(csv, scored.counts)
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


def _report_scores(rows: list[dict[str, str]], broken: list[ImageError], csv: Path | None) -> None:
    """Writes the table or prints it, and names the files that could not be scored.

    Raises:
        UsageError: none could be scored; nothing is written then.
        typer.Exit: some could not.
    """
    beyond = sorted({error.beyond for error in broken if error.beyond})
    if len(broken) == len(rows):
        first = broken[0]
        others = f", nor {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UsageError("image", first.path, f"{first.reason}{others}", results.hint(beyond))
    if csv:
        results.write_csv(csv, rows)
    for row in rows:
        if not csv and row["score"]:
            console.say(verdict_line(row))
    say_counts(csv, collections.Counter(row["verdict"] for row in rows))
    for error in broken:
        console.warn(f"not scored: {error}")
    _say_hints(beyond)
    if broken:
        raise typer.Exit(console.BROKEN_IMAGES)


def _say_hints(beyond: Sequence[str]) -> None:
    if beyond:
        console.warn(results.hint(beyond))


def verdict_line(row: Mapping[str, str]) -> str:
    """Returns the row of an image that was scored, as one line for people."""
    numbers = f"probability {float(row['probability']):.3f}  score {row['score']:<8}"
    reason = row["reason"] and f"  ({row['reason']})"
    return f"{row['verdict']:<9}  {numbers}  {row['image']}{reason}"


def say_counts(csv: Path | str | None, counts: Mapping[str, int]) -> None:
    """Writes how many images have each verdict, and where the table is."""
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.say(f"{csv}: {summary}" if csv else summary)
