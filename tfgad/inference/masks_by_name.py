"""Which mask file is that of which image, for `tfgad score --mask`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tfgad.data.datasets.folder.mask_files import MaskFolder, shared_masks
from tfgad.data.image_files import files_below, named_like_images
from tfgad.errors import UsageError


@dataclasses.dataclass(frozen=True)
class OwnMasks:
    """The mask files of some images.

    Attributes:
        of_image: path of an image -> its masks, which are united; only images that have one.
        without: the images that have none.
        unused: masks of no image.
        shared: masks of several images.
    """

    of_image: dict[Path, tuple[Path, ...]]
    without: list[Path]
    unused: list[Path]
    shared: list[Path]


def find_masks(folder: Path, arguments: Sequence[Path], images: Sequence[Path]) -> OwnMasks:
    """Finds the masks of images by their names, such as `a/1.png` or `a/1_mask.png` of `a/1.png`.

    Args:
        folder: of the masks.
        arguments: the files and folders that the images were found by. Of an image in one of these
            folders the path within it counts, of others the name.
        images: all of them.

    Raises:
        UsageError: there is no such folder, it is that of the images, or no image has a mask in it.
    """
    if not folder.is_dir():
        hint = "give a folder with the mask NAME.png or NAME_mask.png of an image NAME.png"
        if folder.exists():
            hint += ", or train with --mask FILE to ignore a region of every image"
            raise UsageError("mask", folder, "is no folder", hint)
        raise UsageError("mask", folder, "is not there", hint)
    folders = [each for each in arguments if each.is_dir()]
    if any(folder.samefile(each) for each in folders):
        hint = "put the masks into a folder of their own"
        raise UsageError("mask", folder, "is the folder of the images", hint)
    relative = {
        image: image.relative_to(
            next((each for each in folders if image.is_relative_to(each)), image.parent)
        )
        for image in images
    }
    masks = MaskFolder([folder], list(relative.values()))
    of_image = {image: found for image in images if (found := masks.find(relative[image]))}
    if not of_image:
        hint = "name a mask as its image: NAME.png or NAME_mask.png of NAME.png"
        raise UsageError("mask", folder, "has no mask of these images", hint)
    used = {mask for found in of_image.values() for mask in found}
    unused = [path for path in named_like_images(files_below(folder)) if path not in used]
    without = [each for each in images if each not in of_image]
    return OwnMasks(of_image, without, unused, shared_masks(of_image.values()))
