"""Image files: which files of a folder are images, and which of them Pillow reads correctly.

Two settings of Pillow apply to the whole process. Importing this module silences Pillow's warnings
about files. Opening a file raises `PIL.Image.MAX_IMAGE_PIXELS` to the limit asked for.
"""

from __future__ import annotations

import collections
import contextlib
import io
import logging
import os
import pathlib
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.MpoImagePlugin import MpoImageFile
from PIL.TiffImagePlugin import TiffImageFile

from tfgad.data import exif, image_headers
from tfgad.errors import reason_of
from tfgad.files import printable

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow's names
NAMES = "PNG, JPEG, BMP, TIFF or WebP"
# Image files by their suffix; other files of a folder are ignored.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "P", "PA")
# Default limit per image: 16384 x 16384, or a line scan of 4096 x 65536.
MAX_PIXELS = 2**28
PNG_BITS = 24  # offset of the bits per channel in a PNG file; the colour type follows
PNG_GREY = (0, 4)  # colour types: grey without and with alpha
# Tags of a multi-picture JPEG and of a TIFF.
PICTURES_OF_MPO = 0xB002
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, WHITE_IS_ZERO = 258, 262, 277, 0

# What Pillow warns of is either harmless or raised here as an ImageError.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+Plugin")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(ValueError):
    """A file that cannot be used as an image.

    Attributes:
        path: the file.
        reason: why, in a few words that follow the file's name.
        beyond: the limit that the image exceeds, `"max_pixels"` or `"depth"`; None for other
            reasons.
    """

    def __init__(self, path: str | os.PathLike, reason: str, beyond: str | None = None):
        self.path, self.reason, self.beyond = pathlib.Path(path), reason, beyond
        super().__init__(f"{printable(path)}: {reason}")


def named_like_images(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the paths with the suffix of an image, sorted.

    Folders and names that start with a dot are left out. Broken links and pipes are included:
    reading them raises an ImageError.
    """
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def files_below(
    folder: pathlib.Path,
    on_error: Callable[[OSError], object] | None = None,
    left_out: Iterable[pathlib.Path] = (),
) -> Iterator[pathlib.Path]:
    """Yields the files of a folder and its subfolders, broken links among them.

    Files and subfolders whose names start with a dot are left out; the folder itself may be hidden.
    Links to folders are followed. Each folder is listed once, under its own path if that is below
    `folder`, else under one of its links; so a link to a folder above it makes no loop.

    Args:
        folder: where to begin.
        on_error: called with the error of each folder that cannot be read.
        left_out: folders below it that are not listed.
    """
    listed = {os.path.realpath(each) for each in left_out} - {os.path.realpath(folder)}
    remaining = collections.deque([os.fspath(folder)])
    while remaining:
        for parent, folders, names in os.walk(remaining.popleft(), onerror=on_error):
            place = os.path.realpath(parent)
            if place in listed:
                folders.clear()
                continue
            listed.add(place)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = (os.path.join(parent, name) for name in folders)
            remaining.extend(path for path in below if os.path.islink(path))
            yield from (pathlib.Path(parent, name) for name in names if name[0] != ".")


def log_ignored_files(folder: pathlib.Path, left_out: Iterable[pathlib.Path] = ()) -> None:
    """Logs in one line how many files below a folder are ignored because of their suffix.

    Folders that cannot be read, and links that lead nowhere, have a line each.
    """

    def log_error(error: OSError) -> None:
        log.warning("%s: cannot be read (%s)", error.filename, error.strerror)

    suffixes: collections.Counter[str] = collections.Counter()
    for path in files_below(folder, log_error, left_out):
        if path.suffix.lower() in SUFFIXES:
            continue
        if path.is_file():
            suffixes[path.suffix.lower() or "without a suffix"] += 1
        elif path.is_symlink() and not path.exists():
            log.warning("%s: is a link that leads nowhere", path)
    if suffixes:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common())
        total = sum(suffixes.values())
        plural = "" if total == 1 else "s"
        log.warning(
            "%s: ignored %d file%s without the suffix of an image (%s)",
            *(folder, total, plural, counts),
        )


@contextlib.contextmanager
def guard(path: str | os.PathLike) -> Iterator[None]:
    """Context manager that turns every exception about a file into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # on broken files Pillow's decoders raise almost anything
        raise ImageError(path, f"cannot be read ({reason_of(error)})") from error


@contextlib.contextmanager
def opened(
    path: str | os.PathLike, content: bytes | None, max_pixels: int
) -> Iterator[Image.Image]:
    """Context manager of an image file, opened but not yet decoded.

    Args:
        path: the file.
        content: its content, if it has been read already.
        max_pixels: limit of width times height.

    Raises:
        ImageError: the file cannot be read, is too large, or Pillow would misread it; see
            `tfgad.data.images.open_image`.
    """
    path = pathlib.Path(path)
    # Pillow has a limit of its own, for the whole process. It is raised, never lowered.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    with guard(path):
        if content is None and not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(path, "is no file")  # reading a pipe or a device might never end
        # An open file, not the path: a TIFF that Pillow maps into memory and then rotates comes
        # out garbled.
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            start = file.read(4)
            if not start:
                raise ImageError(path, "is empty")
            file.seek(0)
            reason = image_headers.header_excess(file)
            if reason:
                raise ImageError(path, reason)
            try:
                image = Image.open(file, formats=FORMATS)
            except Image.DecompressionBombError:
                raise _too_large(path, max_pixels) from None
            except UnidentifiedImageError:
                tiff = "is a TIFF of a kind that is not supported"
                reason = tiff if start in (b"II*\0", b"MM\0*") else f"is not a {NAMES}"
                raise ImageError(path, reason) from None
            with image:
                if image.width * image.height > max_pixels:
                    raise _too_large(path, max_pixels)
                _check_supported(image, path)
                yield image


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8, of an image that is opened but not yet loaded.

    Loading a PNG may find another EXIF block behind the pixels, which `export.decoding` does not
    look for. A TIFF is rotated by Pillow when it is loaded, so its orientation is 1 here. XMP is
    not read.
    """
    if isinstance(image, JpegImageFile):  # MPO is a subclass
        of_exif = (data for name, data in image.applist if name == "APP1")
        block = next((data for data in of_exif if data.startswith(b"Exif\0\0")), b"")
    elif image.format in ("PNG", "WEBP"):
        block = image.info.get("exif", b"")
    else:
        block = b""
    return exif.orientation(block.removeprefix(b"Exif\0\0"))


def _too_large(path: pathlib.Path, max_pixels: int) -> ImageError:
    return ImageError(path, f"has more than {max_pixels:,} pixels", "max_pixels")


def _check_supported(image: Image.Image, path: pathlib.Path) -> None:
    """Raises ImageError if Pillow would read only a part of a file, or wrong values."""
    # Not `n_frames`, which reads every page of a TIFF: it took 52 s for 6 MB of empty ones.
    several = getattr(image, "is_animated", False)
    if (
        isinstance(image, MpoImageFile) and image.mpinfo
    ):  # a JPEG followed by others; thumbnails are no pages
        kinds = [each["Attribute"]["MPType"] for each in image.mpinfo[PICTURES_OF_MPO]]
        several = sum("Thumbnail" not in kind for kind in kinds) > 1
    if several:
        raise ImageError(path, "holds several pages, or says so; save each as a file of its own")
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
        if bits > 8 and image.tag_v2.get(SAMPLES_PER_PIXEL, 1) > 1:
            reason = f"is a TIFF with several channels of {bits} bits; save it as PNG"
            raise ImageError(path, reason)
        if bits > 8 and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            reason = f"is a TIFF of {bits} bits whose zero is white; save it with zero as black"
            raise ImageError(path, reason)
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise ImageError(path, f"is a {image.mode} image; save it as grey or RGB")
