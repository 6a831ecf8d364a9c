"""Thresholds of a model at several false-positive rates, and verdicts at another threshold."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfgad.inference.scoring import Verdict
from tfgad.scores.calibration import LARGEST_PROBABILITY, decide


def thresholds_of(metadata: dict[str, Any]) -> dict[float, float]:
    """Returns false-positive rate -> threshold in order, including the model's own rate.

    Empty if the model was exported without, by an earlier version of tfgad.
    """
    if not metadata.get("thresholds"):
        return {}
    known = {rate: threshold for rate, threshold in metadata["thresholds"]}
    return dict(sorted({**known, metadata["false_positive_rate"]: metadata["threshold"]}.items()))


def rate_at(metadata: dict[str, Any], position: int) -> float | None:
    """Returns the false-positive rate at a position of the slider; None if the model has none."""
    rates = list(thresholds_of(metadata))
    return rates[_clipped(position, len(rates))] if rates else None


def threshold_at(metadata: dict[str, Any], position: int) -> float:
    """Returns the threshold at a position of the slider, or the model's own if it has no others."""
    thresholds = list(thresholds_of(metadata).values()) or [metadata["threshold"]]
    return thresholds[_clipped(position, len(thresholds))]


def at_threshold(verdict: Verdict, threshold: float, metadata: dict[str, Any]) -> Verdict:
    """Returns the verdict on an image at another threshold.

    Args:
        verdict: verdict at the model's own threshold.
        threshold: scores above it are anomalous.
        metadata: of the model.
    """
    scale, largest = metadata["scale"], metadata.get(LARGEST_PROBABILITY, 1.0)
    decision = decide(verdict.score, bool(verdict.reason), threshold, scale, largest)
    return dataclasses.replace(
        verdict,
        probability=float(decision["probability"]),
        is_anomalous=bool(decision["is_anomalous"]),
        map_threshold=None if verdict.map_threshold is None else threshold,
    )


def _clipped(position: int, count: int) -> int:
    """Returns a position of the slider, clipped to the number of values that the model has."""
    return max(0, min(int(position), count - 1))
