"""Several products as one data set: the parts of each one after another.

`folder:ROOT?products=bolt+nut`, `aitex:00+01` and `weave:twill+satin` name such data sets. Each
product is loaded by itself, with the same options, so that its images are split as they would be
alone. The names of images begin with the product: `bolt/good/001.png`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfgad.data.anomaly_data import AnomalyData, Files
from tfgad.data.origins import Origins, joined
from tfgad.errors import UsageError, nearest
from tfgad.files import printable

if TYPE_CHECKING:
    import tensorflow as tf

SEPARATOR = "+"  # between the names of products in a spec
ALL = "all"
NOT_IN_NAMES = "+&?=/\\"  # they end a name in a spec, or a part of a path


def names_of(
    text: str, argument: str, known: Collection[str] = (), least: int = 2
) -> tuple[str, ...]:
    """Returns the products that a spec names, in its order.

    Args:
        text: such as `"bolt+nut"`.
        argument: what names them, for messages.
        known: the products that there are; any if empty.
        least: how many it has to name.

    Raises:
        UsageError: fewer than `least`, one twice, or one that is not known.
    """
    names = tuple(text.split(SEPARATOR))
    hint = f"name two or more, such as bolt{SEPARATOR}nut"
    for name in names:
        if not name.strip() or name.startswith(".") or any(each in name for each in NOT_IN_NAMES):
            raise UsageError(argument, text, f"{printable(name)!r} names no product", hint)
        if names.count(name) > 1:
            raise UsageError(argument, text, f"names {printable(name)} twice", "name it once")
        if known and name not in known:
            problem = f"{printable(name)} is not one of the products there"
            raise UsageError(argument, text, problem, nearest(name, known))
    if len(names) < least:
        raise UsageError(argument, text, "is one product", f"{hint}, or give its data alone")
    return names


def folders_of(root: pathlib.Path, products: str, good: str) -> dict[str, pathlib.Path]:
    """Returns the folder of each product that `products=` names.

    Args:
        root: the folder that holds them.
        products: `"bolt+nut"`, or one of those that a model knows; or `"all"`: every folder with
            `good` or `train/good` in it, in any letter case.
        good: name of the folders of good images.

    Raises:
        UsageError: there is no such folder, or for `"all"` fewer than two.
    """
    argument = "data option products"
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise UsageError("folder", root, problem, "check the path")
    try:
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        like = [folder.name for folder in folders if _has_good(folder, good.lower())]
    except OSError as error:
        problem = f"cannot be read ({error.strerror}: {error.filename})"
        raise UsageError("folder", root, problem, "check the permissions") from error
    if products == ALL:
        if len(like) < 2:
            found = f"one such folder, {printable(like[0])}/" if like else "no such folder"
            problem = f"takes each folder with {good}/ or train/{good}/ in it; {root} has {found}"
            raise UsageError(argument, products, problem, "check the path")
        for name in like:
            if any(each in name for each in NOT_IN_NAMES):
                problem = f"finds {printable(name)}/, which no spec can name"
                hint = f"rename it without any of {NOT_IN_NAMES}"
                raise UsageError(argument, products, problem, hint)
        return {name: root / name for name in like}
    known = [folder.name for folder in folders] or ["(none)"]
    names = names_of(products, argument, known, least=1)
    return {name: root / name for name in names}


def _has_good(folder: pathlib.Path, good: str) -> bool:
    """Returns whether a folder has `good` or `train/good` in it."""
    below = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    if good in below:
        return True
    train = below.get("train")
    return train is not None and any(
        path.is_dir() and path.name.lower() == good for path in train.iterdir()
    )


def load_each(
    load: Callable[[str], AnomalyData], addresses: Mapping[str, str], spec: str
) -> AnomalyData:
    """Loads the data of several products and joins them.

    Args:
        load: from the address of a product to its data.
        addresses: product -> its address, such as the path of its folder.
        spec: of all together.

    Raises:
        UsageError: what `load` raises; or the images of two products differ in channels, size or
            depth.
    """
    parts = {product: load(address) for product, address in addresses.items()}
    first, reference = next(iter(parts.items()))
    for product, part in parts.items():
        _check_alike(product, part, first, reference)
    train = [_origins(product, part.train_origins) for product, part in parts.items()]
    held = [_origins(product, part.calibration_origins) for product, part in parts.items()]
    return AnomalyData(
        spec=spec,
        image_shape=reference.image_shape,
        train=_one_after_another([part.train for part in parts.values()]),
        calibration=_one_after_another([part.calibration for part in parts.values()]),
        test=_one_after_another([_named(product, part) for product, part in parts.items()]),
        train_size=sum(part.train_size for part in parts.values()),
        calibration_size=sum(part.calibration_size for part in parts.values()),
        test_size=sum(part.test_size for part in parts.values()),
        has_masks=any(part.has_masks for part in parts.values()),
        resized=reference.resized,
        kinds=tuple(dict.fromkeys(kind for part in parts.values() for kind in part.kinds)),
        skipped=tuple(f"{product}/{line}" for product, p in parts.items() for line in p.skipped),
        unit=reference.unit,
        unmasked=frozenset(
            f"{product}/{name}" for product, part in parts.items() for name in _unmasked(part)
        ),
        test_kinds={
            f"{p}/{n}": kind for p, part in parts.items() for n, kind in part.test_kinds.items()
        },
        files=_files(parts),
        depth=reference.depth,
        fit=reference.fit,
        test_groups={
            f"{p}/{n}": f"{p}/{group}"
            for p, part in parts.items()
            for n, group in part.test_groups.items()
        },
        train_origins=joined(train),
        calibration_origins=joined(held),
        products=tuple(parts),
        train_products=_repeated([part.train_size for part in parts.values()]),
        calibration_products=_repeated([part.calibration_size for part in parts.values()]),
    )


def _check_alike(product: str, part: AnomalyData, first: str, reference: AnomalyData) -> None:
    """Raises UsageError where the images of a product differ from those of the first."""
    for name, own, others in (
        ("channels", part.image_shape[2], reference.image_shape[2]),
        ("depth", part.depth, reference.depth),
        ("size", part.image_shape[:2], reference.image_shape[:2]),
    ):
        if own != others:
            problem = f"has images with {name} {own}, but {first} with {name} {others}"
            raise UsageError("product", product, problem, f"give {name}= for all of them")


def _one_after_another(streams: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    joined_streams, *others = streams
    for each in others:
        joined_streams = joined_streams.concatenate(each)
    return joined_streams


def _named(product: str, part: AnomalyData) -> tf.data.Dataset:
    """Returns the test elements with the product before their names."""
    return part.test.map(lambda each: {**each, "name": f"{product}/" + each["name"]})


def _origins(product: str, origins: Origins | None) -> Origins | None:
    """Returns origins whose names are those of one product alone."""
    if origins is None:
        return None

    def own(names: np.ndarray) -> np.ndarray:
        return np.array([f"{product}/{name}" for name in names], str)

    images = None if origins.images is None else own(origins.images)
    return Origins(own(origins.groups), images, origins.kind)


def _unmasked(part: AnomalyData) -> Collection[str]:
    """Returns the names of a product's anomalous test images without a mask."""
    if part.has_masks or part.files is None:
        return part.unmasked
    return [n for n in part.files.test if not set(part.kinds).isdisjoint(n.split("/")[:-1])]


def _repeated(sizes: Sequence[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def _files(parts: Mapping[str, AnomalyData]) -> Files | None:
    """Returns the files of all products, by names that begin with the product."""
    of_each = {product: part.files for product, part in parts.items() if part.files is not None}
    if len(of_each) < len(parts):
        return None

    def own(product: str, names: Collection[str]) -> list[str]:
        return [n.partition("/")[2] for n in names if n.partition("/")[0] == product]

    def of_good(names: Collection[str]) -> tuple[tf.data.Dataset, int]:
        found = [files.of_good(own(product, names)) for product, files in of_each.items()]
        return _one_after_another([stream for stream, _ in found]), sum(n for _, n in found)

    def of_test(names: Collection[str]) -> tuple[tf.data.Dataset, int]:
        total, streams = 0, []
        for product, files in of_each.items():
            stream, size = files.of_test(own(product, names))
            before = f"{product}/"
            streams.append(stream.map(lambda x, p=before: {**x, "name": p + x["name"]}))
            total += size
        return _one_after_another(streams), total

    def origins_of(names: Collection[str]) -> Origins | None:
        return joined(
            [_origins(p, files.origins_of(own(p, names))) for p, files in of_each.items()]
        )

    def products_of(names: Collection[str]) -> np.ndarray:
        return _repeated([files.of_good(own(p, names))[1] for p, files in of_each.items()])

    def together(part: str) -> dict[str, str]:
        return {
            f"{p}/{n}": d for p, files in of_each.items() for n, d in getattr(files, part).items()
        }

    groups = None
    if all(files.groups is not None for files in of_each.values()):
        groups = {
            f"{p}/{n}": f"{p}/{group}"
            for p, files in of_each.items()
            for n, group in (files.groups or {}).items()
        }
    return Files(
        together("train"),
        together("calibration"),
        together("test"),
        of_good,
        of_test,
        origins_of,
        groups,
        sizes=frozenset().union(*(files.sizes for files in of_each.values())),
        products_of=products_of,
    )
