"""`weave:NAME`: synthetic woven fabric with defects and exact masks, without a download.

`cloth` lays the yarns of a tile, `defects` changes them, `render` makes the image. Every tile is a
pure function of (weave, seed, split, index).

Image AUROC of simple detectors on 200 test tiles of twill: 0.72 by the largest blurred deviation
from the mean training tile, 0.93 by the residual of a PCA of 16x16 patches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.weave.cloth import FABRICS, Fabric, lay
from tfgad.data.datasets.weave.defects import KINDS
from tfgad.data.datasets.weave.render import SUPERSAMPLING, photograph, sensor, set_up_camera
from tfgad.data.products import SEPARATOR, load_each, names_of
from tfgad.errors import UsageError, nearest

WEAVES = tuple(FABRICS)
DEFECTS = tuple(KINDS)
SPLITS = ("train", "calibration", "test")

SMALLEST_SIZE = 32  # about five yarns; on less a weave cannot be recognised
SMALLEST_MASK = 12  # pixels; a defect with a smaller mask is drawn again
VISIBLE = 8 / 255  # four standard deviations of the sensor noise in the middle greys
# Tiles of the streams that are kept, 130 MB at most. A run reads its training tiles five times, and
# evaluation the test tiles three times.
KEPT_TILES, KEPT_SIDE = 2048, 128


def render(
    name: str,
    *,
    seed: int,
    index: int,
    split: str = "train",
    size: int = 128,
    channels: int = 1,
    defect: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Renders one tile of fabric.

    Args:
        name: a weave, one of `WEAVES`.
        seed: 0 to 2**32 - 1; another seed gives other tiles of the same fabric.
        index: number of the tile in its split, from 0 up.
        split: one of `SPLITS`; their random numbers are independent.
        size: side in pixels. A yarn is 5 to 6.5 pixels wide for every size.
        channels: 1 for grey, 3 for colour.
        defect: one of `DEFECTS`, or None for good fabric.

    Returns:
        The image uint8 `[size, size, channels]`, and the mask uint8 `[size, size, 1]`: 1 where
        the defect visibly changes the noise-free image of the same cloth.

    Raises:
        UsageError: an unknown weave, split or defect, a size below 32, channels not 1 or 3,
            a seed out of range.
    """
    _check(name, size, channels, seed)
    _check_name("split", split, SPLITS)
    fabric = FABRICS[name]
    # Each weave has random numbers of its own. Otherwise the defects would be at the same positions
    # in the test tiles of all weaves.
    own = seed + (WEAVES.index(name) << 32)
    tile = [own, SPLITS.index(split), index]
    lay_seed, camera_seed, fibre_seed, noise_seed = np.random.SeedSequence(tile).spawn(4)
    camera = set_up_camera(np.random.default_rng(camera_seed), size)
    good = lay(
        fabric, np.random.default_rng(lay_seed), size * SUPERSAMPLING, channels, SUPERSAMPLING
    )
    image = photograph(good, fabric, camera, np.random.default_rng(fibre_seed))
    mask = np.zeros((size, size, 1), np.uint8)
    if defect is not None:
        _check_name("defect", defect, DEFECTS)
        rng, clean = np.random.default_rng([*tile, DEFECTS.index(defect)]), image
        while mask.sum() < SMALLEST_MASK:
            defective = good.copy()
            KINDS[defect](defective, rng, rng.uniform())
            image = photograph(defective, fabric, camera, np.random.default_rng(fibre_seed))
            mask = _changed(clean, image, fabric)
    return sensor(image, np.random.default_rng(noise_seed)), mask


def load(
    name: str,
    *,
    size: int = 128,
    channels: int = 1,
    seed: int = 0,
    train: int = 400,
    calibration: int = 100,
    test: int = 200,
) -> AnomalyData:
    """Loads good tiles of a weave, and a test set in which every second tile has a defect.

    Tiles are rendered when they are read, about 100 per second of 128x128 pixels on one core. The
    last `KEPT_TILES` of sides up to `KEPT_SIDE` are kept for the next time, in any stream.

    Args:
        name: a weave, one of `WEAVES`; or several, each a product, such as `"twill+satin"`.
        size: side of the tiles in pixels, at least 32.
        channels: 1 for grey, 3 for colour.
        seed: the same seed gives the same tiles.
        train: number of good tiles for training.
        calibration: number of other good tiles, for the threshold.
        test: number of test tiles; the defective ones have all kinds of defects in turn.

    Returns:
        The data. Test names have the form `good/004` or `slub/005`, with the number of the tile.

    Raises:
        UsageError: an unknown weave, a size below 32, channels not 1 or 3, a seed out of range, or
            an empty split.
    """
    if SEPARATOR in name:
        sizes: dict[str, Any] = {"train": train, "calibration": calibration, "test": test}
        load_one = functools.partial(load, size=size, channels=channels, seed=seed, **sizes)
        names = names_of(name, "data set weave", WEAVES)
        return load_each(load_one, dict(zip(names, names, strict=True)), f"weave:{name}")
    _check(name, size, channels, seed)
    for split, count in (("train", train), ("calibration", calibration), ("test", test)):
        if count < 1:
            raise UsageError(split, count, "leaves the split empty", "give 1 or more")
    tile = {"seed": seed, "size": size, "channels": channels}
    return AnomalyData(
        spec=f"weave:{name}?size={size}&channels={channels}&seed={seed}",
        image_shape=(size, size, channels),
        train=_good_tiles(name, train, split="train", **tile),
        calibration=_good_tiles(name, calibration, split="calibration", **tile),
        test=_test_tiles(name, test, **tile),
        train_size=train,
        calibration_size=calibration,
        test_size=test,
        has_masks=True,
        kinds=DEFECTS,
    )


_kept = functools.lru_cache(KEPT_TILES)(render)


def _rendered(name: str, *, size: int, **tile: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `render` does; a small tile is rendered once and kept."""
    return (_kept if size <= KEPT_SIDE else render)(name, size=size, **tile)


def _good_tiles(name: str, count: int, *, size: int, channels: int, **tile: Any) -> tf.data.Dataset:
    def tile_at(index: np.ndarray) -> np.ndarray:
        return _rendered(name, index=int(index), size=size, channels=channels, **tile)[0]

    def to_tensor(index: tf.Tensor) -> tf.Tensor:
        return _to_float(tf.numpy_function(tile_at, [index], tf.uint8), size, channels)

    return _stream(count, to_tensor)


def _test_tiles(name: str, count: int, *, size: int, channels: int, seed: int) -> tf.data.Dataset:
    def tile_at(number: np.ndarray) -> tuple[np.ndarray, np.ndarray, bytes]:
        index = int(number)
        kind = DEFECTS[index // 2 % len(DEFECTS)] if index % 2 else None
        image, mask = _rendered(
            name, seed=seed, index=index, split="test", size=size, channels=channels, defect=kind
        )
        return image, mask, f"{kind or 'good'}/{index:03d}".encode()

    def to_tensors(index: tf.Tensor) -> dict[str, tf.Tensor]:
        image, mask, label = tf.numpy_function(tile_at, [index], [tf.uint8, tf.uint8, tf.string])
        return {
            "image": _to_float(image, size, channels),
            "label": tf.cast(index % 2, tf.int32),
            "mask": tf.ensure_shape(mask, (size, size, 1)),
            "name": tf.ensure_shape(label, ()),
        }

    return _stream(count, to_tensors)


def _stream(count: int, make: Callable[[tf.Tensor], Any]) -> tf.data.Dataset:
    return tf.data.Dataset.range(count).map(
        make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _to_float(image: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    return tf.cast(tf.ensure_shape(image, (size, size, channels)), tf.float32) / 127.5 - 1


def _changed(clean: np.ndarray, defective: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Returns the mask of a defect, uint8 `[H, W, 1]`.

    The change of the image is averaged over about a pitch. The mask ends where it falls to a third
    of its peak: smaller changes are neighbouring yarns that have moved a little.
    """
    pitch = max(fabric.pitch)
    change = np.abs(defective - clean).max(axis=-1)
    change = ndimage.gaussian_filter(change, 0.4 * pitch)
    mask = (change > max(VISIBLE, change.max() / 3)).astype(np.uint8)
    # A defective yarn goes under and comes up again within a repeat of the draft. It is one defect,
    # so the mask includes the gaps between.
    hidden = int((len(fabric.draft) - 1) * pitch)
    padded = np.pad(
        mask, hidden
    )  # otherwise closing would fill the mask up to the border of the tile
    closed = ndimage.grey_closing(padded, size=hidden)
    return closed[hidden:-hidden, hidden:-hidden, None].copy()  # without its margins in memory


def _check(name: str, size: int, channels: int, seed: int) -> None:
    _check_name("weave", name, WEAVES)
    if size < SMALLEST_SIZE:
        raise UsageError(
            "size", size, "is too small to show a weave", f"use {SMALLEST_SIZE} or more"
        )
    if channels not in (1, 3):
        raise UsageError("channels", channels, "is neither grey nor colour", "use 1 or 3")
    if not 0 <= seed < 2**32:
        raise UsageError("seed", seed, "is out of range", "use 0 or more, below 2**32")


def _check_name(argument: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(argument, name, f"is not a known {argument}", nearest(name, known))
