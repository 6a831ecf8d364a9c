"""Image sets of tensorflow-datasets: some classes are normal, the others anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.tfds_builders import (
    downloaded,
    opened,
    prepared_configurations,
    prepared_folder,
)
from tfgad.data.datasets.tfds_rows import Source
from tfgad.data.options import Size
from tfgad.data.split import hold_out
from tfgad.errors import UsageError, nearest

HOST = "https://storage.googleapis.com/tfds-data"  # of the descriptions of prepared sets


def load(
    name: str,
    *,
    normal: str = "all",
    size: Size | None = None,
    channels: int | None = None,
    test: float = 0.2,
    calibration: float = 0.2,
    seed: int = 0,
) -> AnomalyData:
    """Loads a set with the features `image` and `label`, as the catalogue of the package has them.

    A set that has been prepared before is read from `TFDS_DATA_DIR`, or `~/tensorflow_datasets`;
    else it is downloaded. Normal images of the split `train` are for training, all of `test` or
    `validation` for testing. Where there is neither, or neither has labels, `train` is divided, the
    same way for every seed. Other features, such as masks, are not read.

    Args:
        name: of the set, such as `"cifar10"`, with its configuration, `"eurosat/rgb"`, or with a
            version, `"cifar10:3.0.2"`; else the latest one that is prepared.
        normal: normal classes by name, `"cat+dog"`, or `"!cat"` for all but these; by number,
            `"3+5"`, if no class is named by a number. With `"all"`, for generative models, no test
            image is an anomaly, and the set needs no labels.
        size: height and width to which the images are resized; their own, if they have one in
            common, else 128.
        channels: 1 for grey, 3 for colour; those of the set by default.
        test: share of `train` that is for testing, where that is divided.
        calibration: share of the normal training images that is held out.
        seed: decides which images are held out.

    Raises:
        UsageError: there is no such set, class or feature, the images are not 8-bit grey or colour,
            a record is damaged, or the data are neither on this machine nor available for download.
    """
    source = Source(_builder(name), name)
    shape = source.shape(size, channels)
    classes = [] if normal == "all" and not source.has_labels else source.classes()
    is_normal = _normal_classes(name, normal, classes)
    train, tested = source.splits(test)
    good = train.of_classes(is_normal)
    kept, held = hold_out(len(good.rows), calibration, seed)
    numbers = [number for number, chosen in enumerate(is_normal) if chosen]
    labels = np.searchsorted(numbers, good.labels) if classes else None
    return AnomalyData(
        spec=f"tfds:{name}",
        image_shape=shape,
        train=good.at(kept).images(shape),
        calibration=good.at(held).images(shape),
        test=tested.labelled_images(shape, classes, is_normal),
        train_size=len(kept),
        calibration_size=len(held),
        test_size=len(tested.rows),
        has_masks=False,
        resized=True,
        kinds=tuple(c for c, chosen in zip(classes, is_normal, strict=True) if not chosen),
        test_kinds=tested.kinds(classes),
        classes=tuple(c for c, chosen in zip(classes, is_normal, strict=True) if chosen),
        train_labels=None if labels is None else labels[kept].astype(np.int32),
    )


def _builder(name: str) -> Any:
    """Returns the builder of a set, prepared.

    Raises:
        UsageError: see `load`.
    """
    folder = prepared_folder(name)
    if folder is None:
        several = prepared_configurations(name)
        if len(several) > 1:
            problem, hint = "has several configurations", f"give {' or '.join(several)}"
            raise UsageError("data set", name, problem, hint)
        folder = prepared_folder(several[0]) if several else None
    if folder is None:
        hint = "prepare it where there is a network, and set TFDS_DATA_DIR to the folder"
        return downloaded(name, HOST, hint)
    return opened(folder)


def _normal_classes(name: str, normal: str, classes: Sequence[str]) -> list[bool]:
    """Returns which classes are normal.

    Args:
        name: of the set, for messages.
        normal: see `load`.
        classes: names of all.

    Raises:
        UsageError: there is no such class, or none is left as normal or as anomalous.
    """
    if normal == "all":
        return [True] * len(classes)
    numbers = {str(number): number for number in range(len(classes))}
    if any(each.isdecimal() for each in classes):
        numbers = {}  # "0" would be the first class, which may be called "1"
    known = numbers | {each: number for number, each in enumerate(classes)}
    named = set()
    for each in normal.removeprefix("!").split("+"):
        if each in known:
            named.add(known[each])
        else:
            hint = nearest(each, [*classes])
            raise UsageError("normal", each, f"is no class of {name}", hint)
    chosen = [(number in named) != normal.startswith("!") for number in range(len(classes))]
    if not 0 < sum(chosen) < len(chosen):
        hint = "name fewer, or write normal=all"
        raise UsageError("normal", normal, "leaves no normal or no anomalous class", hint)
    return chosen
