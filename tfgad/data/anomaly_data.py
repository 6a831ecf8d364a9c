"""What every loader returns: normal images to learn from, and a test to be judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE, TILE = "image", "tile"


@dataclasses.dataclass(frozen=True)
class Files:
    """The image files of a data set that is a folder.

    Attributes:
        train, calibration, test: the files of each part, name -> hash of the content.
        of_good: names of good files -> their images as `AnomalyData.train` has them, and how many.
        of_test: names of test files -> the same as `AnomalyData.test` has them.
    """

    train: dict[str, str]
    calibration: dict[str, str]
    test: dict[str, str]
    of_good: Callable[[Collection[str]], tuple[tf.data.Dataset, int]]
    of_test: Callable[[Collection[str]], tuple[tf.data.Dataset, int]]


@dataclasses.dataclass(frozen=True)
class AnomalyData:
    """A data set for one-class learning.

    Attributes:
        spec: the spec that names it, such as `"weave:twill?size=128"`.
        image_shape: `(height, width, channels)` of every image; channels is 1 or 3.
        train: normal images, one at a time: float32 `[H, W, C]` in [-1, 1].
        calibration: normal images held out of training, same form; never from the test set.
        test: one dict at a time: `image` as above, `label` int32 (0 normal, 1 anomalous),
            `mask` uint8 `[H, W, 1]` (1 on the anomaly; all 0 where the set has no masks),
            `name` string (what to call it in a report).
        train_size, calibration_size, test_size: how many of each.
        has_masks: whether `mask` is ground truth, so that pixel metrics mean something.
        resized: whether whole images were resized to `image_shape`, and so a new image must be; if
            not, they are pieces at the camera's own resolution, and a new one is judged as it is.
        kinds: the names of the anomalies in the test set, where the set names them.
        skipped: files left out of it, each with its reason.
        classes: the names of the normal classes, where the set names them.
        train_labels: int32 `[train_size]`, the class of each image of `train` in order, by its
            place in `classes`; None where there are none.
        unit: what the elements of `test` are: whole images, or tiles, which are named by their
            image and, after a slash, their place in it.
        unmasked: names of the anomalous test images whose mask is missing in a set with masks. Of
            their tiles each has label 1.
        files: the files, where the set is a folder of them.
        depth: bits of the images' grey levels: 8, or what was given or found for files of 16 bits.
    """

    spec: str
    image_shape: tuple[int, int, int]
    train: tf.data.Dataset
    calibration: tf.data.Dataset
    test: tf.data.Dataset
    train_size: int
    calibration_size: int
    test_size: int
    has_masks: bool
    resized: bool = False
    kinds: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    train_labels: np.ndarray | None = None
    unit: str = IMAGE
    unmasked: frozenset[str] = frozenset()
    files: Files | None = None
    depth: int = 8

    @property
    def counted_unit(self) -> str:
        """What an evaluation counts: whole images too where the labels of tiles are not known."""
        return self.unit if self.has_masks and not self.unmasked else IMAGE

    def images_of(self, names: Sequence[str]) -> np.ndarray | None:
        """Returns the number of each test element's image, or None where elements are counted.

        Args:
            names: of N elements of `test`.

        Returns:
            int `[N]`, from 0 up: elements with the same number are tiles of one image.
        """
        if self.counted_unit == self.unit:
            return None
        return np.unique([self.image_of(name) for name in names], return_inverse=True)[1]

    def is_masked(self, names: Sequence[str]) -> np.ndarray:
        """Returns of which test elements the mask is known: bool `[N]`."""
        known = [self.has_masks and self.image_of(name) not in self.unmasked for name in names]
        return np.array(known, bool)

    def image_of(self, name: str) -> str:
        """Returns the name of the image that a test element is, or is a tile of."""
        return name.rpartition("/")[0] if self.unit == TILE else name
