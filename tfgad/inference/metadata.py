"""The metadata of an exported SavedModel, checked before anything is scored by them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfgad import files
from tfgad.data.ignored import of_config
from tfgad.data.pixels import FITS, FULL_DEPTH
from tfgad.errors import UsageError
from tfgad.export.saved_model import METADATA
from tfgad.scores.calibration import LARGEST_PROBABILITY
from tfgad.scores.cue_weights import SETTING


def saved_model_metadata(folder: Path) -> dict[str, Any]:
    """Returns the metadata that `tfgad.export.saved_model` wrote beside a SavedModel.

    Raises:
        UsageError: another program exported it, or a value is none that tfgad writes.
    """
    metadata = files.read_object(folder / METADATA)
    if metadata is None or not metadata.keys() >= REQUIRED.keys():
        problem = f"has no {METADATA} that can be read"
        raise UsageError("model", folder, problem, "give one that `tfgad export` wrote")
    if wrong := wrong_key(metadata):
        problem = f"has a {METADATA} with a wrong value of {wrong}"
        raise UsageError("model", folder, problem, "restore the file, or export the run again")
    return metadata


def wrong_key(metadata: Mapping[str, Any]) -> str | None:
    """Returns the first key whose value has not the type and range that an export writes.

    Args:
        metadata: with the keys of `REQUIRED` at least.
    """
    checks = {**REQUIRED, **OPTIONAL}
    wrong = (key for key in metadata.keys() & checks.keys() if not checks[key](metadata[key]))
    return min(wrong, default=None) or ("ignored" if _has_wrong_region(metadata) else None)


def is_number(value: object) -> bool:
    """Returns whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # not even an integer that no float holds


def is_size(value: object, axes: int) -> bool:
    """Returns whether a value is a list of lengths in pixels."""
    return isinstance(value, list) and len(value) == axes and all(map(_is_length, value))


def _is_length(value: object) -> bool:
    return type(value) is int and value > 0


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_depth(value: object) -> bool:
    return value is None or (type(value) is int and 8 <= value <= FULL_DEPTH)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len({*value}) == len(value)


def _are_thresholds(value: object) -> bool:
    """Returns whether a value is a list of pairs: a false-positive rate and its threshold."""
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) for pair in value
    )


def _is_probability(value: object, least: float = 0.0) -> bool:
    return isinstance(value, int | float) and is_number(value) and least <= value <= 1


def _has_wrong_region(metadata: Mapping[str, Any]) -> bool:
    """Returns whether the ignored region is damaged, or of another size than the images."""
    entry = metadata.get("ignored")
    if not entry:
        return False
    if not (isinstance(entry, dict) and _is_text(entry.get("region"))):
        return True
    try:
        region = of_config(metadata)
    except UsageError:
        return True
    return region is None or list(region.shape) != metadata["image_shape"][:2]


# Key -> whether its value is one that an export writes. Every export has the first ones.
REQUIRED: dict[str, Callable[[Any], bool]] = {
    "image_shape": lambda value: is_size(value, 3),
    "resized": _is_flag,
    "window": lambda value: is_size(value, 3),
    "stride": _is_length,
    "tile": lambda value: is_size(value, 2),
    "score": _is_text,
    "threshold": is_number,
    "scale": lambda value: is_number(value) and value > 0,
}
OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "depth": _is_depth,
    "fit": lambda value: value in FITS,
    "products": _are_names,
    "by_block": _is_flag,
    SETTING: _is_text,
    "false_positive_rate": _is_probability,
    "thresholds": _are_thresholds,
    LARGEST_PROBABILITY: lambda value: _is_probability(value, 0.5),
    **dict.fromkeys(("images", "versions", "calibration"), _is_object),
}
