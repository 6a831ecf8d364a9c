"""Settings of the painter and the segmenter as dicts, checked by the types of their defaults."""

from __future__ import annotations

import math
from typing import Any

from tfgad.errors import UsageError, nearest

# What numbers may be. Counts start at 1, but a window of 0 is the whole image, and 0 classes are as
# many as the data name. All else starts at 0, rates above it.
LEAST = {"window": 0, "classes": 0, "transplanted": 0, "rehearsed": 0}
RATES = ("learning_rate", "search_rate")  # how their names end
BELOW = {"dropout": 1, "smoothing": 1, "beta_1": 1, "beta_2": 1, "tolerance": 1}
MOST = {"feature_weight": 1, "own_share": 1}


def chosen(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """Returns some of the settings, as keyword arguments."""
    return {name: settings[name] for name in names}


def changed(settings: dict[str, Any], given: dict[str, Any], of: str) -> dict[str, Any]:
    """Returns settings with some of them given, each in the type it has; `of` is whose they are.

    Raises:
        UsageError: an unknown setting, or a value of another type or out of its range.
    """
    settings = dict(settings)
    for name, value in given.items():
        if name not in settings:
            raise UsageError("setting", name, f"is not one of {of}", nearest(name, settings))
        settings[name] = _typed(name, value, settings[name])
    return settings


def _typed(name: str, value: Any, usual: Any) -> Any:
    """Returns the value of a setting in the type of the usual one; raises UsageError."""
    kind = type(usual)
    try:
        typed = kind(value)
        # int(2.7) is 2 and str(None) is 'None'.
        fits = value is not None and (kind is not int or isinstance(value, str) or typed == value)
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise UsageError(name, value, f"is not of type {kind.__name__}", f"give one like {usual!r}")
    if kind is not str:
        _check_range(name, typed)
    return typed


def _check_range(name: str, value: float) -> None:
    """Raises UsageError where a number is out of its setting's range."""
    least = LEAST.get(name, 1 if isinstance(value, int) else 0)
    below, most = BELOW.get(name, math.inf), MOST.get(name, math.inf)
    if not math.isfinite(value):
        raise UsageError(name, value, "is not finite", "give a finite number")
    if value < least:
        raise UsageError(name, value, "is too small", f"give at least {least}")
    if name.endswith(RATES) and value == 0:
        raise UsageError(name, value, "is too small", "give a number above 0")
    if value >= below:
        raise UsageError(name, value, "is too large", f"give less than {below}")
    if value > most:
        raise UsageError(name, value, "is too large", f"give at most {most}")
