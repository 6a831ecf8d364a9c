"""The parts of a folder's images: for training, for the threshold, for the test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tfgad.data.datasets.folder.check import Checked
from tfgad.data.datasets.folder.groups import check_enough_groups, groups_of
from tfgad.data.datasets.folder.layout import Layout
from tfgad.data.split import LEAST, hold_out_by_name
from tfgad.errors import UsageError

log = logging.getLogger(__name__)

# Part of the good images that is used for the test if the folder has no good test images.
TEST_PART = 0.2
# The same test images for every seed of the data, so that runs can be compared.
TEST_SEED = 0
LEAST_GOOD = 3  # one of them for the test, one for the threshold


def find_groups(
    layout: Layout, good: Sequence[Checked], group: str | None, good_name: str
) -> dict[str, str] | None:
    """Returns the group of each good image by name; None without groups.

    Raises:
        UsageError: an image has none, or there are too few for a split.
    """
    groups = groups_of([each.sample.name for each in good], group, good_name)
    if groups is not None:
        parts = ("training", "calibration", "test")[: 3 if layout.good_is_all else 2]
        check_enough_groups(group, len(set(groups.values())), parts)
    return groups


def split(
    layout: Layout,
    good: list[Checked],
    test: list[Checked],
    calibration: float,
    seed: int,
    groups: Mapping[str, str] | None,
) -> tuple[list[Checked], list[Checked], list[Checked]]:
    """Returns the images for training, calibration and test; each holds whole groups.

    Where the layout has calibration images of its own, these are held out and no others.

    Raises:
        UsageError: too few images for three parts.
    """
    if layout.good_is_all and groups is None and len(good) < LEAST_GOOD:
        problem = "are too few: one is for the test, and one is held out for the threshold"
        hint = f"give at least {LEAST_GOOD}, and {2 * LEAST + 1} to train on"
        raise UsageError("good images", len(good), problem, hint)

    def names_of(images: Sequence[Checked]) -> list[str]:
        names = [each.sample.name for each in images]
        return names if groups is None else [groups[name] for name in names]

    def held_out(
        images: list[Checked], *arguments: Any, **options: Any
    ) -> tuple[list[Checked], list[Checked]]:
        of_each = names_of(images)
        names = sorted(set(of_each)) if groups is not None else of_each
        kept, _ = hold_out_by_name(names, *arguments, **options)
        stays = {names[i] for i in kept}
        pairs = list(zip(of_each, images, strict=True))
        return [c for n, c in pairs if n in stays], [c for n, c in pairs if n not in stays]

    if layout.good_is_all:
        good, for_test = held_out(good, TEST_PART, TEST_SEED, "test", least=1, least_kept=LEAST)
        test = for_test + test
    if any(each.sample.is_held_out for each in good):
        kept = [each for each in good if not each.sample.is_held_out]
        held = [each for each in good if each.sample.is_held_out]
        log.info("%d images of validation/ are held out for the threshold, no others", len(held))
        return kept, held, test
    kept, held = held_out(good, calibration, seed)
    return kept, held, test
