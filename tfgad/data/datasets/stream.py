"""Image files of any size as a stream of images of one size."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfgad.data.datasets import masks as mask_files
from tfgad.data.datasets.folder_layout import GOOD, Sample
from tfgad.data.images import read_image, resize
from tfgad.data.tiles import cut, starts


@dataclasses.dataclass(frozen=True)
class Form:
    """The form that images of any size are brought into.

    Attributes:
        side: of the square images that come out, in pixels.
        tiled: cut tiles of that side at the image's own resolution, or resize it whole.
        channels: 1 or 3.
        depth: bits of files that have more than 8; see `tfgad.data.images.scaled`.
    """

    side: int
    tiled: bool
    channels: int
    depth: int | None = None

    def count(self, shape: Sequence[int]) -> int:
        """Returns how many images come out of one of shape `[H, W, C]`."""
        if not self.tiled:
            return 1
        return len(starts(shape[0], self.side)) * len(starts(shape[1], self.side))

    def images(self, image: np.ndarray) -> np.ndarray:
        """Brings float32 `[H, W, C]` into `[N, side, side, C]`."""
        return cut(image, self.side) if self.tiled else resize(image, self.side)[None]

    def masks(self, mask: np.ndarray) -> np.ndarray:
        """Brings uint8 `[H, W, 1]` into `[N, side, side, 1]`."""
        if self.tiled:
            return cut(mask, self.side)
        return mask_files.resize(mask, self.side, self.side)[None]

    def names(self, name: str, shape: Sequence[int]) -> list[str]:
        """Names what comes out: a tile by its file and its upper left corner."""
        if not self.tiled:
            return [name]
        ys, xs = starts(shape[0], self.side), starts(shape[1], self.side)
        return [f"{name}/x{x}_y{y}" for y in ys for x in xs]


def stream_normal(samples: Sequence[Sample], form: Form) -> tf.data.Dataset:
    """Streams float32 `[side, side, channels]` in [-1, 1]."""

    def read(path: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(functools.partial(_normal, form=form), [path], tf.float32)
        return tf.ensure_shape(images, (None, form.side, form.side, form.channels))

    paths = tf.constant([os.fsencode(sample.path) for sample in samples], tf.string)
    return tf.data.Dataset.from_tensor_slices(paths).map(read, tf.data.AUTOTUNE).unbatch()


def stream_test(
    samples: Sequence[Sample], masks: Mapping[str, Sequence[mask_files.Mask]], form: Form
) -> tf.data.Dataset:
    """Streams dicts of `image`, `label`, `mask` and `name`, as `AnomalyData.test` has them.

    Args:
        samples: the images.
        masks: image's name -> its masks, where they are known.
        form: what comes out.
    """
    types = {"image": tf.float32, "label": tf.int32, "mask": tf.uint8, "name": tf.string}
    shapes = {
        "image": (None, form.side, form.side, form.channels),
        "label": (None,),
        "mask": (None, form.side, form.side, 1),
        "name": (None,),
    }

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
        def values_of(i):
            return _test(samples[i], masks.get(samples[i].name, ()), form)

        values = tf.numpy_function(values_of, [index], [*types.values()])
        named = zip(types, values, strict=True)
        return {key: tf.ensure_shape(value, shapes[key]) for key, value in named}

    return tf.data.Dataset.range(len(samples)).map(read, tf.data.AUTOTUNE).unbatch()


def _normal(path: bytes, form: Form) -> np.ndarray:
    return form.images(read_image(os.fsdecode(path), form.channels, depth=form.depth))


def _test(sample: Sample, masks: Sequence[mask_files.Mask], form: Form) -> tuple[np.ndarray, ...]:
    """Reads a sample into images, labels, masks and names."""
    image = read_image(sample.path, form.channels, depth=form.depth)
    images, names = form.images(image), form.names(sample.name, image.shape)
    labels = np.full(len(images), sample.kind != GOOD, np.int32)
    marked = np.zeros((len(images), form.side, form.side, 1), np.uint8)
    if masks:
        union = functools.reduce(np.maximum, (mask.read(image.shape) for mask in masks))
        marked = form.masks(union)
        if form.tiled:
            labels = marked.any(axis=(1, 2, 3)).astype(np.int32)
    return images, labels, marked, np.array([name.encode() for name in names], object)
