"""Hyper-parameters as typed dataclasses: parsing, ranges and their description.

A configuration is a frozen pydantic dataclass, one field per setting:

    @dataclass(frozen=True)
    class Config:
        width: Annotated[int, Field(ge=1, description="channels of the first layer")] = 32

`parse` reads settings that a user gave, also as strings from a command line; what pydantic refuses
becomes a `UsageError` that names the setting, its value and a hint.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.dataclasses import dataclass

from tfgad.errors import UsageError, nearest
from tfgad.scores import cue_weights

C = TypeVar("C")

STEPS = "steps"  # the setting that is written as 600+1500 for several stages


def _split_steps(value: Any) -> Any:
    return tuple(value.split("+")) if isinstance(value, str) else value


# Upper bounds are beyond all use: they keep what no machine can hold from reaching TensorFlow.

# Whole numbers of a kind, to which a method adds the meaning.
Width = Annotated[int, Field(ge=1, le=4096)]  # channels or units of a first layer
StepCount = Annotated[int, Field(ge=1, le=1_000_000_000)]
Updates = Annotated[int, Field(ge=1, le=100)]  # of a network per step; a graph holds each

# Steps of a training in stages; `600+1500` on the command line and in files.
Steps = Annotated[tuple[StepCount, ...], BeforeValidator(_split_steps)]
TwoStages = Annotated[tuple[StepCount, StepCount], BeforeValidator(_split_steps)]

# Settings that several methods have, in the same words.
LatentDim = Annotated[int, Field(ge=1, le=65_536, description="length of the latent code z")]
Window = Annotated[
    int,
    Field(
        ge=0,
        le=65_536,
        description="side of the windows that networks take, in pixels; 0: the image",
    ),
]
Stride = Annotated[
    int, Field(ge=1, le=65_536, description="of the windows on a larger image, in pixels")
]
Score = Annotated[str, Field(description="name of a score; auto: the best default of the method")]
CueWeights = Annotated[
    str,
    AfterValidator(cue_weights.checked),
    Field(
        description="of the terms of cues, joint, places and joint_places: equal, or by name, "
        "such as features:2,tone:0; 1 if not named, 0: off"
    ),
]
BatchSize = Annotated[int, Field(ge=1, le=65_536, description="images per update of a network")]


@dataclass(frozen=True)
class Common:
    """Settings of every method. A method whose `Config` has one of them gives its own default."""

    # Windows of 32 pixels hold four yarns or five. A stride of 16 scores as well as 8, within 0.003
    # in AUROC, in a quarter of the time. Seven runs of `ganomaly_unet` on twill, herringbone and
    # satin, adapted again, lose up to 0.004 in AUROC and 0.0024 in AUPRO with a stride of 32. With
    # every second window of those of 16, as on a chessboard, they lose up to 0.0024 and 0.0016.
    window: Window = 32
    stride: Stride = 16
    score: Score = "auto"
    cue_weights: CueWeights = cue_weights.EQUAL
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        Field(
            description="of the networks in training, scores are float32; auto: bfloat16 where the "
            "processor has it"
        ),
    ] = "float32"
    jitter: Annotated[
        float, Field(ge=0, le=10, description="strength of the random affine augmentation of a run")
    ] = 0.0


def parse(config: type[C], given: Mapping[str, Any], of: str, base: C | None = None) -> C:
    """Returns a configuration with some settings given.

    Args:
        config: the dataclass.
        given: settings by name; strings are converted to the field's type.
        of: whose settings they are, for messages.
        base: the configuration that the others come from; the dataclass's defaults if None.

    Raises:
        UsageError: an unknown setting, or a value of another type or out of its range.
    """
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    for name, value in given.items():
        if name not in names:
            raise UsageError("setting", name, f"is not one of {of}", nearest(name, names))
        if isinstance(value, bool) and config.__pydantic_fields__[name].annotation is not bool:  # type: ignore[attr-defined]
            raise UsageError(name, value, "is not a number or a name", "give one")
    values = {name: getattr(base, name) for name in names} if base is not None else {}
    try:
        parsed = config(**{**values, **given})
    except ValidationError as error:
        raise _usage_error(config, error, {**values, **given}) from error
    for name in given:
        value = getattr(parsed, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(name, value, "is not finite", "give a finite number")
    return parsed


def as_dict(config: Any) -> dict[str, Any]:
    """Returns a configuration as JSON types; steps of several stages as `"600+1500"`."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: "+".join(map(str, value)) if name == STEPS and isinstance(value, tuple) else value
        for name, value in values.items()
    }


@dataclasses.dataclass(frozen=True)
class Description:
    """One setting in words: its name, the values that it takes, and its meaning."""

    name: str
    values: str
    meaning: str


def describe(config: type) -> list[Description]:
    """Returns what `tfgad list METHOD` prints of each setting, in the order of the fields."""
    fields = config.__pydantic_fields__  # type: ignore[attr-defined]
    return [
        Description(name, " ".join(filter(None, _type_and_range(field))), field.description or "")
        for name, field in fields.items()
    ]


def _type_and_range(field: Any) -> tuple[str, str]:
    choices = typing.get_args(field.annotation)
    if typing.get_origin(field.annotation) is Literal:
        return "one of", ", ".join(map(str, choices))
    if typing.get_origin(field.annotation) is tuple:
        return "int+int", "in [1, 1000000000]"
    if isinstance(field.annotation, types.UnionType):
        return " or ".join(getattr(each, "__name__", str(each)) for each in choices), ""
    return field.annotation.__name__, _range(field.metadata)


def _range(metadata: Sequence[Any]) -> str:
    """Returns the bounds of a number: `≥ 1`, or `[0, 1)` where it has two."""
    bounds = {
        name: getattr(constraint, name)
        for constraint in metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(constraint, name)
    }
    if len(bounds) == 2:
        low = f"[{bounds['ge']}" if "ge" in bounds else f"({bounds['gt']}"
        return f"in {low}, {bounds['le']}]" if "le" in bounds else f"in {low}, {bounds['lt']})"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return "".join(f"{signs[name]} {value}" for name, value in bounds.items())


def _usage_error(config: type, error: ValidationError, given: Mapping[str, Any]) -> UsageError:
    """Returns the first error of pydantic in the project's form."""
    first = error.errors()[0]
    name, context = str(first["loc"][0]), first.get("ctx", {})
    if isinstance(context.get("error"), UsageError):  # of a validator
        return context["error"]
    value = given[name]
    field = config.__pydantic_fields__[name]  # type: ignore[attr-defined]
    kind, bounds = _type_and_range(field)
    if first["type"] == "literal_error":
        choices = [str(each) for each in typing.get_args(field.annotation)]
        return UsageError(name, value, "is not known", nearest(str(value), choices))
    if kind == "int+int":
        shown = "+".join(map(str, value)) if isinstance(value, tuple) else value
        if first["type"] == "less_than_equal":
            return UsageError(name, shown, "is too large", f"give at most {context['le']} each")
        hint = "give a positive number for each stage, with + between, such as 600+1500"
        return UsageError(name, shown, "does not fit the method", hint)
    if first["type"] in ("greater_than_equal", "greater_than"):
        least = "at least" if "ge" in context else "a number above"
        hint = f"give {least} {context.get('ge', context.get('gt'))}"
        problem = "is not finite" if str(value) == "nan" else "is too small"
        return UsageError(name, value, problem, hint)
    if first["type"] in ("less_than_equal", "less_than"):
        most = "at most" if "le" in context else "less than"
        hint = f"give {most} {context.get('le', context.get('lt'))}"
        return UsageError(name, value, "is too large", hint)
    if first["type"] == "finite_number" and kind == "float":
        return UsageError(name, value, "is not finite", "give a finite number")
    hint = f"give a number {bounds}" if bounds else f"give one like {field.default!r}"
    return UsageError(name, value, f"is not of type {kind}", hint)
