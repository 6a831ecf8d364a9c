"""Which files of a user's folder are good, which are not, and where their masks are."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Sequence

from tfgad.data.datasets.masks import MaskFolder, beside, listed
from tfgad.data.images import NAMES, log_passed_over, named_like_images
from tfgad.errors import UsageError
from tfgad.files import printable

log = logging.getLogger(__name__)

GOOD = "good"
MASKS = ("ground_truth", "groundtruth", "masks")  # the folder of masks, by any of these names
# Folders that likely hold good images, but do not say so in the word that is looked for.
LIKE_GOOD = ("ok", "normal", "defect_free", "no_defect", "nodefect", "pass", "negative")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image file.

    Attributes:
        path: the file.
        name: its path below the folder.
        kind: the folder it lies in, `"good"` or the kind of defect.
        masks: the files that mark its defect.
    """

    path: pathlib.Path
    name: str
    kind: str
    masks: tuple[pathlib.Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Attributes:
        good: images to train on and to hold out.
        test: images to test with.
        good_is_all: there are no good images besides, so some of them must serve the test.
        masks: one of the masks, whether it fits an image or not, or their folder if it is empty;
            None if there is neither.
    """

    good: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    good_is_all: bool = False
    masks: pathlib.Path | None = None


def read_layout(root: pathlib.Path) -> Layout:
    """Recognises one of three layouts.

    - `train/good`, `test/<kind>` and `ground_truth/<kind>/<stem>_mask.png`, as in MVTec AD
      (Bergmann et al., CVPR 2019);
    - `good` and any other folders, each a kind of defect, with or without `ground_truth`;
    - images directly in the folder, all good.

    The letter case of the folders does not matter. Masks are found by the stems of their images,
    see `masks`; they may also lie beside the images. Images that are of no part of the
    layout are counted in the log. Files whose names start with a dot, or do not end like an
    image's, are passed over; the latter are counted, too.

    Raises:
        UsageError: the folder is not there, or has no good images.
    """
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UsageError("folder", root, problem, "check the path")
    try:
        layout, mask_files = _layout(root)
    except OSError as error:
        problem = f"cannot be read ({error.strerror}: {error.filename})"
        raise UsageError("folder", root, problem, "check the permissions") from error
    log_passed_over(root)
    if not layout.good:
        hint = f"put {NAMES} images of good parts into it, or into its folder good/ or train/good/"
        found = sorted(f"{path.name}/" for path in _folders(root))
        problem = f"has no good images, but {', '.join(found)}" if found else "has no good images"
        raise UsageError("folder", root, problem, hint)
    _log_what_is_odd(root, layout, mask_files)
    return layout


def _layout(root: pathlib.Path) -> tuple[Layout, list[pathlib.Path]]:
    """Returns the layout, and all files of its folders of masks."""
    trained = [good for train in _folders(root, "train") for good in _folders(train, GOOD)]
    tests = _folders(root, "test") if trained else [root]
    masks = _folders(root, *MASKS) or [each for test in tests for each in _folders(test, *MASKS)]
    mask_files = [path for folder in masks for path in named_like_images(folder.rglob("*"))]
    if not trained and not _folders(root, GOOD):
        good = _samples(root, root, GOOD, [], named_like_images(root.glob("*")))
        return Layout(good), []
    good = [s for folder in trained or _folders(root, GOOD) for s in _of_kind(root, folder, masks)]
    test = [
        sample
        for parent in tests
        for folder in _folders(parent)
        if folder.name.lower() not in MASKS and (trained or folder.name.lower() != GOOD)
        for sample in _of_kind(root, folder, masks)
    ]
    is_all = bool(test) and not trained
    found = [*(mask for sample in test for mask in sample.masks), *mask_files, *masks]
    has_masks = bool(found) and any(sample.kind != GOOD for sample in test)
    return Layout(tuple(good), tuple(test), is_all, found[0] if has_masks else None), mask_files


def _folders(parent: pathlib.Path, *names: str) -> list[pathlib.Path]:
    """Lists the folders in a folder, by any letter case of any of the names if there are some."""
    return sorted(
        path
        for path in parent.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and (not names or path.name.lower() in names)
    )


def _of_kind(
    root: pathlib.Path, folder: pathlib.Path, masks: Sequence[pathlib.Path]
) -> tuple[Sample, ...]:
    """Lists the images of one kind, those in folders within it too."""
    kind = GOOD if folder.name.lower() == GOOD else folder.name
    of_kind = [each for parent in masks for each in _folders(parent, folder.name.lower())]
    return _samples(root, folder, kind, of_kind, named_like_images(folder.rglob("*")))


def _samples(root, folder, kind, mask_folders, files) -> tuple[Sample, ...]:
    marked, found = beside(files), MaskFolder(mask_folders)
    if marked:
        log.warning("masks beside their images in %s/: %s", folder.name, listed(list(marked)))
    own: dict[pathlib.Path, list[pathlib.Path]] = {}
    for mask, image in marked.items():
        own.setdefault(image, []).append(mask)
    return tuple(
        Sample(
            path,
            printable(path.relative_to(root).as_posix()),
            kind,
            found.find(path.relative_to(folder)) or tuple(own.get(path, ())),
        )
        for path in files
        if path not in marked
    )


def _log_what_is_odd(
    root: pathlib.Path, layout: Layout, mask_files: Sequence[pathlib.Path]
) -> None:
    """Names the images and masks that are of no part, and kinds that are likely no defects."""
    samples = (*layout.good, *layout.test)
    known = {sample.path for sample in samples} | {m for s in samples for m in s.masks}
    others = sorted({*named_like_images(root.rglob("*"))} - known - {*mask_files})
    if fitting_none := [path for path in mask_files if path not in known]:
        log.warning("masks that fit no image: %s", listed(_names(root, fitting_none)))
    if others:
        log.warning("passed over, of no part of the layout: %s", listed(_names(root, others)))
    for kind in sorted({s.kind for s in layout.test if s.kind.lower() in LIKE_GOOD}):
        log.warning("the images in %s/ count as defective: only good/ holds good ones", kind)


def _names(root: pathlib.Path, paths: Sequence[pathlib.Path]) -> list[str]:
    return [printable(path.relative_to(root).as_posix()) for path in paths]
