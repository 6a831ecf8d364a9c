"""A SavedModel on Beam's workers: it is loaded once per process and scores batches of pixels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from tfgad.errors import UsageError
from tfgad.inference.beam import storage

if TYPE_CHECKING:  # it imports TensorFlow
    from tfgad.inference.predictor import SavedModelPredictor


class Pixels(NamedTuple):
    """A decoded image: its path, and uint8 `[H, W, C]`."""

    name: str
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The images that a SavedModel takes; see `tfgad.inference.predictor.Predictor`.

    Workers read files by it before the model is loaded.
    """

    image_shape: tuple[int, int, int]
    resized: bool
    window: tuple[int, int, int]
    depth: int | None
    product: str | None = None  # of all images; None to recognise it


def input_spec_of(model: str, product: str | None = None) -> InputSpec:
    """Reads the metadata of a SavedModel.

    Args:
        model: folder of the SavedModel, or of its versions.
        product: of all images; None where the model has one, or is to recognise it.

    Raises:
        UsageError: it is none, or does not know the product.
    """
    from tfgad.inference.metadata import saved_model_metadata
    from tfgad.inference.product_of_blocks import known_product

    with storage.local_copy(model) as folder:
        metadata = saved_model_metadata(_version(folder, model))
    height, width, channels = metadata["image_shape"]
    window_height, window_width, _ = metadata["window"]
    return InputSpec(
        image_shape=(height, width, channels),
        resized=metadata["resized"],
        window=(window_height, window_width, channels),
        depth=metadata.get("depth"),
        product=known_product(product, metadata.get("products", ())),
    )


def _version(folder: Path, given: str) -> Path:
    """Returns the folder of the last version; errors name the folder that the user gave."""
    from tfgad.inference import predictor

    version = predictor.saved_model_folder(folder)
    if version is None:
        hint = f"export it first: tfgad export {given} FOLDER"
        raise UsageError("model", given, "is a run, and workers need a SavedModel", hint)
    return version


class SavedModelHandler(ModelHandler[Pixels, PredictionResult, Any]):
    """Scores `Pixels` with a SavedModel.

    The inference of a result is the prediction of `SavedModelPredictor`, with `map_threshold` and
    `scale` of a `scoring.Verdict`.

    Args:
        folder: of the SavedModel, or of its versions.
        spec: of the model.
    """

    def __init__(self, folder: str, spec: InputSpec):
        from tfgad.data.sampling import BATCH_PIXELS

        self._folder, self._spec, self._budget = folder, spec, BATCH_PIXELS
        super().__init__()

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Returns the size of batches, in pixels.

        Minimum and maximum are equal, so that Beam does not try out which size is quickest: the
        limit is the memory that a batch takes.
        """
        return {
            "min_batch_size": self._budget,
            "max_batch_size": self._budget,
            "element_size_fn": self.weight,
        }

    def weight(self, image: Pixels) -> int:
        """Returns how many pixels of a batch an image takes up; see `scoring.pixels_of`."""
        from tfgad.inference import scoring

        return scoring.pixels_of(self._spec, image.pixels.shape)

    def load_model(self) -> SavedModelPredictor:
        """Loads the model, once per process."""
        from tfgad.quiet import import_tensorflow

        import_tensorflow()
        from tfgad.inference import predictor

        with storage.local_copy(self._folder) as folder:
            version = _version(folder, self._folder)
            return predictor.SavedModelPredictor(version, product=self._spec.product)

    def run_inference(
        self,
        batch: Sequence[Pixels],
        model: SavedModelPredictor,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        """Yields the result of each image."""
        from tfgad.inference.predictor import map_threshold, region_at

        by_shape = sorted(batch, key=lambda image: image.pixels.shape)
        for shape, group in itertools.groupby(by_shape, key=lambda image: image.pixels.shape):
            alike = list(group)
            if self.weight(alike[0]) == self._budget:
                predictions = [model.predict_pixels(image.pixels) for image in alike]
            else:
                predictions = model.predict_batch(np.stack([image.pixels for image in alike]))
            threshold = map_threshold(model, shape)
            of_model = {"map_threshold": threshold, "scale": model.scale}
            of_model["ignored"] = region_at(model.ignored, shape)
            for image, prediction in zip(alike, predictions, strict=True):
                yield PredictionResult(image, {**prediction, **of_model})

    def get_num_bytes(self, batch: Sequence[Pixels]) -> int:
        """Returns the size of the images, which Beam reports."""
        return sum(image.pixels.nbytes for image in batch)
