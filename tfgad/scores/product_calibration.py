"""Calibration of a model of several products: a threshold for each, and one for all of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

import numpy as np

from tfgad.data.origins import IMAGE, TILE, Origins
from tfgad.errors import UsageError
from tfgad.scores.calibration import check_units, largest_of_images, logistic_scale
from tfgad.scores.products import UNKNOWN, Products
from tfgad.scores.rate_interval import rate_interval
from tfgad.scores.thresholds import Threshold, threshold_from_normals, thresholds_from_normals

logger = logging.getLogger(__name__)

LEAST = 2  # held-out good images of each product: the variation of one image is not known


@dataclasses.dataclass(frozen=True)
class Standardised:
    """The scores of held-out good images of several products, standardised by product.

    Attributes:
        scores: float `[N]`; the threshold of each product is 0, and the scale 1.
        thresholds: float `[len(RATES)]`, the threshold of all products at each of `RATES`: the
            largest that one of them needs, so that none has more false alarms than that rate.
        effective: the smallest number of independent images of a product; see `RateInterval`.
        of_products: the threshold of each product's raw scores, with the interval of its rate.
    """

    scores: np.ndarray
    thresholds: np.ndarray
    effective: float
    of_products: Mapping[str, Threshold]


def standardise_by_product(
    products: Products,
    scores: np.ndarray,
    distances: np.ndarray,
    given: np.ndarray | None,
    false_positive_rate: float,
    origins: Origins | None = None,
    per: str = TILE,
) -> Standardised:
    """Sets the thresholds, scales and limits of products from held-out good images.

    Args:
        products: the layer whose weights are set.
        scores: float `[N]`, raw.
        distances: `[N, P]`, of `Products.distances`.
        given: int `[N]`, the product of each image; -1 where it is to be recognised, None for all.
        false_positive_rate: see `Calibration.fit`.
        origins: likewise.
        per: likewise.

    Raises:
        UsageError: as `Calibration.fit`; fewer than two images of a product; or other numbers of
            products.
    """
    scores = np.asarray(scores, np.float64).ravel()
    check_units(scores, origins, per)
    product = _products_of(products, distances, given)
    of_each, others = {}, []
    standardised = np.empty_like(scores)
    scales = np.empty(len(products.names))
    for number, name in enumerate(products.names):
        own = product == number
        units, groups = scores[own], None
        if origins is not None:
            of_units = origins.at(own)
            if per == IMAGE:
                units, of_units = largest_of_images(units, of_units)
            groups = of_units.groups
        threshold = threshold_from_normals(units, false_positive_rate, f" of {name}")
        interval = rate_interval(units, groups, threshold.value, false_positive_rate)
        scales[number] = logistic_scale(scores[own])
        standardised[own] = (scores[own] - threshold.value) / scales[number]
        others.append((thresholds_from_normals(units) - threshold.value) / scales[number])
        of_each[name] = dataclasses.replace(threshold, interval=interval)
    products.thresholds.assign([each.value for each in of_each.values()])
    products.scales.assign(scales)
    products.calibrate(distances, product, false_positive_rate)
    effective = min(each.interval.effective for each in of_each.values() if each.interval)
    return Standardised(standardised, np.max(others, axis=0), effective, of_each)


def _products_of(products: Products, distances: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Returns the product of each image: the given one, or the recognised one.

    Raises:
        UsageError: other numbers than `given` may have, or fewer than two images of a product.
    """
    names, count = products.names, len(distances)
    given = np.full(count, UNKNOWN) if given is None else given
    given = products.checked_numbers(given, count, known=False)
    unknown = given == UNKNOWN
    product = np.where(unknown, distances.argmin(axis=1), given)
    if unknown.any():
        products.require_adapted()
        counts = np.bincount(product[unknown], minlength=len(names))
        found = ", ".join(f"{n} of {name}" for n, name in zip(counts, names, strict=True))
        logger.warning("the products of good images are recognised: %s", found)
    for name, images in zip(names, np.bincount(product, minlength=len(names)), strict=True):
        if images < LEAST:
            hint = "give good images of every product"
            problem = f"too few held-out good images ({images}) for a threshold"
            raise UsageError("product", name, problem, hint)
    return product
