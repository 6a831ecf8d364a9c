"""Grey levels and float32 images: scaling by depth, conversion to 8 bits, resizing.

An image of another aspect ratio than asked for is stretched, or letterboxed: it keeps its aspect
ratio, lies in the middle, and is padded by its own mirror image. A padding of one colour would be
a defect to some methods, and would change the brightness and contrast of the image. Mirrored, it
holds nothing that the image does not hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tfgad.data.image_files import ImageError, guard
from tfgad.errors import UsageError, nearest

DEPTHS = (10, 12, 14, 16)  # bits of cameras that write 16-bit files
FULL_DEPTH = 16
STRETCH, LETTERBOX = FITS = ("stretch", "letterbox")
LUMA = (19595, 38470, 7471)  # of ITU-R BT.601 in 65536ths, as Pillow converts colour to grey


def scaled(path: str | os.PathLike, levels: np.ndarray, depth: int | None = None) -> np.ndarray:
    """Scales grey levels to float32 in [-1, 1], black to -1 and white to 1.

    Args:
        path: the file that the levels are from, for the error message.
        levels: uint8 from 0 to 255, uint16, or float32 from 0 to 1, as
            `tfgad.data.images.read_levels` returns them.
        depth: bits of uint16 levels, so that white is `2**depth - 1`. None means 16, and so does 8,
            the depth of a model that was trained on 8-bit files.

    Raises:
        ImageError: a level is above white.
    """
    if levels.dtype == np.uint8:
        white = 255
    elif levels.dtype == np.uint16:
        white = white_of(depth)
        if levels.max() > white:
            reason = f"holds values above {white}, the maximum of {depth} bits"
            raise ImageError(path, reason, "depth")
    else:
        white = 1
    with guard(path):  # the memory may not suffice for a large image
        image = levels.astype(np.float32, order="C")
        image /= white / 2
        image -= 1
        return image


def white_of(depth: int | None) -> int:
    """Returns the level of white in a file of more than 8 bits; see `scaled`."""
    return 2 ** (depth if depth and depth > 8 else FULL_DEPTH) - 1


def fitting_depth(level: int) -> int:
    """Returns the smallest of `DEPTHS` that holds a grey level."""
    return next(depth for depth in DEPTHS if level < 2**depth)


def doubtful_depth(levels: np.ndarray, depth: int | None) -> int | None:
    """Returns the smaller depth that a 16-bit image would fit, if its depth is unknown.

    Args:
        levels: as `tfgad.data.images.read_levels` returns them.
        depth: the depth given by the model or the user; see `scaled`.

    Returns:
        One of `DEPTHS` below 16. None for an image that needs all 16 bits, for an 8-bit image, and
        if the depth is known.
    """
    if levels.dtype != np.uint16 or (depth and depth > 8):
        return None
    fitting = fitting_depth(int(levels.max()))
    return fitting if fitting < FULL_DEPTH else None


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """Converts uint8 to float32 in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Converts an image in [-1, 1] to uint8, rounded to the nearest level."""
    return np.rint((image + 1) * 127.5).astype(np.uint8)


def deep_grey(colour: np.ndarray) -> np.ndarray:
    """Converts `[H, W, 3]` of 16 bits to grey `[H, W, 1]`, by Pillow's formula for 8 bits."""
    luma = (colour * np.array(LUMA, np.uint32)).sum(axis=2, keepdims=True, dtype=np.uint32) + 2**15
    return (luma >> 16).astype(np.uint16)


def depth_to_read(config: Mapping[str, Any]) -> int | None:
    """Returns the depth in bits that a run reads 16-bit files with.

    None if it was trained on 8-bit files, which do not determine how deeper ones are read.

    Args:
        config: of the run; one of earlier versions has no `depth`, and read all 16 bits.
    """
    depth = config.get("depth", FULL_DEPTH)
    return depth if depth > 8 else None


def check_fit(argument: str, fit: str) -> None:
    """Raises UsageError if `fit`, named by its argument, is none of `FITS`."""
    if fit not in FITS:
        raise UsageError(argument, fit, "is not known", nearest(fit, FITS))


def resize(image: np.ndarray, size: Sequence[int], fit: str = STRETCH) -> np.ndarray:
    """Resizes an image, bilinearly and with antialiasing.

    Stretched it equals `tf.image.resize(image, size, antialias=True)`, computed by Pillow.

    Args:
        image: float32 `[H, W, C]`.
        size: `(height, width)` of what is returned, in pixels.
        fit: one of `FITS`.

    Returns:
        float32 `[height, width, C]`, within the image's range.
    """
    height, width = fitted_size(image.shape, size) if fit == LETTERBOX else size[:2]
    planes = [Image.fromarray(image[:, :, i]) for i in range(image.shape[2])]
    resized = [plane.resize((width, height), Image.Resampling.BILINEAR) for plane in planes]
    return mirrored(np.stack([np.asarray(plane) for plane in resized], axis=2), size)


def fitted_size(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """Returns height and width, each at least 1, of the largest image of an aspect ratio in a size.

    Args:
        shape: `(height, width, ...)` of the image whose aspect ratio is kept.
        size: `(height, width)`.
    """
    (high, wide), (height, width) = shape[:2], size[:2]
    if wide * height <= high * width:  # whole numbers: a graph rounds them alike
        return height, max(1, (2 * wide * height + high) // (2 * high))
    return max(1, (2 * high * width + wide) // (2 * wide)), width


def mirrored(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Pads an image `[h, w, ...]` on both sides by its mirror image, to `[height, width, ...]`."""
    for axis, length in enumerate(size[:2]):
        count = image.shape[axis]
        if count != length:
            before = (length - count) // 2
            widths = [(0, 0)] * image.ndim
            widths[axis] = (before, length - count - before)
            image = np.pad(image, widths, "symmetric")
    return image


def without_padding(padded: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Returns the part of a letterboxed image or map `[H, W, ...]` that is not padding.

    Args:
        padded: the image or map.
        shape: `(height, width, ...)` of the image before it was letterboxed.
    """
    height, width = fitted_size(shape, padded.shape)
    top, left = (padded.shape[0] - height) // 2, (padded.shape[1] - width) // 2
    return padded[top : top + height, left : left + width]
