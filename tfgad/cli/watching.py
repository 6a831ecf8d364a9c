"""`tfgad watch`: images scored as they arrive in a folder."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from tfgad.cli import console
from tfgad.cli.arguments import Depth, MaxPixels, Model
from tfgad.cli.progress import Progress
from tfgad.cli.score_report import say_counts, verdict_line
from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.quiet import import_tensorflow
from tfgad.scores.verdicts import NOT_SCORED


def watch(
    model: Model,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder in which images arrive.")
    ],
    csv: Annotated[Path, typer.Option(metavar="FILE", help="Table to append to.")],
    bad: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to move defective images to.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a heat map of each image.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Score what is there, and end.")] = False,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds for which a file must not change.")
    ] = 1,
    product: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Product of all images; by default it is recognised."),
    ] = None,
    depth: Depth = None,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Score images as they arrive in a folder, until SIGTERM or Ctrl-C.

    The table records what was scored: however the command was stopped, started
    again with the same table it scores each image once. A file that changes is
    scored again, in a row of its own. One that cannot be read is reported once.

    Exit codes: 0 stopped; 1 with --once, if images were not scored; 2 a usage
    error or a full disk.
    """
    if os.name != "posix":
        raise UsageError("command", "watch", "needs the file locks of Unix", "use Linux or macOS")
    outputs = {name: path for name, path in (("bad", bad), ("maps", maps)) if path}
    results.check_writable("csv", csv)
    for name, path in outputs.items():
        results.check_writable(name, path, folder=True)
    import_tensorflow()
    import numpy as np

    from tfgad.inference import predictor
    from tfgad.inference.scoring import calibrated_size
    from tfgad.inference.watch import Folder, Watch
    from tfgad.inference.watch_table import Table
    from tfgad.serving.server.score_watch import ScoreWatch

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_on_signals())
        arrivals = stack.enter_context(
            contextlib.closing(Folder(folder, settle, list(outputs.values())))
        )
        with Progress() as progress:
            progress.phase("loading the model")
            loaded = predictor.load_predictor(model, product)
        table = stack.enter_context(contextlib.closing(Table(csv, loaded.products)))
        console.warn(f"watching {folder}; {csv} has {len(table.seen)} images")
        size = calibrated_size(loaded)
        scores = ScoreWatch(str(folder), loaded.calibration_scores, loaded.threshold, size)
        reading = {"depth": depth, "max_pixels": max_pixels}
        watching = Watch(loaded, arrivals, table, stop, bad=bad, maps=maps, **reading)
        counts: collections.Counter[str] = collections.Counter()
        for row, result in watching.run(once=once):
            counts[row["verdict"]] += 1
            if isinstance(result, ImageError):
                hint = f"; {results.hint([result.beyond])}" if result.beyond else ""
                console.warn(f"not scored: {row['image']}: {result.reason}{hint}")
            else:
                console.say(verdict_line(row))
                numbers = {"score": result.score, "brightness": result.brightness}
                found = {key: np.array([value], float) for key, value in numbers.items()}
                scores.add({**found, "map": result.map[None]})
            del result  # frees a large image before the next one is read
    if counts:
        say_counts(csv, counts)
    else:
        console.say(f"{csv}: no new images")
    if arrivals.left:
        console.warn(f"not scored: {arrivals.left} files that still change, or may not be read")
    if once and (arrivals.left or counts[NOT_SCORED]):
        raise typer.Exit(console.BROKEN_IMAGES)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Context manager of an event that SIGTERM and Ctrl-C set.

    A second signal ends the process as usual.
    """
    stop = threading.Event()

    def receive(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for each, handler in previous.items():
            signal.signal(each, handler)

    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {each: signal.signal(each, receive) for each in signals}
    try:
        yield stop
    finally:
        restore()
