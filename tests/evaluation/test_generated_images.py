"""KID against its expectation for Gaussians, and the mean distance of features."""

import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.evaluation.generated_images import (
    kernel_inception_distance,
    mean_pairwise_distance,
    squared_mmd,
)


def test_the_estimate_by_hand():
    """In one dimension k(x, y) = (xy + 1)³; of {0, 1} and {0, 2} the pairs are few."""
    # k(0, 1) = 1, k(0, 2) = 1; between: k(0, 0) = k(0, 2) = k(1, 0) = 1, k(1, 2) = 27.
    assert squared_mmd([[0.0], [1.0]], [[0.0], [2.0]]) == pytest.approx(1 + 1 - 2 * 30 / 4)
    # In two dimensions x·y is halved: k((1, 1), (1, 1)) = 8, and 1 with the origin.
    twice = [[1.0, 1.0], [1.0, 1.0]]
    assert squared_mmd(twice, [[0.0, 0.0], [0.0, 0.0]]) == pytest.approx(8 + 1 - 2)


def test_it_is_unbiased_for_gaussians():
    """(xy + 1)³ compares the moments: the expectation is the sum of C(3, n) (E xⁿ - E yⁿ)².

    For N(0, 1) and N(1, 1) the moments are 0, 1, 0 and 1, 2, 4: 3·1 + 3·1 + 16 = 22.
    """
    rng = np.random.default_rng(0)
    real, moved = rng.normal(0, 1, (10_000, 1)), rng.normal(1, 1, (10_000, 1))
    mean, error = kernel_inception_distance(real, moved, subset=50)
    assert error < 3
    assert mean == pytest.approx(22.0, abs=4 * error)
    mean, error = kernel_inception_distance(real, rng.normal(0, 1, (10_000, 1)), subset=50)
    assert error < 0.4
    assert mean == pytest.approx(0.0, abs=4 * error)


def test_the_same_seed_gives_the_same_and_the_rest_is_left_out():
    rng = np.random.default_rng(1)
    real, other = rng.normal(size=(119, 4)), rng.normal(size=(205, 4))
    first, second = (kernel_inception_distance(real, other, seed=3) for _ in range(2))
    assert first == second
    assert first != kernel_inception_distance(real, other, seed=4)


def test_too_few_images_are_refused():
    few = np.zeros((99, 4))
    with pytest.raises(UsageError, match="are no two subsets of 50; give at least 100"):
        kernel_inception_distance(few, np.zeros((200, 4)))
    with pytest.raises(UsageError, match="subset '1': has no pairs; give at least 2"):
        kernel_inception_distance(few, few, subset=1)


def test_the_mean_distance_by_hand():
    assert mean_pairwise_distance([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]) == pytest.approx(10 / 3)
