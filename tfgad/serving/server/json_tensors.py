"""Values of TF Serving's JSON as arrays.

Error messages are TF Serving's, with long values truncated.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from typing import Any

import numpy as np

from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.server.signature import TensorSpec

BASE64 = "b64"
MAX_SHOWN = 80  # characters of a value that a message quotes
# Nesting of a quoted value: the parser accepts 1024 levels, and Python's stack holds fewer.
MAX_SHOWN_DEPTH = 8
MAX_RANK = 32  # numpy's, before version 2 made it 64

# JSON types for each kind of dtype (`V` is bfloat16). As TF Serving does, integers are accepted for
# floats, and floats are not for integers.
TYPES: dict[str, set[type]] = {
    "f": {int, float},
    "V": {int, float},
    "i": {int},
    "u": {int},
    "b": {bool},
}
MANTISSA_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
WIDEST: dict[str, type] = {
    "f": np.float64,
    "V": np.float64,
    "i": np.int64,
    "u": np.uint64,
    "b": np.bool_,
}


def array(value: Any, spec: TensorSpec) -> np.ndarray:
    """Returns nested lists as an array.

    Args:
        value: nested lists of JSON values, or one value.
        spec: spec of the input.

    Returns:
        An array of the spec's dtype; of dtype object for strings.

    Raises:
        ServingError: the lists are ragged, or a value is of a wrong type or out of range.
    """
    shape, leaves = _flatten(value)
    types = set(map(type, leaves))
    if spec.is_text:
        texts = np.empty(len(leaves), object)
        texts[:] = [_text(leaf) for leaf in leaves]
        return texts.reshape(shape)
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    if not types <= TYPES[wanted.kind]:
        wrong = next(leaf for leaf in leaves if type(leaf) not in TYPES[wanted.kind])
        raise _wrong_type(wrong, spec)
    try:
        # numpy's own rules for integers out of range depend on its version
        values: np.ndarray = np.array(leaves, WIDEST[wanted.kind])
    except OverflowError:
        raise _wrong_type(max(leaves, key=abs), spec) from None
    if int in types and spec.dtype.name in MANTISSA_BITS:
        _check_precision(values, leaves, spec)
    return _cast(values, wanted, spec).reshape(shape)


def _check_precision(values: np.ndarray, leaves: list, spec: TensorSpec) -> None:
    """Raises ServingError if an integer has more digits than the spec's dtype holds."""
    largest = 2 ** MANTISSA_BITS[spec.dtype.name]
    if (np.abs(values) >= largest).any():
        for leaf in leaves:
            if type(leaf) is int and abs(leaf) >= largest:
                raise _inexact(leaf)


def _cast(values: np.ndarray, wanted: np.dtype, spec: TensorSpec) -> np.ndarray:
    """Casts to a dtype; raises ServingError if a value is out of its range."""
    if wanted.kind in "iu" and values.size:
        for value in (values.min(), values.max()):
            if not np.iinfo(wanted).min <= value <= np.iinfo(wanted).max:
                raise _wrong_type(int(value), spec)
    with np.errstate(over="ignore"):
        cast = values.astype(wanted)
    if wanted.kind in "fV" and (np.isinf(cast) != np.isinf(values)).any():
        raise _inexact(float(values[np.isinf(cast) != np.isinf(values)][0]))
    return cast


def _inexact(value: Any) -> ServingError:
    problem = f"Cannot convert JSON value: {shown(value)} to float without loss of precision."
    return invalid(problem)


def _flatten(value: Any) -> tuple[tuple[int, ...], list]:
    """Returns the shape of nested lists, and their values in order.

    It works level by level, so that no Python code runs for each value.
    """
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        others = set(map(type, level)) - {list}
        if others:
            wrong = next(each for each in level if not isinstance(each, list))
            raise invalid(
                f"JSON Value: {shown(wrong)} found at incorrect level: {len(shape)} in the JSON "
                "DOM. Expected a list there"
            )
        lengths = list(map(len, level))
        if min(lengths) != max(lengths):
            wrong = next(length for length in lengths if length != lengths[0])
            raise invalid(
                f"Encountered list at unexpected size: {wrong} at level: {len(shape)} expected "
                f"size: {lengths[0]}"
            )
        shape.append(lengths[0])
        if len(shape) > MAX_RANK:
            raise invalid(f"Encountered lists nested deeper than {MAX_RANK}")
        level = list(itertools.chain.from_iterable(level))
    if any(issubclass(each, list) for each in set(map(type, level))):
        raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return tuple(shape), level


def _wrong_type(value: Any, spec: TensorSpec) -> ServingError:
    return invalid(f"JSON Value: {shown(value)} is not of expected type: {spec.dtype.name}")


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            raise invalid(f"JSON Value: {shown(value)} is no Unicode text") from None
    if isinstance(value, dict):
        if not is_base64(value):
            raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
        try:
            return _decode(value[BASE64])
        except (binascii.Error, ValueError):
            raise invalid("Unable to base64 decode") from None
    raise invalid(f"JSON Value: {shown(value)} is not of expected type: string")


def _decode(text: str) -> bytes:
    """Decodes base64 as TF Serving does: white space is skipped, and padding is optional."""
    text = "".join(text.split())
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def is_base64(value: Any) -> bool:
    """Returns whether a JSON value is `{"b64": "..."}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(BASE64), str)


def shown(value: Any) -> str:
    """Returns the beginning of a value as JSON, for messages."""
    text = _beginning(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _beginning(value: Any, depth: int = 0) -> str:
    """Writes only the beginning of a value, since it may be as large as a body."""
    if depth == MAX_SHOWN_DEPTH:
        return "..."
    if isinstance(value, dict):
        items = list(value.items())[:2]
        pairs = (f"{json.dumps(k[:MAX_SHOWN])}:{_beginning(v, depth + 1)}" for k, v in items)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        parts = [_beginning(each, depth + 1) for each in value[:3]]
        return "[" + ",".join(parts) + ("...]" if value[3:] else "]")
    return json.dumps(value[:MAX_SHOWN] if isinstance(value, str) else value)
