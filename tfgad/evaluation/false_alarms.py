"""False alarms at the threshold, beside the rate that it was set for.

The interval of a rate counts groups of images, as that of the threshold itself does; see
`tfgad.scores.rate_interval`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfgad.scores.rate_interval import rate_interval

MORE, FEWER, AS_ASKED = "more", "fewer", "as asked"


def rate_found(
    scores: np.ndarray,
    outside: np.ndarray,
    groups: np.ndarray | None,
    threshold: float,
    asked: float,
) -> dict[str, Any]:
    """Returns the false-positive rate of normal images, with its interval.

    Args:
        scores: float `[N]`, of normal images or tiles.
        outside: bool `[N]`, of those that are called anomalous whatever their score.
        groups: `[N]`, the group of each; None if each has its own.
        threshold: a score.
        asked: the rate that the threshold was set for, in (0, 1).

    Returns:
        `normal`, their number; `groups`, that of their groups; `false_positive_rate`, its 95 %
        `interval`, and `verdict`: `"more"` or `"fewer"` false alarms than asked for, if the
        interval does not hold that rate, else `"as asked"`. Without images, the last three are
        None.
    """
    if not len(scores):
        unknown = dict.fromkeys(("false_positive_rate", "interval", "verdict"))
        return {"normal": 0, "groups": 0, **unknown}
    scores = np.where(outside, np.inf, np.asarray(scores, np.float64))
    interval = rate_interval(scores, groups, threshold, asked)
    verdict = MORE if asked < interval.low else FEWER if asked > interval.high else AS_ASKED
    return {
        "normal": len(scores),
        "groups": interval.groups,
        "false_positive_rate": float(np.mean(scores > threshold)),
        "interval": [interval.low, interval.high],
        "verdict": verdict,
    }


def sentence(found: Mapping[str, Mapping[str, Any]], asked: float, per: str) -> str:
    """Returns the rates found beside the one asked for, as one line.

    Args:
        found: `"tile"` or `"image"` -> what `rate_found` returns of them.
        asked: the rate that the threshold was set for.
        per: which of them it is a share of.
    """
    own = found[per]
    if own["false_positive_rate"] is None:
        return f"false alarms: unknown, for there is no good {per}"
    start = {
        MORE: "more false alarms than asked for",
        FEWER: "fewer false alarms than asked for",
        AS_ASKED: "false alarms",
    }[own["verdict"]]
    whole = {"image": "whole image", "tile": "tile"}
    others = [
        f"; {_rate(other, whole[unit])}"
        for unit, other in found.items()
        if unit != per and other["false_positive_rate"] is not None
    ]
    return f"{start}: asked {asked:g}, found {_rate(own, per)}{''.join(others)}"


def _rate(found: Mapping[str, Any], unit: str) -> str:
    low, high = found["interval"]
    groups = f" in {found['groups']} groups" if found["groups"] < found["normal"] else ""
    rate = f"{found['false_positive_rate']:.2g} [{low:.2g}, {high:.2g}]"
    return f"{rate} of {found['normal']} good {unit}s{groups}"
