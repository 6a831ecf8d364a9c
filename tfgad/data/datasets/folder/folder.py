"""`folder:PATH`: the user's own image files, of any size and depth, streamed from disk."""

from __future__ import annotations

import functools
import logging
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgad.data.anomaly_data import IMAGE, TILE, AnomalyData, Files
from tfgad.data.datasets.folder.check import (
    Checked,
    check,
    choose_depth,
    within_depth,
    without_copies,
)
from tfgad.data.datasets.folder.groups import groups_of_some
from tfgad.data.datasets.folder.layout import GOOD, MASKS, Layout, read_layout
from tfgad.data.datasets.folder.masks import GroundTruth, read_ground_truth
from tfgad.data.datasets.folder.parts import find_groups, split
from tfgad.data.datasets.folder.stream import Form, stream_normal, stream_test
from tfgad.data.datasets.image_shape import check_image_shape
from tfgad.data.options import Size
from tfgad.data.origins import Origins
from tfgad.data.pixels import FULL_DEPTH, STRETCH, check_fit
from tfgad.data.products import folders_of, load_each
from tfgad.errors import UsageError
from tfgad.files import summarize

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

SIDE = 128  # pixels, of images whose size is not given


def load(
    name: str,
    *,
    size: Size | int | None = None,
    tile: int | None = None,
    channels: int | None = None,
    calibration: float = 0.2,
    seed: int = 0,
    depth: int | None = None,
    group: str | None = None,
    good: str = GOOD,
    fit: str = STRETCH,
    products: str | None = None,
) -> AnomalyData:
    """Loads the images of a folder, laid out in one of the ways of `layout.read_layout`.

    Every file is decoded once, because truncated files cannot be detected otherwise. Broken files
    are logged and skipped. This takes about one second per 40 colour images of 1024x1024 pixels on
    two cores.

    In a layout with `good` and folders of defects, about 20 % of the good images are test images,
    the same ones for every seed. In a flat folder the test set is empty. A hash of an image's name
    decides whether it is held out, so that adding images moves none from one part to another. A
    copy of a training image is removed from calibration and test.

    A defective image whose mask is missing, broken, all black or of another aspect ratio stays in
    the test set, but its pixels are not counted; see `AnomalyData.unmasked`.

    Args:
        name: path of the folder; `~` is the home directory.
        size: side in pixels of the loaded images, or `(height, width)`, in a spec `96x64`; by
            default 128. Each image is resized to it, with antialiasing; in its mask a defect of any
            size remains.
        tile: side of tiles. If given, the images are not resized but cut into tiles at their native
            resolution. The tiles cover the image; the last of a row or column may overlap its
            neighbour; an image smaller than a tile is padded by reflection. A tile is anomalous if
            its mask is not empty. Without masks an evaluation counts whole images. It excludes
            `size`.
        channels: 1 for grey, 3 for colour. By default 1 if all images are grey, else 3.
        calibration: part of the good training images that is held out, by whole images; at least
            two of four or more.
        seed: decides which images are held out.
        depth: bits of the camera, 9 to 16, whose files have 16. By default the smallest of 10, 12,
            14 and 16 that holds all good images. An image with higher levels is skipped.
        group: how images come in groups that share light, material and machine, such as rolls or
            days: `folder`, the first folder below `good/`, or a regular expression whose one
            capture group finds the group in the name of a file. Whole groups are then held out, and
            intervals draw whole groups. A good image must have a group, a defective one may. By
            default each image is a group of its own.
        good: name of the folders of good images, in any letter case.
        fit: how images of another aspect ratio than `size` are resized: `stretch`, or `letterbox`,
            which keeps the aspect ratio and pads with the mirrored image; see
            `tfgad.data.pixels`.
        products: names of subfolders, joined by `+`, or `all`. Each is then a folder as above, the
            images of one product; see `tfgad.data.products`.

    Raises:
        UsageError: the folder does not exist or has no good images, it has masks of which none
            fits an image, an option is out of range, or a good image has no group.
    """
    shape = _image_size(size, tile, fit)
    _check_options(shape, channels, depth, fit)
    root = pathlib.Path(name).expanduser()
    if products is not None:
        options: dict[str, Any] = {
            **{"size": size, "tile": tile, "channels": channels, "calibration": calibration},
            **{"seed": seed, "depth": depth, "group": group, "good": good, "fit": fit},
        }
        folders = {each: str(path) for each, path in folders_of(root, products, good).items()}
        return load_each(functools.partial(load, **options), folders, f"folder:{name}")
    layout = read_layout(root, good)
    normal, test, depth, unread = _read(root, layout, depth)
    truth = _read_ground_truth(root, layout, [*normal, *test], tile is not None)
    normal, contradicted = _without_defects(normal, truth)
    groups = find_groups(layout, normal, group, good)
    parts, copies = without_copies(*split(layout, normal, test, calibration, seed, groups))
    for reason in unread:
        log.warning("skipped %s", reason)
    known = {each.sample.name: each for part in parts for each in part}
    grey = all(each.shape[2] == 1 for each in known.values())
    form = Form(shape, tile is not None, channels or (1 if grey else 3), depth, fit)

    def of_good(names: Collection[str]) -> tuple[tf.data.Dataset, int]:
        images = [each for name, each in known.items() if name in names]
        return stream_normal([each.sample for each in images], form), _count(images, form)

    def of_test(names: Collection[str]) -> tuple[tf.data.Dataset, int]:
        images = [each for name, each in known.items() if name in names]
        samples = [each.sample for each in images]
        return stream_test(samples, truth.masks, form), _count(images, form)

    def origins_of(names: Collection[str]) -> Origins | None:
        return _origins([each for name, each in known.items() if name in names], form, groups)

    train, held, tested = ({each.sample.name: each.digest for each in part} for part in parts)
    of_files = groups and {name: groups[name] for name in (*train, *held)}
    sizes = frozenset((each.shape[0], each.shape[1]) for each in known.values())
    files = Files(train, held, tested, of_good, of_test, origins_of, of_files, sizes)
    train_stream, train_size = of_good(train)
    calibration_stream, calibration_size = of_good(held)
    test_stream, test_size = of_test(tested)
    return AnomalyData(
        spec=f"folder:{name}",
        image_shape=(*form.size, form.channels),
        train=train_stream,
        calibration=calibration_stream,
        test=test_stream,
        train_size=train_size,
        calibration_size=calibration_size,
        test_size=test_size,
        has_masks=layout.masks is not None,
        resized=not form.tiled,
        kinds=tuple(sorted({known[name].sample.kind for name in tested} - {GOOD})),
        skipped=(*unread, *contradicted, *copies),
        unit=TILE if form.tiled else IMAGE,
        unmasked=frozenset(truth.missing.keys() & tested.keys()),
        files=files,
        depth=depth,
        fit=fit,
        test_groups=groups_of_some(list(tested), group, good),
        train_origins=origins_of(train),
        calibration_origins=origins_of(held),
    )


def _image_size(size: Size | int | None, tile: int | None, fit: str) -> tuple[int, int]:
    """Returns height and width of the loaded images.

    Raises:
        UsageError: both are given, or `fit` with a tile.
    """
    if tile is None:
        given = SIDE if size is None else size
        return (given, given) if isinstance(given, int) else (given[0], given[1])
    hint = "give size= to resize whole images, or tile= to cut them at native resolution"
    if size is not None:
        raise UsageError("data option size", size, "cannot go with tile=", hint)
    if fit != STRETCH:
        raise UsageError("data option fit", fit, "cannot go with tile=", hint)
    return tile, tile


def _check_options(
    size: tuple[int, int], channels: int | None, depth: int | None, fit: str
) -> None:
    """Raises UsageError for an option out of range."""
    check_image_shape("size or tile", Size(*size), channels)
    if depth is not None and not 8 < depth <= FULL_DEPTH:
        raise UsageError("depth", depth, "is not a depth of 16-bit files", "give 9 to 16")
    check_fit("data option fit", fit)


def _read(
    root: pathlib.Path, layout: Layout, depth: int | None
) -> tuple[list[Checked], list[Checked], int, list[str]]:
    """Decodes all images once.

    Returns:
        Good images, test images, their depth, and one line per image that cannot be used.

    Raises:
        UsageError: no good image can be used.
    """
    good, good_skipped = check(layout.good)
    test, test_skipped = check(layout.test)
    if not good:
        problem = f"has no good image that can be read ({good_skipped[0]})"
        raise UsageError("folder", root, problem, "replace it")
    depth = choose_depth(root, good, test, depth)
    good, good_too_deep = within_depth(good, depth)
    test, test_too_deep = within_depth(test, depth)
    unread = [*good_skipped, *test_skipped, *good_too_deep, *test_too_deep]
    if not good:
        raise UsageError("folder", root, f"has no good image left ({unread[0]})", "replace it")
    return good, test, depth, unread


def _read_ground_truth(
    root: pathlib.Path, layout: Layout, checked: Sequence[Checked], tiled: bool
) -> GroundTruth:
    """Reads all masks once; logs which defective images have none.

    Raises:
        UsageError: there are masks, or a folder for them, but no mask fits a defective image.
    """
    candidates = [c for c in checked if c.sample.masks or (c.sample.kind != GOOD and layout.masks)]
    truth = read_ground_truth([(c.sample.name, c.sample.masks, c.shape) for c in candidates])
    defective = [c.sample for c in candidates if c.sample.kind != GOOD]
    missing = {s.name: truth.missing[s.name] for s in defective if s.name in truth.missing}
    if layout.masks and defective and len(missing) == len(defective):
        first = defective[0]
        stem = f"{MASKS[0]}/{first.kind}/{first.path.stem}"
        found = layout.masks.relative_to(root).as_posix()
        problem = (
            f"has {found}, but no mask that fits a defective image: "
            f"{first.name} {missing[first.name]} (expected {stem}.* or {stem}_mask.*)"
        )
        raise UsageError("folder", root, problem, "name each mask as its image, or remove them")
    if missing:
        named = summarize([f"{n} {reason}" for n, reason in missing.items()], len(defective))
        effect = "pixel metrics leave them out"
        if tiled:
            effect = f"whole images are scored, and {effect}"
        log.warning("defective images without a mask: %s; %s", named, effect)
    return GroundTruth(truth.masks, missing)


def _without_defects(good: list[Checked], truth: GroundTruth) -> tuple[list[Checked], list[str]]:
    """Removes good images whose mask marks a defect, and logs them."""
    skipped = [
        f"{each.sample.name}: is in a folder of good images, but its mask marks a defect"
        for each in good
        if each.sample.name in truth.masks
    ]
    if skipped:
        log.warning("skipped good images with a defect in their mask: %s", summarize(skipped))
    return [each for each in good if each.sample.name not in truth.masks], skipped


def _origins(
    checked: Sequence[Checked], form: Form, groups: Mapping[str, str] | None
) -> Origins | None:
    """Returns the origins of what `stream_normal` gives of images; None of whole ones by itself."""
    if not form.tiled and groups is None:
        return None
    names = [each.sample.name for each in checked for _ in range(form.count(each.shape))]
    if groups is None:
        return Origins.of_images(names)
    return Origins(np.array([groups[name] for name in names], str), np.array(names, str))


def _count(checked: Sequence[Checked], form: Form) -> int:
    return sum(form.count(each.shape) for each in checked)
