"""AITEX Fabric Image Database: grey strips of woven fabric, 4096x256, with masked defects.

Silvestre-Blanes et al., "A public fabric database for defect detection methods and results",
AUTEX Research Journal 19(4), 2019, doi 10.2478/aut-2019-0035. The layout is the published one:

    NODefect_images/<folder of a fabric>/NNNN_000_FF.png
    Defect_images/NNNN_DDD_FF.png          DDD the defect's code, FF the fabric's
    Mask_images/NNNN_DDD_FF_mask*.png

The letter case of folders and endings does not matter: it is also published as `NoDefect_images`.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfgad.data.anomaly_data import TILE, AnomalyData
from tfgad.data.images import ImageError, open_image
from tfgad.data.split import hold_out
from tfgad.errors import UsageError, nearest

NORMAL, DEFECTIVE, MASKS = "NODefect_images", "Defect_images", "Mask_images"
# The left margin shows the backdrop or a grey panel, up to x = 1240 on the strips seen.
LEFT = 1300
# Masks are anti-aliased: this and less is the rim.
MASK_THRESHOLD = 127
# Of a fabric's 20 normal strips the first 14 are for training.
TRAIN_STRIPS, TRAIN_PART = 14, 0.7
# A tile with fewer defect pixels than this, but some, is neither normal nor a fair test.
DEFECT_PIXELS = 10

# The defect codes of the paper.
DEFECTS = {
    "002": "broken end",
    "006": "broken yarn",
    "010": "broken pick",
    "016": "weft curling",
    "019": "fuzzyball",
    "022": "cut selvage",
    "023": "crease",
    "025": "warp ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft crack",
}


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
        """1 if any of the defect is in view, else 0."""
        return int(self.mask.any())


@dataclasses.dataclass(frozen=True)
class Strips:
    """The strips of one fabric, split as published comparisons split them."""

    train: tuple[Strip, ...]
    calibration: tuple[Strip, ...]
    test: tuple[Strip, ...]
    skipped: tuple[str, ...]


def strips(
    fabric: str, *, calibration: float = 0.2, seed: int = 0, root: str | None = None
) -> Strips:
    """Reads whole strips, for scoring a fabric as it comes off the loom.

    Normal strips are sorted by file name. The first 14 are for training, less those held out for
    calibration; the rest are normal test strips. All defective strips with a mask are test
    strips.

    Args:
        fabric: the two digits that end the file names, such as `"03"`.
        calibration: the part of the training strips held out, whole strips at a time.
        seed: decides which.
        root: the folder that holds `NODefect_images`, in any letter case; default
            `$TFGAD_DATA_DIR/aitex`.

    Raises:
        UsageError: the database or the fabric is not there.
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


def load(
    name: str,
    *,
    tile: int = 128,
    calibration: float = 0.2,
    seed: int = 0,
    root: str | None = None,
) -> AnomalyData:
    """Loads the tiles of one fabric; tiles do not overlap.

    A test tile is defective with at least 10 mask pixels, left out with 1 to 9, normal with none.

    Args:
        name: the fabric, such as `"03"`.
        tile: side of a tile in pixels, at most 256.
        calibration: as for `strips`.
        seed: as for `strips`.
        root: as for `strips`.

    Raises:
        UsageError: the database or the fabric is not there, or the tile is larger than a strip.
    """
    fabric = strips(name, calibration=calibration, seed=seed, root=root)
    _check_tile(tile, fabric)
    train, held = (_cut(of, tile)["image"] for of in (fabric.train, fabric.calibration))
    test = _cut(fabric.test, tile)
    return AnomalyData(
        spec=f"aitex:{name}",
        image_shape=(tile, tile, 1),
        train=tf.data.Dataset.from_tensor_slices(train).map(_scale, tf.data.AUTOTUNE),
        calibration=tf.data.Dataset.from_tensor_slices(held).map(_scale, tf.data.AUTOTUNE),
        test=tf.data.Dataset.from_tensor_slices(test).map(_scale_test, tf.data.AUTOTUNE),
        train_size=len(train),
        calibration_size=len(held),
        test_size=len(test["label"]),
        has_masks=True,
        kinds=_kinds(fabric.test),
        skipped=fabric.skipped,
        unit=TILE,
    )


def fabrics(root: str | None = None) -> tuple[str, ...]:
    """Returns the names of the fabrics, such as `"03"`; raises UsageError if there is no database.

    Args:
        root: as for `strips`.
    """
    return tuple(sorted({_fabric(path) for path in _find(_root(root), NORMAL, "*/*.png")}))


def _root(root: str | None) -> pathlib.Path:
    """Returns the folder of the database, once it is known to be one."""
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
    """Returns the folders of a name in whatever letter case."""
    return [path for path in sorted(root.iterdir()) if path.name.lower() == name.lower()]


def _find(root: pathlib.Path, name: str, pattern: str) -> list[pathlib.Path]:
    """Returns the files in such folders that match a pattern in whatever letter case, sorted."""
    any_case = "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in pattern)
    return sorted(path for folder in _folders(root, name) for path in folder.glob(any_case))


def _fabric(path: pathlib.Path) -> str:
    """The fabric is the last field: the published set has a stray `0018_00_01.png`."""
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
        ImageError: the image or the mask is missing, broken, or says nothing.
    """
    if image_path is None:
        raise ImageError(mask_paths[0], "is the mask of a strip that is not there")
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
    """Reads uint8 `[H, W, 1]`; some of the published strips carry an alpha channel (mode LA)."""
    return np.asarray(open_image(path).convert("L"))[:, :, None]


def _check_tile(tile: int, fabric: Strips) -> None:
    smallest = min(min(strip.image.shape[:2]) for strip in (*fabric.train, *fabric.test))
    if not 0 < tile <= smallest:
        raise UsageError(
            "tile", tile, "is no side of a tile of these strips", f"give 1 to {smallest}"
        )


def _cut(of: Iterable[Strip], tile: int) -> dict[str, np.ndarray]:
    """Cuts strips into tiles: arrays of images, labels, masks and names."""
    images, labels, masks, names = zip(
        *(each for strip in of for each in _tiles(strip, tile)), strict=True
    )
    return {
        "image": np.stack(images),
        "label": np.array(labels, np.int32),
        "mask": np.stack(masks),
        "name": np.array(names),
    }


def _tiles(strip: Strip, tile: int) -> Iterator[tuple[np.ndarray, bool, np.ndarray, str]]:
    """Yields image, label, mask and name of those tiles that the protocol keeps."""
    height, width = strip.image.shape[:2]
    for y in range(0, height - tile + 1, tile):
        for x in range(0, width - tile + 1, tile):
            window = np.s_[y : y + tile, x : x + tile]
            defect_pixels = strip.mask[window].sum()
            if defect_pixels == 0 or defect_pixels >= DEFECT_PIXELS:
                name = f"{strip.name}/x{LEFT + x}_y{y}"
                yield strip.image[window], defect_pixels > 0, strip.mask[window], name


def _kinds(test: Iterable[Strip]) -> tuple[str, ...]:
    codes = sorted({strip.name.split("_")[1] for strip in test if strip.label})
    return tuple(DEFECTS.get(code, code) for code in codes)


def _scale(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float32) / 127.5 - 1


def _scale_test(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {**element, "image": _scale(element["image"])}
