"""MNIST, Fashion-MNIST and scikit-learn's digits, with some classes taken for normal.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
scikit-learn's `load_digits`: Alpaydin, Kaynak, "Optical recognition of handwritten digits", UCI.
"""

from __future__ import annotations

import numpy as np

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.digit_files import Images, read_published
from tfgad.data.split import hold_out
from tfgad.errors import UsageError

# tensorflow is imported where it is used: without a network the answer that the data are not
# there must not wait the three to five seconds that its import takes.

DIGITS = tuple("0123456789")
# Xiao et al., table 2.
GARMENTS = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# Of each class of the embedded digits the last part is for testing.
EMBEDDED_TEST_PART = 0.4


def load_mnist(
    name: str, *, size: int = 32, calibration: float = 0.2, seed: int = 0
) -> AnomalyData:
    """Loads MNIST with the classes of `name` normal; the test is the whole test set.

    The 28x28 images are enlarged bilinearly, as the published GANomaly recipe does, not padded:
    a padded frame never varies, so it only dilutes what every score averages over pixels.

    Args:
        name: `"8"`, `"7+8"`, or `"!2"` for all but 2.
        size: side of the images in pixels.
        calibration: the part of the normal training images held out.
        seed: decides which.

    Raises:
        UsageError: no such class, or the data are neither here nor to be had.
    """
    return _one_class("mnist", name, DIGITS, size, calibration, seed)


def load_fashion_mnist(
    name: str, *, size: int = 32, calibration: float = 0.2, seed: int = 0
) -> AnomalyData:
    """Loads Fashion-MNIST, classes by number; the rest as `load_mnist`."""
    return _one_class("fashion_mnist", name, GARMENTS, size, calibration, seed)


def load_digits(
    name: str, *, size: int = 32, calibration: float = 0.2, seed: int = 0
) -> AnomalyData:
    """Loads the 1,797 digits of 8x8 pixels that come with scikit-learn; the rest as `load_mnist`.

    The last 40 % of each class are for testing. The set is in the order it was collected, one
    writer after another, so that few writers are on both sides.
    """
    return _one_class("digits", name, DIGITS, size, calibration, seed)


def normal_classes(name: str, kind: str = "mnist") -> set[int]:
    """Returns the classes that `"8"`, `"7+8"` or `"!2"` takes for normal.

    Raises:
        UsageError: a class is not 0 to 9, or none would be anomalous.
    """
    listed = name.removeprefix("!").split("+")
    if not set(listed) <= set(DIGITS):
        hint = f"write {kind}:8, {kind}:7+8 or {kind}:!2 (all but 2)"
        raise UsageError(f"{kind} class", name, "is not made of classes 0 to 9", hint)
    named = {int(digit) for digit in listed}
    normal = set(range(10)) - named if name.startswith("!") else named
    if not 0 < len(normal) < 10:
        raise UsageError(
            f"{kind} class", name, "leaves no class to tell from the others", "name fewer"
        )
    return normal


def embedded() -> Images:
    """Returns the digits that come with scikit-learn, the last part of each class for testing."""
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    # Grey levels go from 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    is_test = np.zeros(len(images), bool)
    for digit in range(10):
        of_class = np.flatnonzero(digits.target == digit)
        is_test[of_class[round(len(of_class) * (1 - EMBEDDED_TEST_PART)) :]] = True
    labels = digits.target
    return Images(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def _one_class(
    kind: str,
    name: str,
    class_names: tuple[str, ...],
    size: int,
    calibration: float,
    seed: int,
) -> AnomalyData:
    """Takes some classes for normal and all others for anomalies."""
    normal = normal_classes(name, kind)
    if size < 1:
        raise UsageError("size", size, "is no side of an image", "give at least 1")
    images = embedded() if kind == "digits" else read_published(kind)

    import tensorflow as tf

    def scale(image: tf.Tensor) -> tf.Tensor:
        enlarged = tf.image.resize(image[:, :, None], (size, size), antialias=True)
        return enlarged / 127.5 - 1

    def scale_test(element: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        mask = tf.zeros((size, size, 1), tf.uint8)
        return {**element, "image": scale(element["image"]), "mask": mask}

    is_good = np.isin(images.train_labels, list(normal))
    good, classes = images.train[is_good], sorted(normal)
    labels = np.searchsorted(classes, images.train_labels[is_good])
    kept, held = hold_out(len(good), calibration, seed)
    slices = tf.data.Dataset.from_tensor_slices
    return AnomalyData(
        spec=f"{kind}:{name}",
        image_shape=(size, size, 1),
        train=slices(good[kept]).map(scale, tf.data.AUTOTUNE),
        calibration=slices(good[held]).map(scale, tf.data.AUTOTUNE),
        test=slices(_test(images, normal)).map(scale_test, tf.data.AUTOTUNE),
        train_size=len(kept),
        calibration_size=len(held),
        test_size=len(images.test),
        has_masks=False,
        resized=True,
        kinds=tuple(c for i, c in enumerate(class_names) if i not in normal),
        classes=tuple(class_names[i] for i in classes),
        train_labels=labels[kept].astype(np.int32),
    )


def _test(images: Images, normal: set[int]) -> dict[str, np.ndarray]:
    """Labels the test images 1 where their class is not normal; names them by class and place."""
    return {
        "image": images.test,
        "label": np.isin(images.test_labels, list(normal), invert=True).astype(np.int32),
        "name": np.array([f"{c}/{i:05d}" for i, c in enumerate(images.test_labels)]),
    }
