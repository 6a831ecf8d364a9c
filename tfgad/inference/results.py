"""Input and output of scoring: a list of image files, a CSV table, a heat map for each image."""

from __future__ import annotations

import collections
import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfgad import files
from tfgad.data.image_files import SUFFIXES, ImageError, log_ignored_files, named_like_images
from tfgad.errors import UsageError
from tfgad.files import printable

if TYPE_CHECKING:
    import numpy as np

    from tfgad.inference.scoring import Verdict

GOOD, DEFECTIVE, NOT_SCORED = "good", "defective", "not scored"
COLUMNS = ("image", "score", "probability", "verdict", "reason")
# Argument of `read_image` -> the hint about files that go beyond it, for `tfgad score`.
OPTIONS = {
    "max_pixels": "give a larger --max-pixels to read larger images",
    "depth": "give a larger --depth to read files of more bits",
}
STRIP = 2**20  # pixels that are coloured at once; their colours take 64 bytes each


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Returns the files, each once; of a folder, all files in it that are named like images.

    The number of other files in a folder is logged.

    Raises:
        UsageError: a path is not there, or a folder holds no images.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError("image", path, "is not there", "check the path")
        inside = [path]
        if path.is_dir():
            inside = named_like_images(path.rglob("*"))
            log_ignored_files(path)
        if not inside:
            hint = f"give a folder with {', '.join(SUFFIXES)} files"
            raise UsageError("image", path, "is a folder without images", hint)
        found += inside
    return list(dict.fromkeys(found))


def hint(beyond: Iterable[str]) -> str:
    """Returns the hint about files that `tfgad score` could not read.

    Args:
        beyond: the arguments that some files go beyond; see `tfgad.data.image_files.ImageError`.
    """
    hints = [OPTIONS[name] for name in beyond]
    return ", ".join(hints) or "give images that can be scored"


def row(result: Verdict | ImageError) -> dict[str, str]:
    """Returns the row of a file in the table."""
    if isinstance(result, ImageError):
        values = (printable(result.path), "", "", NOT_SCORED, result.reason)
        return dict(zip(COLUMNS, values, strict=True))
    return scored_row(
        printable(result.path), result.score, result.probability, result.is_anomalous, result.reason
    )


def scored_row(
    image: str, score: float, probability: float, is_anomalous: bool, reason: str = ""
) -> dict[str, str]:
    """Returns the row of an image that was scored."""
    values = (image, f"{score:.6g}", f"{probability:.6g}", verdict_name(is_anomalous), reason)
    return dict(zip(COLUMNS, values, strict=True))


def verdict_name(is_anomalous: bool) -> str:
    """Returns the verdict as the table names it."""
    return DEFECTIVE if is_anomalous else GOOD


def write_csv(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Writes the table whole or not at all.

    Raises:
        UsageError: the path cannot be written.
    """
    files.write_text(path, csv_text(rows, COLUMNS))


def csv_text(rows: Iterable[dict[str, str]], columns: Sequence[str]) -> str:
    """Returns rows as CSV, under a line with the names of the columns."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def map_paths(folder: Path, images: Sequence[Path]) -> dict[Path, Path]:
    """Returns the path of each image's heat map: `folder` mirrors the images' own folders.

    A map is named as its image; where two would have one name (a.png, a.jpg), all are
    `a.png.png` and `a.jpg.png`.

    Raises:
        UsageError: a map would take the place of an image.
    """
    resolved = [image.resolve() for image in images]
    common = os.path.commonpath([image.parent for image in resolved])
    names = [image.relative_to(common) for image in resolved]
    maps = [name.with_suffix(".png") for name in names]
    if max(collections.Counter(maps).values()) > 1:
        maps = [name.with_name(f"{name.name}.png") for name in names]
    places = [folder / name for name in maps]
    if {place.resolve() for place in places} & set(resolved):
        raise UsageError("maps", folder, "would overwrite the images", "name another folder")
    return dict(zip(images, places, strict=True))


def write_map(path: Path, verdict: Verdict) -> None:
    """Writes an image with its heat map over it, as PNG of the image's size.

    Raises:
        UsageError: the path cannot be written.
    """
    files.write_bytes(path, map_png(verdict))


def map_png(verdict: Verdict) -> bytes:
    """Returns an image with its heat map over it, as a PNG file of the image's size."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(overlay(verdict)).save(content, "PNG")
    return content.getvalue()


def overlay(verdict: Verdict) -> np.ndarray:
    """Returns the image with `heat` over it: uint8 `[H, W, 3]`."""
    import numpy as np

    scale, (height, width) = heat_scale(verdict), verdict.map.shape
    picture = np.empty((height, width, 3), np.uint8)
    step = max(1, STRIP // width)
    for start in range(0, height, step):
        rows = slice(start, start + step)
        cloth, colours = (verdict.image[rows] + 1) / 2, _heat(verdict, rows, scale)
        alpha = colours[..., 3:]
        picture[rows] = np.rint(255 * (cloth * (1 - alpha) + colours[..., :3] * alpha))
    return picture


def heat(verdict: Verdict) -> np.ndarray:
    """Returns the colours of the report where the map is above the threshold, and none elsewhere.

    Returns:
        red, green, blue and opacity, float `[H, W, 4]` in [0, 1].
    """
    return _heat(verdict, slice(None), heat_scale(verdict))


def _heat(verdict: Verdict, rows: slice, scale: tuple[float, float, float]) -> np.ndarray:
    """Returns some rows of `heat`, given the `heat_scale`."""
    import numpy as np

    from tfgad.plots import HEAT

    lowest, middle, _ = scale
    values = verdict.map[rows]
    colours = HEAT(np.clip((values - lowest) / (2 * max(middle - lowest, 1e-12)), 0, 1))
    above = verdict.is_anomalous and not verdict.reason
    shown = verdict.map_threshold is not None or above
    colours[..., 3] *= (values > middle) * shown
    return colours


def heat_scale(verdict: Verdict) -> tuple[float, float, float]:
    """Returns the values of the map at the lower end, the middle and the upper end of the colours.

    As in the report, the map's median is at the lower end and the threshold in the middle. If the
    score is no maximum of the map, the map has a scale of its own: then the upper half of its range
    is shown, and for a defective image only.
    """
    import numpy as np

    median, middle = float(np.median(verdict.map)), verdict.map_threshold
    if middle is None:
        middle = (median + float(verdict.map.max())) / 2
    return median, middle, 2 * middle - median


def check_writable(argument: str, path: Path, *, folder: bool = False) -> None:
    """Raises UsageError if a file or folder cannot be written: before the work, not after it."""
    if path.exists() and path.is_dir() != folder:
        problem = "is a file" if folder else "is a folder"
        raise UsageError(argument, path, problem, f"name a {'folder' if folder else 'file'}")
    if not folder and path.suffix.lower() in SUFFIXES:
        raise UsageError(argument, path, "is named like an image", "name a .csv file")
    existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not os.access(existing, os.W_OK) or (existing != path and not existing.is_dir()):
        hint = "name a place you can write to"
        raise UsageError(argument, path, "cannot be written", hint)
