"""The scores that a model gives while it is served: their histogram, and the tests for drift."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import numpy as np

from tfgad.scores.drift import (
    BRIGHTNESS,
    LEVELS,
    SCORE,
    UNTESTED,
    UNTESTED_BRIGHTNESS,
    CalibrationScores,
    Comparison,
    DriftTest,
    Quantity,
    advice,
    too_few,
)

log = logging.getLogger(__name__)

MAP, VERDICT = "map", "is_anomalous"  # outputs of the model, beside score and brightness
DECILES = np.isclose(LEVELS * 10 % 1, 0) | np.isclose(LEVELS * 10 % 1, 1)


class ScoreWatch:
    """The scores of one version of a model, and the brightness of its images, as they come.

    Any thread may call it.

    Args:
        name: name of the model, for the log.
        calibration: what the model stores of its calibration images; None if it stores nothing.
        threshold: of the model.
        size: height and width of the images that are tested; None for any.
    """

    def __init__(
        self,
        name: str,
        calibration: CalibrationScores | None,
        threshold: float,
        size: tuple[int, int] | None = None,
    ):
        self._name, self._size, self._lock = name, size, threading.Lock()
        self._tests: dict[Quantity, DriftTest] = {}
        edges = [threshold]
        untested = UNTESTED
        if calibration is not None:
            edges += list(calibration.quantiles[DECILES])
            untested = too_few(calibration)
            tested = () if untested else calibration.tested()
            self._tests = {each: DriftTest(calibration, each) for each in tested}
        if untested:
            log.info("%s: %s", name, untested)
        elif BRIGHTNESS not in self._tests:
            log.info("%s: %s", name, UNTESTED_BRIGHTNESS)
        self._edges = np.unique(edges)
        self._counts = np.zeros(len(self._edges) + 1, np.int64)
        self._sum = 0.0
        self._good = self._defective = 0

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Reads the outputs of a run, which may have no scores and no verdicts."""
        scores = _finite(outputs, SCORE)
        verdicts = np.asarray(outputs.get(VERDICT, ()), bool).ravel()
        with self._lock:
            self._defective += int(verdicts.sum())
            self._good += int(verdicts.size - verdicts.sum())
            np.add.at(self._counts, np.searchsorted(self._edges, scores), 1)
            self._sum += float(scores.sum())
            if not self._is_alike(outputs):
                return
            changes = []
            for quantity, test in self._tests.items():
                before = test.drift
                test.add(scores if quantity is SCORE else _finite(outputs, BRIGHTNESS))
                changes.append((quantity.name, before, test.drift))
        for name, before, after in changes:
            if after and not before:
                log.warning("%s: %s", self._name, advice([after], "the last"))
            elif before and not after:
                log.info("%s: the %s is like that of calibration again", self._name, name)

    def _is_alike(self, outputs: Mapping[str, np.ndarray]) -> bool:
        """Returns whether the images of a run have the size of those of calibration.

        Without a map their size is unknown.
        """
        return self._size is None or (MAP in outputs and outputs[MAP].shape[1:3] == self._size)

    @property
    def drifts(self) -> list[Comparison]:
        """What shows drift at present: scores, brightness, both or none."""
        with self._lock:
            found = [test.drift for test in self._tests.values()]
        return [each for each in found if each is not None]

    def rank(self, quantity: Quantity) -> float | None:
        """The mean rank of the most recent values, or None; see `DriftTest.rank`."""
        with self._lock:
            return self._tests[quantity].rank if quantity in self._tests else None

    def verdicts(self) -> dict[str, int]:
        """Returns the numbers of images that were called good and defective."""
        with self._lock:
            return {"good": self._good, "defective": self._defective}

    def histogram(self) -> tuple[list[tuple[str, float]], float]:
        """Returns the numbers of scores up to each edge, as Prometheus has them, and their sum."""
        with self._lock:
            counts, total = np.cumsum(self._counts), self._sum
        names = [*(f"{edge:.6g}" for edge in self._edges), "+Inf"]
        return list(zip(names, map(float, counts), strict=True)), total


def _finite(outputs: Mapping[str, np.ndarray], quantity: Quantity) -> np.ndarray:
    """Returns the finite values of a quantity among the outputs of a model, float64 `[N]`."""
    values = np.asarray(outputs.get(quantity.name, ()), np.float64).ravel()
    return values[np.isfinite(values)]
