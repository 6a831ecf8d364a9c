"""The scores that a model gives while it is served: their histogram, and the test for drift."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import numpy as np

from tfgad.scores.drift import LEVELS, UNTESTED, CalibrationScores, Comparison, DriftTest, too_few

log = logging.getLogger(__name__)

SCORE, MAP, VERDICT = "score", "map", "is_anomalous"  # outputs of the model
DECILES = np.isclose(LEVELS * 10 % 1, 0) | np.isclose(LEVELS * 10 % 1, 1)


class ScoreWatch:
    """The scores of one version of a model, in the order in which they are computed.

    Any thread may call it.

    Args:
        name: name of the model, for the log.
        calibration: what the model stores of its calibration scores; None if it stores nothing.
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
        self._test: DriftTest | None = None
        edges = [threshold]
        untested = UNTESTED
        if calibration is not None:
            edges += list(calibration.quantiles[DECILES])
            untested = too_few(calibration)
            self._test = None if untested else DriftTest(calibration)
        if untested:
            log.info("%s: %s", name, untested)
        self._edges = np.unique(edges)
        self._counts = np.zeros(len(self._edges) + 1, np.int64)
        self._sum = 0.0
        self._good = self._defective = 0

    def add(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Reads the outputs of a run, which may have no scores and no verdicts."""
        scores = np.asarray(outputs.get(SCORE, ()), np.float64).ravel()
        scores = scores[np.isfinite(scores)]
        verdicts = np.asarray(outputs.get(VERDICT, ()), bool).ravel()
        with self._lock:
            self._defective += int(verdicts.sum())
            self._good += int(verdicts.size - verdicts.sum())
            np.add.at(self._counts, np.searchsorted(self._edges, scores), 1)
            self._sum += float(scores.sum())
            if self._test is None or not self._is_alike(outputs):
                return
            before = self._test.drift
            self._test.add(scores)
            after = self._test.drift
        if after and not before:
            log.warning("%s: %s", self._name, after.advice("the last"))
        elif before and not after:
            log.info("%s: the scores are like those of calibration again", self._name)

    def _is_alike(self, outputs: Mapping[str, np.ndarray]) -> bool:
        """Returns whether the images of a run have the size of those of calibration.

        Without a map their size is unknown.
        """
        return self._size is None or (MAP in outputs and outputs[MAP].shape[1:3] == self._size)

    @property
    def drift(self) -> Comparison | None:
        """What shows drift at present; None if nothing does."""
        with self._lock:
            return self._test.drift if self._test else None

    @property
    def rank(self) -> float | None:
        """The mean rank of the most recent scores, or None; see `DriftTest.rank`."""
        with self._lock:
            return self._test.rank if self._test else None

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
