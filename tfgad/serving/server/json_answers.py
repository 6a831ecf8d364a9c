"""JSON answers of TF Serving's predict API.

An answer is `{"predictions": ...}` to a request of rows, `{"outputs": ...}` to one of columns. A
single output comes without its name. Bytes are `{"b64": "..."}`. As TF Serving does, this module
writes NaN and infinities as `NaN`, `Infinity` and `-Infinity`, which is not valid JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from tfgad.serving.errors import invalid
from tfgad.serving.server.json_requests import COLUMNS, ROWS
from tfgad.serving.server.json_tensors import BASE64

ANSWERS = {ROWS: "predictions", COLUMNS: "outputs"}
BYTES_SUFFIX = "_bytes"  # outputs with such names are written in base64, other strings as text


def answer(outputs: Mapping[str, np.ndarray], form: str) -> bytes:
    """Returns the body of an answer.

    Args:
        outputs: arrays by name.
        form: form of the request; see `json_requests.form_of`.

    Raises:
        ServingError: the form is rows, and the outputs have none or differ in their number; or
            JSON cannot hold the outputs.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    values = {name: _writable(name, outputs[name]) for name in sorted(outputs)}
    content: Any
    if form == COLUMNS:
        content = values if len(values) > 1 else next(iter(values.values()))
    else:
        content = _rows(values)
    finite = all(array.dtype.kind != "f" or np.isfinite(array).all() for array in outputs.values())
    if finite:
        return orjson.dumps({ANSWERS[form]: content}, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps({ANSWERS[form]: content}, default=_plain).encode()


def error_body(message: str) -> bytes:
    """Returns the body of an error."""
    return json.dumps({"error": message}).encode()


def _writable(name: str, array: np.ndarray) -> Any:
    """Returns an array in a form that the JSON writers accept."""
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
    """Turns columns into rows: of values if there is one column, else of objects."""
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
    """Returns numpy values as Python's, and float32 by their shortest digits."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{type(value)} is not a JSON value")
    if value.dtype == np.float32:
        return np.asarray(value).astype(str).astype(np.float64).tolist()
    return value.tolist()
