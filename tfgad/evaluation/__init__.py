"""Evaluation on a labelled test set: metrics, trivial detectors, report.

`predictions` scores a test set, `metrics` computes figures from labels and scores, `baselines` are
the trivial detectors, `findings` says what the figures mean, and `evaluate` does all of it for a
run and writes `metrics.json`, `report.html`, `scores.csv` and `gallery.png`.
"""

from tfgad.evaluation.evaluate_run import evaluate, written
from tfgad.evaluation.predictions import (
    TestPredictions,
    figures_of,
    predict_test_set,
    reconstructions,
)

__all__ = [
    "TestPredictions",
    "evaluate",
    "figures_of",
    "predict_test_set",
    "reconstructions",
    "written",
]
