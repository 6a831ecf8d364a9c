"""Where images come from: the group of each, and the image that each tile was cut from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgad.errors import UsageError

IMAGE, TILE = "image", "tile"


@dataclasses.dataclass(frozen=True)
class Origins:
    """The origins of N good images or tiles, in the order of their stream.

    Attributes:
        groups: `[N]` of strings or integers, the group of each: what it shares its light, material
            and machine with, such as a roll, a camera or a day.
        images: `[N]` likewise, the image that each is a tile of; None if each is a whole image.
            The tiles of an image are in one group.
        kind: what a group is, as messages name it: `"strip"`.
    """

    groups: np.ndarray
    images: np.ndarray | None = None
    kind: str = "group"

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, positions: Any) -> Origins:
        """Returns the origins of some of the images.

        Args:
            positions: whatever indexes a NumPy array.
        """
        images = None if self.images is None else np.asarray(self.images)[positions]
        return Origins(np.asarray(self.groups)[positions], images, self.kind)

    @classmethod
    def of_images(cls, names: Sequence[str], kind: str = IMAGE) -> Origins:
        """Returns the origins of tiles whose image is their group.

        Args:
            names: the image of each tile.
            kind: see `Origins`.
        """
        images = np.array(names, str)
        return cls(images, images, kind)


def joined(parts: Sequence[Origins | None]) -> Origins | None:
    """Returns the origins of streams one after another; None if they are not known of all."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    images = [part.images for part in known if part.images is not None]
    return Origins(
        np.concatenate([part.groups for part in known]),
        np.concatenate(images) if len(images) == len(known) else None,
        known[0].kind,
    )


def check_count(origins: Origins, count: int) -> None:
    """Raises UsageError if there are not as many origins as images."""
    for given in (origins.groups, origins.images):
        if given is not None and len(given) != count:
            problem = f"are not one for each of {count} images"
            raise UsageError("origins", len(given), problem, "give the origin of each image")
