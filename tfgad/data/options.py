"""Options of a loader: the names and types of its keyword-only parameters."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tfgad.errors import UsageError, nearest


class Size(NamedTuple):
    """Height and width in pixels. As text it is `96x64`, or `128` for a square."""

    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Reads `HxW`, or one side of a square.

        Raises:
            ValueError: the text is neither.
        """
        height, times, width = text.partition("x")
        return cls(int(height), int(width if times else height))

    def __str__(self) -> str:
        return f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"


KIND_OF_VALUE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Size: "a side such as 128, or HEIGHTxWIDTH such as 96x64",
}


def parameters(loader: Callable[..., Any]) -> dict[str, type]:
    """Returns the type of each option of a loader by name; for `T | None` it is `T`."""
    signature = inspect.signature(loader, eval_str=True)
    return {
        parameter.name: _plain_type(parameter.annotation)
        for parameter in signature.parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def convert(loader: Callable[..., Any], kind: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Converts the options of a spec to keyword arguments of a loader.

    Args:
        loader: a loader; see `tfgad.data.registry`.
        kind: kind of data set, for the error message.
        options: values as text, by name.

    Raises:
        UsageError: the loader has no such option, or the value is not of its type.
    """
    known = parameters(loader)
    arguments = {}
    for key, text in options.items():
        if key not in known:
            raise UsageError("data option", key, f"{kind} has no such option", nearest(key, known))
        arguments[key] = _read(known[key], key, text)
    return arguments


def _plain_type(annotation: Any) -> type:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not types.NoneType)
    return annotation


def _read(kind: type, key: str, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return Size.parse(text) if kind is Size else kind(text)
    except (KeyError, ValueError):
        expected = KIND_OF_VALUE[kind]
        raise UsageError(
            f"data option {key}", text, f"is not {expected}", f"give {expected}"
        ) from None
