"""Files of MNIST and Fashion-MNIST, on this machine or downloaded."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import logging
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tfgad.data.datasets import tfds_builders
from tfgad.errors import UsageError

log = logging.getLogger(__name__)

SIDE, CLASSES = 28, 10
PUBLISHED = {"training": 60_000, "test": 10_000}  # images of either part
# Hosts from which tensorflow-datasets downloads; without a network it retries for 204 s.
HOSTS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")

# Errors of the readers on truncated and empty files and on files of other formats.
BROKEN = (
    OSError, EOFError, ValueError, LookupError, StopIteration, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Images:
    """Images uint8 `[N, H, W]` and labels `[N]` of the published training and test set."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def read_published(kind: str) -> Images:
    """Reads MNIST or Fashion-MNIST from the first source that has it.

    The sources in order: `$TFGAD_DATA_DIR/<kind>`, `$TFGAD_DATA_DIR` and Keras's cache, each with
    idx files (gzipped or not), npz or CSV; a data set prepared by tensorflow-datasets; a download
    by tensorflow-datasets.

    Args:
        kind: `"mnist"` or `"fashion_mnist"`.

    Raises:
        UsageError: a file is broken, or there is none and the download host does not answer.
    """
    for folder in _folders(kind):
        for read in (_read_idx, _read_npz, _read_csv):
            images = read(folder, kind)
            if images is not None:
                log.info("%s read from %s", kind, folder)
                return images
    prepared = _read_prepared(kind)
    return prepared if prepared is not None else _download(kind)


def _folders(kind: str) -> Iterator[pathlib.Path]:
    if "TFGAD_DATA_DIR" in os.environ:
        data = pathlib.Path(os.environ["TFGAD_DATA_DIR"])
        yield from (data / kind, data)
    keras = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
    yield from (keras / kind.replace("_", "-"), keras)


def _first(folder: pathlib.Path, *names: str) -> pathlib.Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_idx(folder: pathlib.Path, kind: str) -> Images | None:
    """Reads the four original files, which have the same names in both sets.

    The folder's name tells which set it is. The format of a file: two zero bytes, the type (8 for
    uint8), the number of axes, the length of each axis as a big-endian int32, then the values.
    """
    if ("fashion" in folder.name.lower()) != (kind == "fashion_mnist"):
        return None
    stems = (
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
    )  # fmt: skip
    found = [_first(folder, f"{stem}.gz", stem, stem.replace("-idx", ".idx")) for stem in stems]
    paths = [path for path in found if path is not None]
    if len(paths) < len(found):
        return None
    return _checked(paths, [_guarded(_read_idx_file, path) for path in paths])


def _read_idx_file(path: pathlib.Path) -> np.ndarray:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    zeros, kind, axes = content[:2], content[2], content[3]
    if zeros != bytes(2) or kind != 8:
        raise ValueError(f"it starts with {content[:4].hex()}, unlike an idx file of bytes")
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_npz(folder: pathlib.Path, kind: str) -> Images | None:
    """Reads Keras's file of the arrays x_train, y_train, x_test and y_test."""
    path = _first(folder, f"{kind}.npz")
    if path is None:
        return None
    return _checked([f"{path}: {key}" for key in NPZ_KEYS], _guarded(_read_npz_file, path))


def _read_npz_file(path: pathlib.Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[key] for key in NPZ_KEYS]


def _read_csv(folder: pathlib.Path, kind: str) -> Images | None:
    """Reads CSV files with one line per image: the label, then 784 grey levels.

    A header is skipped.
    """
    stems = [kind, kind.replace("_", "-")]
    train, test = (
        _first(folder, *(f"{stem}_{part}.csv" for stem in stems)) for part in ("train", "test")
    )
    if train is None or test is None:
        return None
    arrays = [*_guarded(_read_csv_file, train), *_guarded(_read_csv_file, test)]
    return _checked([train, train, test, test], arrays)


def _read_csv_file(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open(newline="") as lines:
        first = next(csv.reader(lines))
    if len(first) != 1 + SIDE * SIDE:
        raise ValueError(f"a line of {len(first)} values, not {1 + SIDE * SIDE}")
    has_header = not first[0].isdigit()
    table = np.loadtxt(path, np.uint8, delimiter=",", skiprows=int(has_header), ndmin=2)
    return table[:, 1:].reshape(-1, SIDE, SIDE), table[:, 0]


def _guarded(read: Callable[[pathlib.Path], Any], path: pathlib.Path) -> Any:
    """Returns `read(path)`; its errors for broken files become a UsageError."""
    try:
        return read(path)
    except BROKEN as error:
        raise UsageError("data file", path, f"is broken ({error})", "get it again") from error


def _checked(sources: Sequence[str | pathlib.Path], arrays: Sequence[np.ndarray]) -> Images:
    """Checks the images and labels of training and test set.

    Args:
        sources: the file of each of the four arrays, for error messages.
        arrays: training images and labels, test images and labels.

    Raises:
        UsageError: an array does not have the expected shape, type or values.
    """
    for (part, published), first in zip(PUBLISHED.items(), (0, 2), strict=True):
        images, labels = arrays[first : first + 2]
        if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or images.dtype != np.uint8:
            problem = f"holds {images.dtype} {images.shape}, not images uint8 [N, {SIDE}, {SIDE}]"
            raise UsageError("data file", sources[first], problem, "get it again")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            problem = f"holds {labels.dtype} {labels.shape}, not labels [N]"
            raise UsageError("data file", sources[first + 1], problem, "get it again")
        wrong = labels[(labels < 0) | (labels >= CLASSES)]
        if wrong.size:
            problem = f"holds the label {wrong[0]}, not only 0 to {CLASSES - 1}"
            raise UsageError("data file", sources[first + 1], problem, "get it again")
        if len(images) != len(labels):
            at_fault = first + (len(labels) != published)
            problem = (
                f"does not match: there are {len(images)} {part} images and {len(labels)} labels"
            )
            raise UsageError("data file", sources[at_fault], problem, "get it again")
    return Images(*arrays)


def _read_prepared(kind: str) -> Images | None:
    """Reads a data set that tensorflow-datasets has prepared before, without the network."""
    folder = tfds_builders.prepared_folder(kind)
    if folder is None:
        return None
    return _guarded(lambda path: _from_builder(tfds_builders.opened(path)), folder)


def _download(kind: str) -> Images:
    hint = (
        f"put the published files into a folder {kind}/ and set TFGAD_DATA_DIR to the folder "
        "that holds it, or use digits:8, which needs no download"
    )
    return _from_builder(tfds_builders.downloaded(kind, HOSTS[kind], hint))


def _from_builder(builder: Any) -> Images:
    import tensorflow_datasets as tfds

    train, test = (
        tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1)) for split in ("train", "test")
    )
    return Images(train["image"][..., 0], train["label"], test["image"][..., 0], test["label"])
