"""Mask files: which of them marks which image, and which of their levels are defective.

Public data sets name a mask as its image, or with a word behind it (`000_mask.png` in MVTec AD,
`10301_GT.png` in KolektorSDD2, `0576_label.PNG` in DAGM 2007), or give each image a folder of them
(MVTec LOCO AD: `000/000.png`).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from tfgad.data.images import ImageError, is_grey, named_like_images, open_image

log = logging.getLogger(__name__)

# What may follow the image's name in that of its mask; a number where there are several.
WORDS = r"mask|gt|ground[ _-]?truth"
MARK = re.compile(rf"[ _-]({WORDS}|label)[ _-]?\d*$")
# The same where masks lie beside the images: `bottle label.png` may be an image like `bottle.png`.
MARK_BESIDE = re.compile(rf"[ _-]({WORDS})[ _-]?\d*$")
# Masks of more levels than these are drawn in grey, those of fewer number kinds of defect: VOC has
# 21 classes, while 182 of the 210 grey masks of the magnetic tile data have more than 32 levels.
LABELS = 32
VOID = 255  # of VOC's masks of classes: a rim that is neither
# Their levels ring around edges, so that they number nothing.
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
# Sides are whole pixels: a mask of half the size may be off by one of them.
ASPECT_TOLERANCE = 0.01
NAMED = 3  # files that a line names; the rest it counts


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask file and how to read it.

    Attributes:
        path: the file.
        above: levels above this are defective.
        void: whether level 255 is not.
    """

    path: pathlib.Path
    above: int = 0
    void: bool = False

    def read(self, shape: Sequence[int]) -> np.ndarray:
        """Reads it at an image's size.

        Args:
            shape: `(height, width, ...)` of the image.

        Returns:
            uint8 `[height, width, 1]`, 1 on the defect.

        Raises:
            ImageError: the file cannot be decoded.
        """
        levels = mask_levels(self.path)
        marked = (levels > self.above) & ~(self.void & (levels == VOID))
        return resize(marked[:, :, None].astype(np.uint8), *shape[:2])


@dataclasses.dataclass(frozen=True)
class Truth:
    """What the mask files of a data set mark.

    Attributes:
        masks: image's name -> its masks, all of which count; only of images with a defect marked.
        missing: image's name -> why its defect is not known, such as `"has no mask"`.
    """

    masks: dict[str, tuple[Mask, ...]]
    missing: dict[str, str]


class MaskFolder:
    """The masks of one kind of defect, found by the names of their images.

    Letter case and the image format do not matter, and one of the words of `MARK` may follow.

    Args:
        folders: where to look, those within them too.
    """

    def __init__(self, folders: Iterable[pathlib.Path]):
        self._by_name: dict[tuple[str, ...], list[pathlib.Path]] = {}
        self._by_folder: dict[tuple[str, ...], list[pathlib.Path]] = {}
        for folder in folders:
            for path in named_like_images(folder.rglob("*")):
                parent = _lower(path.relative_to(folder).parent)
                for stem in {_folded(path.stem), unmarked(path)}:
                    self._by_name.setdefault((*parent, stem), []).append(path)
                self._by_folder.setdefault(parent, []).append(path)

    def find(self, relative: pathlib.Path) -> tuple[pathlib.Path, ...]:
        """Returns the masks of an image, by its path below the folder of its kind."""
        key = _lower(relative.with_suffix(""))
        alike = self._by_name.get(key, ())
        # Where names differ in case alone, each image has its own.
        own = [path for path in alike if path.stem.startswith(relative.stem)]
        return tuple(own or alike or self._by_folder.get(key, ()))


def unmarked(path: pathlib.Path) -> str:
    """Returns a file's name, in small letters, without ending and without a word of `MARK`."""
    return MARK.sub("", _folded(path.stem))


def beside(files: Sequence[pathlib.Path]) -> dict[pathlib.Path, pathlib.Path]:
    """Returns which files are masks of others in the same folder: mask -> image.

    `a_mask.png` is that of `a.png`. Of `a.jpg` and `a.png` the mask is the one that has few levels.
    """
    alike: dict[tuple[pathlib.Path, str], list[pathlib.Path]] = {}
    for path in files:
        alike.setdefault((path.parent, _folded(path.stem)), []).append(path)
    found = {}
    for (parent, stem), paths in alike.items():
        images = alike.get((parent, MARK_BESIDE.sub("", stem)), [])
        if images is paths:
            drawn = [path for path in paths if len(paths) > 1 and _has_few_levels(path)]
            images, paths = [path for path in paths if path not in drawn], drawn
        found |= {path: images[0] for path in paths if images}
    return found


def mask_levels(path: pathlib.Path) -> np.ndarray:
    """Reads the levels of a mask file, 0 on the background.

    Of a palette with colours the indices are the levels, of other colours the brightest channel.
    Where the file has transparent pixels they are background; if all others are of one colour,
    opacity is the level.

    Returns:
        uint8 `[H, W]`. Deeper levels are scaled to 8 bits, none but 0 to 0.

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
        raise ImageError(path, f"is no mask that can be read ({error})") from error
    opaque = levels[alpha > 0]
    if alpha.min() == alpha.max():
        return levels
    if opaque.min() == opaque.max():
        return alpha
    return np.where(alpha > 0, levels, 0).astype(np.uint8)


def read_truth(images: Iterable[tuple[str, Sequence[pathlib.Path], Sequence[int]]]) -> Truth:
    """Reads the masks of images once, to learn how they are drawn; logs what was guessed.

    All masks of a data set are drawn alike. Those of few levels number kinds of defect: each level
    above 0 is defective, but 255 beside low ones, which is VOC's void. Those of many levels, and
    those in JPEG, are grey: defective is what is above half of the highest level.

    Args:
        images: name of each image, its mask files, its shape `(height, width, ...)`.
    """
    images = list(images)
    paths = list(dict.fromkeys(path for _, masks, _ in images for path in masks))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        drawn = dict(zip(paths, pool.map(_attempt, paths), strict=True))
    counts = {p: each[1] for p, each in drawn.items() if not isinstance(each, ImageError)}
    masks, defective = _rules(counts), {}
    for path, mask in masks.items():
        within = counts[path].copy()
        within[: mask.above + 1] = 0
        if mask.void:
            within[VOID] = 0
        defective[path] = int(within.sum())
    truth, resized = Truth({}, {}), []
    for name, of_image, shape in images:
        reason = _reason(of_image, drawn, shape)
        if not reason and not any(defective[path] for path in of_image):
            reason = f"has an all-black mask {of_image[0].name}"
        if reason:
            truth.missing[name] = reason
            continue
        truth.masks[name] = tuple(masks[path] for path in of_image)
        resized += [path for path in of_image if drawn[path][0] != tuple(shape[:2])]
    if resized:
        log.warning("masks of another size than their images, resized: %s", listed(resized))
    share = sum(defective.values()) / max(1, sum(int(each.sum()) for each in counts.values()))
    if share > 0.5:
        log.warning("masks mark %.0f %% of all pixels: are they inverted? 0 is good", 100 * share)
    return truth


def resize(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 `[H, W, 1]` of 0 and 1 to `[height, width, 1]`.

    A larger mask has the nearest neighbour's value, a smaller one 1 wherever a pixel's place held a
    1: a small defect stays.
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


def listed(names: Sequence[str | pathlib.Path], of: int | None = None) -> str:
    """Returns how many files there are, of so many if that is given, and the first by name."""
    shown = [each.name if isinstance(each, pathlib.Path) else each for each in names[:NAMED]]
    count = f"{len(names)} of {of}" if of else len(names)
    return f"{count} ({', '.join(shown)}{', ...' if len(names) > NAMED else ''})"


def _lower(path: pathlib.Path) -> tuple[str, ...]:
    return tuple(map(_folded, path.parts))


def _folded(name: str) -> str:
    """Returns a name in small letters and in one form: file systems differ in accents."""
    return unicodedata.normalize("NFC", name).lower()


def _has_few_levels(path: pathlib.Path) -> bool:
    """Returns whether a file may be a mask, by its content."""
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


def _attempt(path: pathlib.Path) -> tuple[tuple[int, int], np.ndarray] | ImageError:
    """Returns a mask's shape and how many pixels each of its 256 levels has."""
    try:
        levels = mask_levels(path)
    except ImageError as error:
        return error
    return levels.shape, np.bincount(levels.ravel(), minlength=256)


def _rules(counts: dict[pathlib.Path, np.ndarray]) -> dict[pathlib.Path, Mask]:
    """Returns how to read each mask, by the levels of all of them."""
    exact = [each for path, each in counts.items() if path.suffix.lower() not in LOSSY]
    levels = np.flatnonzero(np.sum(exact, axis=0)) if exact else np.array([], int)
    is_grey = levels.size > LABELS
    masks = {}
    for path, of_mask in counts.items():
        if is_grey or path.suffix.lower() in LOSSY:
            masks[path] = Mask(path, int(np.flatnonzero(of_mask).max()) // 2)
        else:
            low, between = of_mask[1 : LABELS + 1].any(), of_mask[LABELS + 1 : VOID].any()
            masks[path] = Mask(path, 0, bool(of_mask[VOID] and low and not between))
    several = [path for path, each in counts.items() if np.count_nonzero(each) > 2]
    if is_grey and several:
        text = "masks of %d grey levels: defective is what is above half of a mask's highest"
        log.warning(text, levels.size)
    elif any(path.suffix.lower() not in LOSSY for path in several):
        shown = ", ".join(map(str, levels[:8])) + (", ..." if levels.size > 8 else "")
        void = [path for path, mask in masks.items() if mask.void]
        but = f", but 255 as void in {listed(void)}" if void else ""
        log.warning("masks of levels %s: each above 0 is defective%s", shown, but)
    return masks


def _reason(masks: Sequence[pathlib.Path], drawn: dict, shape: Sequence[int]) -> str | None:
    """Returns why the masks of an image do not serve, or None."""
    if not masks:
        return "has no mask"
    for path in masks:
        if isinstance(drawn[path], ImageError):
            return f"has a mask {path.name} that {drawn[path].reason}"
        (height, width), _ = drawn[path]
        if abs(height * shape[1] / (width * shape[0]) - 1) > ASPECT_TOLERANCE:
            return f"differs in aspect from its mask {path.name}"
    return None
