"""Painted images as data sets on disk: MVTec AD's layout, COCO's JSON, YOLO's text.

Object detectors such as RT-DETR or YOLO train on the last two. Each connected region of a mask is
one object with its box and its outline, down to a single pixel; good images have no objects, and
serve as background. A picture of the first images is written beside them, for a check by eye before
anything is trained on them.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tfgad import files, plots
from tfgad.data.pixels import to_uint8
from tfgad.errors import UsageError
from tfgad.multistage.painter import Painted
from tfgad.multistage.regions import Region, outline, regions, run_lengths

MVTEC = "mvtec"
GALLERY, SHOWN = "gallery.png", 24  # three rows of eight images fit on a screen

log = logging.getLogger(__name__)

Good = dict[str, np.ndarray]  # good images of the parts `train` and `test`


def share_out(good: np.ndarray, form: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the good images of a data set's training part, and those to paint on.

    In MVTec AD's layout each is one half: a detector trained on the first half is tested on the
    second, with and without painted defects. In the other formats all images are painted on.

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
    """Writes a data set, whole or not at all; returns the number of images with a defect.

    Args:
        folder: to write to; it must not exist, or be empty.
        painted: the images; those with an empty mask are left out, and counted in the log.
        train: good images `[N, H, W, C]` in [-1, 1] of the training part of `mvtec`.
        test: good images that were painted on; in `mvtec` they are part of the test. In `coco` and
            `yolo` all good images are background without objects.
        kinds: the names of all kinds of defect.
        form: one of `FORMATS`.

    Raises:
        UsageError: the folder is not empty, or cannot be written.
    """
    folder = Path(folder)
    is_there = folder.exists()
    if is_there and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("out", folder, "is there already", "name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # An existing folder may be `.` or another file system: it is filled, not replaced.
        home = folder if is_there else folder.parent
        with tempfile.TemporaryDirectory(dir=home, prefix=".partial-") as partial:
            unfinished = Path(partial) / "dataset"
            first: list[Painted] = []
            good = {"train": train, "test": test}
            count = FORMATS[form](unfinished, _collecting(painted, first), good, kinds)
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


def _collecting(painted: Iterable[Painted], first: list[Painted]) -> Iterator[Painted]:
    """Yields the images with a defect, and appends those of the gallery to a list."""
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


def _with_background(
    painted: Iterable[Painted], good: Good
) -> Iterator[tuple[np.ndarray, list[Region], str]]:
    """Yields image, regions and kind of the painted images, then the good without regions."""
    for each in painted:
        yield each.image, list(regions(each.mask)), each.kind
    for image in itertools.chain(*good.values()):
        yield image, [], ""


def _write_mvtec(folder: Path, painted: Iterable[Painted], good: Good, kinds: Sequence[str]) -> int:
    """Writes `train/good`, `test/<kind>` and `ground_truth/<kind>`; `folder:PATH` reads it."""
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


def _write_coco(folder: Path, painted: Iterable[Painted], good: Good, kinds: Sequence[str]) -> int:
    """Writes `images/` and `annotations.json`, with boxes and masks (Lin et al. 2014).

    The mask of a region is a polygon or, if it has holes, run lengths.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
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


def _write_yolo(folder: Path, painted: Iterable[Painted], good: Good, kinds: Sequence[str]) -> int:
    """Writes `images/`, `labels/` and `labels_segment/`, a line per object, and `data.yaml`."""
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
        message = "%d of %d objects have holes, which YOLO's polygons cannot show: they are filled"
        log.warning(message, counts["holes"], counts["objects"])
    files.write_text(folder / "data.yaml", _yolo_description(kinds))
    return counts["images"]


def _yolo_line(kind: int, numbers: np.ndarray) -> str:
    return f"{kind} {' '.join(f'{number:.6f}' for number in numbers.ravel())}\n"


def _yolo_description(kinds: Sequence[str]) -> str:
    """Returns `data.yaml`, without a `path`: it is then the folder of the file itself."""
    # JSON's strings are YAML's too. Unquoted, kinds `002` and `no` are a number and a bool.
    names = "".join(
        f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, name in enumerate(kinds)
    )
    why = "# Ultralytics refuses a file without val; to evaluate, name images of real defects."
    which = "# labels holds boxes; for polygons, let labels_segment take its place."
    return f"train: images\n{why}\nval: images\n{which}\nnames:\n{names}"


FORMATS: dict[str, Callable[..., int]] = {
    MVTEC: _write_mvtec,
    "coco": _write_coco,
    "yolo": _write_yolo,
}


def _write_image(path: Path, image: Any) -> None:
    pixels = to_uint8(np.clip(image, -1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
