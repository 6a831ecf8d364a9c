"""Images to learn from and to be judged by: `load("weave:twill")` returns an `AnomalyData`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.options import convert, parameters
from tfgad.data.spec import Spec
from tfgad.errors import UsageError, nearest

__all__ = ["KINDS", "AnomalyData", "Spec", "load"]

# Kind of data set -> module and function that load it, imported when first asked for.
KINDS = {
    "aitex": ("tfgad.data.datasets.aitex", "load"),
    "digits": ("tfgad.data.datasets.digits", "load_digits"),
    "fashion_mnist": ("tfgad.data.datasets.digits", "load_fashion_mnist"),
    "folder": ("tfgad.data.datasets.folder", "load"),
    "mnist": ("tfgad.data.datasets.digits", "load_mnist"),
    "weave": ("tfgad.data.datasets.weave.weave", "load"),
}


def load(spec: str, **defaults: Any) -> AnomalyData:
    """Loads the data set that a spec names.

    Args:
        spec: `mnist:8` (8 is normal), `mnist:!2` (all but 2 are normal), `mnist:7+8`,
            `fashion_mnist:0`, `digits:8`, `weave:twill`, `aitex:03` or `folder:PATH`. Options
            follow as `?key=value&key=value`: the keyword-only parameters of the kind's loader.
        **defaults: values of options that the spec leaves open, such as `seed=1`; those that
            the loader does not take, and those that are None, are passed over.

    Returns:
        The data. Its `spec` names the options in force, so that loading it again gives the same.

    Raises:
        UsageError: unknown kind, name or option, a value out of range, or data that are not there.
    """
    wanted = Spec.parse(spec)
    loader = _loader(wanted)
    known = parameters(loader)
    given = {k: str(v) for k, v in defaults.items() if k in known and v is not None}
    full = dataclasses.replace(wanted, options={**given, **wanted.options})
    data = loader(full.name, **convert(loader, full.kind, full.options))
    return dataclasses.replace(data, spec=str(full))


def _loader(spec: Spec) -> Callable[..., AnomalyData]:
    if spec.kind not in KINDS:
        hint = nearest(spec.kind, KINDS)
        raise UsageError("data set", spec.kind, "is not a kind of data set", hint)
    module, function = KINDS[spec.kind]
    return getattr(importlib.import_module(module), function)
