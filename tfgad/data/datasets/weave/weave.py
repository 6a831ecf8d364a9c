"""`weave:<name>`: procedural woven fabric with defects of known place, for data without a download.

The yarns of a tile are laid by `weave_cloth`, spoilt by `weave_defects` and photographed by
`weave_render`. Every tile is a pure function of (weave, seed, split, index).

How hard it is, image AUROC on 200 test tiles of twill: the largest blurred deviation from the
mean training tile 0.72, the residual of a PCA of 16x16 patches 0.93.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.weave.cloth import FABRICS, Fabric, lay
from tfgad.data.datasets.weave.defects import KINDS
from tfgad.data.datasets.weave.render import SUPERSAMPLING, photograph, sensor, set_up_camera
from tfgad.errors import UsageError, nearest

WEAVES = tuple(FABRICS)
DEFECTS = tuple(KINDS)
SPLITS = ("train", "calibration", "test")

SMALLEST_SIZE = 32  # about five yarns: less does not show a weave
SMALLEST_MASK = 12  # pixels; a defect that shows less is drawn again
VISIBLE = 8 / 255  # four standard deviations of the sensor noise in the middle greys


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
        seed: from 0 below 2**32; another seed is another bolt of the same fabric.
        index: number of the tile in its split, from 0.
        split: one of `SPLITS`; splits share no random numbers.
        size: side in pixels. A yarn takes 5 to 6.5 pixels whatever the size.
        channels: 1 for grey, as inspection cameras deliver, 3 for colour.
        defect: one of `DEFECTS`, or None for good fabric.

    Returns:
        The image uint8 `[size, size, channels]`, and the mask uint8 `[size, size, 1]`: 1 where
        the defect visibly changed the noise-free picture of the same cloth.

    Raises:
        UsageError: an unknown weave, split or defect, a size below 32, channels not 1 or 3,
            a seed out of range.
    """
    _check(name, size, channels, seed)
    _check_name("split", split, SPLITS)
    fabric = FABRICS[name]
    # Each weave has random numbers of its own: else the test tiles of all would have their defects
    # at the same places, and one weave's would tell what to expect of another's.
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
            spoilt = good.copy()
            KINDS[defect](spoilt, rng, rng.uniform())
            image = photograph(spoilt, fabric, camera, np.random.default_rng(fibre_seed))
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
    """Streams tiles of a weave: good ones to learn from, and a test set half of which is spoilt.

    Tiles are rendered as they are read, about 100 a second of 128x128 on one core: cache a
    stream that is read more than once.

    Args:
        name: a weave, one of `WEAVES`.
        size: side of the tiles in pixels, at least 32.
        channels: 1 for grey, 3 for colour.
        seed: the same seed gives the same tiles.
        train: how many good tiles to learn from.
        calibration: how many other good tiles to set the threshold from.
        test: how many tiles to judge by; every second has a defect, all kinds in turn.

    Returns:
        The data; test names read `good/004` and `slub/005`, the number being the tile's.

    Raises:
        UsageError: an unknown weave, a size below 32, channels not 1 or 3, a seed out of range, or
            an empty split.
    """
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


def _good_tiles(name: str, count: int, *, size: int, channels: int, **tile) -> tf.data.Dataset:
    def tile_at(index):
        return render(name, index=int(index), size=size, channels=channels, **tile)[0]

    def to_tensor(index):
        return _to_float(tf.numpy_function(tile_at, [index], tf.uint8), size, channels)

    return _stream(count, to_tensor)


def _test_tiles(name: str, count: int, *, size: int, channels: int, seed: int) -> tf.data.Dataset:
    def tile_at(index):
        index = int(index)
        kind = DEFECTS[index // 2 % len(DEFECTS)] if index % 2 else None
        image, mask = render(
            name, seed=seed, index=index, split="test", size=size, channels=channels, defect=kind
        )
        return image, mask, f"{kind or 'good'}/{index:03d}".encode()

    def to_tensors(index):
        image, mask, label = tf.numpy_function(tile_at, [index], [tf.uint8, tf.uint8, tf.string])
        return {
            "image": _to_float(image, size, channels),
            "label": tf.cast(index % 2, tf.int32),
            "mask": tf.ensure_shape(mask, (size, size, 1)),
            "name": tf.ensure_shape(label, ()),
        }

    return _stream(count, to_tensors)


def _stream(count: int, make) -> tf.data.Dataset:
    return tf.data.Dataset.range(count).map(
        make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _to_float(image: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    return tf.cast(tf.ensure_shape(image, (size, size, channels)), tf.float32) / 127.5 - 1


def _changed(clean: np.ndarray, spoilt: np.ndarray, fabric: Fabric) -> np.ndarray:
    """Where a defect shows: uint8 `[H, W, 1]`.

    The change is averaged over about a pitch, the grain of the weave. A mask ends where it falls
    to a third of its peak: beyond that only neighbours have moved a little, as they do anyway.
    """
    pitch = max(fabric.pitch)
    change = np.abs(spoilt - clean).max(axis=-1)
    change = ndimage.gaussian_filter(change, 0.4 * pitch)
    mask = (change > max(VISIBLE, change.max() / 3)).astype(np.uint8)
    # A spoilt yarn goes under and comes up again within a repeat of the draft: that is one defect,
    # so the mask spans what lies between.
    hidden = int((len(fabric.draft) - 1) * pitch)
    padded = np.pad(mask, hidden)  # or closing would also fill up to the border of the tile
    closed = ndimage.grey_closing(padded, size=hidden)
    return closed[hidden:-hidden, hidden:-hidden, None]


def _check(name: str, size: int, channels: int, seed: int) -> None:
    _check_name("weave", name, WEAVES)
    if size < SMALLEST_SIZE:
        raise UsageError("size", size, "too small to show a weave", f"use {SMALLEST_SIZE} or more")
    if channels not in (1, 3):
        raise UsageError("channels", channels, "neither grey nor colour", "use 1 or 3")
    if not 0 <= seed < 2**32:
        raise UsageError("seed", seed, "is out of range", "use 0 or more, below 2**32")


def _check_name(argument: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UsageError(argument, name, f"no such {argument}", nearest(name, known))
