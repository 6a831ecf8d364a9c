"""`tfgad list`: the methods and the data sets, and the settings of one method."""

from __future__ import annotations

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
    """Prints each setting: its value in each configuration, its type and range, its meaning."""
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
    common = [each for each in settings.describe(Common) if each.name not in names]
    rows = [
        [
            each.name,
            *(_shown(values.as_dict()[each.name]) for values in all_of.values()),
            f"{each.type} {each.range}".strip(),
            each.meaning,
        ]
        for each in (*own, *common)
    ]
    console.show(console.settings_table(list(all_of), rows))
    console.say(
        f"Change one with --set NAME=VALUE: tfgad train {method.name} --set {rows[0][0]}=..."
    )


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
