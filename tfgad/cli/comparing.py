"""`tfgad compare`: two runs on the same test images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tfgad import files
from tfgad.cli import console
from tfgad.cli.loading import data_defaults
from tfgad.cli.progress import Progress
from tfgad.data.spec import Spec
from tfgad.inference import results
from tfgad.quiet import import_tensorflow
from tfgad.scores.verdicts import verdict_name

if TYPE_CHECKING:
    from tfgad.evaluation.compare import Comparison

# Options of a data set that a run determines; the others determine which images it has.
FORM = ("size", "tile", "fit", "channels", "depth")
SHOWN = 12  # images in the gallery
NAME = 34  # letters of a name there
COLUMNS = (
    *("image", "truth", "right"),
    *("first_verdict", "first_score", "second_verdict", "second_score"),
)


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of another.")],
    data: Annotated[
        str | None, typer.Option(help="Data set to test on, if not that of the first run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for JSON, and the images they differ on.")
    ] = None,
) -> None:
    """Compare two runs on the same test images, with intervals of the differences."""
    if out:
        results.check_writable("out", out, folder=True)
    import_tensorflow()
    from tfgad import data as data_sets
    from tfgad import training
    from tfgad.evaluation import compare as comparing

    with Progress() as progress:
        progress.phase("reading the data")
        runs = [training.load_run(folder) for folder in (first, second)]
        spec = _spec(runs[0].config, data)
        images = [data_sets.load(spec, **_form(run.config, spec)) for run in runs]
        progress.phase("scoring the test images with both runs")
        found = comparing.compare(runs, images)
    console.show(_table(found, (first, second)))
    counts = found.summary()["verdicts"]
    console.say(
        f"right: both {counts['both_right']}, the first alone {counts['first_alone_right']}, "
        f"the second alone {counts['second_alone_right']}, neither {counts['both_wrong']}"
    )
    if out:
        for path in _write(found, (first, second), spec, out):
            console.say(f"{path}")


def _spec(config: dict[str, Any], data: str | None) -> str:
    """Returns the data set without the options that each run determines, but those given."""
    given = data or str(_without_form(Spec.parse(config["data"])))
    parsed = Spec.parse(given)
    defaults = data_defaults(config, given)
    kept = {k: str(v) for k, v in defaults.items() if k not in FORM and v is not None}
    return str(dataclasses.replace(parsed, options={**kept, **parsed.options}))


def _form(config: dict[str, Any], spec: str) -> dict[str, Any]:
    """Returns the options of the data set that a run determines."""
    defaults = data_defaults(config, spec)
    return {name: value for name, value in defaults.items() if name in FORM}


def _without_form(spec: Spec) -> Spec:
    options = {name: value for name, value in spec.options.items() if name not in FORM}
    return dataclasses.replace(spec, options=options)


def _table(found: Comparison, folders: tuple[Path, Path]) -> Table:
    """Returns the figures of both runs and their differences."""
    from tfgad.evaluation import metrics

    title = f"{len(found.runs[0].names)} test {found.unit}s in {found.groups} groups"
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for folder in folders:
        table.add_column(folder.name, justify="right")
    table.add_column("difference", justify="right")
    table.add_column("95 % interval", justify="center", no_wrap=True)
    names = metrics.names_of(found.unit)
    for key, each in found.figures.items():
        low_high = each["interval"]
        table.add_row(
            names[key],
            f"{each['first']:.3f}",
            f"{each['second']:.3f}",
            f"{each['difference']:+.3f}",
            f"{low_high[0]:+.3f}, {low_high[1]:+.3f}" if low_high else "-",
            style="bold" if low_high and not low_high[0] <= 0 <= low_high[1] else None,
        )
    return table


def _write(found: Comparison, folders: tuple[Path, Path], spec: str, out: Path) -> list[Path]:
    """Writes the comparison as JSON, and the images with differing verdicts as table and PNG."""
    summary = found.summary()
    named = {"runs": [str(folder) for folder in folders], "data": spec, **summary}
    files.write_json(out / "comparison.json", named)
    rows = summary["differing"]
    text = files.csv_text(rows, COLUMNS)
    files.write_text(out / "differences.csv", text)
    written = [out / "comparison.json", out / "differences.csv"]
    if rows:
        files.write_bytes(out / "differences.png", _gallery(found, folders))
        written.append(out / "differences.png")
    return written


def _gallery(found: Comparison, folders: tuple[Path, Path]) -> bytes:
    """Returns a PNG of images with differing verdicts, evenly taken from all of them."""
    import numpy as np

    from tfgad import plots
    from tfgad.plots.differences import differences

    count = len(found.differing)
    picked = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).astype(int))
    images, maps, masks, titles, alarms = [], [], [], [], []
    for i in found.differing[picked]:
        places = [int(run.shown[i]) for run in found.runs]
        pairs = list(zip(found.runs, places, strict=True))
        images.append([run.predictions.images[np.array([place])][0] for run, place in pairs])
        maps.append([run.predictions.maps[place] for run, place in pairs])
        masks.append(found.runs[0].predictions.masks[places[0]][..., 0])
        alarms.append([bool(run.alarms[i]) for run in found.runs])
        truth = verdict_name(found.runs[0].labels[i])
        verdicts = [
            f"{'found' if run.labels[i] else 'false alarm'} {run.scores[i]:.3g}"
            if run.alarms[i]
            else f"{'missed' if run.labels[i] else 'passed'} {run.scores[i]:.3g}"
            for run in found.runs
        ]
        name = found.runs[0].names[i]
        name = name if len(name) <= NAME else f"…{name[1 - NAME :]}"
        titles.append([f"{name}\n{truth}", *verdicts])
    thresholds = [run.threshold for run in found.runs]
    names = [folder.name[-20:] for folder in folders]
    return plots.png(differences(images, maps, masks, titles, alarms, thresholds, names))
