"""Levels of mask files: which of them are defective.

Masks are drawn in different ways. Some number the kinds of defects by their levels, some are grey
with soft edges, some are JPEG files with noise along the edges. `read_ground_truth` decides for all
masks of a data set together.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from tfgad.data.image_files import ImageError
from tfgad.data.images import is_grey, open_image
from tfgad.files import summarize

log = logging.getLogger(__name__)

# Masks with more levels than these are grey; those with fewer number the kinds of defects. VOC has
# 21 classes, while 182 of the 210 grey masks of the magnetic tile data have more than 32 levels.
LABELS = 32
VOID = 255  # in VOC's masks of classes: a border that belongs to no class
# Suffixes of lossy formats: levels near edges carry no meaning there.
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
# Sides are whole pixels: that of a mask of half the size may be off by one.
ASPECT_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask file and the rule by which its levels are read.

    Attributes:
        path: the file.
        above: levels above this are defective.
        void: whether level 255 is an exception and not defective.
    """

    path: pathlib.Path
    above: int = 0
    void: bool = False

    def read(self, shape: Sequence[int]) -> np.ndarray:
        """Reads the mask at the size of its image.

        Args:
            shape: `(height, width, ...)` of the image.

        Returns:
            uint8 `[height, width, 1]`, 1 on the defect.

        Raises:
            ImageError: the file cannot be decoded.
        """
        levels = mask_levels(self.path)
        defective = (levels > self.above) & ~(self.void & (levels == VOID))
        return resize(defective[:, :, None].astype(np.uint8), *shape[:2])


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The masks of a data set.

    Attributes:
        masks: name of an image -> its masks, which are united; only images with a marked defect.
        missing: name of an image -> why it has no usable mask, such as `"has no mask"`.
    """

    masks: dict[str, tuple[Mask, ...]]
    missing: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Histogram:
    """Shape `(height, width)` of a mask, and the number of pixels of each of its 256 levels."""

    shape: tuple[int, ...]
    counts: np.ndarray


def mask_levels(path: pathlib.Path) -> np.ndarray:
    """Reads the levels of a mask file, 0 for background.

    The levels of a palette with colours are its indices; of other colours the brightest channel
    counts. Transparent pixels are background. If all other pixels have one colour, their opacity is
    the level.

    Returns:
        uint8 `[H, W]`. Deeper levels are scaled to 8 bits, of which only level 0 becomes 0.

    Raises:
        ImageError: the file cannot be decoded.
    """
    image = open_image(path)
    try:
        levels = _levels(image)
        if not image.has_transparency_data:
            return levels
        alpha = np.asarray(image.convert("RGBA"))[:, :, 3]
    except (ValueError, OSError) as error:
        raise ImageError(path, f"cannot be read as a mask ({error})") from error
    opaque = levels[alpha > 0]
    if alpha.min() == alpha.max():
        return levels
    if opaque.min() == opaque.max():
        return alpha
    return np.where(alpha > 0, levels, 0).astype(np.uint8)


def read_ground_truth(
    images: Iterable[tuple[str, Sequence[pathlib.Path], Sequence[int]]],
) -> GroundTruth:
    """Decodes all masks of a data set once and derives how their levels are read.

    All masks of a data set are taken to be drawn alike. Few levels number kinds of defects: each
    level above 0 is defective, except 255 beside low ones, which is VOC's void. Masks of many
    levels, and all JPEG files, are grey: levels above half of the mask's highest are defective. The
    rule is logged unless all masks have two levels.

    Args:
        images: name of each image, its mask files, its shape `(height, width, ...)`.
    """
    images = list(images)
    paths = list(dict.fromkeys(path for _, masks, _ in images for path in masks))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = dict(zip(paths, pool.map(_histogram, paths), strict=True))
    histograms = {p: each for p, each in found.items() if isinstance(each, _Histogram)}
    counts = {path: each.counts for path, each in histograms.items()}
    masks = _rules(counts)
    defective = {path: _defective_pixels(mask, counts[path]) for path, mask in masks.items()}
    truth, resized = GroundTruth({}, {}), []
    for name, of_image, shape in images:
        reason = _why_unusable(of_image, found, shape)
        if not reason and not any(defective[path] for path in of_image):
            reason = f"has an all-black mask {of_image[0].name}"
        if reason:
            truth.missing[name] = reason
            continue
        truth.masks[name] = tuple(masks[path] for path in of_image)
        resized += [path for path in of_image if histograms[path].shape != tuple(shape[:2])]
    if resized:
        log.warning("masks of another size than their images, resized: %s", summarize(resized))
    share = sum(defective.values()) / max(1, sum(int(each.sum()) for each in counts.values()))
    if share > 0.5:
        log.warning("masks mark %.0f %% of all pixels: are they inverted? 0 is good", 100 * share)
    return truth


def resize(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 `[H, W, 1]` of 0 and 1 to `[height, width, 1]`.

    Enlarging takes the nearest neighbour. Reducing gives 1 wherever the area of a new pixel holds a
    1, so that small defects remain.
    """
    for axis, length in enumerate((height, width)):
        before = mask.shape[axis]
        if length >= before:
            mask = mask.take((2 * np.arange(length) + 1) * before // (2 * length), axis)
            continue
        starts = np.arange(length) * before // length
        ends = -(-(np.arange(length) + 1) * before // length)  # rounded up
        sums = np.cumsum(mask, axis, dtype=np.int64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
        mask = (sums.take(ends, axis) > sums.take(starts, axis)).astype(np.uint8)
    return mask


def has_few_levels(path: pathlib.Path) -> bool:
    """Returns whether an image file has so few levels that it may be a mask."""
    try:
        return path.suffix.lower() not in LOSSY and np.unique(mask_levels(path)).size <= LABELS
    except ImageError:
        return False


def _levels(image: Image.Image) -> np.ndarray:
    if image.mode == "F":
        return np.where(np.asarray(image) != 0, 255, 0).astype(np.uint8)
    if image.mode.startswith("I"):
        deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return ((deep + 256) // 257).astype(np.uint8)
    if image.mode == "P" and not is_grey(image):
        return np.asarray(image)
    if is_grey(image):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB")).max(axis=2)


def _histogram(path: pathlib.Path) -> _Histogram | ImageError:
    try:
        levels = mask_levels(path)
    except ImageError as error:
        return error
    return _Histogram(levels.shape, np.bincount(levels.ravel(), minlength=256))


def _rules(counts: Mapping[pathlib.Path, np.ndarray]) -> dict[pathlib.Path, Mask]:
    """Returns how to read each mask, by the histograms of all of them; logs the rule."""
    exact = [each for path, each in counts.items() if path.suffix.lower() not in LOSSY]
    levels = np.flatnonzero(np.sum(exact, axis=0)) if exact else np.array([], int)
    many_levels = levels.size > LABELS
    masks = {}
    for path, of_mask in counts.items():
        if many_levels or path.suffix.lower() in LOSSY:
            masks[path] = Mask(path, int(np.flatnonzero(of_mask).max()) // 2)
        else:
            low, between = of_mask[1 : LABELS + 1].any(), of_mask[LABELS + 1 : VOID].any()
            masks[path] = Mask(path, 0, bool(of_mask[VOID] and low and not between))
    several = [path for path, each in counts.items() if np.count_nonzero(each) > 2]
    if many_levels and several:
        text = "masks of %d grey levels: those above half of a mask's highest are defective"
        log.warning(text, levels.size)
    elif any(path.suffix.lower() not in LOSSY for path in several):
        shown = ", ".join(map(str, levels[:8])) + (", ..." if levels.size > 8 else "")
        void = [path for path, mask in masks.items() if mask.void]
        exception = f", except 255 as void in {summarize(void)}" if void else ""
        log.warning("masks of levels %s: each above 0 is defective%s", shown, exception)
    return masks


def _defective_pixels(mask: Mask, counts: np.ndarray) -> int:
    """Returns the number of defective pixels of a mask, from its histogram."""
    counts = counts.copy()
    counts[: mask.above + 1] = 0
    if mask.void:
        counts[VOID] = 0
    return int(counts.sum())


def _why_unusable(
    masks: Sequence[pathlib.Path],
    found: Mapping[pathlib.Path, _Histogram | ImageError],
    shape: Sequence[int],
) -> str | None:
    """Returns why the masks of an image cannot be used, or None if they can."""
    if not masks:
        return "has no mask"
    for path in masks:
        each = found[path]
        if isinstance(each, ImageError):
            return f"has a mask {path.name} that {each.reason}"
        height, width = each.shape
        if abs(height * shape[1] / (width * shape[0]) - 1) > ASPECT_TOLERANCE:
            return f"differs in aspect ratio from its mask {path.name}"
    return None
