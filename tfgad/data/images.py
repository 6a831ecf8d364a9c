"""Reading images with Pillow: PNG, JPEG, BMP, TIFF, WebP; grey or colour; 8 to 16 bits."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from tfgad.data import exif
from tfgad.data.image_files import (
    COLOUR_MODES,
    GREY_MODES,
    MAX_PIXELS,
    PNG_BITS,
    PNG_GREY,
    ImageError,
    opened,
    orientation_of,
)
from tfgad.data.pixels import FULL_DEPTH, deep_grey, scaled

# Pillow's operations that, one after another, do what `tfgad.data.exif.upright` does to arrays.
TURNS = (
    (exif.TRANSPOSED, Image.Transpose.TRANSPOSE),
    (exif.ROWS_REVERSED, Image.Transpose.FLIP_TOP_BOTTOM),
    (exif.COLUMNS_REVERSED, Image.Transpose.FLIP_LEFT_RIGHT),
)


def open_image(
    path: str | os.PathLike, content: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes an image file and rotates it upright by its EXIF orientation.

    Args:
        path: the file.
        content: its content, if it has been read already.
        max_pixels: limit of width times height; a larger image is not decoded.

    Raises:
        ImageError: the file is missing, empty, truncated or not an image, too large, has several
            pages, or is of a kind that Pillow would misread.
    """
    with opened(path, content, max_pixels) as image:
        orientation = orientation_of(image)  # before `load`, see `orientation_of`
        image.load()
        if orientation == exif.UPRIGHT:
            return image.copy()
        for orientations, turn in TURNS:
            if orientation in orientations:
                image = image.transpose(turn)
        return image


def read_image(
    path: str | os.PathLike,
    channels: int | None = None,
    content: bytes | None = None,
    *,
    depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads an image file as floats.

    Args:
        path: the file.
        channels: 1 for grey, 3 for colour, None for what the file holds.
        content: its content, if it has been read already.
        depth: bits of a 16-bit file; see `tfgad.data.pixels.scaled`.
        max_pixels: limit of width times height; a larger image is not decoded.

    Returns:
        float32 `[H, W, channels]` in [-1, 1], black -1 and white 1.

    Raises:
        ImageError: the file cannot be decoded, or holds values that are not grey levels.
    """
    return scaled(path, read_levels(path, channels, content, max_pixels), depth)


def read_levels(
    path: str | os.PathLike,
    channels: int | None = None,
    content: bytes | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads the grey levels of an image file, unscaled, rotated upright.

    An alpha channel is dropped, as TensorFlow's decoders in an exported model drop it.

    Args:
        path: the file.
        channels: 1 for grey, 3 for colour, None for what the file holds.
        content: its content, if it has been read already.
        max_pixels: limit of width times height; a larger image is not decoded.

    Returns:
        `[H, W, channels]`: uint8; uint16 for a file of more than 8 bits; float32 in [0, 1] for a
        file of floating-point numbers.

    Raises:
        ImageError: the file cannot be decoded (see `open_image`), or holds values that are not grey
            levels.
    """
    with opened(path, content, max_pixels) as image:
        orientation = orientation_of(image)
        if _is_deep_colour(image):
            levels = _deep_colour(path, content)
        else:
            image.load()
            levels = _levels(image, path, channels)
        levels = exif.upright(levels, orientation)
        if channels == 1 and levels.shape[2] == 3:
            levels = deep_grey(levels)
        return np.repeat(levels, 3, axis=2) if levels.shape[2] < (channels or 1) else levels


def is_grey(image: Image.Image) -> bool:
    """Returns whether a decoded image is grey; a palette is grey if all its entries are."""
    if image.mode in ("P", "PA"):
        palette = np.reshape(np.array(image.getpalette("RGB")), (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in GREY_MODES


def _levels(image: Image.Image, path: str | os.PathLike, channels: int | None) -> np.ndarray:
    """Returns the levels `[H, W, C]` of a loaded image."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_grey_levels(image, path)[:, :, None]
    colour = not is_grey(image)
    if colour or image.mode in COLOUR_MODES:  # to grey by way of RGB, as TensorFlow's decoders do
        image = image.convert("RGB")
    if channels == 1 or not colour:
        image = image.convert("L")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _deep_grey_levels(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    """Returns the levels `[H, W]` of a grey image: uint16, or float32 from 0 to 1."""
    pixels = np.asarray(image)
    if image.mode.startswith("I;"):
        return pixels.astype(np.uint16)
    white = 1 if image.mode == "F" else 2**FULL_DEPTH - 1
    if not np.isfinite(pixels).all():
        raise ImageError(path, "holds values that are not numbers")
    if pixels.min() < 0 or pixels.max() > white:
        raise ImageError(path, f"holds values outside 0 to {white}")
    return pixels if image.mode == "F" else pixels.astype(np.uint16)


def _is_deep_colour(image: Image.Image) -> bool:
    """Returns whether an image is a PNG that Pillow would reduce from 16 bits to 8."""
    tiles: Any = getattr(image, "tile", None)
    is_deep = image.format == "PNG" and str(tiles[0][3]).endswith(";16B")
    return is_deep and not image.mode.startswith("I")


def _deep_colour(path: str | os.PathLike, content: bytes | None) -> np.ndarray:
    """Reads a 16-bit PNG, in colour or with alpha, with TensorFlow: uint16 `[H, W, C]`."""
    import tensorflow as tf

    content = pathlib.Path(path).read_bytes() if content is None else content
    channels = 1 if content[PNG_BITS + 1] in PNG_GREY else 3
    try:
        return tf.io.decode_png(content, channels=channels, dtype=tf.uint16).numpy()
    except tf.errors.OpError as error:  # its message starts with names of TensorFlow's functions
        raise ImageError(path, "cannot be read (broken PNG)") from error
