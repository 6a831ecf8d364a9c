"""Specs, and the options that a loader's signature allows."""

import pytest

from tfgad.data import load
from tfgad.data.options import convert
from tfgad.data.spec import Spec
from tfgad.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mnist:8", Spec("mnist", "8")),
        ("mnist:!2", Spec("mnist", "!2")),
        ("aitex:03?tile=64&seed=1", Spec("aitex", "03", {"tile": "64", "seed": "1"})),
        ("folder:~/a b:c&d=e?size=128", Spec("folder", "~/a b:c&d=e", {"size": "128"})),
    ],
)
def test_parse_and_write_back(text, expected):
    assert Spec.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["mnist", "mnist:", ":8", "mnist:8?size", "mnist:8?a=1&a=2"])
def test_malformed_specs(text):
    with pytest.raises(UsageError):
        Spec.parse(text)


def test_a_bare_path_gets_a_hint(tmp_path):
    with pytest.raises(UsageError, match=f"write folder:{tmp_path}"):
        Spec.parse(str(tmp_path))


def loader(
    name: str, *, size: int = 8, part: float = 0.5, tile: int | None = None, on: bool = True
):
    """Has an option of every type."""


def test_options_get_the_types_of_the_signature():
    given = {"size": "16", "part": "0.25", "tile": "4", "on": "false"}
    assert convert(loader, "x", given) == {"size": 16, "part": 0.25, "tile": 4, "on": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sise": "1"}, "did you mean 'size'"),
        ({"size": "1.5"}, "not a whole number"),
        ({"part": "half"}, "not a number"),
        ({"on": "perhaps"}, "not true or false"),
        ({"name": "x"}, "no such option"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        convert(loader, "x", options)


def test_an_unknown_kind_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        load("mnits:8")


def test_defaults_fill_options_that_the_spec_does_not_give():
    data = load("digits:8?size=16", size=64, seed=3, tile=7, calibration=None)
    assert data.image_shape == (16, 16, 1)
    assert Spec.parse(data.spec) == Spec("digits", "8", {"size": "16", "seed": "3"})
    again = load(data.spec)
    assert again.spec == data.spec
    assert again.calibration_size == data.calibration_size
