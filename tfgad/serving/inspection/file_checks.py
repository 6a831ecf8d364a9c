"""Checks of the files that visitors name, before they are decoded."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from PIL import Image

from tfgad.data import image_headers
from tfgad.data.image_files import FORMATS, ImageError
from tfgad.serving.file_cost import MAX_PIXELS, MAX_SIDE, MEBI, excess

# Limits of one visitor's batch. A scored image takes 5 to 10 bytes of disk per pixel, so that a
# batch takes less than 1.4 GB. While it is scored, a pixel in float32 with its windows takes about
# 100 bytes of memory, so that one image takes less than 4 GB.
MAX_FILES, MAX_BYTES = 200, 64 * MEBI
MAX_BATCH_PIXELS = 2**27


def check_file(path: Path, folder: Path | None) -> None:
    """Checks that a path is a regular file; reading anything else might block for ever.

    Args:
        path: the path that the visitor named.
        folder: the folder that must contain it, without symbolic links in between; None for any.

    Raises:
        ImageError: the file is not regular, or not in the folder.
    """
    if folder is not None and not _is_inside(path, folder):
        raise ImageError(path, "is not one of the uploaded files")
    try:
        # POSIX flags: do not follow a link, and do not wait for the writer of a pipe.
        flags = getattr(os, "O_NOFOLLOW", 0) if folder is not None else 0
        file = os.open(path, os.O_RDONLY | flags | getattr(os, "O_NONBLOCK", 0))
        try:
            is_regular = stat.S_ISREG(os.fstat(file).st_mode)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise ImageError(path, "was removed from the server: upload it again") from None
    except OSError as error:
        raise ImageError(path, f"cannot be opened ({error.strerror})") from error
    if not is_regular:
        raise ImageError(path, "is no regular file")


def check_limits(path: Path, pixels_left: int = MAX_BATCH_PIXELS) -> int:
    """Checks the size of an image file before it is decoded.

    Args:
        path: the file.
        pixels_left: pixels that its batch may still take.

    Returns:
        The number of its pixels; 0 if it is no image, which reading it will report.

    Raises:
        ImageError: it is too large, or costs far more to decode than its pixels do.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(path, f"is larger than {MAX_BYTES // MEBI} MiB")
        content = path.read_bytes()
        reason = image_headers.header_excess(io.BytesIO(content))
        if reason:
            raise ImageError(path, reason)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            pixels, side = image.width * image.height, max(image.size)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        pixels, side = MAX_PIXELS + 1, 0
    except Exception:  # Pillow raises almost anything for broken files
        return 0
    if pixels > MAX_PIXELS:
        raise ImageError(path, f"has more than {MAX_PIXELS / 1e6:.1f} megapixels")
    if side > MAX_SIDE:
        raise ImageError(path, f"has a side of more than {MAX_SIDE} pixels")
    if pixels > pixels_left:
        limit = f"{MAX_BATCH_PIXELS / 1e6:.0f} megapixels"
        raise ImageError(path, f"was not scored: all images together may have {limit}")
    reason = excess(content)
    if reason:
        raise ImageError(path, reason)
    return pixels


def _is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path leads into a folder without links and `..`."""
    try:
        real = os.path.realpath(path)
    except (OSError, ValueError):  # it is too long, or has a zero byte
        return False
    return str(path) == real and Path(real).is_relative_to(os.path.realpath(folder))
