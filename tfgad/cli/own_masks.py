"""The masks that `tfgad score --mask` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfgad.cli import console
from tfgad.files import summarize
from tfgad.inference.masks_by_name import find_masks


def masks_of(
    folder: Path, arguments: Sequence[Path], images: Sequence[Path]
) -> dict[Path, tuple[Path, ...]]:
    """Returns the mask files of each image that has any; says which have none.

    Args:
        folder: of the masks.
        arguments: the files and folders that were named on the command line.
        images: all files among them.

    Raises:
        UsageError: no image has a mask in this folder.
    """
    found = find_masks(folder, arguments, images)
    if found.without:
        names = summarize(found.without, len(images))
        console.warn(f"scored whole, as {folder} has no mask of them: {names}")
    if found.unused:
        console.warn(f"masks of no image: {summarize(found.unused)}")
    if found.shared:
        console.warn(f"masks of several images each: {summarize(found.shared)}")
    return found.of_image
