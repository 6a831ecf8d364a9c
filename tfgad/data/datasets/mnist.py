"""MNIST, Fashion-MNIST and scikit-learn's digits: some classes are normal, the others anomalous.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998.
Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
scikit-learn's `load_digits`: Alpaydin, Kaynak, "Optical recognition of handwritten digits", UCI.
"""

from __future__ import annotations

import numpy as np

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.mnist_files import Images, read_published
from tfgad.data.split import hold_out
from tfgad.errors import UsageError

# TensorFlow is imported where it is used: its import takes three to five seconds, which the error
# for missing data need not wait for.

DIGITS = tuple("0123456789")
# Xiao et al., table 2.
GARMENTS = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# Fraction of each class of the embedded digits, its last images, that is for testing.
EMBEDDED_TEST_PART = 0.4


def load_mnist(
    name: str, *, size: int = 32, calibration: float = 0.2, seed: int = 0
) -> AnomalyData:
    """Loads MNIST with the classes of `name` as normal ones; the test set is MNIST's own.

    The 28x28 images are enlarged bilinearly, as the published GANomaly recipe does, not padded:
    a padded border is constant and would only reduce scores that are means over pixels.

    Args:
        name: `"8"`, `"7+8"`, `"!2"` for all but 2, or `"all"`, for generative models: no test
            image is an anomaly then.
        size: side of the images in pixels.
        calibration: fraction of the normal training images that is held out.
        seed: decides which images are held out.

    Raises:
        UsageError: there is no such class, or the data are neither on this machine nor available
            for download.
    """
    return _one_class("mnist", name, DIGITS, size, calibration, seed)


def load_fashion_mnist(
    name: str, *, size: int = 32, calibration: float = 0.2, seed: int = 0
) -> AnomalyData:
    """Loads Fashion-MNIST, with classes by number; see `load_mnist` for the arguments."""
    return _one_class("fashion_mnist", name, GARMENTS, size, calibration, seed)


def load_digits(
    name: str, *, size: int = 32, calibration: float = 0.2, seed: int = 0
) -> AnomalyData:
    """Loads the 1,797 digits of 8x8 pixels that come with scikit-learn.

    The last 40 % of each class are for testing. The set is ordered by writer, so that few writers
    are in both training and test set. See `load_mnist` for the arguments.
    """
    return _one_class("digits", name, DIGITS, size, calibration, seed)


def normal_classes(name: str, kind: str = "mnist") -> set[int]:
    """Returns the normal classes in a name such as `"8"`, `"7+8"`, `"!2"` or `"all"`.

    Raises:
        UsageError: a class is not 0 to 9, or no class is left as normal or as anomalous.
    """
    if name == "all":
        return set(range(10))
    digits = name.removeprefix("!").split("+")
    if not set(digits) <= set(DIGITS):
        hint = f"write {kind}:8, {kind}:7+8, {kind}:!2 (all but 2) or {kind}:all"
        raise UsageError(f"{kind} class", name, "is not made of classes 0 to 9", hint)
    named = {int(digit) for digit in digits}
    normal = set(range(10)) - named if name.startswith("!") else named
    if not 0 < len(normal) < 10:
        raise UsageError(
            f"{kind} class",
            name,
            "leaves no normal or no anomalous class",
            f"name fewer, or write {kind}:all",
        )
    return normal


def embedded() -> Images:
    """Returns the digits that come with scikit-learn, the last images of each class for testing."""
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
    """Loads a set with the classes of `name` as normal ones and all others as anomalies."""
    normal = normal_classes(name, kind)
    if size < 1:
        raise UsageError("size", size, "is not the side of an image", "give at least 1")
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
    test = _test(images, normal)
    return AnomalyData(
        spec=f"{kind}:{name}",
        image_shape=(size, size, 1),
        train=slices(good[kept]).map(scale, tf.data.AUTOTUNE),
        calibration=slices(good[held]).map(scale, tf.data.AUTOTUNE),
        test=slices(test).map(scale_test, tf.data.AUTOTUNE),
        train_size=len(kept),
        calibration_size=len(held),
        test_size=len(images.test),
        has_masks=False,
        resized=True,
        kinds=tuple(c for i, c in enumerate(class_names) if i not in normal),
        test_kinds=dict(
            zip(test["name"], (class_names[i] for i in images.test_labels), strict=True)
        ),
        classes=tuple(class_names[i] for i in classes),
        train_labels=labels[kept].astype(np.int32),
    )


def _test(images: Images, normal: set[int]) -> dict[str, np.ndarray]:
    """Returns the test images with label 1 for anomalous classes, named by class and index."""
    return {
        "image": images.test,
        "label": np.isin(images.test_labels, list(normal), invert=True).astype(np.int32),
        "name": np.array([f"{c}/{i:05d}" for i, c in enumerate(images.test_labels)]),
    }
