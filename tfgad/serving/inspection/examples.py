"""Example images to try a model with, generated without files and network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfgad.data.datasets.mnist import DIGITS, embedded, normal_classes
from tfgad.data.datasets.weave.weave import SMALLEST_SIZE, WEAVES, render
from tfgad.data.pixels import resize
from tfgad.data.spec import Spec
from tfgad.errors import UsageError

# Two good tiles, and defects from obvious to faint.
WEAVE_DEFECTS = (None, None, "hole", "slub", "oil_stain", "mispick", "broken_end", "colour_fly")
LARGEST_TILE = 256  # pixels a side, so that all tiles are drawn in about a second
NORMAL_DIGITS, OTHER_DIGITS = 3, 5


@dataclasses.dataclass(frozen=True)
class Examples:
    """Example images.

    Attributes:
        note: a sentence that describes them.
        files: PNG files and their labels.
    """

    note: str
    files: list[tuple[Path, str]]


def examples_for(metadata: dict[str, Any], folder: Path) -> Examples:
    """Returns example images of the data that a model was trained on, in its channels.

    For a model of a weave these are tiles of that weave, for a model of digits they are digits. For
    any other model they are woven fabric, which it does not know.

    Args:
        metadata: metadata of the exported model.
        folder: folder for the files.
    """
    kind, name, seed = _trained_on(metadata)
    if kind in ("digits", "mnist"):
        note = f"Digits that the model has not seen; {name} is normal."
        pictures = _digits(name, metadata["image_shape"][0])
    else:
        is_known = kind == "weave" and name in WEAVES
        weave = name if is_known else "twill"
        note = f"Woven fabric ({weave}) that the model has not seen."
        if not is_known:
            data = f"{kind} images" if kind else "other images"
            note = f"Woven fabric, to try the page. The model was trained on {data}."
        height, width, channels = metadata["image_shape"]
        size = min(max(SMALLEST_SIZE, height, width), LARGEST_TILE)
        pictures = _weave(weave, seed, size, channels)
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (label, pixels) in enumerate(pictures, start=1):
        path = folder / f"{number:02d}_{label.replace(' ', '_')}.png"
        Image.fromarray(pixels.squeeze()).save(path)
        files.append((path, label))
    return Examples(note, files)


def _trained_on(metadata: dict[str, Any]) -> tuple[str, str, int]:
    """Returns kind, name and seed of the training data; kind "" if they are unknown."""
    try:
        spec = Spec.parse(str(metadata.get("data", "")))
        if spec.kind in ("digits", "mnist"):
            normal_classes(spec.name, spec.kind)
        return spec.kind, spec.name, int(spec.options.get("seed", 0))
    except (UsageError, ValueError):
        return "", "", 0


def _weave(weave: str, seed: int, size: int, channels: int) -> Iterator[tuple[str, np.ndarray]]:
    for index, defect in enumerate(WEAVE_DEFECTS):
        tile, _ = render(
            weave,
            seed=seed,
            index=index,
            split="test",
            size=size,
            channels=channels,
            defect=defect,
        )
        yield (defect or "good").replace("_", " "), tile


def _digits(name: str, side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields digits of the test split, resized: first of normal classes, then of others."""
    images = embedded()
    normal = normal_classes(name)
    others = [int(each) for each in DIGITS if int(each) not in normal]
    good = np.flatnonzero(np.isin(images.test_labels, list(normal)))[:NORMAL_DIGITS]
    bad = [int(np.argmax(images.test_labels == digit)) for digit in others[:OTHER_DIGITS]]
    for index in (*good, *bad):
        label = int(images.test_labels[index])
        enlarged = resize(images.test[index][:, :, None].astype(np.float32), (side, side))
        yield f"{label} {'good' if label in normal else 'other'}", np.rint(enlarged).astype("u1")
