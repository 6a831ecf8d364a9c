"""Normal images held out of training, to set the threshold by."""

import hashlib
import numbers
import unicodedata
from collections.abc import Sequence

import numpy as np

from tfgad.errors import UsageError

LEAST = 2  # on either side: a training and a threshold need two images each


def hold_out(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits `count` source images at random into those to train on and those held out.

    For sets that never change: one image more would change the whole split.
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
    _check(count, fraction, seed)
    held = min(max(round(count * fraction), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def hold_out_by_name(
    names: Sequence[str],
    fraction: float,
    seed: int,
    purpose: str = "calibration",
    least: int = LEAST,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits images by a hash of their names, so that each keeps its side when others are added.

    An image is held out if its hash, a number in [0, 1), is below the fraction. Where that leaves
    less than `least` images on a side, those with the nearest hashes come to it, and may go back
    when the set grows.

    The part of a small set that is held out varies: its standard deviation is about
    `sqrt(fraction * (1 - fraction) / count)`; for a fraction of 0.2 that is 0.18 of 5 images, 0.09
    of 20 and 0.04 of 100. A fixed number for each size cannot be had: wherever it rose by one, all
    images of the larger set would have to be held out, since any of them may be the one added, and
    those that were there before would leave the training.

    Args:
        names: of the images.
        fraction: the part held out, between 0 and 1, on average.
        seed: decides which; a whole number from 0 up.
        purpose: what they are held out for; splits for different purposes are independent.
        least: images on either side, if there are as many: half of them else.

    Returns:
        Two arrays of indices, each ascending: kept, held out.

    Raises:
        UsageError: as `hold_out`.
    """
    _check(len(names), fraction, seed, purpose)
    hashes = np.array([_hash(f"{purpose}/{seed}/{name}") for name in names])
    least = min(least, len(names) // 2)
    held = min(max(int(np.sum(hashes < fraction)), least), len(names) - least)
    order = np.argsort(hashes, kind="stable")
    return np.sort(order[held:]), np.sort(order[:held])


def _hash(text: str) -> float:
    """Returns a number in [0, 1), the same on every machine: file systems differ in accents."""
    digest = hashlib.blake2b(unicodedata.normalize("NFC", text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _check(count: int, fraction: float, seed: int, purpose: str = "calibration") -> None:
    if not 0 < fraction < 1:
        raise UsageError(
            purpose, fraction, "is not between 0 and 1", "give a number between, such as 0.2"
        )
    if count < 2:
        raise UsageError(
            "data set", f"{count} good", "leaves none to hold out", "give at least two good images"
        )
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise UsageError("seed", seed, "is no whole number from 0 up", "give one, such as 0")
