"""Strips of the AITEX database, read and split as in published comparisons.

The layout of the files is the published one:

    NODefect_images/<folder of a fabric>/NNNN_000_FF.png
    Defect_images/NNNN_DDD_FF.png          DDD is the code of the defect, FF that of the fabric
    Mask_images/NNNN_DDD_FF_mask*.png

The letter case of folders and suffixes is ignored: some copies have `NoDefect_images`.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from tfgad.data.image_files import ImageError
from tfgad.data.images import open_image
from tfgad.data.split import hold_out
from tfgad.errors import UsageError, nearest

NORMAL, DEFECTIVE, MASKS = "NODefect_images", "Defect_images", "Mask_images"
# The left margin, up to x = 1240 on the strips seen, shows the background or a grey panel.
LEFT = 1300
# Masks are anti-aliased: levels up to this one are their soft edge.
MASK_THRESHOLD = 127
# The first 14 of a fabric's 20 normal strips are for training.
TRAIN_STRIPS, TRAIN_PART = 14, 0.7


@dataclasses.dataclass(frozen=True)
class Strip:
    """A strip of fabric without its margin.

    Attributes:
        name: the file's name without suffix, such as `"0018_010_03"`.
        image: uint8 `[256, 2796, 1]`.
        mask: uint8 `[256, 2796, 1]`, 1 on the defect.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray

    @property
    def label(self) -> int:
        """1 if a part of the defect is visible, else 0."""
        return int(self.mask.any())


@dataclasses.dataclass(frozen=True)
class Strips:
    """The strips of one fabric by purpose, and one line per file that was skipped."""

    train: tuple[Strip, ...]
    calibration: tuple[Strip, ...]
    test: tuple[Strip, ...]
    skipped: tuple[str, ...]


def strips(
    fabric: str, *, calibration: float = 0.2, seed: int = 0, root: str | None = None
) -> Strips:
    """Reads the whole strips of a fabric.

    Normal strips are sorted by file name. The first 14 are for training, except those held out for
    calibration. The others are normal test strips. All defective strips with a mask are test
    strips.

    Args:
        fabric: the two digits at the end of the file names, such as `"03"`.
        calibration: fraction of the training strips that is held out, by whole strips.
        seed: decides which strips are held out.
        root: the folder that holds `NODefect_images`, in any letter case; by default
            `$TFGAD_DATA_DIR/aitex`.

    Raises:
        UsageError: there is no such database or fabric.
    """
    folder = _root(root)
    normal, problems = _normal_strips(folder, fabric)
    defective, more_problems = _defective_strips(folder, fabric)
    train_count = min(TRAIN_STRIPS, int(TRAIN_PART * len(normal)))
    kept, held = hold_out(train_count, calibration, seed)
    return Strips(
        train=tuple(normal[i] for i in kept),
        calibration=tuple(normal[i] for i in held),
        test=(*normal[train_count:], *defective),
        skipped=(*problems, *more_problems),
    )


def fabrics(root: str | None = None) -> tuple[str, ...]:
    """Returns the names of the fabrics, such as `"03"`.

    Args:
        root: as for `strips`.

    Raises:
        UsageError: there is no database.
    """
    return tuple(sorted({_fabric(path) for path in _find(_root(root), NORMAL, "*/*.png")}))


def _root(root: str | None) -> pathlib.Path:
    """Returns the folder of the database."""
    if root is None and "TFGAD_DATA_DIR" in os.environ:
        root = os.path.join(os.environ["TFGAD_DATA_DIR"], "aitex")
    hint = (
        "get the AITEX Fabric Image Database from https://www.aitex.es/afid, unpack it, and give "
        "root=FOLDER, or set TFGAD_DATA_DIR to the folder that holds it as aitex/"
    )
    if root is None:
        raise UsageError("TFGAD_DATA_DIR", "", "is not set and no root is given", hint)
    folder = pathlib.Path(root).expanduser()
    if not folder.is_dir() or not _folders(folder, NORMAL):
        raise UsageError("aitex root", folder, f"has no folder {NORMAL}", hint)
    return folder


def _folders(root: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Returns the subfolders with a name in any letter case."""
    return [path for path in sorted(root.iterdir()) if path.name.lower() == name.lower()]


def _find(root: pathlib.Path, name: str, pattern: str) -> list[pathlib.Path]:
    """Returns the files in such subfolders that match a pattern in any letter case, sorted."""
    any_case = "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in pattern)
    return sorted(path for folder in _folders(root, name) for path in folder.glob(any_case))


def _fabric(path: pathlib.Path) -> str:
    """Returns the last field of the name: the published set has a stray `0018_00_01.png`."""
    return path.stem.split("_")[-1]


def _normal_strips(folder: pathlib.Path, fabric: str) -> tuple[list[Strip], list[str]]:
    paths = sorted(_find(folder, NORMAL, "*/*.png"), key=lambda path: path.name)
    of_fabric = [path for path in paths if _fabric(path) == fabric]
    if not of_fabric:
        hint = nearest(fabric, {_fabric(path) for path in paths})
        raise UsageError("aitex fabric", fabric, f"has no normal strips in {folder}", hint)
    found, skipped = [], []
    for path in of_fabric:
        try:
            image = _grey(path)[:, LEFT:]
            found.append(Strip(path.stem, image, np.zeros_like(image)))
        except ImageError as error:
            skipped.append(f"{path.relative_to(folder)}: {error.reason}")
    return found, skipped


def _defective_strips(folder: pathlib.Path, fabric: str) -> tuple[list[Strip], list[str]]:
    masks = collections.defaultdict(list)
    for path in _find(folder, MASKS, "*_mask*.png"):
        masks[path.stem.lower().split("_mask")[0]].append(path)
    images = {path.stem.lower(): path for path in _find(folder, DEFECTIVE, "*.png")}
    found, skipped = [], []
    for name in sorted(images.keys() | masks.keys()):
        if not name.endswith(f"_{fabric}"):
            continue
        try:
            found.append(_defective_strip(name, images.get(name), masks[name]))
        except ImageError as error:
            skipped.append(f"{error.path.relative_to(folder)}: {error.reason}")
    return found, skipped


def _defective_strip(
    name: str, image_path: pathlib.Path | None, mask_paths: Sequence[pathlib.Path]
) -> Strip:
    """Reads a strip and the union of its masks.

    Raises:
        ImageError: the image or a mask is missing or broken, or the mask marks nothing.
    """
    if image_path is None:
        raise ImageError(mask_paths[0], "is the mask of a strip that does not exist")
    if not mask_paths:
        raise ImageError(image_path, "has no mask")
    image = _grey(image_path)
    masks = [_grey(path) > MASK_THRESHOLD for path in mask_paths]
    if any(mask.shape != image.shape for mask in masks):
        raise ImageError(mask_paths[0], "differs in size from its strip")
    mask = np.logical_or.reduce(masks).astype(np.uint8)
    if not mask.any():
        raise ImageError(mask_paths[0], "is all black")
    return Strip(name, image[:, LEFT:], mask[:, LEFT:])


def _grey(path: pathlib.Path) -> np.ndarray:
    """Reads uint8 `[H, W, 1]`; some of the published strips have an alpha channel (mode LA)."""
    return np.asarray(open_image(path).convert("L"))[:, :, None]
