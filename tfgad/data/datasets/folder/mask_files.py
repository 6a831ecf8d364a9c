"""Mask files by their names: which file is the mask of which image.

Public data sets name a mask as its image, or with a word behind it (`000_mask.png` in MVTec AD,
`10301_GT.png` in KolektorSDD2, `0576_label.PNG` in DAGM 2007), or give each image a folder of masks
(MVTec LOCO AD: `000/000.png`).
"""

from __future__ import annotations

import collections
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

from tfgad.data.datasets.folder.masks import has_few_levels
from tfgad.data.image_files import files_below, named_like_images

# What may follow the image's name in the mask's; a number where an image has several masks.
WORDS = r"mask|gt|ground[ _-]?truth"
MARK = re.compile(rf"[ _-]({WORDS}|label)[ _-]?\d*$")
# For masks beside their images: there `bottle label.png` may be an image like `bottle.png`.
MARK_BESIDE = re.compile(rf"[ _-]({WORDS})[ _-]?\d*$")


class MaskFolder:
    """The masks of one kind of defect, found by the names of their images.

    Letter case and image format are ignored, and one of the words of `MARK` may follow the name.
    Where images have names as similar as that, a mask named exactly as one of them is not taken for
    another: `bottle label.png` marks the image of this name and not `bottle.png`, and `a.bmp` does
    not mark `a.png` if that has a mask of its own.

    Args:
        folders: the folders with the masks, searched recursively.
        images: the paths of all images relative to the folder of their kind.
    """

    def __init__(self, folders: Iterable[pathlib.Path], images: Sequence[pathlib.Path]) -> None:
        self._images = {_normalized_parts(path) for path in images}
        self._stems = {_normalized_parts(path.with_suffix("")) for path in images}
        self._relative: dict[pathlib.Path, pathlib.Path] = {}
        self._by_name: dict[tuple[str, ...], list[pathlib.Path]] = {}
        self._by_folder: dict[tuple[str, ...], list[pathlib.Path]] = {}
        for folder in folders:
            for path in named_like_images(files_below(folder)):
                self._relative[path] = path.relative_to(folder)
                parent = _normalized_parts(self._relative[path].parent)
                for stem in {_normalized(path.stem), without_mark(path)}:
                    self._by_name.setdefault((*parent, stem), []).append(path)
                self._by_folder.setdefault(parent, []).append(path)

    def find(self, relative: pathlib.Path) -> tuple[pathlib.Path, ...]:
        """Returns the masks of an image.

        Args:
            relative: the image's path relative to the folder of its kind.
        """
        key = _normalized_parts(relative.with_suffix(""))
        alike = [path for path in self._by_name.get(key, ()) if self._may_mark(path, key)]
        name = _normalized_parts(relative)
        own = [path for path in alike if not self._is_named_as_another(path, name)]
        alike = own or alike
        # Of names that differ only in letter case, the exact ones come first.
        exact = [path for path in alike if path.stem.startswith(relative.stem)]
        return tuple(exact or alike or self._by_folder.get(key, ()))

    def _may_mark(self, path: pathlib.Path, stem: tuple[str, ...]) -> bool:
        """Returns whether a mask has a stem, or has it before a word and no image has all of it."""
        own = _normalized_parts(self._relative[path].with_suffix(""))
        return own == stem or own not in self._stems

    def _is_named_as_another(self, path: pathlib.Path, image: tuple[str, ...]) -> bool:
        name = _normalized_parts(self._relative[path])
        return name != image and name in self._images


def shared_masks(masks: Iterable[tuple[pathlib.Path, ...]]) -> list[pathlib.Path]:
    """Returns the files that are masks of several images, sorted.

    Args:
        masks: those of each image.
    """
    counts = collections.Counter(path for of_image in masks for path in of_image)
    return sorted(path for path, count in counts.items() if count > 1)


def without_mark(path: pathlib.Path) -> str:
    """Returns a file's name in lower case, without suffix and without a word of `MARK`."""
    return MARK.sub("", _normalized(path.stem))


def masks_beside_images(files: Sequence[pathlib.Path]) -> dict[pathlib.Path, pathlib.Path]:
    """Finds files that are masks of other files in the same folder.

    `a_mask.png` is the mask of `a.png`. Of `a.jpg` and `a.png` the mask is the one that has few
    levels.

    Returns:
        Mask -> image.
    """
    alike: dict[tuple[pathlib.Path, str], list[pathlib.Path]] = {}
    for path in files:
        alike.setdefault((path.parent, _normalized(path.stem)), []).append(path)
    found: dict[pathlib.Path, pathlib.Path] = {}
    for (parent, stem), paths in alike.items():
        images = alike.get((parent, MARK_BESIDE.sub("", stem)), [])
        if images is paths:
            masks = [path for path in paths if len(paths) > 1 and has_few_levels(path)]
            images, paths = [path for path in paths if path not in masks], masks
        found |= {path: images[0] for path in paths if images}
    return found


def _normalized_parts(path: pathlib.Path) -> tuple[str, ...]:
    return tuple(map(_normalized, path.parts))


def _normalized(name: str) -> str:
    """Returns a name in lower case and in Unicode's form NFC: file systems differ in accents."""
    return unicodedata.normalize("NFC", name).lower()
