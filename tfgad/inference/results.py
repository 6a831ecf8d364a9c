"""Input and output of scoring: a list of image files, CSV tables, maps."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tfgad import files
from tfgad.data.image_files import (
    SUFFIXES,
    ImageError,
    files_below,
    log_ignored_files,
    named_like_images,
)
from tfgad.errors import UsageError
from tfgad.files import printable
from tfgad.scores.verdicts import NOT_SCORED, verdict_name

if TYPE_CHECKING:
    from tfgad.inference.scoring import Verdict
    from tfgad.scores.map_regions import Region

# Of a row per image: the number of its regions, and the box of the largest.
BOX = ("x", "y", "width", "height")
COLUMNS = ("image", "score", "probability", "verdict", "reason", "regions", *BOX)
PRODUCT = "product"  # the last column of a model of several products
# Of a row per region; with the size of a pixel, `area_mm2` follows `area`.
REGION_COLUMNS = ("image", *BOX, "area", "peak", "mean", "centroid_x", "centroid_y")
# Argument of `read_image` -> the hint about files that go beyond it, for `tfgad score`.
OPTIONS = {
    "max_pixels": "give a larger --max-pixels to read larger images",
    "depth": "give a larger --depth to read files of more bits",
}


@dataclasses.dataclass(frozen=True)
class Output:
    """What is written of scored images.

    Attributes:
        table: path of the table of images, and of that of regions beside it; None for none.
        maps: folder for heat maps; None for none.
        raw_maps: folder for the values of the maps; None for none.
        min_area: pixels of the smallest region that is listed.
        mm_per_pixel: side of a pixel, for areas in mm²; None if it is not known.
    """

    table: str | None
    maps: str | None
    raw_maps: str | None
    min_area: int
    mm_per_pixel: float | None


class Listed(NamedTuple):
    """The regions of an image that are listed.

    Attributes:
        regions: those that are large enough, the largest first; None if they are unknown.
        small: number of those that are not.
        is_bare: whether the image is defective and has small ones alone.
    """

    regions: list[Region] | None
    small: int
    is_bare: bool


def columns(products: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns of the table of images, with their product if a model has several."""
    return (*COLUMNS, PRODUCT) if products else COLUMNS


def find_images(paths: Iterable[Path], left_out: Sequence[Path] = ()) -> list[Path]:
    """Returns the files, each once; of a folder, all files in it that are named like images.

    Links in a folder are followed, see `tfgad.data.image_files.files_below`.
    The folders `left_out`, such as one of masks, are not looked into.
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
            inside = named_like_images(files_below(path, left_out=left_out))
            log_ignored_files(path, left_out)
        if not inside:
            hint = f"give a folder with {', '.join(SUFFIXES)} files"
            raise UsageError("image", path, "is a folder without images", hint)
        found += inside
    return list(dict.fromkeys(found))


def check_outside(argument: str, folder: Path, paths: Iterable[Path]) -> None:
    """Raises UsageError if a folder of maps is inside a folder of images.

    The maps would be scored as images the next time.
    """
    for path in paths:
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            problem = f"is inside {path}, so that its maps would be scored the next time"
            raise UsageError(argument, folder, problem, "name a folder outside")


def hint(beyond: Iterable[str]) -> str:
    """Returns the hint about files that `tfgad score` could not read.

    Args:
        beyond: the arguments that some files go beyond; see `tfgad.data.image_files.ImageError`.
    """
    hints = [OPTIONS[name] for name in beyond]
    return ", ".join(hints) or "give images that can be scored"


def row(result: Verdict | ImageError, regions: Sequence[Region] | None = None) -> dict[str, str]:
    """Returns the row of a file in the table, with the product if there is one.

    Args:
        result: the verdict, or why there is none.
        regions: to count and to list, the largest first; None if unknown, see `scoring.regions_of`.
    """
    if isinstance(result, ImageError):
        values = (printable(result.path), "", "", NOT_SCORED, result.reason)
        return dict(zip(COLUMNS, values + 5 * ("",), strict=True))
    path = printable(result.path)
    return scored_row(
        path,
        result.score,
        result.probability,
        result.is_anomalous,
        result.reason,
        regions,
        result.product,
    )


def scored_row(
    image: str,
    score: float,
    probability: float,
    is_anomalous: bool,
    reason: str = "",
    regions: Sequence[Region] | None = None,
    product: str = "",
) -> dict[str, str]:
    """Returns the row of an image that was scored; see `row`."""
    values = [image, f"{score:.6g}", f"{probability:.6g}", verdict_name(is_anomalous), reason]
    values.append("" if regions is None else str(len(regions)))
    box = [str(getattr(regions[0], name)) for name in BOX] if regions else 4 * [""]
    row = dict(zip(COLUMNS, values + box, strict=True))
    return {**row, PRODUCT: product} if product else row


def listed(regions: Sequence[Region] | None, min_area: int, is_anomalous: bool) -> Listed:
    """Returns the regions of at least so many pixels, and what is left out.

    Args:
        regions: of an image; None if they are unknown.
        min_area: pixels of the smallest region to list.
        is_anomalous: the verdict of the image.
    """
    if regions is None:
        return Listed(None, 0, False)
    kept = [each for each in regions if each.area >= min_area]
    small = len(regions) - len(kept)
    return Listed(kept, small, is_anomalous and small > 0 and not kept)


def region_columns(mm_per_pixel: float | None) -> tuple[str, ...]:
    """Returns the columns of the table of regions: with the area in mm² if it is known."""
    if mm_per_pixel is None:
        return REGION_COLUMNS
    place = REGION_COLUMNS.index("area") + 1
    return (*REGION_COLUMNS[:place], "area_mm2", *REGION_COLUMNS[place:])


def region_rows(
    image: str, regions: Sequence[Region] | None, mm_per_pixel: float | None = None
) -> list[dict[str, str]]:
    """Returns the rows of an image in the table of regions, with `region_columns`.

    Args:
        image: its name.
        regions: of the image; None if they are unknown.
        mm_per_pixel: length of a pixel's side.
    """
    rows = []
    for region in regions or ():
        values = {name: f"{value:.6g}" for name, value in region._asdict().items()}
        if mm_per_pixel is not None:
            values["area_mm2"] = f"{region.area * mm_per_pixel**2:.6g}"
        rows.append({"image": image, **values})
    return rows


def regions_path(table: str) -> str:
    """Returns the path of the table of regions beside a table: `NAME.defects.csv`."""
    return f"{os.path.splitext(table)[0]}.defects.csv"


def write_csv(path: Path, rows: Iterable[dict[str, str]], columns: Sequence[str] = COLUMNS) -> None:
    """Writes a table whole or not at all; a value that a row lacks stays empty.

    Raises:
        UsageError: the path cannot be written.
    """
    files.write_text(path, files.csv_text(rows, columns))


def map_paths(
    argument: str, folder: Path, images: Sequence[Path], suffix: str = ".png"
) -> dict[Path, Path]:
    """Returns the path of each image's map: `folder` mirrors the images' own folders.

    A map is named as its image; where two would have one name (a.png, a.jpg), all are
    `a.png.png` and `a.jpg.png`.

    Args:
        argument: that names the folder, for the error.
        folder: of the maps.
        images: their paths.
        suffix: of the maps.

    Raises:
        UsageError: a map would take the place of an image, or would have too long a name.
    """
    resolved = [image.resolve() for image in images]
    common = os.path.commonpath([image.parent for image in resolved])
    names = [image.relative_to(common) for image in resolved]
    maps = [name.with_suffix(suffix) for name in names]
    if max(collections.Counter(maps).values()) > 1:
        maps = [name.with_name(f"{name.name}{suffix}") for name in names]
    places = [folder / name for name in maps]
    if {place.resolve() for place in places} & set(resolved):
        raise UsageError(argument, folder, "would overwrite the images", "name another folder")
    for image, place in zip(images, places, strict=True):
        check_map_name(argument, image, place)
    return dict(zip(images, places, strict=True))


def check_map_name(argument: str, image: str | os.PathLike, place: str | os.PathLike) -> None:
    """Raises UsageError if the map of an image would have a longer name than files can have."""
    if files.has_too_long_name(place):
        problem = f"would hold a map with a name of more than {files.LONGEST_NAME} bytes"
        raise UsageError(argument, os.path.dirname(place), problem, f"rename {os.fspath(image)}")


def write_map(path: Path, verdict: Verdict) -> None:
    """Writes an image with its heat map over it, as PNG of the image's size.

    Raises:
        UsageError: the path cannot be written.
    """
    from tfgad.inference.heat_maps import map_png

    files.write_bytes(path, map_png(verdict))


def write_raw_map(path: Path, verdict: Verdict) -> None:
    """Writes the values of a map, see `tfgad.inference.heat_maps.raw_map_tiff`.

    Raises:
        UsageError: the path cannot be written.
    """
    from tfgad.inference.heat_maps import raw_map_tiff

    files.write_bytes(path, raw_map_tiff(verdict))


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
