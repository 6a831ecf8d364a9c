"""The methods: one paper, one file. Each file of this folder is imported and registers its own."""

import importlib
import pkgutil

from tfgad.core.registry import METHODS, build, method_of, names, settings_of

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "build", "method_of", "names", "settings_of"]
