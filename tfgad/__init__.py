"""GAN-based anomaly and defect detection in Keras 3 and TensorFlow.

    data = tfgad.load("weave:twill")
    model = tfgad.build("ganomaly", data.image_shape)

Importing the package imports no TensorFlow: that happens with the first name that needs it.
What TensorFlow is to compute with is set before (`tfgad/processor.py`).
"""

import importlib
from typing import Any

from tfgad.processor import ask_for_onednn
from tfgad.quiet import import_tensorflow
from tfgad.version import __version__

ask_for_onednn()  # whichever module is imported, this comes before it, and before TensorFlow

_HOMES = {
    "build": "tfgad.methods",
    "load": "tfgad.data",
    "training_batches": "tfgad.data.batches",
    "AnomalyData": "tfgad.data",
    "Detector": "tfgad.core.detector",
    "load_model": "tfgad.training.saving",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfgad' has no attribute {name!r}")
    import_tensorflow()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
