"""The `tfgad` command. TensorFlow is imported by the commands that need it, not by `--help`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tfgad.cli import (
    catalogue,
    checking,
    comparing,
    console,
    exporting,
    info,
    learning,
    multistage,
    scoring,
    serving,
    training,
    watching,
)
from tfgad.version import __version__

app = typer.Typer(
    name="tfgad",
    cls=console.Commands,
    help="Detect anomalies and defects in images, with models trained on good images alone.",
    epilog="Exit codes: 0 done; 1 done, but images that cannot be read were skipped; "
    "2 a usage error; 3 of `check`, the check failed; 130 stopped by Ctrl-C.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command; the entry point of the package."""
    console.show_log()
    if hasattr(sys.stdout, "reconfigure"):  # file names need not be valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="tfgad")


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        console.say(f"tfgad {__version__}")
    elif context.invoked_subcommand is None:
        console.say(context.get_help())


for command in (
    training.demo,
    training.train,
    training.calibrate,
    training.evaluate,
    checking.check,
    comparing.compare,
    learning.learn,
    scoring.score,
    watching.watch,
    exporting.export,
    info.info,
):
    app.command()(command)
app.command("list")(catalogue.list_names)
app.command()(serving.serve)
app.add_typer(multistage.synthesize, name="synthesize")
app.add_typer(multistage.segment, name="segment")
for command in (training.evaluate, scoring.score, exporting.export):  # a segmenter's run is a run
    multistage.segment.command()(command)


if __name__ == "__main__":
    main()
