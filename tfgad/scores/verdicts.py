"""The words for a verdict, in every table."""

from __future__ import annotations

GOOD, DEFECTIVE, NOT_SCORED = "good", "defective", "not scored"


def verdict_name(is_anomalous: bool) -> str:
    """Returns the verdict of an image, or its true label, as tables name it."""
    return DEFECTIVE if is_anomalous else GOOD
