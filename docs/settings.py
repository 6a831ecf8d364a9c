"""A Griffe extension: the fields of configurations in the API reference, with range and meaning.

A field of a pydantic dataclass is `Annotated[TYPE, Field(ge=0, description="...")]`, or a shared
type of that form. The reference then shows TYPE, and description and range as its docstring.
"""

from __future__ import annotations

import ast
from typing import Any

import griffe

DECORATOR = "pydantic.dataclasses.dataclass"
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Settings(griffe.Extension):
    """Gives each field of a configuration its type and a docstring."""

    def on_class(self, *, cls: griffe.Class, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Handles the configurations among all classes."""
        if any(decorator.callable_path == DECORATOR for decorator in cls.decorators):
            for field in cls.attributes.values():
                _describe(field, loader)


def _describe(field: griffe.Attribute, loader: griffe.GriffeLoader) -> None:
    type_and_field = _annotated(field.annotation, loader)
    if type_and_field is None:
        return
    annotation, call = type_and_field
    field.annotation = ast.unparse(annotation)
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    bounds = [f"{words} {given[name]}" for name, words in BOUNDS.items() if name in given]
    text = "; ".join(filter(None, [given.get("description", ""), ", ".join(bounds)]))
    field.docstring = griffe.Docstring(f"{text}.", parent=field)


def _annotated(annotation: Any, loader: griffe.GriffeLoader) -> tuple[ast.expr, ast.Call] | None:
    """Returns TYPE and the call of `Field` of an annotation, or None if it has another form."""
    if isinstance(annotation, griffe.ExprName):  # a shared type
        shared = loader.modules_collection.get_member(annotation.canonical_path)
        annotation = shared.value
    tree = ast.parse(str(annotation), mode="eval").body
    if not isinstance(tree, ast.Subscript) or not ast.unparse(tree.value).endswith("Annotated"):
        return None
    kind, *others = tree.slice.elts
    calls = (each for each in others if ast.unparse(getattr(each, "func", each)) == "Field")
    call = next(calls, None)
    return (kind, call) if call else None
