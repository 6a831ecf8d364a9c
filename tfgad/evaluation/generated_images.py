"""How far generated images are from real ones, and how varied they are, in a feature space.

The kernel inception distance (KID; Bińkowski, Sutherland, Arbel, Gretton 2018) is the unbiased
estimate of the squared maximum mean discrepancy with the kernel

    k(x, y) = (x·y / d + 1)³        x, y features of d numbers

of the images' features. On average it is zero for images of the same distribution, so it may be
negative. The paper's features are Inception's. Those of another network give another scale: compare
figures of the same features only.
"""

from __future__ import annotations

import numpy as np

from tfgad.errors import UsageError

DEGREE = 3  # of the polynomial kernel (the paper)
SUBSET = 50  # feature vectors per estimate; any size is unbiased


def squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the unbiased estimate of the squared maximum mean discrepancy.

    Args:
        first: feature vectors `[M, d]`, M >= 2.
        second: feature vectors `[N, d]`, N >= 2.
    """
    from sklearn.metrics.pairwise import polynomial_kernel

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(polynomial_kernel(a, b, degree=DEGREE, coef0=1.0))  # gamma is 1 / d

    def mean_of_pairs(vectors: np.ndarray) -> float:
        of_all, count = kernel(vectors, vectors), len(vectors)
        return float((of_all.sum() - np.trace(of_all)) / (count * (count - 1)))

    first, second = (np.asarray(each, "float64") for each in (first, second))
    between = float(kernel(first, second).mean())
    return mean_of_pairs(first) + mean_of_pairs(second) - 2.0 * between


def kernel_inception_distance(
    real: np.ndarray, generated: np.ndarray, *, subset: int = SUBSET, seed: int = 0
) -> tuple[float, float]:
    """Returns the mean and the standard error of the KID over disjoint subsets.

    The subsets of the paper's code may overlap. Disjoint ones are independent, so that the standard
    error is that of the mean.

    Args:
        real: feature vectors `[M, d]`.
        generated: feature vectors `[N, d]`.
        subset: vectors of each kind per estimate, at least 2.
        seed: of the division into subsets.

    Raises:
        UsageError: a subset of fewer than 2, or fewer than two subsets of each kind.
    """
    if subset < 2:
        raise UsageError("subset", subset, "has no pairs", "give at least 2")
    count = min(len(real), len(generated)) // subset
    if count < 2:
        given = f"{len(real)} and {len(generated)} images"
        hint = f"give at least {2 * subset} of each"
        raise UsageError("KID", given, f"are no two subsets of {subset}", hint)
    rng = np.random.default_rng(seed)
    subsets = [
        each[rng.permutation(len(each))[: count * subset]].reshape(count, subset, -1)
        for each in (real, generated)
    ]
    estimates = [squared_mmd(*pair) for pair in zip(*subsets, strict=True)]
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / np.sqrt(count))


def mean_pairwise_distance(vectors: np.ndarray) -> float:
    """Returns the mean Euclidean distance over all pairs of feature vectors `[N, d]`, N >= 2."""
    from scipy.spatial.distance import pdist

    return float(pdist(np.asarray(vectors, "float64")).mean())
