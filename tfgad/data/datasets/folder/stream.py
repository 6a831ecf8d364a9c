"""Streams of images of one size from image files of any size and aspect ratio."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfgad.data.datasets.folder import masks as mask_reading
from tfgad.data.datasets.folder.layout import GOOD, Sample
from tfgad.data.images import read_image
from tfgad.data.pixels import LETTERBOX, STRETCH, fitted_size, mirrored, resize
from tfgad.data.tiling import cut_tiles, tile_starts


@dataclasses.dataclass(frozen=True)
class Form:
    """Size, channels and depth to which images are converted.

    Attributes:
        size: `(height, width)` in pixels of the images that come out.
        tiled: whether images are cut into square tiles of that size at native resolution; else each
            is resized.
        channels: 1 or 3.
        depth: bits of 16-bit files; see `tfgad.data.pixels.scaled`.
        fit: how an image is resized to another aspect ratio; see `tfgad.data.pixels.resize`.
    """

    size: tuple[int, int]
    tiled: bool
    channels: int
    depth: int | None = None
    fit: str = STRETCH

    def count(self, shape: Sequence[int]) -> int:
        """Returns how many images come out of one of shape `[H, W, C]`."""
        if not self.tiled:
            return 1
        ys, xs = (tile_starts(*each) for each in zip(shape[:2], self.size, strict=True))
        return len(ys) * len(xs)

    def images(self, image: np.ndarray) -> np.ndarray:
        """Converts an image, float32 `[H, W, C]`, to `[N, *size, C]`."""
        if self.tiled:
            return cut_tiles(image, self.size[0])
        return resize(image, self.size, self.fit)[None]

    def masks(self, mask: np.ndarray) -> np.ndarray:
        """Converts a mask, uint8 `[H, W, 1]`, to `[N, *size, 1]`, padded as its image is."""
        if self.tiled:
            return cut_tiles(mask, self.size[0])
        inner = fitted_size(mask.shape, self.size) if self.fit == LETTERBOX else self.size
        return mirrored(mask_reading.resize(mask, *inner), self.size)[None]

    def names(self, name: str, shape: Sequence[int]) -> list[str]:
        """Returns the names of the N images; that of a tile has its upper left corner."""
        if not self.tiled:
            return [name]
        ys, xs = (tile_starts(*each) for each in zip(shape[:2], self.size, strict=True))
        return [f"{name}/x{x}_y{y}" for y in ys for x in xs]


def stream_normal(samples: Sequence[Sample], form: Form) -> tf.data.Dataset:
    """Streams images, float32 `[*size, channels]` in [-1, 1]."""

    def read(path: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(functools.partial(_normal, form=form), [path], tf.float32)
        return tf.ensure_shape(images, (None, *form.size, form.channels))

    paths = tf.constant([os.fsencode(sample.path) for sample in samples], tf.string)
    return tf.data.Dataset.from_tensor_slices(paths).map(read, tf.data.AUTOTUNE).unbatch()


def stream_test(
    samples: Sequence[Sample], masks: Mapping[str, Sequence[mask_reading.Mask]], form: Form
) -> tf.data.Dataset:
    """Streams dicts of `image`, `label`, `mask` and `name`, as in `AnomalyData.test`.

    Args:
        samples: the images.
        masks: name of an image -> its masks; images without usable masks are left out.
        form: what comes out.
    """
    types = {"image": tf.float32, "label": tf.int32, "mask": tf.uint8, "name": tf.string}
    shapes = {
        "image": (None, *form.size, form.channels),
        "label": (None,),
        "mask": (None, *form.size, 1),
        "name": (None,),
    }

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        def values_of(i: int) -> tuple[np.ndarray, ...]:
            return _test(samples[i], masks.get(samples[i].name, ()), form)

        values = tf.numpy_function(values_of, [index], [*types.values()])
        named = zip(types, values, strict=True)
        return {key: tf.ensure_shape(value, shapes[key]) for key, value in named}

    return tf.data.Dataset.range(len(samples)).map(read, tf.data.AUTOTUNE).unbatch()


def _normal(path: bytes, form: Form) -> np.ndarray:
    return form.images(read_image(os.fsdecode(path), form.channels, depth=form.depth))


def _test(sample: Sample, masks: Sequence[mask_reading.Mask], form: Form) -> tuple[np.ndarray, ...]:
    """Reads a sample as images, labels, masks and names."""
    image = read_image(sample.path, form.channels, depth=form.depth)
    images, names = form.images(image), form.names(sample.name, image.shape)
    labels = np.full(len(images), sample.kind != GOOD, np.int32)
    defective = np.zeros((len(images), *form.size, 1), np.uint8)
    if masks:
        union = functools.reduce(np.maximum, (mask.read(image.shape) for mask in masks))
        defective = form.masks(union)
        if form.tiled:
            labels = np.asarray(defective.any(axis=(1, 2, 3)), np.int32)
    return images, labels, defective, np.array([name.encode() for name in names], object)
