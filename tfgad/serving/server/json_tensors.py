"""JSON of TF Serving's predict API to arrays, and back.

Requests are `{"instances": [...]}`, row by row, or `{"inputs": ...}`, input by input, each with a
`signature_name` if it is not `serving_default`. Answers are `{"predictions": ...}` and
`{"outputs": ...}`; a single output goes without its name. Bytes are `{"b64": "..."}`. As TF Serving
does, NaN and infinities are read and written as `NaN`, `Infinity` and `-Infinity`, which is no
JSON, but what Python's and most other parsers read. Messages are TF Serving's, with long values cut
short.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from tfgad.serving.server.errors import ServingError, invalid
from tfgad.serving.server.signature import Signature, TensorSpec

ROWS, COLUMNS = "instances", "inputs"
ANSWERS = {ROWS: "predictions", COLUMNS: "outputs"}
BASE64 = "b64"
BYTES_SUFFIX = "_bytes"  # outputs so named are written in base 64, other strings as text
SHOWN = 80  # characters of a value that a message quotes
SHOWN_DEPTH = 8  # and how deep it looks for them: the parser takes 1024 levels, Python's stack less
MAX_RANK = 32  # numpy's, before it was 64


def parse(body: bytes) -> dict[str, Any]:
    """Parses a request.

    Raises:
        ServingError: it is no JSON object.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # which some of Windows' programs write
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _parse_with_nan(body, error)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Returns the signature that a request names, or the empty name."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def inputs_of(document: Mapping[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    """Returns the arrays of a request, of the types that the signature wants.

    Raises:
        ServingError: they are ragged, of other types, or not those of the signature; or it takes
            none, and so cannot be called by JSON.
    """
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    form = form_of(document)
    value = document[form]
    if form == COLUMNS:
        return _from_columns(value, signature)
    if not isinstance(value, list):
        raise invalid(f"JSON Value: {_shown(document)} Excepting 'instances' to be an list/array")
    if not value:
        raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
    return _from_rows(value, signature)


def form_of(document: Mapping[str, Any]) -> str:
    """Returns whether a request holds rows or columns: `instances` or `inputs`."""
    forms = [form for form in (ROWS, COLUMNS) if form in document]
    if len(forms) == 2:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist"
        )
    if not forms:
        raise invalid("Missing 'inputs' or 'instances' key")
    return forms[0]


def answer(outputs: Mapping[str, np.ndarray], form: str) -> bytes:
    """Returns the body of an answer in the form that the request had.

    Raises:
        ServingError: rows are wanted, and the outputs have none or not equally many; or JSON cannot
            hold them.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    values = {name: _writable(name, outputs[name]) for name in sorted(outputs)}
    if form == COLUMNS:
        content = values if len(values) > 1 else next(iter(values.values()))
    else:
        content = _rows(values)
    finite = all(array.dtype.kind != "f" or np.isfinite(array).all() for array in outputs.values())
    if finite:
        return orjson.dumps({ANSWERS[form]: content}, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps({ANSWERS[form]: content}, default=_plain).encode()


def error_body(message: str) -> bytes:
    """Returns the body of an answer that says what is wrong."""
    return json.dumps({"error": message}).encode()


def _parse_with_nan(body: bytes, error: orjson.JSONDecodeError) -> Any:
    """Parses what may hold NaN, which the quick parser refuses."""
    # Python's parser recurses; it would be asked in vain about a document nested too deeply.
    if "depth" not in str(error) and (b"NaN" in body or b"Infinity" in body):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise invalid(f"JSON Parse error: {error}") from None


def _from_columns(value: Any, signature: Signature) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or _is_base64(value):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name, spec = next(iter(signature.inputs.items()))
        return {name: _array(value, spec)}
    for name in signature.inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _array(value[name], spec) for name, spec in signature.inputs.items()}


def _from_rows(rows: list, signature: Signature) -> dict[str, np.ndarray]:
    if _is_named(rows[0]):
        columns = {name: [] for name in signature.inputs}
        for i, row in enumerate(rows):
            _add_named_row(columns, i, row)
    else:
        if len(signature.inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input "
                "tensors required as per tensorinfo_map"
            )
        for i, row in enumerate(rows):
            if _is_named(row):
                raise invalid(f"Expecting value/list but got object at item {i} of input list")
        columns = {next(iter(signature.inputs)): rows}
    return {name: _array(columns[name], spec) for name, spec in signature.inputs.items()}


def _add_named_row(columns: dict[str, list], i: int, row: Any) -> None:
    if not _is_named(row):
        raise invalid(f"Expecting object but got list at item {i} of input list")
    if row.keys() != columns.keys():
        raise invalid(
            f"Failed to process element: {i} of 'instances' list. JSON object: {_shown(row)} must "
            f"only have keys: {','.join(sorted(columns))}"
        )
    for name, value in row.items():
        columns[name].append(value)


def _array(value: Any, spec: TensorSpec) -> np.ndarray:
    """Returns nested lists as an array of the type of the signature."""
    shape, leaves = _flatten(value)
    types = set(map(type, leaves))
    if spec.is_text:
        array = np.empty(len(leaves), object)
        array[:] = [_text(leaf) for leaf in leaves]
        return array.reshape(shape)
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    if not types <= _TYPES[wanted.kind]:
        wrong = next(leaf for leaf in leaves if type(leaf) not in _TYPES[wanted.kind])
        raise _wrong_type(wrong, spec)
    try:
        # numpy's own rules for integers out of range depend on its version
        array = np.array(leaves, _WIDEST[wanted.kind])
    except OverflowError:
        raise _wrong_type(max(leaves, key=abs), spec) from None
    if int in types and spec.dtype.name in _DIGITS:
        _check_precision(array, leaves, spec)
    return _cast(array, wanted, spec).reshape(shape)


def _check_precision(array: np.ndarray, leaves: list, spec: TensorSpec) -> None:
    """Raises ServingError if a whole number has more digits than the type of the signature."""
    digits = _DIGITS[spec.dtype.name]
    if (np.abs(array) >= 2**digits).any():
        for leaf in leaves:
            if type(leaf) is int and abs(leaf) >= 2**digits:
                raise _inexact(leaf)


# What JSON may hold for each kind of number that a signature may want (`V` is bfloat16). As TF
# Serving does, a whole number is taken for a fraction, and not the reverse.
_TYPES = {"f": {int, float}, "V": {int, float}, "i": {int}, "u": {int}, "b": {bool}}
_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # binary, of the mantissa
_WIDEST = {"f": np.float64, "V": np.float64, "i": np.int64, "u": np.uint64, "b": np.bool_}


def _cast(array: np.ndarray, wanted: np.dtype, spec: TensorSpec) -> np.ndarray:
    """Casts to the type of the signature where no value is lost."""
    if wanted.kind in "iu" and array.size:
        for value in (array.min(), array.max()):
            if not np.iinfo(wanted).min <= value <= np.iinfo(wanted).max:
                raise _wrong_type(int(value), spec)
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if wanted.kind in "fV" and (np.isinf(cast) != np.isinf(array)).any():
        value = float(array[np.isinf(cast) != np.isinf(array)][0])
        raise _inexact(value)
    return cast


def _inexact(value: Any) -> ServingError:
    problem = f"Cannot convert JSON value: {_shown(value)} to float without loss of precision."
    return invalid(problem)


def _flatten(value: Any) -> tuple[tuple[int, ...], list]:
    """Returns the shape of nested lists and their values in order.

    Level by level, so that no Python runs for each value.
    """
    shape, level = [], [value]
    while level and isinstance(level[0], list):
        others = set(map(type, level)) - {list}
        if others:
            wrong = next(each for each in level if not isinstance(each, list))
            raise invalid(
                f"JSON Value: {_shown(wrong)} found at incorrect level: {len(shape)} in the JSON "
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
    return invalid(f"JSON Value: {_shown(value)} is not of expected type: {spec.dtype.name}")


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            raise invalid(f"JSON Value: {_shown(value)} is no Unicode text") from None
    if isinstance(value, dict):
        if not _is_base64(value):
            raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
        try:
            return _decoded(value[BASE64])
        except (binascii.Error, ValueError):
            raise invalid("Unable to base64 decode") from None
    raise invalid(f"JSON Value: {_shown(value)} is not of expected type: string")


def _decoded(text: str) -> bytes:
    """Decodes base 64 as TF Serving does: white space is skipped, and padding may be missing."""
    text = "".join(text.split())
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(BASE64), str)


def _is_named(row: Any) -> bool:
    return isinstance(row, dict) and not _is_base64(row)


def _writable(name: str, array: np.ndarray) -> Any:
    """Returns an array in a form that the writer of JSON knows."""
    if array.dtype == object:
        write = _as_base64 if name.endswith(BYTES_SUFFIX) else _as_text
        return np.vectorize(write, otypes=[object])(array).tolist()
    if array.dtype.kind not in "fiubV":  # complex numbers
        raise invalid(f"Failed to write JSON value for tensor type: {array.dtype.name}")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize == 2:  # bfloat16 and float16
        array = array.astype(np.float32) if array.dtype.kind in "fV" else array
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _as_base64(value: bytes) -> dict[str, str]:
    return {BASE64: base64.b64encode(value).decode()}


def _as_text(value: bytes) -> str:
    return value.decode(errors="replace")


def _rows(values: Mapping[str, Any]) -> list:
    """Turns columns into rows: of values, or of objects where there are several columns."""
    counts = {}
    for name, value in values.items():
        if np.ndim(value) == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        counts[name] = len(value)
        if not counts[name]:
            raise invalid(f"Tensor name: {name} has invalid batch size: 0")
    if len(set(counts.values())) > 1:
        raise invalid(f"the outputs have inconsistent batch sizes: {counts}")
    if len(values) == 1:
        return list(next(iter(values.values())))
    rows = zip(*values.values(), strict=True)
    return [dict(zip(values, row, strict=True)) for row in rows]


def _plain(value: Any) -> Any:
    """Returns numpy's values as Python's, and floats by their shortest digits."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{type(value)} is no value of JSON")
    if value.dtype == np.float32:
        return np.asarray(value).astype(str).astype(np.float64).tolist()
    return value.tolist()


def _shown(value: Any) -> str:
    """Returns the beginning of a value, as JSON."""
    text = _beginning(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _beginning(value: Any, depth: int = 0) -> str:
    """Writes no more of a value than is needed: it may be as large as a body."""
    if depth == SHOWN_DEPTH:
        return "..."
    if isinstance(value, dict):
        items = list(value.items())[:2]
        parts = (f"{json.dumps(k[:SHOWN])}:{_beginning(v, depth + 1)}" for k, v in items)
        return "{" + ",".join(parts) + "}"
    if isinstance(value, list):
        parts = [_beginning(each, depth + 1) for each in value[:3]]
        return "[" + ",".join(parts) + ("...]" if value[3:] else "]")
    return json.dumps(value[:SHOWN] if isinstance(value, str) else value)
