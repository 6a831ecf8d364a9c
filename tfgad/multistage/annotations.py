"""Painted images as data sets on disk: MVTec AD's layout, COCO's JSON, YOLO's text.

The last two are what object detectors such as RT-DETR or YOLO train on. Each region of a mask that
hangs together is one object, with its box and, in COCO's, its outline. Beside them lies a picture
of the first images: to be looked at before anything learns from them.
"""

from __future__ import annotations

import json
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
from tfgad.data.images import to_uint8
from tfgad.errors import UsageError
from tfgad.multistage.painter import Painted

MVTEC = "mvtec"
LEAST_REGION = 4  # pixels: smaller specks of a mask are no objects
EIGHT_NEIGHBOURS = np.ones((3, 3), int)
GALLERY, SHOWN = "gallery.png", 24  # three bands of eight images, as much as a screen shows


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
        mend = "give two or more: some to train on, others to paint on; or another --format"
        raise UsageError("data", f"{len(good)} good image", "is too few", mend)
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
        painted: the images.
        train: good images, `[N, H, W, C]` in [-1, 1], that `mvtec` is trained on.
        test: those that were painted on, which `mvtec` is tested on too.
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
        problem = f"cannot be written ({error.strerror or error})"
        raise UsageError("out", folder, problem, "name a folder you can write") from error
    return count


def gallery(painted: Sequence[Painted]) -> Figure:
    """Draws good fabric, generated defect, fused image and mask of images of one size."""
    good, images, masks = (
        np.stack([getattr(each, name) for each in painted]) for name in ("good", "image", "mask")
    )
    patches, kinds = [each.patch for each in painted], [each.kind for each in painted]
    return plots.painted(good, patches, images, masks, kinds)


def _noted(painted: Iterable[Painted], first: list[Painted]) -> Iterator[Painted]:
    """Yields the images, and puts those that the gallery shows into a list."""
    for each in painted:
        if len(first) < SHOWN:
            first.append(each)
        yield each


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
    """`images/` and `annotations.json`, with boxes and polygons (Lin et al. 2014)."""
    images, annotations = [], []
    for n, each in enumerate(painted, start=1):
        name = f"{n:06d}.png"
        _write_image(folder / "images" / name, each.image)
        height, width = each.mask.shape[:2]
        images.append({"id": n, "file_name": name, "width": width, "height": height})
        for region in regions(each.mask):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n,
                    "category_id": kinds.index(each.kind) + 1,
                    "bbox": [int(number) for number in box(region)],
                    "area": int(region.sum()),
                    "segmentation": outlines(region),
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
    return len(images)


def _write_yolo(folder: Path, painted, good, kinds) -> int:
    """`images/`, `labels/` with a line an object, and `data.yaml`."""
    count = 0
    for n, each in enumerate(painted, start=1):
        _write_image(folder / "images" / f"{n:06d}.png", each.image)
        height, width = each.mask.shape[:2]
        lines = []
        for region in regions(each.mask):
            x, y, w, h = box(region)
            centre = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            numbers = " ".join(f"{number:.6f}" for number in centre)
            lines.append(f"{kinds.index(each.kind)} {numbers}\n")
        files.write_text(folder / "labels" / f"{n:06d}.txt", "".join(lines))
        count += 1
    files.write_text(folder / "data.yaml", _yolo_description(kinds))
    return count


def _yolo_description(kinds) -> str:
    """Returns `data.yaml`. It gives no `path`: without one, it is the folder of the file itself."""
    # JSON's strings are YAML's too. Unquoted, kinds `002` and `no` are a number and a bool.
    names = "".join(
        f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, name in enumerate(kinds)
    )
    why = "# Ultralytics refuses a file without val; to judge by, name images of real defects."
    return f"train: images\n{why}\nval: images\nnames:\n{names}"


FORMATS: dict[str, Callable[..., int]] = {
    MVTEC: _write_mvtec,
    "coco": _write_coco,
    "yolo": _write_yolo,
}


def regions(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the regions of a mask `[H, W, 1]` that hang together, each bool `[H, W]`."""
    labels, count = ndimage.label(mask[..., 0], EIGHT_NEIGHBOURS)
    for number in range(1, count + 1):
        region = labels == number
        if region.sum() >= LEAST_REGION:
            yield region


def box(region: np.ndarray) -> tuple[int, int, int, int]:
    """Returns the smallest box of a region: x, y, width, height in pixels."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    x, y = columns[0], rows[0]
    return x, y, columns[-1] + 1 - x, rows[-1] + 1 - y


def outlines(region: np.ndarray) -> list[list[float]]:
    """Returns the outer border of a region as polygons [x, y, x, y, ...], pixels being squares."""
    filled = ndimage.binary_fill_holes(region)
    height, width = region.shape
    padded = np.pad(filled, 1).astype(float)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    # Contours run through the middles of pixels, which lie half a pixel inside their squares.
    limits = np.array([width, height], float)
    moved = (np.clip(line - 1.0 + 0.5, 0.0, limits) for line in lines)
    return [[round(float(number), 1) for number in line.ravel()] for line in moved]


def _write_image(path: Path, image: Any) -> None:
    pixels = to_uint8(np.clip(image, -1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
