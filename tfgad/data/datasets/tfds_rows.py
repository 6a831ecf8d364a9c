"""Images of a prepared set of tensorflow-datasets, by their position in a split."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfgad.data.datasets.image_shape import check_image_shape
from tfgad.data.options import Size
from tfgad.data.split import hold_out
from tfgad.errors import UsageError, first_line

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

TEST_SPLITS = ("test", "validation")
SIDE = 128  # of images that have no size in common


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some images of a split.

    Attributes:
        builder: of the set.
        split: its name.
        rows: int64 `[N]`, positions in the split, ascending.
        labels: int64 `[N]`, numbers of classes; zeros if there are no labels.
    """

    builder: Any
    split: str
    rows: np.ndarray
    labels: np.ndarray

    @property
    def are_unlabelled(self) -> bool:
        """Whether some images have no label: the catalogue's sets have -1 then."""
        return bool(np.any(self.labels < 0))

    def at(self, places: np.ndarray) -> Rows:
        """Returns some of the rows."""
        return dataclasses.replace(self, rows=self.rows[places], labels=self.labels[places])

    def of_classes(self, chosen: Sequence[bool]) -> Rows:
        """Returns the rows of some classes; all, if there are no classes."""
        return self.at(np.flatnonzero(np.array(chosen)[self.labels])) if chosen else self

    def names(self, classes: Sequence[str]) -> list[str]:
        """Returns the names of the images: a class, with no slash in it, and a number."""
        called = [classes[label].replace("/", "_") if classes else "image" for label in self.labels]
        return [f"{each}/{row:06d}" for each, row in zip(called, self.rows, strict=True)]

    def kinds(self, classes: Sequence[str]) -> dict[str, str]:
        """Returns the class of each name."""
        if not classes:
            return {}
        return {
            n: classes[label] for n, label in zip(self.names(classes), self.labels, strict=True)
        }

    def images(self, shape: tuple[int, int, int]) -> tf.data.Dataset:
        """Returns the images, float32 `shape` in [-1, 1]."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        feature = self.builder.info.features["image"]
        is_taken = np.zeros(self.builder.info.splits[self.split].num_examples, bool)
        is_taken[self.rows] = True
        taken = tf.constant(is_taken)
        decoders = tfds.decode.PartialDecoding(
            {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
        )

        def scaled(encoded: tf.Tensor) -> tf.Tensor:
            image = tf.image.resize(feature.decode_example(encoded), shape[:2], antialias=True)
            if image.shape[-1] != shape[2]:
                to_colour = shape[2] == 3
                convert = tf.image.grayscale_to_rgb if to_colour else tf.image.rgb_to_grayscale
                image = convert(image)
            return tf.ensure_shape(image, shape) / 127.5 - 1

        rows = _read(self.builder, self.split, decoders).enumerate()
        chosen = rows.filter(lambda number, _: tf.gather(taken, number))
        return chosen.map(lambda _, row: scaled(row["image"]), tf.data.AUTOTUNE)

    def labelled_images(
        self, shape: tuple[int, int, int], classes: Sequence[str], is_normal: Sequence[bool]
    ) -> tf.data.Dataset:
        """Returns a test set, as `AnomalyData.test`; names are a class and a number."""
        import tensorflow as tf

        of_classes = np.array([not normal for normal in is_normal] or [False], np.int32)
        rows = tf.data.Dataset.from_tensor_slices(
            {"label": of_classes[self.labels], "name": np.array(self.names(classes))}
        )
        mask = tf.zeros((*shape[:2], 1), tf.uint8)
        return tf.data.Dataset.zip(self.images(shape), rows).map(
            lambda image, row: {"image": image, "mask": mask, **row}
        )


class Source:
    """A prepared set: its classes, splits and images.

    Args:
        builder: of tensorflow-datasets.
        name: for messages.

    Raises:
        UsageError: it has no images of 8 bits, grey or in colour.
    """

    def __init__(self, builder: Any, name: str):
        import tensorflow_datasets as tfds

        self.builder, self.name = builder, name
        features = dict(builder.info.features.items())
        image = features.get("image")
        if not isinstance(image, tfds.features.Image):
            problem = f"has no feature 'image' (it has {', '.join(features)})"
            raise UsageError("data set", name, problem, "give a set of images")
        if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
            dtype = np.dtype(image.np_dtype).name
            problem = f"has images of {dtype} and {image.shape[-1]} channels, not uint8 and 1 or 3"
            hint = "write them to files, and give folder:PATH"
            raise UsageError("data set", name, problem, hint)
        self.image = image
        self.has_labels = isinstance(features.get("label"), tfds.features.ClassLabel)

    def shape(self, size: Size | None, channels: int | None) -> tuple[int, int, int]:
        """Returns the shape of the loaded images.

        Raises:
            UsageError: an option is out of range.
        """
        own_height, own_width, own_channels = self.image.shape
        known = own_height and own_width
        height, width = size or ((own_height, own_width) if known else (SIDE, SIDE))
        check_image_shape("size", Size(height, width), channels)
        return height, width, channels or own_channels

    def classes(self) -> list[str]:
        """Returns the names of the classes.

        Raises:
            UsageError: the set has none.
        """
        if not self.has_labels:
            problem = "has no feature 'label' of classes"
            raise UsageError("data set", self.name, problem, "leave normal= out")
        return list(self.builder.info.features["label"].names)

    def splits(self, test: float) -> tuple[Rows, Rows]:
        """Returns the rows to train on and those to test on.

        Raises:
            UsageError: the set has no split `train` and more than one other, or the training images
            have no labels.
        """
        splits = self.builder.info.splits
        names = [name for name in splits if splits[name].num_examples]
        train = names[0] if len(names) == 1 else "train"
        if train not in names:
            named = ", ".join(names) or "none"
            problem = f"has no images in a split train (splits with images: {named})"
            raise UsageError("data set", self.name, problem, "prepare it with such a split")
        of_train = self._rows(train)
        if of_train.are_unlabelled:
            problem = f"has images without a label in the split {train}"
            raise UsageError("data set", self.name, problem, "prepare it without them")
        for name in TEST_SPLITS:
            if name in names and name != train:
                tested = self._rows(name)
                if not tested.are_unlabelled:
                    return of_train, tested
                log.warning("tfds:%s: the split %s has no labels and is not used", self.name, name)
        kept, held = hold_out(len(of_train.rows), test, 0, "test")
        return of_train.at(kept), of_train.at(held)

    def _rows(self, split: str) -> Rows:
        """Returns all rows of a split; each image is decoded once to find damaged ones.

        Raises:
            UsageError: an image or a label cannot be read.
        """
        import tensorflow as tf
        import tensorflow_datasets as tfds

        wanted = {"image": True, **({"label": True} if self.has_labels else {})}
        labels = []
        try:
            for row in _read(self.builder, split, tfds.decode.PartialDecoding(wanted)):
                labels.append(int(row["label"]) if self.has_labels else 0)
        except (tf.errors.OpError, ValueError, OSError) as error:
            problem = f"is broken in the split {split} ({first_line(error)})"
            raise UsageError("data set", self.name, problem, "prepare it again") from error
        count = self.builder.info.splits[split].num_examples
        if len(labels) != count:
            problem = f"has {len(labels)} images in the split {split}, not {count}"
            raise UsageError("data set", self.name, problem, "prepare it again")
        if self.has_labels and max(labels) >= len(self.classes()):
            problem = f"has the label {max(labels)} and {len(self.classes())} classes"
            raise UsageError("data set", self.name, problem, "prepare it again")
        return Rows(self.builder, split, np.arange(count), np.array(labels, np.int64))


def _read(builder: Any, split: str, decoders: Any) -> tf.data.Dataset:
    """Returns the rows of a split, in the same order every time."""
    import tensorflow_datasets as tfds

    # Each image is read once or rarely: nothing is to be kept in memory.
    order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    return builder.as_dataset(
        split=split, shuffle_files=False, decoders=decoders, read_config=order
    )
