"""JSON requests and answers."""

import json

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("orjson")

from tfgad.serving.errors import ServingError
from tfgad.serving.server import json_answers, json_requests
from tfgad.serving.server.signature import Signature, TensorSpec


def inputs_of(text, **specs):
    signature = Signature("serving_default", specs, {})
    return json_requests.inputs_of(json_requests.parse(text.encode()), signature)


def spec(dtype):
    return TensorSpec(dtype, None)


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        (tf.uint8, "[[0, 255]]", np.array([[0, 255]], np.uint8)),
        (tf.int64, "[-9223372036854775808]", np.array([-(2**63)], np.int64)),
        (tf.uint64, "[18446744073709551615]", np.array([2**64 - 1], np.uint64)),
        (tf.float32, "[1, 0.2, 1e-3]", np.array([1, 0.2, 1e-3], np.float32)),
        (tf.float32, "[NaN, -Infinity]", np.array([np.nan, -np.inf], np.float32)),
        (tf.bool, "[true, false]", np.array([True, False])),
        (tf.float32, "7", np.array(7, np.float32)),
        (tf.float32, "[16777215, 16777217.0]", np.array([16777215, 16777216], np.float32)),
        (tf.uint8, "[]", np.zeros(0, np.uint8)),
    ],
)
def test_values_of_every_type(dtype, text, expected):
    (given,) = inputs_of(f'{{"inputs": {text}}}', x=spec(dtype)).values()
    assert given.dtype == expected.dtype
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize(
    ("dtype", "text", "message"),
    [
        (tf.int32, "[2147483648]", "2147483648 is not of expected type: int32"),
        (tf.int64, "[9223372036854775808]", "9223372036854775808 is not of expected type: int64"),
        (tf.int32, "[1.0]", "1.0 is not of expected type: int32"),
        (tf.float32, "[1e39]", "1e+39 to float without loss of precision"),
        (tf.float32, "[NaN, -16777216]", "-16777216 to float without loss of precision"),
        (tf.float64, "[9007199254740992]", "9007199254740992 to float without loss"),
        (tf.float32, "[true]", "true is not of expected type: float32"),
        (tf.bool, "[1]", "1 is not of expected type: bool"),
        (tf.string, "[1]", "1 is not of expected type: string"),
        (tf.uint8, "[[1], 2]", "2 found at incorrect level: 1"),
        (tf.uint8, "[1, [2]]", "unexpected level: 1"),
        (tf.uint8, "[[1, 2], [3]]", "unexpected size: 1 at level: 1 expected size: 2"),
    ],
)
def test_values_that_do_not_fit(dtype, text, message):
    with pytest.raises(ServingError) as raised:
        inputs_of(f'{{"inputs": {text}}}', x=spec(dtype))
    assert raised.value.code == "INVALID_ARGUMENT"
    assert message in raised.value.message


def test_strings_are_text_or_base_64():
    text = '{"inputs": ["\\u00e4", {"b64": "/9j/"}]}'
    (given,) = inputs_of(text, x=spec(tf.string)).values()
    assert given.tolist() == ["ä".encode(), b"\xff\xd8\xff"]


@pytest.mark.parametrize("text", ["aGVsbG8=", "aGVsbG8", "aGVs\\nbG8=\\r\\n", " aGVs bG8"])
def test_base_64_may_have_lines_and_lack_its_padding(text):
    """MIME encoders write it so, and TF Serving accepts it."""
    (given,) = inputs_of(f'{{"inputs": [{{"b64": "{text}"}}]}}', x=spec(tf.string)).values()
    assert given.tolist() == [b"hello"]


def test_half_a_surrogate_pair_is_refused():
    """Python's parser, which is used if there is NaN, accepts half of a surrogate pair."""
    with pytest.raises(ServingError, match="no Unicode text"):
        inputs_of('{"inputs": ["\\ud800"], "x": NaN}', x=spec(tf.string))


def test_several_inputs_go_by_name():
    specs = {"a": spec(tf.uint8), "b": spec(tf.float32)}
    rows = inputs_of('{"instances": [{"a": 1, "b": [2]}, {"a": 3, "b": [4]}]}', **specs)
    columns = inputs_of('{"inputs": {"a": [1, 3], "b": [[2], [4]]}}', **specs)
    for given in (rows, columns):
        np.testing.assert_array_equal(given["a"], [1, 3])
        np.testing.assert_array_equal(given["b"], [[2], [4]])
    for text in ('{"instances": [1, 2]}', '{"inputs": [1, 2]}'):
        with pytest.raises(ServingError, match="multiple input tensors"):
            inputs_of(text, **specs)
    with pytest.raises(ServingError, match="must only have keys: a,b"):
        inputs_of('{"instances": [{"a": 1}]}', **specs)
    with pytest.raises(ServingError, match="Expecting object but got list at item 1"):
        inputs_of('{"instances": [{"a": 1, "b": 2}, 3]}', **specs)


def test_messages_quote_only_the_beginning_of_a_value():
    with pytest.raises(ServingError) as raised:
        inputs_of(json.dumps({"instances": [{"pixels": ["x" * 10**6] * 3}]}), x=spec(tf.uint8))
    assert len(raised.value.message) < 300


OUTPUTS = {
    "score": np.array([0.2, 3], np.float32),
    "is_anomalous": np.array([False, True]),
    "map": np.array([[1, 0.1], [2, 1e-9]], np.float32),
}


def test_answers_in_rows_and_columns():
    rows = json_answers.answer(OUTPUTS, "instances")
    assert json.loads(rows) == {
        "predictions": [
            {"is_anomalous": False, "map": [1.0, 0.1], "score": 0.2},
            {"is_anomalous": True, "map": [2.0, 1e-9], "score": 3.0},
        ]
    }
    assert b'"score":3.0' in rows  # a float, not an integer
    assert json.loads(json_answers.answer(OUTPUTS, "inputs")) == {
        "outputs": {
            "is_anomalous": [False, True],
            "map": [[1.0, 0.1], [2.0, 1e-9]],
            "score": [0.2, 3.0],
        }
    }


def test_a_single_output_has_no_name():
    outputs = {"score": OUTPUTS["score"]}
    assert json_answers.answer(outputs, "instances") == b'{"predictions":[0.2,3.0]}'
    assert json_answers.answer(outputs, "inputs") == b'{"outputs":[0.2,3.0]}'


@pytest.mark.parametrize("form", ["instances", "inputs"])
def test_nan_and_infinities_are_written_as_by_tf_serving(form):
    outputs = {"x": np.array([0.2, np.nan, np.inf, -np.inf], np.float32)}
    text = json_answers.answer(outputs, form).decode()
    assert text.partition(": ")[2] == "[0.2, NaN, Infinity, -Infinity]}"
    both = {**outputs, "y": np.arange(4, dtype=np.uint8)}
    assert "NaN" in json_answers.answer(both, form).decode()


def test_outputs_with_the_suffix_bytes_are_base_64():
    values = np.array([b"\xff", b"a"], object)
    answer = json_answers.answer({"picture_bytes": values, "text": values[1:].repeat(2)}, "inputs")
    assert json.loads(answer)["outputs"] == {
        "picture_bytes": [{"b64": "/w=="}, {"b64": "YQ=="}],
        "text": ["a", "a"],
    }


def test_outputs_without_equal_rows_are_refused():
    two = {"x": np.zeros(2), "y": np.zeros(3)}
    for outputs in ({}, {"x": np.float32(1)}, two, {"x": np.zeros(0)}):
        with pytest.raises(ServingError):
            json_answers.answer({k: np.asarray(v) for k, v in outputs.items()}, "instances")
