"""How the command speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Mapping

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from tfgad.errors import UsageError, nearest
from tfgad.files import FREE_SPACE, NO_SPACE, is_full

# Exit codes: 0 done, 1 done but for broken images, 2 the user's mistake, 130 stopped by Ctrl-C.
BROKEN_IMAGES, MISTAKE, STOPPED = 1, 2, 130

# The commands that take --resume.
RESUMABLE = ("train",), ("synthesize", "train"), ("segment", "train"), ("segment", "adapt")

# One line stays one line, and what looks like markup in it is left alone.
PLAIN = {"markup": False, "highlight": False, "soft_wrap": True}

# Typer exports of Click's usage errors only this one; its base is that of them all.
ClickUsageError = typer.BadParameter.__base__

# Both follow what sys.stdout and sys.stderr are at the time.
STANDARD_OUTPUT, STANDARD_ERROR = Console(), Console(stderr=True)


def say(text: str) -> None:
    """Writes a line of the result."""
    STANDARD_OUTPUT.print(text, **PLAIN)


def warn(text: str) -> None:
    """Writes one line on standard error, above the progress bar if there is one."""
    STANDARD_ERROR.print(f"tfgad: {text}", **PLAIN)


def show(table: Table) -> None:
    """Writes a table to standard output."""
    STANDARD_OUTPUT.print(table, highlight=False)


class LogLines(logging.Handler):
    """Shows the package's own log records as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        warn(record.getMessage())


def show_log() -> None:
    """Shows what the package logs, and nothing of the libraries below it."""
    logger = logging.getLogger("tfgad")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, LogLines) for handler in logger.handlers):
        logger.addHandler(LogLines())


class Commands(TyperGroup):
    """The commands, with every mistake of the user told in one line.

    A `UsageError` and Click's own usage errors end with exit code 2, Ctrl-C with 130.
    """

    def main(self, *args, standalone_mode: bool = True, **kwargs):
        """Runs one command and ends the process with its exit code."""
        try:
            code = super().main(*args, standalone_mode=False, **kwargs)
        except UsageError as error:
            warn(_one_line(str(error)))
            code = MISTAKE
        except OSError as error:
            if not is_full(error):
                raise
            where = error.filename or "of a file"
            warn(f"disk '{where}': {NO_SPACE}; {FREE_SPACE}")
            code = MISTAKE
        except ClickUsageError as error:
            where = error.ctx.command_path if error.ctx else "tfgad"
            message = _one_line(error.format_message()).rstrip(".")
            if message:  # else Click has shown the help, which says it all
                warn(f"{message}; see `{where} --help`")
            code = MISTAKE
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx):
        """Runs the command, and says how to go on if it is broken off."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            warn(f"stopped; {_how_to_go_on(sys.argv[1:])}")
            raise typer.Exit(STOPPED) from None

    def resolve_command(self, ctx, args):
        """Finds the command; an unknown one gets the nearest name for an answer."""
        if args[0] not in self.commands:
            raise UsageError("command", args[0], "is not known", nearest(args[0], self.commands))
        return super().resolve_command(ctx, args)


def figures_table(title: str, columns: Mapping[str, Mapping], rows: Mapping[str, str]) -> Table:
    """Returns a table of figures; the first column's have their 95 % interval beside them.

    Args:
        title: above the table.
        columns: heading -> what `tfgad.evaluation.metrics.evaluate` returns.
        rows: metric -> its name; a metric that no column has is left out.
    """
    first, *others = columns
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column(first, justify="right", style="bold")
    table.add_column("95 % interval", justify="center", no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    for key, name in rows.items():
        values = [figures.get(key) for figures in columns.values()]
        if any(value is not None for value in values):
            own, *rest = map(_number, values)
            table.add_row(name, own, _interval(columns[first].get(f"{key}_ci")), *rest)
    return table


def two_columns(metadata: Iterable[tuple[object, object]]) -> Table:
    """Returns two columns, the names and what there is to say of them."""
    table = Table.grid(padding=(0, 2))
    for name, value in metadata:
        table.add_row(Text(str(name)), Text(str(value)))  # not str, which may look like markup
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(bounds: list[float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.3f}, {bounds[1]:.3f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _how_to_go_on(arguments: list[str]) -> str:
    """Returns what to type after Ctrl-C."""
    if any(tuple(arguments[: len(command)]) == command for command in RESUMABLE):
        kept = [each for each in arguments if each not in ("--overwrite", "--resume")]
        return f"go on with: tfgad {shlex.join([*kept, '--resume'])}"
    return "what was not yet written is lost"
