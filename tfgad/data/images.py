"""Image files, read with Pillow: PNG, JPEG, BMP, TIFF; grey or colour; 8 or 16 bits a channel."""

from __future__ import annotations

import io
import os
import pathlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


class ImageError(ValueError):
    """A file that cannot be used as an image.

    Attributes:
        path: the file.
        reason: why not, in a few words that follow the file's name.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        self.path, self.reason = pathlib.Path(path), reason
        super().__init__(f"{path}: {reason}")


def open_image(path: str | os.PathLike, content: bytes | None = None) -> Image.Image:
    """Decodes a file wholly and turns it upright by its EXIF orientation.

    Args:
        path: the file.
        content: what it holds, where that has been read already.

    Raises:
        ImageError: the file is missing, empty, truncated or not an image.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size if content is None else len(content)
        if size == 0:
            raise ImageError(path, "is empty")
        file = path if content is None else io.BytesIO(content)
        with Image.open(file, formats=FORMATS) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(path, f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    except Exception as error:  # on broken files Pillow's decoders raise almost anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, f"cannot be read ({reason.splitlines()[0]})") from error


def read_image(
    path: str | os.PathLike, channels: int | None = None, content: bytes | None = None
) -> np.ndarray:
    """Reads an image file.

    Black becomes -1 and white 1 at either depth. An alpha channel is dropped, as TensorFlow's own
    decoders drop it in an exported model: the two must see the same pixels. Pillow reduces colour
    of 16 bits to 8; grey keeps its 16.

    Args:
        path: the file.
        channels: 1 for grey, 3 for colour, None for what the file holds.
        content: what the file holds, where that has been read already.

    Returns:
        float32 `[H, W, channels]` in [-1, 1].

    Raises:
        ImageError: the file cannot be decoded, or holds values that are no grey levels.
    """
    image = open_image(path, content)
    channels = channels or (1 if is_grey(image) else 3)
    if image.mode == "F" or image.mode.startswith("I"):
        pixels = _deep_grey(image, path)
        return np.repeat(pixels[:, :, None], channels, axis=2)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32)
    return pixels.reshape(image.height, image.width, channels) / 127.5 - 1


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 as float32 in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Returns an image in [-1, 1] as uint8, each value to the nearest of the 256."""
    return np.rint((image + 1) * 127.5).astype(np.uint8)


def is_grey(image: Image.Image) -> bool:
    """Returns whether a decoded image has no colour; for a palette, whether all its entries do."""
    if image.mode in ("P", "PA"):
        palette = np.reshape(image.getpalette("RGB"), (-1, 3))
        return bool((palette == palette[:, :1]).all())
    return image.mode in GREY_MODES


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes to a square, bilinearly and with antialiasing.

    The same as `tf.image.resize(image, (side, side), antialias=True)`, by Pillow.

    Args:
        image: float32 `[H, W, C]`.
        side: of the square, in pixels.

    Returns:
        float32 `[side, side, C]`, within the image's range.
    """
    planes = [Image.fromarray(image[:, :, i]) for i in range(image.shape[2])]
    resized = [plane.resize((side, side), Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=2)


def _deep_grey(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    """Scales grey of 16 bits (0 to 65535) or floating point (0 to 1) to [-1, 1]."""
    pixels = np.asarray(image).astype(np.float32)
    white = 1 if image.mode == "F" else 65535
    if not np.isfinite(pixels).all():
        raise ImageError(path, "holds values that are not numbers")
    if pixels.min() < 0 or pixels.max() > white:
        raise ImageError(path, f"holds values outside 0 to {white}")
    return pixels * (2 / white) - 1
