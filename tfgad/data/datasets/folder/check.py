"""Checks of a folder's images before training: broken files, depth of the camera, copies."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Sequence

import numpy as np

from tfgad.data.datasets.folder.layout import Sample
from tfgad.data.image_files import ImageError
from tfgad.data.images import read_levels
from tfgad.data.pixels import fitting_depth, white_of
from tfgad.files import summarize

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Checked:
    """A sample whose image was decoded without an error.

    Attributes:
        sample: the files.
        shape: `[H, W, C]` of the image.
        digest: a hash of the file's content.
        highest: the highest grey level of an image of more than 8 bits, else None.
    """

    sample: Sample
    shape: tuple[int, ...]
    digest: str
    highest: int | None


def check(samples: Sequence[Sample]) -> tuple[list[Checked], list[str]]:
    """Decodes every image once, on all cores.

    Returns:
        The images that can be read, and one line per image that cannot.
    """

    def attempt(sample: Sample) -> Checked | str:
        try:
            content = _content(sample.path)
            levels = read_levels(sample.path, content=content)
        except ImageError as error:
            return f"{sample.name}: {error.reason}"
        highest = int(levels.max()) if levels.dtype == np.uint16 else None
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return Checked(sample, levels.shape, digest, highest)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, samples))
    skipped = [result for result in results if isinstance(result, str)]
    return [result for result in results if isinstance(result, Checked)], skipped


def choose_depth(
    root: pathlib.Path, good: Sequence[Checked], test: Sequence[Checked], given: int | None
) -> int:
    """Returns the depth at which a folder's images are read, and logs how it was found.

    It is 8 if there are no 16-bit files. Else it is the smallest common depth that holds all good
    images, or all test images if no good image has 16 bits.

    Args:
        root: the folder.
        good: the good images.
        test: the test images.
        given: the depth that the user gives, or None.
    """
    of_good = [each.highest for each in good if each.highest is not None]
    of_test = [each.highest for each in test if each.highest is not None]
    highest = max(of_good or of_test, default=None)
    if highest is None:
        return given or 8
    depth = given or fitting_depth(highest)
    if given is None:
        log.info(
            "%s: files of 16 bits hold values up to %d: read as %d bits; "
            "if the camera has more, give depth=",
            *(root, highest, depth),
        )
    white = white_of(depth)
    if highest <= white // 2:
        log.warning(
            "%s: no image has a value above %d of %d, the maximum of %d bits; "
            "check exposure and depth",
            *(root, highest, white, depth),
        )
    return depth


def within_depth(checked: Sequence[Checked], depth: int) -> tuple[list[Checked], list[str]]:
    """Splits images by whether a depth holds their grey levels.

    Returns:
        The images it holds, and one line per image with higher levels.
    """
    white = white_of(depth)
    kept, skipped = [], []
    for each in checked:
        if each.highest is None or each.highest <= white:
            kept.append(each)
        else:
            skipped.append(
                f"{each.sample.name}: holds values up to {each.highest}, above {white}, the "
                f"maximum of {depth} bits; give depth={fitting_depth(each.highest)}"
            )
    return kept, skipped


def without_copies(*parts: list[Checked]) -> tuple[list[list[Checked]], list[str]]:
    """Removes from later parts the images whose content is also in an earlier part; logs it.

    Returns:
        The parts, and one line per removed image.
    """
    earlier: dict[str, str] = {}
    kept, skipped = [], []
    for part in parts:
        kept.append([each for each in part if each.digest not in earlier])
        skipped += [
            f"{each.sample.name}: is a copy of {earlier[each.digest]}"
            for each in part
            if each.digest in earlier
        ]
        earlier = {each.digest: each.sample.name for each in part} | earlier
    if skipped:
        text = "removed from calibration or test, as copies of training or calibration images: %s"
        log.warning(text, summarize(skipped))
    return kept, skipped


def _content(path: pathlib.Path) -> bytes:
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            raise ImageError(path, "is no file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from error
