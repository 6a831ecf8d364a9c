"""Calibration of a model of several products: a threshold for each, and one for all of them."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from tfgad.data.origins import IMAGE, TILE, Origins
from tfgad.errors import UsageError
from tfgad.scores.calibration import Calibration, largest_of_images, logistic_scale
from tfgad.scores.products import Products
from tfgad.scores.rate_interval import largest_probability, rate_interval
from tfgad.scores.thresholds import Threshold, threshold_from_normals, thresholds_from_normals

logger = logging.getLogger(__name__)

LEAST = 2  # held-out good images of each product: the variation of one image is not known


@dataclasses.dataclass(frozen=True)
class PerProduct:
    """The calibration of a model by the held-out good images of its products.

    Attributes:
        calibration: of the model; its threshold becomes 0 and its scale 1.
        products: the layer that standardises scores by product.
        descriptions: `[N, K]`, of the held-out good images.
        given: int `[N]`, the product of each; None if they are to be recognised.
    """

    calibration: Calibration
    products: Products
    descriptions: np.ndarray
    given: np.ndarray | None

    def fit(
        self,
        scores: np.ndarray,
        false_positive_rate: float,
        origins: Origins | None = None,
        per: str = TILE,
    ) -> Threshold:
        """Sets the weights of both layers from raw scores; see `Calibration.fit`.

        A false-positive rate other than the asked one has one threshold for all products, the
        largest that one of them needs: none has more false alarms than that rate. The largest
        probability is that of the product with the fewest independent images.

        Raises:
            UsageError: as `Calibration.fit`; or fewer than two images of a product.
        """
        scores = np.asarray(scores, np.float64).ravel()
        distances = self.products.distances(self.descriptions).numpy()
        product = self._products_of(distances)
        of_each, others, effective = {}, [], []
        standardised = np.empty_like(scores)
        scales = np.empty(len(self.products.names))
        for number, name in enumerate(self.products.names):
            own = product == number
            units, of_units = scores[own], None if origins is None else origins.at(own)
            if per == IMAGE and of_units is not None:
                units, of_units = largest_of_images(units, of_units)
            threshold = threshold_from_normals(units, false_positive_rate, f" of {name}")
            groups = None if of_units is None else of_units.groups
            interval = rate_interval(units, groups, threshold.value, false_positive_rate)
            threshold = dataclasses.replace(threshold, interval=interval)
            effective.append(interval.effective)
            scale = logistic_scale(scores[own])
            standardised[own] = (scores[own] - threshold.value) / scale
            others.append((thresholds_from_normals(units) - threshold.value) / scale)
            of_each[name], scales[number] = threshold, scale
        self.products.thresholds.assign([each.value for each in of_each.values()])
        self.products.scales.assign(scales)
        self.products.calibrate(distances, product, false_positive_rate)
        found = self.calibration.fit(
            standardised, false_positive_rate, origins, per, np.max(others, axis=0)
        )
        # All share one limit: that of the product that fewest images tell of.
        self.calibration.largest_probability.assign(largest_probability(min(effective)))
        return dataclasses.replace(found, of_products=of_each)

    def _products_of(self, distances: np.ndarray) -> np.ndarray:
        """Returns the product of each image: the given one, or the recognised one.

        Raises:
            UsageError: fewer than two images of a product.
        """
        names = self.products.names
        if self.given is None:
            self.products.require_adapted()
        product = distances.argmin(axis=1) if self.given is None else self.given
        counts = np.bincount(product, minlength=len(names))
        if self.given is None:
            found = ", ".join(f"{n} of {name}" for n, name in zip(counts, names, strict=True))
            logger.warning("the products of good images are recognised: %s", found)
        for name, count in zip(names, counts, strict=True):
            if count < LEAST:
                hint = "give good images of every product"
                problem = f"too few held-out good images ({count}) for a threshold"
                raise UsageError("product", name, problem, hint)
        return product
