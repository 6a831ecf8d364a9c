"""The functions of an exported model's signatures; see `tfgad.export.saved_model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfgad.core.detector import Detector
from tfgad.data.pixels import LETTERBOX
from tfgad.export import decoding, letterbox, map_png, regions_in_graph
from tfgad.export.map_png import maps_as_png
from tfgad.export.regions_in_graph import find_regions, known_if
from tfgad.scores.calibration import LARGEST_PROBABILITY, RATES
from tfgad.scores.score import PEAKS, is_largest_of_map


class Endpoints:
    """The functions of the signatures. They return dicts, whose keys name the outputs.

    The arguments are those of `tfgad.export.saved_model.export`.
    """

    def __init__(
        self,
        model: Detector,
        image_shape: tuple[int, int, int],
        resized: bool,
        depth: int | None,
        fit: str,
    ):
        self.model, self.resized, self.depth = model, resized, depth
        self.is_letterboxed = resized and fit == LETTERBOX
        self.anomaly = model.traced_anomaly(model.score)
        self._threshold = model.calibration.threshold.value
        self.size, self.channels = image_shape[:2], image_shape[2]
        # One graph for the three signatures that decode: 0.3 MB of each model.
        files = tf.TensorSpec([None], tf.string)
        self._decoded = tf.function(self._decode, input_signature=[files], autograph=False)

    def score(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `serving_default`."""
        return self._predictions(self._prepared(_from_uint8(images)), tf.shape(images)[1:3])

    def score_product(self, images: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `score_product`."""
        size = tf.shape(images)[1:3]
        return self._predictions(self._prepared(_from_uint8(images)), size, self._given(product))

    def score_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `score_bytes`."""
        images, sizes = self._decoded(image_bytes)
        alike = tf.reduce_all(sizes == sizes[:1])
        # The maps of a batch have one size: the model's own, if the files differ.
        return self._predictions(images, tf.where(alike, sizes[0], tf.shape(images)[1:3]))

    def _decode(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns files as prepared images `[B, H, W, C]`, and their own sizes int32 `[B, 2]`."""

        def decoded(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = decoding.decode(file, self.channels, self.depth)
            return self._prepared(image[None])[0], tf.shape(image)[:2]

        side = self.size if self.resized else (None, None)
        form = tf.TensorSpec((*side, self.channels)), tf.TensorSpec(2, tf.int32)
        return tf.map_fn(decoded, image_bytes, fn_output_signature=form)

    def regions(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `regions`."""
        predictions = self.score(images)
        return self._with_regions(predictions, find_regions(predictions["map"], self._threshold))

    def regions_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `regions_bytes`."""
        images, sizes = self._decoded(image_bytes)
        predictions = self._predictions(images, tf.shape(images)[1:3])
        found = self._of_maps(
            lambda maps: find_regions(maps, self._threshold),
            regions_in_graph.FORM,
            predictions["map"],
            sizes,
        )
        return self._with_regions(predictions, found)

    def map_png(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `map_png`."""
        images, sizes = self._decoded(image_bytes)
        predictions = self._predictions(images, tf.shape(images)[1:3])
        maps = predictions.pop("map")
        lowest_white = tf.where(self._is_peak(maps), self._threshold, -np.inf)
        found = self._of_maps(
            lambda maps: maps_as_png(maps, lowest_white), map_png.FORM, maps, sizes
        )
        return {**predictions, **found}

    def _of_maps(
        self,
        function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
        form: dict[str, tf.TensorSpec],
        maps: tf.Tensor,
        sizes: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Returns a function of maps `[B, H, W]`; where images are resized, of each at its size.

        Args:
            function: returns outputs `[B, ...]` by name.
            form: of the outputs for one map.
            maps: of the model.
            sizes: int32 `[B, 2]`, height and width of each file.
        """
        if not self.resized:
            return function(maps)

        def of_file(each: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
            at_size = self._resized_back(each[1], each[0][None, ..., None])[..., 0]
            return {name: value[0] for name, value in function(at_size).items()}

        return tf.map_fn(of_file, (maps, sizes), fn_output_signature=form)

    def _with_regions(
        self, predictions: dict[str, tf.Tensor], found: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Returns predictions with the regions in place of the map."""
        is_peak = self._is_peak(predictions.pop("map"))
        return {**predictions, **known_if(is_peak, found)}

    def _is_peak(self, maps: tf.Tensor) -> tf.Tensor:
        """Returns whether the threshold is one of pixels; see `is_largest_of_map`."""
        if self.resized:
            return tf.constant(is_largest_of_map(self.model.score, self.size, self.model.window))
        sizes_differ = tf.reduce_any(tf.shape(maps)[1:3] != self.model.window[:2])
        return tf.constant(self.model.score in PEAKS) | sizes_differ

    def reconstruct(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `reconstruct`."""
        reconstruction = self.model.reconstruct_in_graph(self._prepared(_from_uint8(images)))
        reconstruction = self._resized_back(tf.shape(images)[1:3], reconstruction)
        return {"reconstruction": decoding.to_levels(reconstruction)}

    def calibration(self) -> dict[str, tf.Tensor]:
        """Signature `calibration`."""
        weights = self.model.calibration
        products = self.model.products
        return {
            **({} if products is None else products.numbers()),
            "threshold": tf.identity(weights.threshold.value),
            "scale": tf.identity(weights.scale.value),
            LARGEST_PROBABILITY: tf.identity(weights.largest_probability.value),
            "false_positive_rate": tf.identity(weights.false_positive_rate.value),
            "rates": tf.constant(RATES, tf.float32),
            "thresholds": tf.identity(weights.thresholds.value),
            "quantiles": tf.identity(weights.quantiles.value),
            "brightness_quantiles": tf.identity(weights.brightness.value),
            "calibration_images": tf.identity(weights.images.value),
            "calibration_groups": tf.identity(weights.groups.value),
        }

    def _prepared(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images `[B, H, W, C]` in [-1, 1], resized if need be, refused if too small."""
        if self.is_letterboxed:
            images = letterbox.letterboxed(images, self.size)
        else:
            images = self._resized_to(self.size, images)
        smallest = self.model.window[:2]
        message = f"images are smaller than {smallest[0]}x{smallest[1]} pixels"
        enough = tf.debugging.assert_greater_equal(tf.shape(images)[1:3], smallest, message)
        with tf.control_dependencies([enough]):
            return tf.identity(images)

    def _given(self, product: tf.Tensor) -> tf.Tensor:
        """Returns the index of each product that is named, int32 `[B]`; -1 of an empty name."""
        names = self.model.product_names
        found = tf.argmax(product[:, None] == ["", *names], axis=1, output_type=tf.int32) - 1
        is_known = tf.reduce_any(product[:, None] == ["", *names], axis=1)
        message = f"the products of this model are {', '.join(names)}"
        known = tf.debugging.Assert(tf.reduce_all(is_known), [message])
        with tf.control_dependencies([known]):
            return tf.identity(found)

    def _predictions(
        self, images: tf.Tensor, map_size: tf.Tensor, given: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Returns the predictions of images that `_prepared` returned, with maps of a size."""
        scored = self.model.by_product(self.anomaly(images), images, self.model.score, given)
        anomaly_map = self._resized_back(map_size, scored["map"][..., None])[..., 0]
        prediction = self.model.prediction_in_graph(images, scored["score"], given)
        return {**scored, **prediction, "map": anomaly_map}

    def _resized_back(self, size: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """Returns images or maps of the model's size at that of the images they belong to."""
        if self.is_letterboxed:
            images = letterbox.without_padding(images, size)
        return self._resized_to(size, images)

    def _resized_to(self, size: Any, images: tf.Tensor) -> tf.Tensor:
        # The filter of `tfgad.data.pixels.resize`.
        return tf.image.resize(images, size, antialias=True) if self.resized else images


def _from_uint8(images: tf.Tensor) -> tf.Tensor:
    return decoding.from_levels(images, 127.5)
