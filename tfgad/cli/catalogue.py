"""`tfgad list`: the methods and the data sets, and the settings of one method."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from tfgad.cli import console
from tfgad.data.registry import KINDS
from tfgad.quiet import import_tensorflow


def list_names(
    method: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD]", help="Print the settings of this method."),
    ] = None,
) -> None:
    """List the methods and the data sets, or the settings of one method."""
    import_tensorflow()
    from tfgad import methods

    if method:
        _list_settings(method)
        return
    known = {name: methods.METHODS[name].help for name in sorted(methods.METHODS)}
    data_sets = {kind.example: kind.help for kind in KINDS.values()}
    for title, names in (("Methods", known), ("Data sets", data_sets)):
        console.say(title)
        console.show(console.two_columns((f"  {name}", line) for name, line in names.items()))
    console.say("METHOD/paper names the configuration of the method's paper.")
    console.say("tfgad list METHOD prints the settings of a method.")


def _list_settings(name: str) -> None:
    """Prints each setting: its value in each configuration, its values, its meaning."""
    from tfgad import methods
    from tfgad.core import settings
    from tfgad.core.settings import Common

    method, _ = methods.method_of(name)
    console.say(f"{method.name}: {method.help}")
    all_of = {
        config: methods.settings_of(
            method.name if config == "default" else f"{method.name}/{config}"
        )
        for config in method.configs
    }
    own = settings.describe(method.model.Config)
    names = {each.name for each in own}
    described = [*own, *(each for each in settings.describe(Common) if each.name not in names)]
    table = [["setting", *all_of]]
    table += [
        [each.name, *(_shown(values.as_dict()[each.name]) for values in all_of.values())]
        for each in described
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    heading, *lines = (_aligned(row, widths) for row in table)
    console.say(heading)
    for line, each in zip(lines, described, strict=True):
        console.say(line)
        console.say(textwrap.indent(textwrap.fill(f"{each.values}; {each.meaning}", 74), "      "))
    console.say(f"To change one: tfgad train {method.name} --set NAME=VALUE")


def _aligned(cells: list[str], widths: list[int]) -> str:
    """Returns a line of a table: the first cell to the left, the others to the right."""
    first, *others = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    right = (cell.strip().rjust(width) for cell, width in zip(others, widths[1:], strict=True))
    return "  ".join(["", first, *right]).rstrip()


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
