"""The sizes of the images in a request, known before any is decoded."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Hashable, Mapping

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from tfgad.data import exif
from tfgad.data.images import PNG_START, orientation_of
from tfgad.decoding import JPEG_START
from tfgad.serving.errors import invalid
from tfgad.serving.limits import Limits

IMAGE_BYTES = "image_bytes"  # the input of `tfgad.export` that takes whole files
# By how files begin. TensorFlow's decoder takes more kinds than an exported model promises, GIF and
# its frames for one. These readers, unlike `Image.open`, leave it to the caller what is too large.
READERS = {
    PNG_START: PngImagePlugin.PngImageFile,
    JPEG_START: JpegImagePlugin.JpegImageFile,
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """What batching must know of a request's rows.

    Attributes:
        count: how many.
        cost: of each, in values or pixels: what the memory of a run grows with.
        kind: requests of one kind may share a run; None, where one may share with none.
    """

    count: int
    cost: int
    kind: Hashable | None


def measure(inputs: Mapping[str, np.ndarray], limits: Limits) -> Rows:
    """Measures a request that fits its signature.

    Raises:
        ServingError: an image is too large, or is none; all together are too many or too large.
    """
    kind, cost, alike = [], 1, True
    count = max((len(array) if array.ndim else 1 for array in inputs.values()), default=1)
    for name in sorted(inputs):
        array = inputs[name]
        kind.append((name, array.shape[1:], array.dtype.str))
        if name == IMAGE_BYTES and array.dtype == object and array.ndim == 1:
            if count > limits.max_files:
                raise invalid(f"the request holds {count} images, more than {limits.max_files}")
            sizes = {encoded_size(file, i) for i, file in enumerate(array)}
            alike = alike and len(sizes) == 1
            kind.append(next(iter(sizes)))
        elif array.ndim == 4:
            sizes = {array.shape[1:3]}
        else:
            cost = max(cost, math.prod(array.shape[1:]))
            continue
        cost = max(cost, *(_checked_area(size, limits.max_pixels) for size in sizes))
    if cost * count > limits.max_images * limits.max_pixels:
        most = limits.max_images * limits.max_pixels
        raise invalid(f"the request holds {cost * count} pixels, more than {most}")
    return Rows(count, cost, tuple(kind) if alike else None)


def encoded_size(file: bytes, index: int = 0) -> tuple[int, int]:
    """Returns height and width of a PNG or JPEG from its head, once it is turned upright.

    Raises:
        ServingError: it is none.
    """
    for start, reader in READERS.items():
        if file.startswith(start):
            try:
                with reader(io.BytesIO(file)) as image:
                    across = orientation_of(image) in exif.TRANSPOSED
                    return image.size if across else (image.height, image.width)
            except Exception:  # on broken files Pillow's readers raise almost anything
                break
    raise invalid(f"image {index} is no PNG or JPEG that can be read")


def _checked_area(size: tuple[int, int], most: int) -> int:
    height, width = size
    if height * width > most:
        raise invalid(f"an image of {height}x{width} pixels is larger than the limit of {most}")
    return height * width
