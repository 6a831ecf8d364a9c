"""`tfgad learn`: a finished run learns from more good images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from tfgad.cli import console
from tfgad.cli.arguments import Overwrite, RunFolder
from tfgad.cli.loading import load_good, spec_of_good
from tfgad.cli.progress import Progress, training_callbacks
from tfgad.quiet import import_tensorflow

if TYPE_CHECKING:
    from tfgad.training.learning import Change


def learn(
    run: RunFolder,
    good: Annotated[str, typer.Option(help="Folder of new good images, or folder:PATH?option=..")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the new run.")],
    false_alarms: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of good images that it rejected.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Train on for so many steps; else the networks stay.")
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Learn from more good images: statistics and threshold, in seconds.

    A part of the new images is held out for the threshold. The run itself stays as it is.
    """
    spec_of_good("good", good)  # a mistake is found before TensorFlow is imported
    if false_alarms:
        spec_of_good("false-alarms", false_alarms)
    import_tensorflow()
    from tfgad import training
    from tfgad.training.learning import learn as learn_from

    with Progress() as progress:
        progress.phase("reading the images")
        loaded = training.load_run(run)
        before = loaded.calibration
        new = load_good(loaded.config, "good", good)
        alarms = load_good(loaded.config, "false-alarms", false_alarms) if false_alarms else None
        progress.phase("learning")
        learned, changes = learn_from(
            loaded,
            new,
            out,
            false_alarms=alarms,
            steps=steps,
            overwrite=overwrite,
            callbacks=training_callbacks(progress),
        )
    after = learned.calibration
    console.say(f"{out}: learned in {learned.config['training_seconds']:.0f} s")
    console.say(
        f"threshold {before['threshold']:.4g} before, {after['threshold']:.4g} after, for a "
        f"false-positive rate of {console.false_positive_rate({**learned.config, **after})}"
    )
    console.show(_table(changes, after["unit"]))
    for line in console.rates_on_new_groups(after):
        console.say(line)


def _table(changes: list[Change], unit: str) -> Table:
    """Returns the false alarms before and after."""
    table = Table(title="False alarms", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in ("good images", f"{unit}s", "before", "after"):
        table.add_column(name, justify="left" if name == "good images" else "right")
    for each in changes:
        rates = (f"{100 * share:.1f} %" for share in (each.before, each.after))
        table.add_row(each.of, str(each.count), *rates)
    return table
