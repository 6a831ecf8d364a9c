"""The table of kinds of data sets."""

import pytest

from tfgad.data.options import KIND_OF_VALUE, parameters
from tfgad.data.registry import KINDS
from tfgad.data.spec import Spec


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_loader_with_readable_options(kind):
    loader = KINDS[kind].loader()
    assert Spec.parse(KINDS[kind].example).kind == kind
    assert set(parameters(loader).values()) <= {*KIND_OF_VALUE, str}
