"""Splits: disjoint, ascending, the same for the same seed."""

import numpy as np
import pytest

from tfgad.data import load
from tfgad.data.split import hold_out, hold_out_by_name
from tfgad.errors import UsageError

# Indices held out by a hash of the names. They must never change, or runs would be calibrated on
# images that they were trained on.
HELD = [0, 1, 2, 3, 6, 17, 19]


@pytest.mark.parametrize(
    ("count", "fraction", "held_count"), [(10, 0.2, 2), (10, 0.01, 1), (3, 0.99, 2)]
)
def test_each_image_is_in_one_part_and_no_part_is_empty(count, fraction, held_count):
    kept, held = hold_out(count, fraction, seed=0)
    assert len(held) == held_count
    assert sorted([*kept, *held]) == list(range(count))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()


def test_the_seed_decides():
    first, again, other = (hold_out(100, 0.5, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_name_stays_in_its_part_when_others_are_added():
    names = [f"train/good/{i:03d}.png" for i in range(400)]
    _, held = hold_out_by_name(names, 0.2, seed=0)
    assert 55 < len(held) < 105  # four standard deviations about 80
    some = names[37:250:2]
    _, held_of_some = hold_out_by_name(some, 0.2, seed=0)
    assert {some[i] for i in held_of_some} == {names[i] for i in held} & set(some)
    others = [hold_out_by_name(names, 0.2, 1)[1], hold_out_by_name(names, 0.2, 0, "test")[1]]
    assert all(set(other) != set(held) for other in others)


def test_the_hash_is_the_same_on_every_machine():
    names = [f"{i}.png" for i in range(20)] + ["Gewebe/Rei\u00dfen/\u00e4.png"]
    _, held = hold_out_by_name(names, 0.3, seed=0)
    assert held.tolist() == HELD
    decomposed = [*names[:-1], "Gewebe/Rei\u00dfen/a\u0308.png"]
    assert hold_out_by_name(decomposed, 0.3, seed=0)[1].tolist() == HELD


@pytest.mark.parametrize(("count", "sides"), [(2, (1, 1)), (3, (2, 1)), (4, (2, 2)), (5, (3, 2))])
@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_small_sets_have_two_in_either_part_if_possible(count, sides, fraction):
    kept, held = hold_out_by_name([str(i) for i in range(count)], fraction, seed=0)
    assert sorted((len(kept), len(held)), reverse=True) == list(sides)
    assert sorted([*kept, *held]) == list(range(count))


def test_growth_moves_no_image_into_calibration():
    names = [f"{i}.png" for i in range(60)]
    trained = set()
    for count in range(4, 61):
        kept, held = hold_out_by_name(names[:count], 0.2, seed=3)
        assert not trained & set(held.tolist())
        trained |= set(kept.tolist())


@pytest.mark.parametrize("arguments", [(10, 0, 0), (10, 1, 0), (1, 0.5, 0)])
def test_impossible_splits_are_refused(arguments):
    with pytest.raises(UsageError):
        hold_out(*arguments)


def test_the_wrong_fraction_is_named():
    with pytest.raises(UsageError, match=r"^test '2': is not between 0 and 1; give a number"):
        hold_out_by_name(["a", "b"], 2, 0, "test")


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_invalid_seeds_are_refused(seed):
    with pytest.raises(UsageError, match="seed"):
        hold_out(10, 0.5, seed)


@pytest.mark.parametrize("spec", ["digits:8", "weave:twill"])
def test_loaders_refuse_a_negative_seed(spec):
    with pytest.raises(UsageError, match="seed"):
        load(spec, seed=-1)
