"""Output of the command: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from tfgad.errors import USAGE_ERROR, UsageError, nearest
from tfgad.files import FREE_SPACE, NO_SPACE, is_full, printable

# Exit codes besides 0; 130 is what shells give a command that Ctrl-C has stopped.
BROKEN_IMAGES, CHECK_FAILED, STOPPED = 1, 3, 130

# The commands that take --resume.
RESUMABLE = ("train",), ("synthesize", "train"), ("segment", "train"), ("segment", "adapt")


class _PrintOptions(TypedDict):
    markup: bool
    highlight: bool
    soft_wrap: bool


# Prints text as it is: no line breaks are added, no markup is interpreted.
PLAIN = _PrintOptions(markup=False, highlight=False, soft_wrap=True)

# The base class of Click's usage errors; Typer exports only subclasses of it.
ClickUsageError: type[Any] = typer.BadParameter.__mro__[1]

# Both write to what sys.stdout and sys.stderr are at the time of writing.
STANDARD_OUTPUT, STANDARD_ERROR = Console(), Console(stderr=True)


def say(text: str) -> None:
    """Writes a line of the result, or several, to standard output."""
    STANDARD_OUTPUT.print("\n".join(map(printable, text.split("\n"))), **PLAIN)


def warn(text: str) -> None:
    """Writes one line to standard error, above a progress bar."""
    STANDARD_ERROR.print(f"tfgad: {printable(text)}", **PLAIN)


def show(table: Table) -> None:
    """Writes a table to standard output."""
    STANDARD_OUTPUT.print(table, highlight=False)


class LogLines(logging.Handler):
    """A log handler that writes each record as one line to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        warn(record.getMessage())


def show_log() -> None:
    """Shows the log records of the package, and none of other libraries."""
    logger = logging.getLogger("tfgad")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, LogLines) for handler in logger.handlers):
        logger.addHandler(LogLines())
    if not logging.root.handlers:
        # Else the first `logging.warning` of a library adds one that prints every record.
        logging.root.addHandler(logging.NullHandler())


class Commands(TyperGroup):
    """A command group that reports usage errors in one line.

    A `UsageError`, one of Click's usage errors and a full disk end with exit code 2, Ctrl-C with
    130.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs one command and ends the process with its exit code."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except UsageError as error:
            warn(_one_line(str(error)))
            code = USAGE_ERROR
        except OSError as error:
            if not is_full(error):
                raise
            where = error.filename or "of a file"
            warn(f"disk '{where}': {NO_SPACE}; {FREE_SPACE}")
            code = USAGE_ERROR
        except ClickUsageError as error:
            where = error.ctx.command_path if error.ctx else "tfgad"
            message = _one_line(error.format_message()).rstrip(".")
            if message:  # without one, Click has printed the help
                warn(f"{message}; see `{where} --help`")
            code = USAGE_ERROR
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; after Ctrl-C says how to continue."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            warn(f"stopped; {_how_to_continue(sys.argv[1:])}")
            raise typer.Exit(STOPPED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Returns the command that was typed.

        Raises:
            UsageError: there is no such command.
        """
        if args[0] not in self.commands:
            raise UsageError("command", args[0], "is not known", nearest(args[0], self.commands))
        return super().resolve_command(ctx, args)


def figures_table(title: str, columns: Mapping[str, Mapping], rows: Mapping[str, str]) -> Table:
    """Returns a table of figures, with the 95 % interval of the first column.

    Args:
        title: above the table.
        columns: heading -> what `tfgad.evaluation.metrics.evaluate` returns.
        rows: metric -> its name; a metric that no column has is left out.
    """
    first, *others = columns
    # Without padding, and long names folded, 80 columns hold six columns of figures.
    table = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("", no_wrap=True)
    table.add_column(first, justify="right", style="bold", overflow="fold")
    table.add_column("95 % interval", justify="center")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    for key, name in rows.items():
        values = [figures.get(key) for figures in columns.values()]
        if any(value is not None for value in values):
            own, *rest = map(_number, values)
            table.add_row(name, own, _interval(columns[first].get(f"{key}_ci")), *rest)
    return table


def two_columns(metadata: Iterable[tuple[object, object]]) -> Table:
    """Returns a table of names and values."""
    table = Table.grid(padding=(0, 2))
    for name, value in metadata:
        # A plain string would be parsed for markup.
        table.add_row(Text(printable(str(name))), Text(printable(str(value))))
    return table


def false_positive_rate(metadata: Mapping[str, Any]) -> str:
    """Returns the false-positive rate of a threshold as text.

    For a model of tiles the text says whether it is a rate per tile or per image: a large image
    holds many tiles.

    Args:
        metadata: `false_positive_rate`, `image_shape` and `resized` of a run or exported model, and
            `per`, which earlier ones lack.
    """
    height, width, _ = metadata["image_shape"]
    per = f" per tile of {height} x {width}"
    if metadata.get("per") == "image":
        per = f" per image of tiles of {height} x {width}"
    return f"{metadata['false_positive_rate']:g}{'' if metadata['resized'] else per}"


def rates_on_new_groups(calibration: Mapping[str, Any]) -> Iterator[str]:
    """Yields `rate_on_new_groups`, of a model of several products for each of them.

    Nothing of models of before, which do not know the interval. Models that know the one of all
    products together alone have that.

    Args:
        calibration: metadata of a threshold.
    """
    products = calibration.get("products", {})
    for name, each in products.items():
        if "rate_interval" in each:
            yield f"product {name}: {rate_on_new_groups({**calibration, **each})}"
    if "rate_interval" not in calibration or any("rate_interval" in x for x in products.values()):
        return
    before = "all products together: " if products else ""
    yield before + rate_on_new_groups(calibration)


def rate_on_new_groups(calibration: Mapping[str, Any]) -> str:
    """Returns what the calibration images tell of the rate on new groups, as one sentence.

    Args:
        calibration: metadata of a threshold, with a `rate_interval`.
    """
    from tfgad.scores.rate_interval import FEW_IMAGES, largest_probability  # SciPy loads slowly

    unit = calibration["unit"]
    count, groups, group = calibration["images"], calibration["groups"], calibration["group"]
    low, high, most = (
        f"{100 * rate:.2g}" for rate in (*calibration["rate_interval"], calibration["rate_at_most"])
    )
    limit = f"{100 * calibration['groups_needed_for']:.2g} %"
    missing = calibration["groups_needed"] - groups
    if groups == count:
        start = f"on new {unit}s like these {count} the rate may be {low} to {high} %"
        end = f"{missing} more would keep it below {limit}"
    else:
        come = "one" if groups == 1 else f"{groups}"
        start = (
            f"the {count} {unit}s come from {come} {_plural(group, groups)}: on new {group}s the "
            f"rate may be up to {most} %"
        )
        if high != most:
            start += f", or {low} to {high} % if they are as alike as these"
        which = "the second figure" if high != most else "it"
        end = (
            f"with up to {missing} more {_plural(group, missing)} as alike as these, {which} would "
            f"be at most {limit}"
        )
    sentence = f"{start}; {end}" if missing > 0 else start
    effective = calibration.get("effective_images", FEW_IMAGES)
    effective = calibration.get("fewest_effective_images", effective)  # of several products
    largest = largest_probability(effective)
    if largest == 1:
        return sentence
    limits = f"below {1 - largest:.2f} or above {largest:.2f}"
    return f"{sentence}; no score has a probability {limits}"


def kinds_table(
    kinds: Mapping[str, Mapping[str, Any]], names: Mapping[str, str], heading: str = "kind"
) -> Table:
    """Returns a table of the figures of each kind of defect, or of each product.

    Args:
        kinds: of `tfgad.evaluation.by_kind.by_kind`, or of `by_product`.
        names: figure -> its name in tables.
        heading: of the column of their names.
    """
    table = Table(box=SIMPLE_HEAD, padding=0)
    table.add_column(heading, overflow="fold")
    keys = list(next(iter(kinds.values())))
    for key in keys:
        table.add_column(names[key], justify="right")
    for kind, figures in kinds.items():
        values = (figures[key] for key in keys)
        cells = [str(each) if isinstance(each, int) else _number(each) for each in values]
        table.add_row(Text(printable(kind)), *cells)
    return table


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(bounds: list[float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.3f}, {bounds[1]:.3f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _how_to_continue(arguments: list[str]) -> str:
    """Returns how to continue after Ctrl-C a command with these arguments."""
    if any(tuple(arguments[: len(command)]) == command for command in RESUMABLE):
        kept = [each for each in arguments if each not in ("--overwrite", "--resume")]
        return f"continue with: tfgad {shlex.join([*kept, '--resume'])}"
    return "results not yet written are lost"
