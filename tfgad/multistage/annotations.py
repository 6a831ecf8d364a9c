"""Painted images as data sets on disk: MVTec AD's layout, COCO's JSON, YOLO's text.

The last two are what object detectors such as RT-DETR or YOLO train on. Each region of a mask that
hangs together is one object with its box and its outline, down to a single pixel; the good images
come without objects, as background. Beside them lies a picture of the first images: to be looked at
before anything learns from them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from tfgad import files, plots
from tfgad.data.pixels import to_uint8
from tfgad.errors import UsageError
from tfgad.multistage.painter import Painted

MVTEC = "mvtec"
EIGHT_NEIGHBOURS = np.ones((3, 3), int)
GALLERY, SHOWN = "gallery.png", 24  # three bands of eight images, as much as a screen shows

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Region:
    """Pixels of a mask that hang together.

    Attributes:
        x: the first column of the smallest box around them.
        y: its first row.
        inside: which pixels of the box are theirs, bool `[height, width]`.
    """

    x: int
    y: int
    inside: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The box: x, y, width, height in pixels."""
        height, width = self.inside.shape
        return self.x, self.y, width, height

    @property
    def area(self) -> int:
        """The number of pixels."""
        return int(self.inside.sum())

    @property
    def has_holes(self) -> bool:
        """Whether it surrounds pixels that are not its own."""
        return self.filled().sum() != self.area

    def filled(self) -> np.ndarray:
        """Returns the pixels with those that they surround, bool `[height, width]`."""
        return ndimage.binary_fill_holes(self.inside)


def share_out(good: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the good images that a data set is trained on, and those that are painted on.

    In MVTec AD's layout they are two halves: a detector trained on the first is tested on the
    others, bare and painted. The others' layouts hold nothing but painted images.

    Raises:
        UsageError: there is one image for two halves.
    """
    if form != MVTEC:
        return good[:0], good
    if len(good) < 2:
        hint = "give two or more: some to train on, others to paint on; or another --format"
        raise UsageError("data", f"{len(good)} good image", "is too few", hint)
    return good[::2], good[1::2]


def write_dataset(
    folder: str | Path,
    painted: Iterable[Painted],
    train: np.ndarray,
    test: np.ndarray,
    kinds: Sequence[str],
    form: str,
) -> int:
    """Writes a data set, whole or not at all; returns how many images have a defect.

    Args:
        folder: where to; it must not be there yet, or be empty.
        painted: the images; those whose mask is empty are left out, and counted in the log.
        train: good images, `[N, H, W, C]` in [-1, 1], that `mvtec` is trained on.
        test: those that were painted on, which `mvtec` is tested on too. In `coco` and `yolo` all
            good images are background: they have no objects.
        kinds: the names of all kinds of defect.
        form: one of `FORMATS`.

    Raises:
        UsageError: the folder is in the way, or cannot be written.
    """
    folder = Path(folder)
    is_there = folder.exists()
    if is_there and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("out", folder, "is there already", "name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # What is there already may be `.`, or another file system: it is filled, not replaced.
        home = folder if is_there else folder.parent
        with tempfile.TemporaryDirectory(dir=home, prefix=".partial-") as partial:
            unfinished = Path(partial) / "dataset"
            first: list[Painted] = []
            good = {"train": train, "test": test}
            count = FORMATS[form](unfinished, _noted(painted, first), good, kinds)
            if first:
                plots.save(gallery(first), unfinished / GALLERY)
            if is_there:
                for path in unfinished.iterdir():
                    os.replace(path, folder / path.name)
            else:
                os.replace(unfinished, folder)
    except OSError as error:
        raise files.unwritable("out", folder, error, "name a folder you can write") from error
    return count


def gallery(painted: Sequence[Painted]) -> Figure:
    """Draws good fabric, generated defect, fused image and mask of images of one size."""
    good, images, masks = (
        np.stack([getattr(each, name) for each in painted]) for name in ("good", "image", "mask")
    )
    patches, kinds = [each.patch for each in painted], [each.kind for each in painted]
    return plots.painted(good, patches, images, masks, kinds)


def _noted(painted: Iterable[Painted], first: list[Painted]) -> Iterator[Painted]:
    """Yields the images that have a defect, and puts those that the gallery shows into a list."""
    empty = 0
    for each in painted:
        if not each.mask.any():
            empty += 1
            continue
        if len(first) < SHOWN:
            first.append(each)
        yield each
    if empty:
        log.warning("left out %d images: their masks are empty", empty)


def _with_background(painted, good) -> Iterator[tuple[np.ndarray, list[Region], str]]:
    """Yields image, regions and kind of the painted images, then of the good: they have none."""
    for each in painted:
        yield each.image, list(regions(each.mask)), each.kind
    for image in itertools.chain(*good.values()):
        yield image, [], ""


def _write_mvtec(folder: Path, painted, good, kinds) -> int:
    """`train/good`, `test/<kind>` and `ground_truth/<kind>`; `folder:PATH` reads it."""
    for part, images in good.items():
        for n, image in enumerate(images):
            _write_image(folder / part / "good" / f"{n:04d}.png", image)
    count = 0
    for n, each in enumerate(painted):
        _write_image(folder / "test" / each.kind / f"{n:04d}.png", each.image)
        mask = folder / "ground_truth" / each.kind / f"{n:04d}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each.mask[..., 0] * 255).save(mask)
        count += 1
    return count


def _write_coco(folder: Path, painted, good, kinds) -> int:
    """`images/` and `annotations.json`, with boxes and masks (Lin et al. 2014).

    A region is a polygon or, if it has holes, run lengths.
    """
    images, annotations = [], []
    for n, (image, found, kind) in enumerate(_with_background(painted, good), start=1):
        name = f"{n:06d}.png"
        _write_image(folder / "images" / name, image)
        height, width = image.shape[:2]
        images.append({"id": n, "file_name": name, "width": width, "height": height})
        for region in found:
            mask: Any = [outline(region).ravel().tolist()]
            if region.has_holes:
                mask = run_lengths(region, (height, width))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n,
                    "category_id": kinds.index(kind) + 1,
                    "bbox": list(region.box),
                    "area": region.area,
                    "segmentation": mask,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": n, "name": name} for n, name in enumerate(kinds, start=1)]
    content = {
        "info": {"description": "defects painted by tfgad"},  # pycocotools' loadRes wants it
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    files.write_json(folder / "annotations.json", content)
    return len({each["image_id"] for each in annotations})


def _write_yolo(folder: Path, painted, good, kinds) -> int:
    """`images/`, `labels/` and `labels_segment/` with a line for each object, and `data.yaml`."""
    counts = {"images": 0, "objects": 0, "holes": 0}
    for n, (image, found, kind) in enumerate(_with_background(painted, good), start=1):
        _write_image(folder / "images" / f"{n:06d}.png", image)
        size = np.array(image.shape[1::-1])  # width, height
        boxes, polygons = [], []
        for region in found:
            x, y, w, h = region.box
            centre = np.array([[x + w / 2, y + h / 2], [w, h]])
            boxes.append(_yolo_line(kinds.index(kind), centre / size))
            polygons.append(_yolo_line(kinds.index(kind), outline(region) / size))
            counts["holes"] += region.has_holes
        files.write_text(folder / "labels" / f"{n:06d}.txt", "".join(boxes))
        files.write_text(folder / "labels_segment" / f"{n:06d}.txt", "".join(polygons))
        counts["images"] += bool(found)
        counts["objects"] += len(found)
    if counts["holes"]:
        message = "%d of %d objects have holes, which YOLO's polygons cannot have: they are filled"
        log.warning(message, counts["holes"], counts["objects"])
    files.write_text(folder / "data.yaml", _yolo_description(kinds))
    return counts["images"]


def _yolo_line(kind: int, numbers: np.ndarray) -> str:
    return f"{kind} {' '.join(f'{number:.6f}' for number in numbers.ravel())}\n"


def _yolo_description(kinds) -> str:
    """Returns `data.yaml`. It gives no `path`: without one, it is the folder of the file itself."""
    # JSON's strings are YAML's too. Unquoted, kinds `002` and `no` are a number and a bool.
    names = "".join(
        f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, name in enumerate(kinds)
    )
    why = "# Ultralytics refuses a file without val; to judge by, name images of real defects."
    which = "# labels holds boxes; for polygons, let labels_segment take its place."
    return f"train: images\n{why}\nval: images\n{which}\nnames:\n{names}"


FORMATS: dict[str, Callable[..., int]] = {
    MVTEC: _write_mvtec,
    "coco": _write_coco,
    "yolo": _write_yolo,
}


def regions(mask: np.ndarray) -> Iterator[Region]:
    """Yields the regions of a mask `[H, W, 1]`; pixels that touch at a corner hang together."""
    labels, _ = ndimage.label(mask[..., 0], EIGHT_NEIGHBOURS)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        yield Region(columns.start, rows.start, labels[rows, columns] == number)


def outline(region: Region) -> np.ndarray:
    """Returns the corners of a region's outer border, int `[N, 2]`: x, y; pixels are squares.

    What it encloses are the region's pixels and those of its holes, no more and no less.
    """
    doubled = np.pad(region.filled(), 1).repeat(2, axis=0).repeat(2, axis=1)
    # Below one half, pixels that touch at a corner hang together here too.
    (line,) = contourpy.contour_generator(z=doubled.astype(float)).lines(0.4)
    # It cuts the corners of pixels by a quarter of a pixel, which rounding undoes.
    corners = np.round((line[:-1] + 0.5) / 2).astype(int)
    corners += np.array([region.x - 1, region.y - 1])
    corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
    before = corners - np.roll(corners, 1, axis=0)
    after = np.roll(corners, -1, axis=0) - corners
    return corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]  # where it turns


def run_lengths(region: Region, shape: tuple[int, int]) -> dict[str, list[int]]:
    """Returns a region in COCO's run lengths.

    They go down one column after another: so many pixels outside, so many inside, outside...

    Args:
        region: of an image.
        shape: of the image: height, width.
    """
    x, y, width, height = region.box
    mask = np.zeros(shape, bool)
    mask[y : y + height, x : x + width] = region.inside
    changes = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    return {"size": list(shape), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}


def _write_image(path: Path, image: Any) -> None:
    pixels = to_uint8(np.clip(image, -1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
