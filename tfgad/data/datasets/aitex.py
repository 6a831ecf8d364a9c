"""`aitex:FF`: tiles of the AITEX Fabric Image Database, grey strips of 4096x256 pixels with masks.

Silvestre-Blanes et al., "A public fabric database for defect detection methods and results",
AUTEX Research Journal 19(4), 2019, doi 10.2478/aut-2019-0035.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from tfgad.data.anomaly_data import TILE, AnomalyData
from tfgad.data.datasets.aitex_strips import LEFT, Strip, Strips, strips
from tfgad.data.origins import Origins
from tfgad.data.products import SEPARATOR, load_each, names_of
from tfgad.errors import UsageError

# A tile with some defective pixels, but fewer than this, is left out of the test.
DEFECT_PIXELS = 10

# Defect codes of the paper.
DEFECTS = {
    "002": "broken end",
    "006": "broken yarn",
    "010": "broken pick",
    "016": "weft curling",
    "019": "fuzzyball",
    "022": "cut selvage",
    "023": "crease",
    "025": "warp ball",
    "027": "knots",
    "029": "contamination",
    "030": "nep",
    "036": "weft crack",
}


def load(
    name: str,
    *,
    tile: int = 128,
    calibration: float = 0.2,
    seed: int = 0,
    root: str | None = None,
) -> AnomalyData:
    """Loads the tiles of one fabric; tiles do not overlap. A strip is a group of tiles.

    A test tile is defective if it has at least 10 mask pixels and normal if it has none; tiles with
    1 to 9 are left out.

    Args:
        name: the fabric, such as `"03"`; or several, each a product, such as `"00+03"`.
        tile: side of a tile in pixels, at most 256.
        calibration: as for `aitex_strips.strips`.
        seed: as for `aitex_strips.strips`.
        root: as for `aitex_strips.strips`.

    Raises:
        UsageError: there is no such database or fabric, or the tile is larger than a strip.
    """
    if SEPARATOR in name:
        load_one = functools.partial(load, tile=tile, calibration=calibration, seed=seed, root=root)
        names = names_of(name, "data set aitex")
        return load_each(load_one, dict(zip(names, names, strict=True)), f"aitex:{name}")
    fabric = strips(name, calibration=calibration, seed=seed, root=root)
    _check_tile(tile, fabric)
    kinds = _kinds(fabric.test)
    train, held, test = (_cut(of, tile) for of in (fabric.train, fabric.calibration, fabric.test))
    return AnomalyData(
        spec=f"aitex:{name}",
        image_shape=(tile, tile, 1),
        train=tf.data.Dataset.from_tensor_slices(train["image"]).map(_scale, tf.data.AUTOTUNE),
        calibration=tf.data.Dataset.from_tensor_slices(held["image"]).map(_scale, tf.data.AUTOTUNE),
        test=tf.data.Dataset.from_tensor_slices(test).map(_scale_test, tf.data.AUTOTUNE),
        train_size=len(train["label"]),
        calibration_size=len(held["label"]),
        test_size=len(test["label"]),
        has_masks=True,
        kinds=tuple(dict.fromkeys(kinds.values())),
        test_kinds=kinds,
        skipped=fabric.skipped,
        unit=TILE,
        train_origins=_origins(train["name"]),
        calibration_origins=_origins(held["name"]),
    )


def _origins(names: np.ndarray) -> Origins:
    """Returns the strip of each tile."""
    return Origins.of_images([name.rpartition("/")[0] for name in names], kind="strip")


def _check_tile(tile: int, fabric: Strips) -> None:
    smallest = min(min(strip.image.shape[:2]) for strip in (*fabric.train, *fabric.test))
    if not 0 < tile <= smallest:
        problem = "is not a side of a tile of these strips"
        raise UsageError("tile", tile, problem, f"give 1 to {smallest}")


def _cut(of: Iterable[Strip], tile: int) -> dict[str, np.ndarray]:
    """Cuts strips into tiles: arrays of images, labels, masks and names."""
    images, labels, masks, names = zip(
        *(each for strip in of for each in _tiles(strip, tile)), strict=True
    )
    return {
        "image": np.stack(images),
        "label": np.array(labels, np.int32),
        "mask": np.stack(masks),
        "name": np.array(names),
    }


def _tiles(strip: Strip, tile: int) -> Iterator[tuple[np.ndarray, bool, np.ndarray, str]]:
    """Yields image, label, mask and name of the tiles that are not left out."""
    height, width = strip.image.shape[:2]
    for y in range(0, height - tile + 1, tile):
        for x in range(0, width - tile + 1, tile):
            window = np.s_[y : y + tile, x : x + tile]
            defect_pixels = strip.mask[window].sum()
            if defect_pixels == 0 or defect_pixels >= DEFECT_PIXELS:
                name = f"{strip.name}/x{LEFT + x}_y{y}"
                yield strip.image[window], defect_pixels > 0, strip.mask[window], name


def _kinds(test: Iterable[Strip]) -> dict[str, str]:
    """Returns the kind of each defective strip by its name, in the order of the codes."""
    codes = {strip.name: strip.name.split("_")[1] for strip in test if strip.label}
    return {
        name: DEFECTS.get(codes[name], codes[name])
        for name in sorted(codes, key=lambda name: codes[name])
    }


def _scale(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(image, tf.float32) / 127.5 - 1


def _scale_test(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {**element, "image": _scale(element["image"])}
