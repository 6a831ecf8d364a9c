"""Data sets for one-class learning: `load("weave:twill")` returns an `AnomalyData`.

Modules, from the lowest layer to the highest:

- `spec`, `options`: the text that names a data set, and the options in it;
- `exif`, `image_files`, `pixels`, `images`: image files to arrays;
- `split`: normal images held out for the threshold;
- `origins`: the groups that images come in;
- `anomaly_data`: what every loader returns;
- `datasets`: the loaders, one module or package per source;
- `registry`: the table of loaders; a new data set is entered there.

Beside them: `batches`, `augmentation` and `sampling` make streams of `AnomalyData` ready for
training and scoring.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgad.data.anomaly_data import AnomalyData
from tfgad.data.options import convert, parameters
from tfgad.data.origins import Origins
from tfgad.data.registry import KINDS, loader_of
from tfgad.data.spec import Spec

__all__ = ["KINDS", "AnomalyData", "Origins", "Spec", "load"]


def load(spec: str, **defaults: Any) -> AnomalyData:
    """Loads the data set that a spec names.

    Args:
        spec: `mnist:8` (8 is normal), `mnist:!2` (all but 2 are normal), `mnist:7+8`, `mnist:all`,
            `fashion_mnist:0`, `digits:8`, `weave:twill`, `aitex:03`, `tfds:cifar10?normal=cat` or
            `folder:PATH`. Options follow as `?key=value&key=value`: the keyword-only parameters of
            the kind's loader.
        **defaults: values of options that the spec does not give, such as `seed=1`. Those that the
            loader does not have, and those that are None, are ignored.

    Returns:
        The data. Its `spec` includes the options given by `defaults`: loading that spec again
        returns the same data.

    Raises:
        UsageError: unknown kind, name or option, a value out of range, or missing data.
    """
    parsed = Spec.parse(spec)
    loader = loader_of(parsed.kind)
    known = parameters(loader)
    given = {k: str(v) for k, v in defaults.items() if k in known and v is not None}
    full = dataclasses.replace(parsed, options={**given, **parsed.options})
    data = loader(full.name, **convert(loader, full.kind, full.options))
    return dataclasses.replace(data, spec=str(full))
