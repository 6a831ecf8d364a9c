"""`AnomalyData`, which every loader returns: normal images and a labelled test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfgad.data.origins import IMAGE, TILE, Origins
from tfgad.data.pixels import STRETCH

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["IMAGE", "TILE", "UNNAMED", "AnomalyData", "Files"]

UNNAMED = "anomalous"  # the kind of an anomaly without a name


@dataclasses.dataclass(frozen=True)
class Files:
    """The image files of a data set in a folder.

    Attributes:
        train, calibration, test: the files of each part: name -> hash of the content.
        of_good: function of names of good files that returns their images, as in
            `AnomalyData.train`, and their number.
        of_test: the same for names of test files, as in `AnomalyData.test`.
        origins_of: function of names of good files that returns the origins of what `of_good`
            streams, as in `AnomalyData.train_origins`.
        groups: name of a good file -> its group; None if each file has its own.
        sizes: `(height, width)` of the images in the files, each size once.
        products_of: function of names of good files that returns the product of each image that
            `of_good` streams, as in `AnomalyData.train_products`; None without products.
    """

    train: dict[str, str]
    calibration: dict[str, str]
    test: dict[str, str]
    of_good: Callable[[Collection[str]], tuple[tf.data.Dataset, int]]
    of_test: Callable[[Collection[str]], tuple[tf.data.Dataset, int]]
    origins_of: Callable[[Collection[str]], Origins | None]
    groups: Mapping[str, str] | None = None
    sizes: frozenset[tuple[int, int]] = frozenset()
    products_of: Callable[[Collection[str]], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class AnomalyData:
    """A data set for one-class learning.

    Attributes:
        spec: its spec, such as `"weave:twill?size=128"`.
        image_shape: `(height, width, channels)` of every image; channels is 1 or 3.
        train: normal images, one at a time: float32 `[H, W, C]` in [-1, 1].
        calibration: normal images held out of training, in the same form; none is in the test set.
        test: one dict at a time: `image` as above, `label` int32 (0 normal, 1 anomalous),
            `mask` uint8 `[H, W, 1]` (1 on the anomaly; all 0 where the set has no masks),
            `name` string (its name in reports).
        train_size, calibration_size, test_size: number of elements of each.
        has_masks: whether `mask` is ground truth, so that pixel metrics are defined.
        resized: whether the images were resized to `image_shape`. If so, a new image is resized
            before it is scored; if not, it is scored at its native resolution.
        kinds: names of the kinds of anomalies in the test set, if there are names.
        skipped: one line per file that was left out, with the reason.
        classes: names of the normal classes, if there are classes.
        train_labels: int32 `[train_size]`, the class of each image of `train` in order, as an
            index of `classes`; None if there are no classes.
        unit: whether the elements of `test` are whole images or tiles. The name of a tile is that
            of its image, a slash, and its position.
        unmasked: names of the anomalous test images whose mask is missing in a set with masks. All
            their tiles have label 1.
        test_kinds: name of an anomalous test image -> its kind, where no folder in the name is one
            of `kinds`.
        files: the files of a data set in a folder, else None.
        depth: bits of the grey levels: 8, or the given or detected depth of 16-bit files.
        fit: how images of another aspect ratio are resized; see `tfgad.data.pixels.resize`.
        test_groups: name of a test image -> its group, where the groups are known of some; an image
            that is not named has a group of its own.
        train_origins, calibration_origins: the group of each element of `train` and `calibration`
            in order, and the image that it is a tile of; None if each has a group of its own.
        ignored: bool `[H, W]`, the pixels that `tfgad.data.ignored.ignoring` has filled in every
            image; None if there are none.
        hidden: names of the defective test images that it left out, as no defect is outside.
        products: names of the products, if the data are of several; the names of test images then
            begin with the product and a slash.
        train_products, calibration_products: int32, the product of each element of `train` and
            `calibration` in order, as an index of `products`; None without products.
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
    test_kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Files | None = None
    depth: int = 8
    fit: str = STRETCH
    test_groups: Mapping[str, str] = dataclasses.field(default_factory=dict)
    train_origins: Origins | None = None
    calibration_origins: Origins | None = None
    ignored: np.ndarray | None = None
    hidden: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    train_products: np.ndarray | None = None
    calibration_products: np.ndarray | None = None

    @property
    def counted_unit(self) -> str:
        """The unit that an evaluation counts: images if the labels of some tiles are unknown."""
        return self.unit if self.has_masks and not self.unmasked else IMAGE

    def images_of(self, names: Sequence[str]) -> np.ndarray | None:
        """Groups test elements by their image.

        Args:
            names: names of N elements of `test`.

        Returns:
            int `[N]`, from 0 up: tiles of the same image have the same number. None if an
            evaluation counts the elements themselves.
        """
        if self.counted_unit == self.unit:
            return None
        return np.unique([self.image_of(name) for name in names], return_inverse=True)[1]

    def groups_of(self, names: Sequence[str]) -> np.ndarray:
        """Numbers the groups of test elements: those of their images, whose tiles share them.

        Args:
            names: names of N elements of `test`.

        Returns:
            int `[N]`, from 0 up, none left out.
        """
        images = (self.image_of(name) for name in names)
        groups = [
            (image in self.test_groups, self.test_groups.get(image, image)) for image in images
        ]
        known = {group: number for number, group in enumerate(sorted(set(groups)))}
        return np.array([known[group] for group in groups], int)

    def is_masked(self, names: Sequence[str]) -> np.ndarray:
        """Returns for which test elements the mask is known: bool `[N]`."""
        known = [self.has_masks and self.image_of(name) not in self.unmasked for name in names]
        return np.array(known, bool)

    def image_of(self, name: str) -> str:
        """Returns the name of the image of a test element: its own, or that of its tile."""
        return name.rpartition("/")[0] if self.unit == TILE else name

    def product_of(self, name: str) -> str:
        """Returns the product of a test element, `""` if the data are of one product."""
        return name.partition("/")[0] if self.products else ""

    def kind_of(self, name: str) -> str:
        """Returns the kind of an anomalous test element, `UNNAMED` if it has no name."""
        image = self.image_of(name)
        own = image.partition("/")[2] if self.products else image
        folders = [folder for folder in own.split("/")[:-1] if folder in self.kinds]
        return self.test_kinds.get(image) or next(iter(folders), UNNAMED)
