"""Which files of a user's folder are good, which are not, and where their masks are."""

from __future__ import annotations

import dataclasses
import pathlib

from tfgad.data.images import FORMATS, SUFFIXES
from tfgad.errors import UsageError

GOOD = "good"
MASKS = "ground_truth"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image file.

    Attributes:
        path: the file.
        name: its path below the folder.
        kind: the folder it lies in, `"good"` or the kind of defect.
        mask: the file that marks the defect, if the folder has masks and the kind is not good.
    """

    path: pathlib.Path
    name: str
    kind: str
    mask: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Attributes:
        good: images to train on and to hold out.
        test: images to test with.
        good_is_all: there are no good images besides, so some of them must serve the test.
        has_masks: there is a folder of masks.
    """

    good: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    good_is_all: bool = False
    has_masks: bool = False


def read_layout(root: pathlib.Path) -> Layout:
    """Recognises one of three layouts.

    - `train/good`, `test/<kind>` and `ground_truth/<kind>/<stem>_mask.png`, as in MVTec AD
      (Bergmann et al., CVPR 2019);
    - `good` and any other folders, each a kind of defect, with or without `ground_truth`;
    - images directly in the folder, all good.

    Files whose names start with a dot, or do not end like an image's, are passed over.

    Raises:
        UsageError: the folder is not there, or has no good images.
    """
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UsageError("folder", root, problem, "check the path")
    layout = _layout(root)
    if not layout.good:
        formats = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]} images"
        mend = f"put {formats} of good parts into it, or into its folder good/ or train/good/"
        raise UsageError("folder", root, "has no good images", mend)
    return layout


def _layout(root: pathlib.Path) -> Layout:
    has_masks = (root / MASKS).is_dir()
    if (root / "train" / GOOD).is_dir():
        good = _samples(root, root / "train" / GOOD)
        return Layout(good, _kinds(root, root / "test"), has_masks=has_masks)
    if (root / GOOD).is_dir():
        test = tuple(s for s in _kinds(root, root) if s.kind not in (GOOD, MASKS))
        return Layout(_samples(root, root / GOOD), test, bool(test), has_masks)
    return Layout(tuple(Sample(path, path.name, GOOD) for path in _files(root.glob("*"))))


def _kinds(root: pathlib.Path, parent: pathlib.Path) -> tuple[Sample, ...]:
    folders = sorted(path for path in parent.glob("*") if path.is_dir())
    return tuple(sample for folder in folders for sample in _samples(root, folder))


def _samples(root: pathlib.Path, folder: pathlib.Path) -> tuple[Sample, ...]:
    """Lists the images of one kind, those in folders within it too."""
    masks = root / MASKS / folder.name
    marked = folder.name != GOOD and (root / MASKS).is_dir()
    return tuple(
        Sample(
            path,
            path.relative_to(root).as_posix(),
            folder.name,
            (masks / path.relative_to(folder)).with_name(f"{path.stem}_mask.png")
            if marked
            else None,
        )
        for path in _files(folder.rglob("*"))
    )


def _files(paths) -> list[pathlib.Path]:
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
