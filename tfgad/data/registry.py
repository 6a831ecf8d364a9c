"""The kinds of data sets. To add one, write a loader and enter it in `KINDS`.

A loader is a function `(name, *, option=default, ...)` that returns an `AnomalyData`. `name` is
what follows the colon in a spec such as `weave:twill?size=64`. The keyword-only parameters are the
options of the spec; they are annotated with `int`, `float`, `bool`, `str` or `Size`, or one of
these or None.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.datasets.weave.cloth import FABRICS
from tfgad.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data set.

    Attributes:
        example: a spec, or the form of one, as `tfgad list` prints it.
        help: one line about it, as `tfgad list` prints it.
        module: the module of the loader, imported when a data set of this kind is first loaded.
        function: the loader's name in the module.
    """

    example: str
    help: str
    module: str
    function: str = "load"

    def loader(self) -> Callable[..., AnomalyData]:
        """Returns the loader."""
        return getattr(importlib.import_module(self.module), self.function)


KINDS = {
    "folder": Kind(
        "folder:PATH",
        "your images: good/ and folders of defects, MVTec AD's layout, or good images alone",
        "tfgad.data.datasets.folder.folder",
    ),
    "weave": Kind(
        "weave:NAME",
        f"synthetic woven fabric: {', '.join(FABRICS)}",
        "tfgad.data.datasets.weave.weave",
    ),
    "aitex": Kind(
        "aitex:FF",
        "AITEX strips of woven fabric, 00 to 06 (needs TFGAD_DATA_DIR)",
        "tfgad.data.datasets.aitex",
    ),
    "mnist": Kind(
        "mnist:8",
        "handwritten digits; 8 is normal. Also mnist:!2, mnist:7+8, mnist:all",
        "tfgad.data.datasets.mnist",
        "load_mnist",
    ),
    "fashion_mnist": Kind(
        "fashion_mnist:0",
        "pictures of clothes; T-shirts are normal",
        "tfgad.data.datasets.mnist",
        "load_fashion_mnist",
    ),
    "digits": Kind(
        "digits:8",
        "scikit-learn's small digits; no download",
        "tfgad.data.datasets.mnist",
        "load_digits",
    ),
    "tfds": Kind(
        "tfds:NAME",
        "an image set of tensorflow-datasets, such as tfds:eurosat?normal=River",
        "tfgad.data.datasets.tfds_images",
    ),
}


def loader_of(kind: str) -> Callable[..., AnomalyData]:
    """Returns the loader of a kind of data set.

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in KINDS:
        raise UsageError("data set", kind, "is not a kind of data set", nearest(kind, KINDS))
    return KINDS[kind].loader()
