"""The inspection page says when scores have drifted."""

import numpy as np
import pytest

pytest.importorskip("gradio")

from tfgad.inference.scoring import Verdict
from tfgad.scores.drift import CalibrationScores
from tfgad.serving.inspection import page, viewer
from tfgad.serving.inspection.batch import Batch

from .conftest import Models

TEXT = "the scores of the last 25 images are lower than in calibration"


class Drifted(Models):
    """Models in service whose requests have drifted."""

    def drift(self, name):
        return TEXT


def metadata_of(models):
    """The lines about a model on the page."""
    layout, handlers = parts_of(models)
    return handlers.show_model("fabric")[layout.metadata]


def parts_of(models):
    """Layout and handlers of a page."""
    with page.gradio.Blocks():
        layout = page.Layout()
        return layout, page.Handlers(layout, models, page.Uploads())


@pytest.fixture
def batch(predictor, tmp_path):
    """A function that returns a batch with the verdicts of some scores."""

    def scored(scores):
        batch = Batch("fabric", predictor, folder=tmp_path)
        blank = np.zeros((48, 48), np.float32)
        for number, score in enumerate(scores):
            name = tmp_path / f"{number}.png"
            batch.results.append(
                Verdict(name, blank[..., None], score, 0.1, False, blank, None, 1.0)
            )
        return batch

    return scored


def test_a_notice_is_a_sentence_that_escapes_html():
    assert '<p class="notice" role="status">Lower &lt;b&gt;.</p>' in viewer.notice("lower <b>")
    assert viewer.notice("") == ""


def test_the_drift_of_requests_stands_beside_the_model(predictor):
    assert TEXT[1:] in metadata_of(Drifted({"fabric": predictor}))
    assert "notice" not in metadata_of(Models({"fabric": predictor}))


def test_files_unlike_calibration_are_told_below_their_number(batch, predictor, models):
    layout, handlers = parts_of(models)
    low = float(predictor.calibration_scores.quantiles[0]) - 1
    scored = batch([low] * 60)
    said = handlers._table(scored)[layout.summary]
    assert "scores of these 60 images are lower than in calibration" in said
    assert "notice" not in handlers._table(scored, expected=61)[layout.summary]  # not yet all
    assert "notice" not in handlers._table(batch([low] * 10))[layout.summary]


def test_files_of_another_size_are_told_not_to_be_tested(batch, monkeypatch):
    scored = batch([9.0] * 60)
    monkeypatch.setattr(scored, "_calibrated_size", (64, 64))
    assert scored.drift().startswith("no drift test: fewer than 25 images have 64 x 64 pixels")


def test_nothing_is_said_of_a_model_that_knows_no_calibration_scores(batch, monkeypatch):
    scored = batch([9.0] * 60)
    monkeypatch.setattr(scored, "_calibration_scores", None)
    assert scored.drift() == ""
    seen = CalibrationScores.of(np.linspace(8, 10, 50))
    monkeypatch.setattr(scored, "_calibration_scores", seen)
    assert scored.drift() == ""
