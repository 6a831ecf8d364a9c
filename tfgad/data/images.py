"""Image files, read with Pillow: PNG, JPEG, BMP, TIFF, WebP; grey or colour; 8 to 16 bits.

Two settings of Pillow are of the whole process: importing this module silences what Pillow warns of
in files, and reading a file raises `PIL.Image.MAX_IMAGE_PIXELS` to the limit asked for here.
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
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfgad.data import exif

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # Pillow's names
NAMES = "PNG, JPEG, BMP, TIFF or WebP"
# Files that end otherwise are passed over in a folder. JPEG has several endings.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "P", "PA")
# Of one image, where nothing else is asked for: 16384 x 16384, or a line scan of 4096 x 65536.
MAX_PIXELS = 2**28
# Grey levels of cameras that write files of 16 bits. `8` stands for files of 8 bits.
DEPTHS = (10, 12, 14, 16)
FULL_DEPTH = 16
# What Pillow does, one after another, to turn an image as `tfgad.data.exif.upright` does an array.
TURNS = (
    (exif.TRANSPOSED, Image.Transpose.TRANSPOSE),
    (exif.ROWS_REVERSED, Image.Transpose.FLIP_TOP_BOTTOM),
    (exif.COLUMNS_REVERSED, Image.Transpose.FLIP_LEFT_RIGHT),
)
LUMA = (19595, 38470, 7471)  # of ITU-R BT.601 in 65536ths, as Pillow converts colour to grey
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_BITS = 24  # where a PNG says how many bits a channel has; the colour type follows
PNG_GREY = (0, 4)  # colour types: grey without and with alpha
# Tags of a multi-picture JPEG and of a TIFF.
PICTURES_OF_MPO = 0xB002
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, WHITE_IS_ZERO = 258, 262, 277, 0

# What Pillow warns of in a file, it reads or refuses, and a refusal is an ImageError.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+Plugin")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(ValueError):
    """A file that cannot be used as an image.

    Attributes:
        path: the file.
        reason: why not, in a few words that follow the file's name.
        beyond: the argument of `read_image` that the image goes beyond: `"max_pixels"` or
            `"depth"`; None if it is neither.
    """

    def __init__(self, path: str | os.PathLike, reason: str, beyond: str | None = None):
        self.path, self.reason, self.beyond = pathlib.Path(path), reason, beyond
        super().__init__(f"{path}: {reason}")


def open_image(
    path: str | os.PathLike, content: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decodes a file wholly and turns it upright by its EXIF orientation.

    Args:
        path: the file.
        content: what it holds, where that has been read already.
        max_pixels: of an image; a larger one is not decoded.

    Raises:
        ImageError: the file is missing, empty, truncated or not an image, too large, of several
            pages, or of a kind whose values Pillow would not read as they are meant.
    """
    with _opened(path, content, max_pixels) as image:
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
    """Reads an image file; see `read_levels` and `scaled`.

    Returns:
        float32 `[H, W, channels]` in [-1, 1], black -1 and white 1.

    Raises:
        ImageError: the file cannot be decoded, or holds values that are no grey levels.
    """
    return scaled(path, read_levels(path, channels, content, max_pixels), depth)


def read_levels(
    path: str | os.PathLike,
    channels: int | None = None,
    content: bytes | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads the grey levels of an image file as they are, upright.

    An alpha channel is dropped, as TensorFlow's own decoders drop it in an exported model: the two
    see the same pixels.

    Args:
        path: the file.
        channels: 1 for grey, 3 for colour, None for what the file holds.
        content: what the file holds, where that has been read already.
        max_pixels: of an image; a larger one is not decoded.

    Returns:
        `[H, W, channels]`: uint8; uint16 of a file of more than 8 bits; or, of a file of floating
        point, float32 in [0, 1].

    Raises:
        ImageError: the file cannot be decoded (see `open_image`), or holds values that are no grey
            levels.
    """
    with _opened(path, content, max_pixels) as image:
        orientation = orientation_of(image)
        if _is_deep_colour(image):
            levels = _deep_colour(path, content)
        else:
            image.load()
            levels = _levels(image, path, channels)
        levels = exif.upright(levels, orientation)
        if channels == 1 and levels.shape[2] == 3:
            levels = _grey(levels)
        return np.repeat(levels, 3, axis=2) if levels.shape[2] < (channels or 1) else levels


def scaled(path: str | os.PathLike, levels: np.ndarray, depth: int | None = None) -> np.ndarray:
    """Scales what `read_levels` returns to float32 in [-1, 1].

    Args:
        path: the file, for the error's sake.
        levels: uint8 from 0 to 255, uint16, or float32 from 0 to 1.
        depth: how many bits uint16 has, so that white is `2**depth - 1`. None, or 8 of a model that
            has learnt from files of 8 bits, means all 16.

    Raises:
        ImageError: a value lies above white.
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
    with _guard(path):  # of a large image the memory may not suffice
        image = levels.astype(np.float32, order="C")
        image /= white / 2
        image -= 1
        return image


def white_of(depth: int | None) -> int:
    """Returns white in a file of more than 8 bits; see `scaled`."""
    return 2 ** (depth if depth and depth > 8 else FULL_DEPTH) - 1


def fitting_depth(level: int) -> int:
    """Returns the smallest of `DEPTHS` that holds a grey level."""
    return next(depth for depth in DEPTHS if level < 2**depth)


def doubtful_depth(levels: np.ndarray, depth: int | None) -> int | None:
    """Returns fewer bits that an image of 16 would fit, where nothing is known of its depth.

    Args:
        levels: as `read_levels` returns them.
        depth: that of the model or the user; see `scaled`.
    """
    if levels.dtype != np.uint16 or (depth and depth > 8):
        return None
    fitting = fitting_depth(int(levels.max()))
    return fitting if fitting < FULL_DEPTH else None


def named_like_images(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Returns what is named like an image and does not start with a dot, sorted; no folders.

    A link to a file that is gone, or a pipe, is among them: reading it says so.
    """
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def log_passed_over(folder: pathlib.Path) -> None:
    """Says in one line how many files below a folder are passed over because of their endings."""
    endings = collections.Counter(
        path.suffix.lower() or "without an ending"
        for path in folder.rglob("*")
        if path.suffix.lower() not in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if endings:
        named = ", ".join(f"{count} {ending}" for ending, count in endings.most_common())
        total = sum(endings.values())
        log.warning(
            "%s: passed over %d file%s that %s not end like an image (%s)",
            *(folder, total, *(("", "does") if total == 1 else ("s", "do")), named),
        )


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


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation, from 1 to 8, of an image that is opened but not yet loaded.

    Loading may find another block behind the pixels of a PNG, which `export.decoding` does not look
    for. A TIFF is turned by Pillow when it is loaded: 1. XMP is not asked.
    """
    if image.format in ("JPEG", "MPO"):
        of_exif = (data for name, data in image.applist if name == "APP1")
        block = next((data for data in of_exif if data.startswith(b"Exif\0\0")), b"")
    elif image.format in ("PNG", "WEBP"):
        block = image.info.get("exif", b"")
    else:
        block = b""
    return exif.orientation(block.removeprefix(b"Exif\0\0"))


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


@contextlib.contextmanager
def _guard(path: str | os.PathLike) -> Iterator[None]:
    """Makes an ImageError of whatever goes wrong with a file."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # on broken files Pillow's decoders raise almost anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, f"cannot be read ({reason.splitlines()[0]})") from error


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike, content: bytes | None, max_pixels: int
) -> Iterator[Image.Image]:
    """Opens a file that Pillow reads as it is meant; whatever goes wrong is an ImageError."""
    path = pathlib.Path(path)
    # Pillow has a limit of its own, for the whole process. It is raised, never lowered.
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    with _guard(path):
        if content is None and not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(path, "is no file")  # a pipe or a device might never end
        # Not by its path: what Pillow then maps into memory, it garbles if a TIFF is turned.
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            start = file.read(4)
            if not start:
                raise ImageError(path, "is empty")
            file.seek(0)
            try:
                image = Image.open(file, formats=FORMATS)
            except Image.DecompressionBombError:
                raise _too_large(path, max_pixels) from None
            except UnidentifiedImageError:
                tiff = "is a TIFF of a kind that is not read"
                reason = tiff if start in (b"II*\0", b"MM\0*") else f"is not a {NAMES}"
                raise ImageError(path, reason) from None
            with image:
                if image.width * image.height > max_pixels:
                    raise _too_large(path, max_pixels)
                _check_meaning(image, path)
                yield image


def _too_large(path: pathlib.Path, max_pixels: int) -> ImageError:
    return ImageError(path, f"has more than {max_pixels:,} pixels", "max_pixels")


def _check_meaning(image: Image.Image, path: pathlib.Path) -> None:
    """Raises ImageError where Pillow would read a part, or other values than are meant."""
    pages = getattr(image, "n_frames", 1)
    if image.format == "MPO":  # a JPEG with others behind it, of which thumbnails are no pages
        kinds = [each["Attribute"]["MPType"] for each in image.mpinfo[PICTURES_OF_MPO]]
        pages = sum("Thumbnail" not in kind for kind in kinds)
    if pages > 1:
        raise ImageError(path, f"holds {pages} pages; save each as a file of its own")
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
        if bits > 8 and image.tag_v2.get(SAMPLES_PER_PIXEL, 1) > 1:
            reason = f"is a TIFF with several channels of {bits} bits; save it as PNG"
            raise ImageError(path, reason)
        if bits > 8 and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            reason = f"is a TIFF of {bits} bits whose zero is white; save it with zero as black"
            raise ImageError(path, reason)
    if image.mode not in (*GREY_MODES, *COLOUR_MODES):
        raise ImageError(path, f"is a {image.mode} image; save it as grey or RGB")


def _levels(image: Image.Image, path: pathlib.Path, channels: int | None) -> np.ndarray:
    """Returns the levels `[H, W, C]` of a loaded image."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_grey(image, path)[:, :, None]
    colour = not is_grey(image)
    if colour or image.mode in COLOUR_MODES:  # through RGB, as TensorFlow's decoders go
        image = image.convert("RGB")
    if channels == 1 or not colour:
        image = image.convert("L")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _deep_grey(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    """Returns grey `[H, W]` of 16 bits as uint16, of floating point as float32 from 0 to 1."""
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
    is_deep = image.format == "PNG" and str(image.tile[0][3]).endswith(";16B")
    return is_deep and not image.mode.startswith("I")


def _deep_colour(path: str | os.PathLike, content: bytes | None) -> np.ndarray:
    """Reads a PNG of 16 bits, in colour or with alpha, with TensorFlow: uint16 `[H, W, C]`."""
    import tensorflow as tf

    content = pathlib.Path(path).read_bytes() if content is None else content
    channels = 1 if content[PNG_BITS + 1] in PNG_GREY else 3
    try:
        return tf.io.decode_png(content, channels=channels, dtype=tf.uint16).numpy()
    except tf.errors.OpError as error:  # its message names TensorFlow's functions first
        raise ImageError(path, "cannot be read (broken PNG)") from error


def _grey(colour: np.ndarray) -> np.ndarray:
    """Returns `[H, W, 3]` of 16 bits as grey `[H, W, 1]`, by Pillow's formula for 8."""
    luma = (colour * np.uint32(LUMA)).sum(axis=2, keepdims=True, dtype=np.uint32) + 2**15
    return (luma >> 16).astype(np.uint16)
