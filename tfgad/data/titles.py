"""What titles call a model's product."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def product_name(metadata: Mapping[str, Any]) -> str:
    """Returns the name of a model's product; without one, its data set.

    Of a folder that is its own name: where it lies on the machine of the training, and how its
    images were read, mean nothing to others.

    Args:
        metadata: of a run or an exported model; both `name` and `data` may be missing.
    """
    if metadata.get("name"):
        return str(metadata["name"])
    data = str(metadata.get("data", ""))
    if not data.startswith("folder:"):
        return data
    return f"folder:{PurePath(data.removeprefix('folder:').partition('?')[0]).name}"
