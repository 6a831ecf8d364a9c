"""Specs: one-line names of data sets, `KIND:NAME?option=value&option=value`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from tfgad.errors import UsageError

FORM = "write KIND:NAME?option=value&option=value, such as weave:twill?size=128"


@dataclasses.dataclass(frozen=True)
class Spec:
    """The parts of a spec.

    Attributes:
        kind: kind of data set, such as `"mnist"` or `"folder"`.
        name: name within the kind, such as `"8"` or a path. A path may hold any character but `?`.
        options: options of the loader, as text.
    """

    kind: str
    name: str
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Parses a spec.

        Raises:
            UsageError: the text does not have the form `KIND:NAME?option=value&option=value`.
        """
        address, _, query = text.partition("?")
        kind, _, name = address.partition(":")
        if not kind or not name:
            hint = f"write folder:{text}" if pathlib.Path(address).exists() else FORM
            raise UsageError("data set", text, "is not of the form KIND:NAME", hint)
        options: dict[str, str] = {}
        for pair in filter(None, query.split("&")):
            key, _, value = pair.partition("=")
            if not key or not value:
                raise UsageError("data set", text, f"{pair!r} is not of the form key=value", FORM)
            if key in options:
                raise UsageError("data set", text, f"{key!r} is given twice", "give it once")
            options[key] = value
        return cls(kind, name, options)

    def __str__(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind}:{self.name}" + (f"?{query}" if query else "")
