"""The shape of a data set's images, as its options ask for it."""

from __future__ import annotations

from tfgad.data.image_files import MAX_PIXELS
from tfgad.data.options import Size
from tfgad.errors import UsageError


def check_image_shape(argument: str, size: Size, channels: int | None) -> None:
    """Raises UsageError for a size, or a number of channels, that images cannot have.

    Args:
        argument: what gave the size, as messages name it.
        size: in pixels.
        channels: None if they are those of the images.
    """
    if channels not in (None, 1, 3):
        raise UsageError("channels", channels, "is neither grey nor colour", "give 1 or 3")
    if min(size) < 1:
        raise UsageError(argument, size, "is not the side of an image", "give at least 1")
    if size.height * size.width > MAX_PIXELS:
        problem = f"gives images of more than {MAX_PIXELS:,} pixels"
        raise UsageError(argument, size, problem, "give less")
