"""A user's own images: files of any size and depth in a folder, streamed from disk."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import pathlib
from collections.abc import Sequence

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.folder_layout import GOOD, Layout, Sample, read_layout
from tfgad.data.images import ImageError, read_image
from tfgad.data.split import hold_out
from tfgad.data.stream import Form, read_mask, stream_normal, stream_test
from tfgad.errors import UsageError

log = logging.getLogger(__name__)

# Of the good images, where a folder sets none aside for the test.
TEST_PART = 0.2
# The same test whatever the seed: runs of several seeds are compared on it.
TEST_SEED = 0


@dataclasses.dataclass(frozen=True)
class Checked:
    """A sample whose files were decoded once, and the shape `[H, W, C]` of its image."""

    sample: Sample
    shape: tuple[int, int, int]


def load(
    name: str,
    *,
    size: int = 128,
    tile: int | None = None,
    channels: int | None = None,
    calibration: float = 0.2,
    seed: int = 0,
) -> AnomalyData:
    """Loads a folder laid out in one of the ways of `folder_layout.read_layout`.

    Every file is decoded once before anything is learnt, because only that finds truncated ones;
    broken ones are logged and left out. That costs one pass over the data on all cores, a second
    for some 40 colour images of 1024x1024 on two.

    In a layout with `good` and other folders, 20 % of the good images are for the test, the same
    ones for every seed. A flat folder has an empty test.

    Args:
        name: path of the folder; `~` is the home directory.
        size: side in pixels of the images that come out: each is resized to a square, with
            antialiasing; masks to the nearest neighbour.
        tile: cut the images into tiles of this side instead, at their own resolution. The tiles
            cover the image; the last of a row or column may overlap its neighbour; an image
            smaller than a tile is continued by reflection. A tile is anomalous if its mask is not
            empty, or, without masks, if its image is.
        channels: 1 for grey, 3 for colour; 1 if all images are grey, else 3, if not given.
        calibration: the part of the good training images held out, whole images at a time.
        seed: decides which.

    Raises:
        UsageError: the folder is not there or has no good images, or an option is out of range.
    """
    if channels not in (None, 1, 3):
        raise UsageError("channels", channels, "is neither grey nor colour", "give 1 or 3")
    side = size if tile is None else tile
    if side < 1:
        raise UsageError("size or tile", side, "is no side of an image", "give at least 1")
    root = pathlib.Path(name).expanduser()
    layout = read_layout(root)
    good, good_skipped = _check(layout.good)
    test, test_skipped = _check(layout.test)
    if not good:
        raise UsageError(
            "folder", root, f"has no good image that can be read ({good_skipped[0]})", "replace it"
        )
    for reason in (*good_skipped, *test_skipped):
        log.warning("skipped %s", reason)
    grey = all(each.shape[2] == 1 for each in (*good, *test))
    form = Form(side, tile is not None, channels or (1 if grey else 3))
    train, held, test = _split(layout, good, test, calibration, seed)
    return AnomalyData(
        spec=f"folder:{name}",
        image_shape=(form.side, form.side, form.channels),
        train=stream_normal(_samples(train), form),
        calibration=stream_normal(_samples(held), form),
        test=stream_test(_samples(test), form),
        train_size=_count(train, form),
        calibration_size=_count(held, form),
        test_size=_count(test, form),
        has_masks=layout.has_masks,
        resized=not form.tiled,
        kinds=tuple(sorted({each.sample.kind for each in test} - {GOOD})),
        skipped=(*good_skipped, *test_skipped),
    )


def _check(samples: Sequence[Sample]) -> tuple[list[Checked], list[str]]:
    """Decodes every file once; returns those that are sound, and why the others are not."""

    def attempt(sample: Sample) -> Checked | str:
        try:
            return Checked(sample, _checked_shape(sample))
        except ImageError as error:
            return f"{sample.name}: {error.reason}"

    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, samples))
    skipped = [result for result in results if isinstance(result, str)]
    return [result for result in results if isinstance(result, Checked)], skipped


def _checked_shape(sample: Sample) -> tuple[int, int, int]:
    shape = read_image(sample.path).shape
    if sample.mask is None:
        return shape
    if not sample.mask.is_file():
        raise ImageError(sample.path, f"has no mask {sample.mask.name}")
    mask = read_mask(sample.mask)
    if mask.shape[:2] != shape[:2]:
        raise ImageError(sample.path, f"differs in size from its mask {sample.mask.name}")
    if not mask.any():
        raise ImageError(sample.path, f"has an all-black mask {sample.mask.name}")
    return shape


def _split(
    layout: Layout, good: list[Checked], test: list[Checked], calibration: float, seed: int
) -> tuple[list[Checked], list[Checked], list[Checked]]:
    """Returns what is for training, for calibration and for the test."""
    if layout.good_is_all:
        kept, for_test = hold_out(len(good), TEST_PART, TEST_SEED)
        test = [good[i] for i in for_test] + test
        good = [good[i] for i in kept]
    kept, held = hold_out(len(good), calibration, seed)
    return [good[i] for i in kept], [good[i] for i in held], test


def _count(checked: Sequence[Checked], form: Form) -> int:
    return sum(form.count(each.shape) for each in checked)


def _samples(checked: Sequence[Checked]) -> list[Sample]:
    return [each.sample for each in checked]
