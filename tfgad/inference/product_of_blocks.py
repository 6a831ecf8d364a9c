"""Products of images that a model of several is given, whole or block by block."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfgad.errors import UsageError, nearest


def known_product(product: str | None, products: Sequence[str]) -> str | None:
    """Returns a product that a model is given; None if it is given none.

    Raises:
        UsageError: it is none of the model's products.
    """
    if not product or product in products:
        return product or None
    if not products:
        raise UsageError("product", product, "but the model is of one product", "leave it out")
    hint = nearest(product, products)
    raise UsageError("product", product, "is not one that the model knows", hint)


class ProductOfBlocks:
    """The product of an image whose blocks are predicted one by one: that of most of them.

    Blocks are standardised by their own products. They are undone, and the whole map is
    standardised by the product of the image. Of a model of one product maps stay as they are.

    Args:
        products: names of the products; none of a model of one.
        numbers: outputs of the signature `calibration`, those of `Products.numbers` at least.
    """

    def __init__(self, products: Sequence[str], numbers: Mapping[str, Any]):
        self._products, self._numbers = tuple(products), numbers
        self._found: collections.Counter[str] = collections.Counter()

    def raw(self, prediction: Mapping[str, Any]) -> np.ndarray:
        """Returns the map of a block before it was standardised."""
        if not self._products:
            return prediction["map"]
        product = prediction["product"]
        product = product.decode() if isinstance(product, bytes) else product
        self._found[product] += prediction["map"].size
        threshold, scale = self._of(product)
        return prediction["map"] * scale + threshold

    def standardise(self, anomaly_map: np.ndarray) -> dict[str, str]:
        """Standardises the map of the image in place; returns its `product`, if there are any."""
        if not self._products:
            return {}
        product = self._found.most_common(1)[0][0]
        threshold, scale = self._of(product)
        anomaly_map -= threshold
        anomaly_map /= scale
        return {"product": product}

    def _of(self, product: str) -> tuple[np.float32, np.float32]:
        """Returns threshold and scale of a product's raw scores."""
        place = self._products.index(product)
        return self._numbers["product_thresholds"][place], self._numbers["product_scales"][place]
