"""Normal images held out of training, to set the threshold by."""

import numbers

import numpy as np

from tfgad.errors import UsageError


def hold_out(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits `count` source images at random into those to train on and those held out.

    Split whole source images, never their tiles: neighbouring tiles share light, focus and yarn,
    and a threshold set on them would be too low for a new image.

    Args:
        count: how many there are.
        fraction: the part held out, between 0 and 1; at least one image is held out and one kept.
        seed: decides which; a whole number from 0 up.

    Returns:
        Two arrays of indices, each ascending: kept, held out.

    Raises:
        UsageError: the fraction is not between 0 and 1, there are fewer than two images, or the
            seed is negative or no whole number.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            "calibration", fraction, "is not between 0 and 1", "give the part of the good images"
        )
    if count < 2:
        raise UsageError(
            "data set", f"{count} good", "leaves none to hold out", "give at least two good images"
        )
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise UsageError("seed", seed, "is no whole number from 0 up", "give one, such as 0")
    held = min(max(round(count * fraction), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])
