"""The methods: one paper, one file. Each file of this folder is imported and registers its own."""

import importlib
import pkgutil

from tfgad.core.registry import METHODS, build, method_of, names, native_precision, settings_of
from tfgad.errors import UsageError, first_line

for _module in pkgutil.iter_modules(__path__):
    try:
        importlib.import_module(f"{__name__}.{_module.name}")
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError) as error:
        problem = f"cannot be imported ({first_line(error)})"
        hint = "correct the file, or take it out of tfgad/methods"
        raise UsageError("method file", f"{_module.name}.py", problem, hint) from error

__all__ = ["METHODS", "build", "method_of", "names", "native_precision", "settings_of"]
