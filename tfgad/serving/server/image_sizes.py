"""The sizes of the images in a request, known before any image is decoded."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from tfgad.data import exif, image_headers
from tfgad.data.image_files import orientation_of
from tfgad.data.image_headers import JPEG_START, PNG_START
from tfgad.serving.errors import ServingError, invalid
from tfgad.serving.file_cost import MAX_SIDE, excess, png_header
from tfgad.serving.server.limits import Limits

IMAGE_BYTES = "image_bytes"  # the input of `tfgad.export.saved_model` that takes files


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a request, as far as batching needs to know them.

    Attributes:
        count: number of rows.
        cost: of each row, in values or pixels; the memory of a run is proportional to it.
        kind: requests of the same kind may share a run; None for a request that may share none.
    """

    count: int
    cost: int
    kind: Hashable | None


def measure(inputs: Mapping[str, np.ndarray], limits: Limits) -> Rows:
    """Measures a request that fits its signature.

    Raises:
        ServingError: an image cannot be read or is too large; or there are too many images, or
            they are too large together.
    """
    kind: list[Any] = []
    cost, alike = 1, True
    count = max((len(array) if array.ndim else 1 for array in inputs.values()), default=1)
    for name in sorted(inputs):
        array = inputs[name]
        kind.append((name, array.shape[1:], array.dtype.str))
        is_files = name == IMAGE_BYTES and array.dtype == object and array.ndim == 1
        if (is_files or array.ndim == 4) and count > limits.max_files:
            most = f"{limits.max_files} (--max-files)"
            raise invalid(f"the request holds {count} images, more than {most}")
        if is_files:
            sizes = {encoded_size(file, i, limits.max_pixels) for i, file in enumerate(array)}
            alike = alike and len(sizes) == 1
            kind.append(next(iter(sizes)))
        elif array.ndim == 4:
            sizes = {(array.shape[1], array.shape[2])}
        else:
            cost = max(cost, math.prod(array.shape[1:]))
            continue
        cost = max(cost, *(_checked_area(size, limits.max_pixels) for size in sizes))
    if cost * count > limits.max_images * limits.max_pixels:
        most_pixels = limits.max_images * limits.max_pixels
        problem = f"the request holds {cost * count} pixels, more than {most_pixels}"
        raise invalid(f"{problem} (--max-images times --max-pixels)")
    return Rows(count, cost, tuple(kind) if alike else None)


def encoded_size(
    file: bytes, index: int = 0, max_pixels: int = Limits.max_pixels
) -> tuple[int, int]:
    """Returns height and width of a PNG or JPEG after its Exif orientation is applied.

    Other formats are refused. TensorFlow's decoder would take more than an exported model
    promises, such as GIF and its frames.

    Args:
        file: content of the file.
        index: number of the image in its request, for messages.
        max_pixels: limit of the image.

    Raises:
        ServingError: it cannot be read, is too large, or costs far more to decode than its pixels.
    """
    _check_cost(image_headers.header_excess(io.BytesIO(file)), index)
    if file.startswith(PNG_START):
        header = png_header(file)
        if header is None:
            raise _unreadable(index)
        _checked_area((header.height, header.width), max_pixels)
        _check_cost(excess(file), index)
        return _upright_size(PngImagePlugin.PngImageFile, file, index)
    if file.startswith(JPEG_START):
        size = _upright_size(JpegImagePlugin.JpegImageFile, file, index)
        _checked_area(size, max_pixels)
        _check_cost(excess(file), index)
        return size
    raise _unreadable(index)


def _upright_size(reader: type[ImageFile.ImageFile], file: bytes, index: int) -> tuple[int, int]:
    try:  # unlike `Image.open`, these readers do not limit the size themselves
        with reader(io.BytesIO(file)) as image:
            transposed = orientation_of(image) in exif.TRANSPOSED
            return image.size if transposed else (image.height, image.width)
    except Exception:  # Pillow's readers raise almost anything for broken files
        raise _unreadable(index) from None


def _check_cost(reason: str, index: int) -> None:
    if reason:
        raise invalid(f"image {index} {reason}")


def _unreadable(index: int) -> ServingError:
    return invalid(f"image {index} is not a readable PNG or JPEG")


def _checked_area(size: tuple[int, int], most: int) -> int:
    height, width = size
    if max(size) > MAX_SIDE:
        problem = f"an image of {height}x{width} pixels has a side of more than {MAX_SIDE}"
        raise invalid(problem)
    if height * width > most:
        problem = f"an image of {height}x{width} pixels is larger than the limit of {most}"
        raise invalid(f"{problem} (--max-pixels)")
    return height * width
