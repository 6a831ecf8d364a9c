"""A user's own images: files of any size and depth in a folder, streamed from disk."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfgad.data.anomaly_data import IMAGE, TILE, AnomalyData, Files
from tfgad.data.datasets.folder_layout import GOOD, MASKS, Layout, Sample, read_layout
from tfgad.data.datasets.masks import Truth, listed, read_truth
from tfgad.data.datasets.stream import Form, stream_normal, stream_test
from tfgad.data.images import (
    FULL_DEPTH,
    MAX_PIXELS,
    ImageError,
    fitting_depth,
    read_levels,
    white_of,
)
from tfgad.data.split import hold_out_by_name
from tfgad.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

# Of the good images, where a folder sets none aside for the test.
TEST_PART = 0.2
# The same test whatever the seed: runs of several seeds are compared on it.
TEST_SEED = 0


@dataclasses.dataclass(frozen=True)
class Checked:
    """A sample whose image was decoded once.

    Attributes:
        sample: the files.
        shape: `[H, W, C]` of the image.
        digest: a hash of the file's content.
        highest: its highest grey level, if it has more than 8 bits.
    """

    sample: Sample
    shape: tuple[int, int, int]
    digest: str
    highest: int | None


def load(
    name: str,
    *,
    size: int = 128,
    tile: int | None = None,
    channels: int | None = None,
    calibration: float = 0.2,
    seed: int = 0,
    depth: int | None = None,
) -> AnomalyData:
    """Loads a folder laid out in one of the ways of `folder_layout.read_layout`.

    Every file is decoded once before anything is learnt, because only that finds truncated ones;
    broken ones are logged and left out. That costs one pass over the data on all cores, a second
    for some 40 colour images of 1024x1024 on two.

    In a layout with `good` and other folders, about 20 % of the good images are for the test, the
    same ones for every seed. A flat folder has an empty test. Which images are held out a hash of
    their names decides, so that none changes sides when others are added. A copy of an image that
    is trained on is left out of calibration and test.

    A defective image whose mask is missing, broken, all black or of another aspect stays in the
    test, but its pixels are not counted, see `AnomalyData.unmasked`.

    Args:
        name: path of the folder; `~` is the home directory.
        size: side in pixels of the images that come out: each is resized to a square, with
            antialiasing; in masks a defect of any size stays.
        tile: cut the images into tiles of this side instead, at their own resolution. The tiles
            cover the image; the last of a row or column may overlap its neighbour; an image
            smaller than a tile is continued by reflection. A tile is anomalous if its mask is not
            empty. Without masks an evaluation counts whole images.
        channels: 1 for grey, 3 for colour; 1 if all images are grey, else 3, if not given.
        calibration: the part of the good training images held out, whole images at a time; at least
            two, if there are four.
        seed: decides which.
        depth: bits of the camera, 9 to 16, whose files have 16; the smallest of 10, 12, 14 and 16
            that holds all good images, if not given. An image with higher levels is left out.

    Raises:
        UsageError: the folder is not there or has no good images, it has masks of which none fits
            an image, or an option is out of range.
    """
    if channels not in (None, 1, 3):
        raise UsageError("channels", channels, "is neither grey nor colour", "give 1 or 3")
    if depth is not None and not 8 < depth <= FULL_DEPTH:
        raise UsageError("depth", depth, "is no depth of files of 16 bits", "give 9 to 16")
    side = size if tile is None else tile
    if side < 1:
        raise UsageError("size or tile", side, "is no side of an image", "give at least 1")
    if side**2 > MAX_PIXELS:
        raise UsageError(
            "size or tile", side, f"gives images of more than {MAX_PIXELS:,} pixels", "give less"
        )
    root = pathlib.Path(name).expanduser()
    layout = read_layout(root)
    good, good_skipped = _check(layout.good)
    test, test_skipped = _check(layout.test)
    if not good:
        raise UsageError(
            "folder", root, f"has no good image that can be read ({good_skipped[0]})", "replace it"
        )
    deep = [each.highest for each in good if each.highest is not None]
    deep = deep or [each.highest for each in test if each.highest is not None]
    depth = _depth(root, max(deep, default=None), depth)
    good, good_too_deep = _within(good, depth)
    test, test_too_deep = _within(test, depth)
    unread = (*good_skipped, *test_skipped, *good_too_deep, *test_too_deep)
    if not good:
        raise UsageError("folder", root, f"has no good image left ({unread[0]})", "replace it")
    truth = _read_truth(root, layout, [*good, *test], tile is not None)
    good, contradicted = _without_defects(good, truth)
    train, held, test = _split(layout, good, test, calibration, seed)
    train, held, test, copies = _without_copies(train, held, test)
    for reason in unread:
        log.warning("skipped %s", reason)
    grey = all(each.shape[2] == 1 for each in (*train, *held, *test))
    form = Form(side, tile is not None, channels or (1 if grey else 3), depth)
    known = {each.sample.name: each for each in (*train, *held, *test)}

    def of_good(names: Collection[str]) -> tuple[tf.data.Dataset, int]:
        chosen = [each for name, each in known.items() if name in names]
        return stream_normal(_samples(chosen), form), _count(chosen, form)

    def of_test(names: Collection[str]) -> tuple[tf.data.Dataset, int]:
        chosen = [each for name, each in known.items() if name in names]
        return stream_test(_samples(chosen), truth.masks, form), _count(chosen, form)

    files = Files(*(_digests(part) for part in (train, held, test)), of_good, of_test)
    (trained, train_size), (calibrated, calibration_size), (tested, test_size) = (
        of_good(files.train), of_good(files.calibration), of_test(files.test)
    )  # fmt: skip
    return AnomalyData(
        spec=f"folder:{name}",
        image_shape=(form.side, form.side, form.channels),
        train=trained,
        calibration=calibrated,
        test=tested,
        train_size=train_size,
        calibration_size=calibration_size,
        test_size=test_size,
        has_masks=layout.masks is not None,
        resized=not form.tiled,
        kinds=tuple(sorted({each.sample.kind for each in test} - {GOOD})),
        skipped=(*unread, *contradicted, *copies),
        unit=TILE if form.tiled else IMAGE,
        unmasked=frozenset(truth.missing.keys() & files.test.keys()),
        files=files,
        depth=depth,
    )


def _check(samples: Sequence[Sample]) -> tuple[list[Checked], list[str]]:
    """Decodes every file once; returns those that are sound, and why the others are not."""

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


def _content(path: pathlib.Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device might never end
            raise ImageError(path, "is no file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from error


def _read_truth(
    root: pathlib.Path, layout: Layout, checked: Sequence[Checked], tiled: bool
) -> Truth:
    """Reads all masks once; says which defective images have none.

    Raises:
        UsageError: there is a folder of masks, or masks, but none of a defective image.
    """
    wanted = [c for c in checked if c.sample.masks or (c.sample.kind != GOOD and layout.masks)]
    truth = read_truth([(c.sample.name, c.sample.masks, c.shape) for c in wanted])
    defective = [c.sample for c in wanted if c.sample.kind != GOOD]
    missing = {s.name: truth.missing[s.name] for s in defective if s.name in truth.missing}
    if defective and len(missing) == len(defective):
        first = defective[0]
        stem = f"{MASKS[0]}/{first.kind}/{first.path.stem}"
        found = layout.masks.relative_to(root).as_posix()
        problem = (
            f"has {found}, but no mask that serves a defective image: "
            f"{first.name} {missing[first.name]} (looked for {stem}.* and {stem}_mask.*)"
        )
        raise UsageError("folder", root, problem, "name each mask as its image, or remove them")
    if missing:
        named = listed([f"{n} {reason}" for n, reason in missing.items()], len(defective))
        effect = "pixel figures leave them out"
        if tiled:
            effect = f"whole images are scored, and {effect}"
        log.warning("defective images without a mask: %s; %s", named, effect)
    return Truth(truth.masks, missing)


def _without_defects(good: list[Checked], truth: Truth) -> tuple[list[Checked], list[str]]:
    """Leaves out images that are called good and have a mask that says otherwise."""
    skipped = [
        f"{each.sample.name}: is called good, but has a mask that marks a defect"
        for each in good
        if each.sample.name in truth.masks
    ]
    if skipped:
        log.warning("skipped good images with a defect in their mask: %s", listed(skipped))
    return [each for each in good if each.sample.name not in truth.masks], skipped


def _depth(root: pathlib.Path, highest: int | None, given: int | None) -> int:
    """Returns the depth of a folder's images, and says what was found of files of 16 bits.

    Args:
        root: the folder.
        highest: the highest level of files of more than 8 bits; None if there are none.
        given: what the user says.
    """
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


def _within(checked: list[Checked], depth: int) -> tuple[list[Checked], list[str]]:
    """Returns the images whose levels a depth holds, and why the others are not among them."""
    white = white_of(depth)
    too_deep = [each for each in checked if (each.highest or 0) > white]
    reason = f"above {white}, the maximum of {depth} bits; give depth="
    reasons = [
        f"{each.sample.name}: holds values up to {each.highest}, {reason}"
        f"{fitting_depth(each.highest)}"
        for each in too_deep
    ]
    return [each for each in checked if (each.highest or 0) <= white], reasons


def _split(
    layout: Layout, good: list[Checked], test: list[Checked], calibration: float, seed: int
) -> tuple[list[Checked], list[Checked], list[Checked]]:
    """Returns what is for training, for calibration and for the test."""
    if layout.good_is_all:
        names = [each.sample.name for each in good]
        kept, for_test = hold_out_by_name(names, TEST_PART, TEST_SEED, "test", least=1)
        test = [good[i] for i in for_test] + test
        good = [good[i] for i in kept]
    names = [each.sample.name for each in good]
    kept, held = hold_out_by_name(names, calibration, seed)
    return [good[i] for i in kept], [good[i] for i in held], test


def _without_copies(*parts: list[Checked]) -> tuple[list[Checked], ...]:
    """Leaves out of later parts what is in an earlier one by its content; says so in one line.

    Returns:
        The parts, and as the last element what was left out, each with its reason.
    """
    before: dict[str, str] = {}
    result, skipped = [], []
    for part in parts:
        result.append([each for each in part if each.digest not in before])
        skipped += [
            f"{each.sample.name}: is a copy of {before[each.digest]}"
            for each in part
            if each.digest in before
        ]
        before = {each.digest: each.sample.name for each in part} | before
    if skipped:
        text = "left out of calibration and test, for being trained or calibrated on: %s"
        log.warning(text, listed(skipped))
    return *result, skipped


def _digests(checked: Sequence[Checked]) -> dict[str, str]:
    return {each.sample.name: each.digest for each in checked}


def _count(checked: Sequence[Checked], form: Form) -> int:
    return sum(form.count(each.shape) for each in checked)


def _samples(checked: Sequence[Checked]) -> list[Sample]:
    return [each.sample for each in checked]
