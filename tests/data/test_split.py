"""What is held out: disjoint, ascending, the same by the same seed."""

import numpy as np
import pytest

from tfgad.data import load
from tfgad.data.split import hold_out
from tfgad.errors import UsageError


@pytest.mark.parametrize(
    ("count", "fraction", "held_count"), [(10, 0.2, 2), (10, 0.01, 1), (3, 0.99, 2)]
)
def test_each_image_is_on_one_side_and_neither_side_is_empty(count, fraction, held_count):
    kept, held = hold_out(count, fraction, seed=0)
    assert len(held) == held_count
    assert sorted([*kept, *held]) == list(range(count))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()


def test_the_seed_decides():
    first, again, other = (hold_out(100, 0.5, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("arguments", [(10, 0, 0), (10, 1, 0), (1, 0.5, 0)])
def test_nothing_to_keep_or_to_hold_out(arguments):
    with pytest.raises(UsageError):
        hold_out(*arguments)


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_seeds_that_are_none(seed):
    with pytest.raises(UsageError, match="seed"):
        hold_out(10, 0.5, seed)


@pytest.mark.parametrize("spec", ["digits:8", "weave:twill"])
def test_loaders_refuse_a_negative_seed(spec):
    with pytest.raises(UsageError, match="seed"):
        load(spec, seed=-1)
