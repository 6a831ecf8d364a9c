"""Layouts of a folder: which files are good, which are defective, which are masks."""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Collection, Sequence

from tfgad.data.datasets.folder.mask_files import MaskFolder, masks_beside_images, shared_masks
from tfgad.data.image_files import NAMES, files_below, log_ignored_files, named_like_images
from tfgad.errors import UsageError
from tfgad.files import printable, summarize

log = logging.getLogger(__name__)

GOOD = "good"
MASKS = ("ground_truth", "groundtruth", "masks")  # names of the folder of masks
# Names of folders that probably hold good images; none is taken for one unless `good=` names it.
LIKE_GOOD = ("ok", "normal", "defect_free", "no_defect", "nodefect", "pass", "negative")


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image file and its masks.

    Attributes:
        path: the file.
        name: its path relative to the data set's folder.
        kind: the name of the folder it is in: `"good"` or the kind of defect.
        masks: the files that mark its defect.
        is_held_out: whether the layout itself sets this good image aside for the threshold.
    """

    path: pathlib.Path
    name: str
    kind: str
    masks: tuple[pathlib.Path, ...] = ()
    is_held_out: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """The image files of a folder by their purpose.

    Attributes:
        good: good images, for training and calibration.
        test: test images.
        good_is_all: whether `test` has no good images, so that some of `good` must be taken.
        masks: one of the mask files, whether it fits an image or not; the folder of masks if it is
            empty; None if there is neither.
    """

    good: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    good_is_all: bool = False
    masks: pathlib.Path | None = None


def read_layout(root: pathlib.Path, good: str = GOOD) -> Layout:
    """Recognises one of three layouts.

    - `train/good`, `test/<kind>` and `ground_truth/<kind>/<stem>_mask.png`, as in MVTec AD
      (Bergmann et al., CVPR 2019). Images in `validation/good` are held out for the threshold, as
      in MVTec LOCO AD (IJCV 2022); and the folder of the test may be `test_public`, with
      `ground_truth` in it, as in MVTec AD 2 (2025);
    - `good` and any other folders, each a kind of defect, with or without `ground_truth`;
    - images directly in the folder, all good.

    The letter case of folder names is ignored. Masks are found by the names of their images, see
    `mask_files`; they may also be in the same folder as the images. Links are followed. Files and
    folders that start with a dot, and files that do not have the suffix of an image, are ignored.
    Images and masks without a place in the layout are logged.

    Args:
        root: the folder.
        good: the name of the folders of good images.

    Raises:
        UsageError: the folder does not exist or has no good images.
    """
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UsageError("folder", root, problem, "check the path")
    try:
        layout, mask_files = _layout(root, good)
    except OSError as error:
        problem = f"cannot be read ({error.strerror}: {error.filename})"
        raise UsageError("folder", root, problem, "check the permissions") from error
    log_ignored_files(root)
    if not layout.good:
        raise _without_good(root, good)
    _log_unused(root, layout, mask_files)
    return layout


def _without_good(root: pathlib.Path, good: str) -> UsageError:
    """Returns the error for a folder without good images, which names the folders that it has."""
    found = [path for path in _folders(root) if path.name.lower() not in MASKS]
    if any(path.name.lower() == "train" for path in found):
        found = [below for train in _folders(root, "train") for below in _folders(train)]
    shown = [f"{path.relative_to(root).as_posix()}/" for path in found if path.name != good]
    problem = "has no good images" if good == GOOD else f"has no images in a folder {good}/"
    hint = f"put {NAMES} images of good parts into it, or into its folder good/ or train/good/"
    if shown:
        problem += f", but {', '.join(shown)}"
        like = next((p.name for p in found if p.name.lower() in LIKE_GOOD), found[0].name)
        hint = f"name the folder of good images, such as ?good={like}, or {hint}"
    return UsageError("folder", root, problem, hint)


def _layout(root: pathlib.Path, good_name: str) -> tuple[Layout, list[pathlib.Path]]:
    """Returns the layout, and all files of its folders of masks."""
    name = good_name.lower()
    trained = [good for train in _folders(root, "train") for good in _folders(train, name)]
    tests = _folders(root, "test", "test_public") if trained else [root]
    masks = _folders(root, *MASKS) or [each for test in tests for each in _folders(test, *MASKS)]
    mask_files = [path for folder in masks for path in named_like_images(files_below(folder))]
    if not trained and not _folders(root, name):
        images = named_like_images(root.glob("*")) if name == GOOD else []
        return Layout(_samples(root, root, GOOD, [], images)), []
    if name != GOOD and any(_folders(parent, GOOD) for parent in tests):
        problem = "is taken for good, but there is good/ beside it"
        raise UsageError("data option good", good_name, problem, "rename one of the folders")
    validated = [f for each in _folders(root, "validation") for f in _folders(each, name)]
    held_out = validated if trained else []
    folders = trained or _folders(root, name)
    good = [s for folder in folders for s in _of_kind(root, folder, masks, name)]
    for folder in held_out:
        samples = _of_kind(root, folder, masks, name)
        good += [dataclasses.replace(sample, is_held_out=True) for sample in samples]
    test = [
        sample
        for parent in tests
        for folder in _folders(parent)
        if folder.name.lower() not in MASKS and (trained or folder.name.lower() != name)
        for sample in _of_kind(root, folder, masks, name)
    ]
    is_all = bool(test) and not trained
    found = [*(mask for sample in test for mask in sample.masks), *mask_files, *masks]
    has_masks = bool(found) and any(sample.kind != GOOD for sample in test)
    return Layout(tuple(good), tuple(test), is_all, found[0] if has_masks else None), mask_files


def _folders(parent: pathlib.Path, *names: str) -> list[pathlib.Path]:
    """Lists the subfolders of a folder: all of them, or those with one of the names.

    Letter case is ignored.
    """
    return sorted(
        path
        for path in parent.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and (not names or path.name.lower() in names)
    )


def _of_kind(
    root: pathlib.Path, folder: pathlib.Path, masks: Sequence[pathlib.Path], good: str
) -> tuple[Sample, ...]:
    """Lists the images of one kind, including those in subfolders."""
    kind = GOOD if folder.name.lower() == good else folder.name
    of_kind = [each for parent in masks for each in _folders(parent, folder.name.lower())]
    return _samples(root, folder, kind, of_kind, named_like_images(files_below(folder)))


def _samples(
    root: pathlib.Path,
    folder: pathlib.Path,
    kind: str,
    mask_folders: Sequence[pathlib.Path],
    files: Sequence[pathlib.Path],
) -> tuple[Sample, ...]:
    """Makes samples of the files of a folder, without those that are masks of others."""
    beside = masks_beside_images(files)
    images = [path for path in files if path not in beside]
    mask_folder = MaskFolder(mask_folders, [path.relative_to(folder) for path in images])
    if beside:
        log.warning("masks beside their images in %s/: %s", folder.name, summarize(list(beside)))
    own: dict[pathlib.Path, list[pathlib.Path]] = {}
    for mask, image in beside.items():
        own.setdefault(image, []).append(mask)
    return tuple(
        Sample(
            path,
            printable(path.relative_to(root).as_posix()),
            kind,
            mask_folder.find(path.relative_to(folder)) or tuple(own.get(path, ())),
        )
        for path in images
    )


def _log_unused(root: pathlib.Path, layout: Layout, mask_files: Sequence[pathlib.Path]) -> None:
    """Logs images and masks without a place in the layout, and folders that may hold good images.

    The latter count as kinds of defects.
    """
    samples = (*layout.good, *layout.test)
    known = {sample.path for sample in samples} | {m for s in samples for m in s.masks}
    others = _without(known | {*mask_files}, named_like_images(files_below(root)))
    if without_image := [path for path in mask_files if path not in known]:
        log.warning("masks that fit no image: %s", summarize(_names(root, without_image)))
    if shared := shared_masks(sample.masks for sample in samples):
        log.warning("masks of several images each: %s", summarize(_names(root, shared)))
    if others:
        log.warning("ignored, not part of the layout: %s", summarize(_names(root, others)))
    for kind in sorted({s.kind for s in layout.test if s.kind.lower() in LIKE_GOOD}):
        log.warning("the images in %s/ count as defective; if they are good, give good=", kind)


def _without(known: Collection[pathlib.Path], files: list[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the files that are not known, neither by this path nor by another one."""
    others = [path for path in files if path not in known]
    if not others:
        return []
    places = {path.resolve() for path in known}
    return [path for path in others if path.resolve() not in places]


def _names(root: pathlib.Path, paths: Sequence[pathlib.Path]) -> list[str]:
    return [printable(path.relative_to(root).as_posix()) for path in paths]
