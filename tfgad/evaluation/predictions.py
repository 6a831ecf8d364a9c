"""Predictions of a model for a test set, and the figures of them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfgad import plots
from tfgad.core.detector import Detector
from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.sampling import batched
from tfgad.data.stored import StoredRows, stored
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.scores.products import Products

# Name of a step, how much of it is done, and of how much; 0 of 0 if that is not known.
Progress = Callable[[str, int, int], None]


def no_progress(name: str, done: int, total: int) -> None:
    """Shows no progress."""


@dataclasses.dataclass(frozen=True)
class TestPredictions:
    """A test set of N images and the predictions of a model for it, as arrays.

    Attributes:
        images: float32 `[N, H, W, C]`, in a file: read some at a time.
        masks: uint8 `[N, H, W, 1]`. labels: int32 `[N]`.
        names: N strings. scores: float32 `[N]`. maps: float32 `[N, H, W]`.
        reasons: N strings, why each is unlike any good image; empty where it is not.
        masked: bool `[N]`, whether the mask of each is known; None if all are.
        images_of: int `[N]`, the image that each is a tile of, where images are counted.
        products: N strings, the product that a model of several recognises of each; else empty.
    """

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    images: StoredRows
    masks: np.ndarray
    labels: np.ndarray
    names: list[str]
    scores: np.ndarray
    maps: np.ndarray
    reasons: list[str] = dataclasses.field(default_factory=list)
    masked: np.ndarray | None = None
    images_of: np.ndarray | None = None
    products: list[str] = dataclasses.field(default_factory=list)

    @property
    def counted(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and scores of what is counted: `[N]`, or fewer where N tiles make images."""
        return metrics.by_image(self.labels, self.scores, self.images_of)

    @property
    def image_auroc(self) -> float | None:
        """The area under the ROC of the scores; None if only one class occurs."""
        return metrics.image_metrics(*self.counted)["image_auroc"]


def check_test_images(images: AnomalyData) -> None:
    """Raises UsageError if a data set has no test images."""
    if not images.test_size:
        hint = "add images of another kind beside the good ones"
        raise UsageError("data", images.spec, "has no test images", hint)


def predict_test_set(
    model: Detector,
    images: AnomalyData,
    score: str | None = None,
    progress: Progress = no_progress,
) -> TestPredictions:
    """Scores every image of the test set, those of several products as the products that they are.

    Args:
        model: a fitted detector.
        images: the data set.
        score: name of a score other than the model's own.
        progress: called after each batch.

    The region that a model ignores is left out of figures if `tfgad.data.ignored.ignoring` has made
    the data set.

    Raises:
        UsageError: there are no test images.
    """
    check_test_images(images)
    maps = np.empty((images.test_size, *images.image_shape[:2]), np.float32)

    def scored() -> Iterator[dict[str, np.ndarray]]:
        count = 0
        for batch in batched(images.test).as_numpy_iterator():
            image = batch["image"]
            product = _products_of(model, images, batch["name"])
            found = dict(model.anomaly(image, score, product))
            if product:  # which is given here, and not recognised
                found["product"] = _recognised(model, image)
            found["reason"] = model.reasons(image, product)
            maps[count : count + len(image)] = found.pop("map")
            count += len(image)
            progress("scoring the test set", count, images.test_size)
            yield {**batch, **{name: value.numpy() for name, value in found.items()}}

    columns = stored(scored())
    names = [name.decode() for name in columns["name"]]
    return TestPredictions(
        images=columns["image"],
        masks=columns["mask"],
        labels=columns["label"],
        names=names,
        scores=columns["score"],
        maps=maps[: len(names)],
        reasons=[reason.decode() for reason in columns["reason"]],
        masked=images.is_masked(names),
        images_of=images.images_of(names),
        products=[product.decode() for product in columns.get("product", ())],
    )


def _products_of(model: Detector, images: AnomalyData, names: np.ndarray) -> list[str] | None:
    """Returns the products of test images; None where the model has one, or they are not known."""
    if not model.product_names or not images.products:
        return None
    return [images.product_of(name.decode()) for name in names]


def _recognised(model: Detector, images: np.ndarray) -> tf.Tensor:
    """Returns the product that a model of several recognises of each image, string `[B]`."""
    products: Products = model.products  # type: ignore[assignment]
    numbers, _ = products.recognise(model.filled(tf.constant(images)))
    return products.name_of(numbers)


def reconstructions(model: Detector, predictions: TestPredictions) -> Figure:
    """Plots four good and four anomalous test images and their reconstructions.

    Args:
        model: of a method that `reconstructs`.
        predictions: of any model.
    """
    places = [np.flatnonzero(predictions.labels == label)[:4] for label in (0, 1)]
    shown = predictions.images[np.concatenate(places)]
    reconstructed = model.reconstruct(shown).numpy()
    return plots.reconstructions(shown, reconstructed, np.abs(shown - reconstructed).mean(axis=-1))


def heat_maps(
    predictions: TestPredictions,
    images: AnomalyData,
    places: np.ndarray,
    threshold: float,
    labels: np.ndarray | None,
    title: str = "Heat maps",
) -> Figure:
    """Plots some test images with their true masks and heat maps.

    Args:
        predictions: of the data set's test images.
        images: the data set.
        places: int `[M]`, which images.
        threshold: the calibrated score.
        labels: `[M]`, 0 normal, 1 anomalous; None where the labels of tiles are unknown.
        title: of the figure.
    """
    return plots.heat_maps(
        predictions.images[places],
        predictions.maps[places],
        predictions.masks[places] if images.has_masks else None,
        predictions.scores[places],
        threshold,
        [predictions.names[i] for i in places],
        labels,
        title=title,
    )


def figures_of(
    predictions: TestPredictions, images: AnomalyData, threshold: float | None = None
) -> dict[str, Any]:
    """Returns `metrics.evaluate` of predictions, the `unit` counted, and the number of `reasons`.

    The intervals draw whole groups of images, see `AnomalyData.groups_of`; `interval_groups` is
    their number.

    Args:
        predictions: of the data set's test images.
        images: the data set.
        threshold: the calibrated score; None if there is none.
    """
    outside = np.array(predictions.reasons) != ""
    groups = images.groups_of(predictions.names)
    figures = metrics.evaluate(
        predictions.labels,
        predictions.scores,
        predictions.masks if images.has_masks else None,
        predictions.maps,
        threshold,
        masked=predictions.masked,
        images_of=predictions.images_of,
        groups=groups,
        outside=outside,
        ignored=images.ignored,
    )
    figures["interval_groups"] = int(groups.max()) + 1
    return {"unit": images.counted_unit, **figures, "reasons": _count_reasons(predictions)}


def _count_reasons(predictions: TestPredictions) -> dict[str, dict[str, int]]:
    """Returns how many `good` and `anomalous` images are unlike any good one, for each reason.

    With `tile=` tiles are counted, whatever the unit of the figures.
    """
    return {
        name: dict(
            collections.Counter(
                reason
                for reason, of_image in zip(predictions.reasons, predictions.labels, strict=True)
                if reason and of_image == label
            )
        )
        for name, label in (("good", 0), ("anomalous", 1))
    }
