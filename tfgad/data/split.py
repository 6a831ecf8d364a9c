"""Splits of normal images: those to train on, and those held out to set the threshold."""

from __future__ import annotations

import hashlib
import numbers
import unicodedata
from collections.abc import Sequence

import numpy as np

from tfgad.errors import UsageError

LEAST = 2  # images in either part: training and threshold need two each


def hold_out(
    count: int, fraction: float, seed: int, purpose: str = "calibration"
) -> tuple[np.ndarray, np.ndarray]:
    """Splits images at random into a part to train on and a part held out.

    This is for data sets that never change: with one more image the whole split is another. Split
    whole source images, never their tiles: neighbouring tiles share light, focus and yarn, and a
    threshold set on them would be too low for a new image.

    Args:
        count: number of images.
        fraction: fraction held out, between 0 and 1; at least one image is held out and one kept.
        seed: whole number from 0 up; decides which images.
        purpose: name of the fraction, for error messages.

    Returns:
        Two arrays of indices, each ascending: kept, held out.

    Raises:
        UsageError: the fraction is not between 0 and 1, there are fewer than two images, or the
            seed is not a whole number from 0 up.
    """
    _check(count, fraction, seed, purpose)
    held = min(max(round(count * fraction), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def hold_out_by_name(
    names: Sequence[str],
    fraction: float,
    seed: int,
    purpose: str = "calibration",
    least: int = LEAST,
    least_kept: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits images by a hash of their names, so that each stays in its part when others are added.

    An image is held out if its hash, a number in [0, 1), is below the fraction. If that leaves
    fewer than `least` images in a part, those with the nearest hashes are moved to it; they may
    move back when the set grows.

    The fraction of a small set that is held out varies. Its standard deviation is about
    `sqrt(fraction * (1 - fraction) / count)`: for a fraction of 0.2 it is 0.18 for 5 images, 0.09
    for 20 and 0.04 for 100. An exact number for each size is impossible: wherever it rises by one,
    any image may be the one added, so all of them would have to be held out.

    Args:
        names: names of the images.
        fraction: fraction held out on average, between 0 and 1.
        seed: whole number from 0 up; decides which images.
        purpose: what they are held out for; splits for different purposes are independent.
        least: smallest number of images in either part, at most half of all.
        least_kept: smallest number of images kept, if that leaves `least` to hold out.

    Returns:
        Two arrays of indices, each ascending: kept, held out.

    Raises:
        UsageError: as `hold_out`.
    """
    _check(len(names), fraction, seed, purpose)
    hashes = np.array([_hash(f"{purpose}/{seed}/{name}") for name in names])
    least = min(least, len(names) // 2)
    most = len(names) - max(least, min(least_kept, len(names) - least))
    held = min(max(int(np.sum(hashes < fraction)), least), most)
    order = np.argsort(hashes, kind="stable")
    return np.sort(order[held:]), np.sort(order[:held])


def _hash(text: str) -> float:
    """Returns a number in [0, 1), the same on every machine.

    Unicode's form NFC is hashed, because file systems store accents differently.
    """
    digest = hashlib.blake2b(unicodedata.normalize("NFC", text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _check(count: int, fraction: float, seed: int, purpose: str = "calibration") -> None:
    if not 0 < fraction < 1:
        raise UsageError(
            purpose, fraction, "is not between 0 and 1", "give a number between, such as 0.2"
        )
    if count < 2:
        raise UsageError(
            "data set",
            f"{count} good",
            "are too few to hold some out",
            "give at least two good images",
        )
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise UsageError("seed", seed, "is not a whole number from 0 up", "give one, such as 0")
