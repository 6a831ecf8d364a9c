"""JSON requests of TF Serving's predict API, as arrays.

A request is `{"instances": [...]}`, row by row, or `{"inputs": ...}`, input by input, with a
`signature_name` unless that is `serving_default`. Bytes are `{"b64": "..."}`. As TF Serving does,
this module reads NaN and infinities as `NaN`, `Infinity` and `-Infinity`: this is not valid JSON,
but Python's and most other parsers accept it. Error messages are TF Serving's, with long values
truncated.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from tfgad.serving.errors import invalid
from tfgad.serving.server.json_tensors import array, is_base64, shown
from tfgad.serving.server.signature import Signature

ROWS, COLUMNS = "instances", "inputs"


def parse(body: bytes) -> dict[str, Any]:
    """Parses a request.

    Raises:
        ServingError: it is not a JSON object.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # some Windows programs write it
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _parse_with_nan(body, error)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Returns the signature that a request names; empty if it names none.

    Raises:
        ServingError: the name is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def inputs_of(document: Mapping[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    """Returns the arrays of a request, in the dtypes of the signature.

    Raises:
        ServingError: they are ragged, of wrong types or not those of the signature; or the
            signature takes no inputs, so that JSON cannot call it.
    """
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    form = form_of(document)
    value = document[form]
    if form == COLUMNS:
        return _from_columns(value, signature)
    if not isinstance(value, list):
        raise invalid(f"JSON Value: {shown(document)} Excepting 'instances' to be an list/array")
    if not value:
        raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
    return _from_rows(value, signature)


def form_of(document: Mapping[str, Any]) -> str:
    """Returns the form of a request: `instances` (rows) or `inputs` (columns).

    Raises:
        ServingError: it has neither key, or both.
    """
    forms = [form for form in (ROWS, COLUMNS) if form in document]
    if len(forms) == 2:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist"
        )
    if not forms:
        raise invalid("Missing 'inputs' or 'instances' key")
    return forms[0]


def _parse_with_nan(body: bytes, error: orjson.JSONDecodeError) -> Any:
    """Parses a document that may hold NaN, which orjson refuses."""
    # Python's parser is recursive, so that it cannot parse a document nested too deeply for orjson.
    if "depth" not in str(error) and (b"NaN" in body or b"Infinity" in body):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass
    raise invalid(f"JSON Parse error: {error}") from None


def _from_columns(value: Any, signature: Signature) -> dict[str, np.ndarray]:
    if not isinstance(value, dict) or is_base64(value):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name, spec = next(iter(signature.inputs.items()))
        return {name: array(value, spec)}
    for name in signature.inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: array(value[name], spec) for name, spec in signature.inputs.items()}


def _from_rows(rows: list, signature: Signature) -> dict[str, np.ndarray]:
    columns: dict[str, list]
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
    return {name: array(columns[name], spec) for name, spec in signature.inputs.items()}


def _add_named_row(columns: dict[str, list], i: int, row: Any) -> None:
    if not _is_named(row):
        raise invalid(f"Expecting object but got list at item {i} of input list")
    if row.keys() != columns.keys():
        raise invalid(
            f"Failed to process element: {i} of 'instances' list. JSON object: {shown(row)} must "
            f"only have keys: {','.join(sorted(columns))}"
        )
    for name, value in row.items():
        columns[name].append(value)


def _is_named(row: Any) -> bool:
    return isinstance(row, dict) and not is_base64(row)
