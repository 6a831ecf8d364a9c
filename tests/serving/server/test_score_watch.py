"""The scores of served models: histogram, drift, and their metrics."""

import logging
import re

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving")
pytest.importorskip("prometheus_client")

from tfgad.scores.drift import CalibrationScores
from tfgad.serving.server.batching import Batching
from tfgad.serving.server.image_sizes import Rows
from tfgad.serving.server.limits import Admission
from tfgad.serving.server.metrics import Metrics
from tfgad.serving.server.score_watch import ScoreWatch
from tfgad.serving.server.servable import Servable

from .conftest import Models

NORMAL = np.linspace(1, 2, 101)


@pytest.fixture
def watch():
    return ScoreWatch("parts", CalibrationScores.of(NORMAL), threshold=1.95)


def page_of(**watches):
    """The metrics of models as text."""
    metrics = Metrics(Admission(4))
    metrics.observe_models(Models(**watches))
    return metrics.page().decode()


def values_of(page):
    """The samples by name and labels."""
    return dict(re.findall(r"^(tfgad_serving_score\S*) (\S+)$", page, re.MULTILINE))


def test_histogram_has_deciles_and_threshold_as_edges(watch):
    watch.add({"score": np.array([0.5, 1.0, 1.05, 1.92, 1.97, 3.0])})
    buckets, total = watch.histogram()
    edges = [name for name, _ in buckets]
    assert edges == ["1", *(f"1.{i}" for i in range(1, 10)), "1.95", "2", "+Inf"]
    assert [count for _, count in buckets] == [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 5, 6]
    assert total == pytest.approx(9.44)


def test_images_are_counted_by_verdict(watch):
    watch.add({"score": np.array([1.0, 3.0, 1.9]), "is_anomalous": np.array([False, True, False])})
    watch.add({"score": np.array([np.nan]), "is_anomalous": np.array([True])})
    watch.add({"reconstruction": np.zeros((2, 4, 4, 1))})
    page = page_of(parts=watch)
    assert 'tfgad_serving_images_total{model="parts",verdict="good"} 2.0' in page
    assert 'tfgad_serving_images_total{model="parts",verdict="defective"} 2.0' in page


def test_metrics_of_a_model_without_drift(watch):
    watch.add({"score": np.random.default_rng(0).uniform(1, 2, 200)})
    page = page_of(parts=watch)
    for name in ("score", "score_drift", "score_rank"):
        assert f"# HELP tfgad_serving_{name} " in page
    assert "# TYPE tfgad_serving_score histogram" in page
    values = values_of(page)
    assert values['tfgad_serving_score_drift{model="parts"}'] == "0.0"
    assert 0.3 < float(values['tfgad_serving_score_rank{model="parts"}']) < 0.7
    assert values['tfgad_serving_score_count{model="parts"}'] == "200.0"
    tenth = [float(values[f'tfgad_serving_score_bucket{{le="1.{i}",model="parts"}}']) for i in "15"]
    assert tenth == pytest.approx([20, 100], abs=15)


def test_metrics_and_log_of_a_model_with_drift(watch, caplog):
    caplog.set_level(logging.INFO, "tfgad")
    for _ in range(12):
        watch.add({"score": np.full(5, 1.1)})
    values = values_of(page_of(parts=watch))
    assert values['tfgad_serving_score_drift{model="parts"}'] == "1.0"
    assert float(values['tfgad_serving_score_rank{model="parts"}']) == pytest.approx(
        0.104, abs=0.01
    )
    assert [each.images for each in watch.drifts] == [25]
    (line,) = caplog.messages  # once, though all further tests show it
    assert line.startswith("parts: the scores of the last 25 images are lower than in calibration")
    watch.add({"score": np.random.default_rng(0).uniform(1, 2, 500)})
    assert caplog.messages[1:] == ["parts: the score is like that of calibration again"]
    assert values_of(page_of(parts=watch))['tfgad_serving_score_drift{model="parts"}'] == "0.0"


def test_what_was_not_compared_does_not_look_healthy():
    """Neither images of another size than those of calibration, nor answers without a map."""
    watch = ScoreWatch("parts", CalibrationScores.of(NORMAL), 1.95, size=(4, 6))
    watch.add({"score": np.full(100, 1.5), "map": np.zeros((100, 8, 6))})
    watch.add({"score": np.full(100, 1.5)})
    watch.add({"score": np.full(24, 1.5), "map": np.zeros((24, 4, 6))})
    assert not [name for name in values_of(page_of(parts=watch)) if re.search("drift|rank", name)]
    watch.add({"score": np.full(1, 1.5), "map": np.zeros((1, 4, 6))})
    values = values_of(page_of(parts=watch))
    assert values['tfgad_serving_score_drift{model="parts"}'] == "0.0"
    assert float(values['tfgad_serving_score_rank{model="parts"}']) == pytest.approx(0.5, abs=0.01)


def test_a_dimmed_lamp_is_noticed_though_the_scores_are_alike(caplog):
    levels = np.linspace(95, 105, 101)
    watch = ScoreWatch("parts", CalibrationScores.of(NORMAL, brightness=levels), threshold=1.95)
    for _ in range(12):
        watch.add({"score": NORMAL[::20], "brightness": 0.8 * levels[::20]})
    page = page_of(parts=watch)
    assert 'tfgad_serving_brightness_drift{model="parts"} 1.0' in page
    assert 'tfgad_serving_brightness_rank{model="parts"} 0.0' in page
    assert 'tfgad_serving_score_drift{model="parts"} 0.0' in page
    assert caplog.messages == [
        "parts: the last 25 images are darker than in calibration (p < 0.0005): unless more than "
        "5% are defective, check light, focus and exposure, then calibrate again"
    ]


def test_a_model_of_before_has_a_histogram_and_no_drift(caplog):
    caplog.set_level(logging.INFO, "tfgad")
    earlier = ScoreWatch("parts", None, threshold=1.95)
    assert caplog.messages[0].startswith("parts: no drift test: the model was calibrated before")
    earlier.add({"score": np.full(60, 9.0)})
    assert earlier.drifts == []
    page = page_of(parts=earlier, foreign=None)
    assert "tfgad_serving_score_drift{" not in page
    assert values_of(page)['tfgad_serving_score_bucket{le="1.95",model="parts"}'] == "0.0"
    assert values_of(page)['tfgad_serving_score_bucket{le="+Inf",model="parts"}'] == "60.0"
    assert not any("foreign" in name for name in values_of(page))


def test_outputs_without_scores_and_broken_scores_are_left_out(watch):
    watch.add({"reconstruction": np.zeros((2, 4, 4, 1))})
    watch.add({"score": np.array([np.nan, np.inf, 1.5])})
    assert watch.histogram()[0][-1] == ("+Inf", 1)


def test_images_of_another_size_are_counted_and_not_tested():
    watch = ScoreWatch("parts", CalibrationScores.of(NORMAL), 1.95, size=(4, 6))
    watch.add({"score": np.full(100, 9.0), "map": np.zeros((100, 8, 6))})
    assert watch.drifts == []
    assert watch.histogram()[0][-1] == ("+Inf", 100)
    watch.add({"score": np.full(100, 9.0), "map": np.zeros((100, 4, 6))})
    assert [each.images for each in watch.drifts] == [25]


def test_a_loaded_version_counts_the_scores_of_requests_and_not_of_its_warm_up(
    models_folder, load_once, pictures
):
    servable = Servable("native", 1, models_folder / "native" / "1", Batching())
    assert servable.scores.histogram()[0][-1][1] == 0
    signature = servable.signature("")
    answer = servable.submit(signature, {"images": pictures}, Rows(len(pictures), 48 * 48, None))
    scores = answer.result()["score"]
    buckets, total = servable.scores.histogram()
    assert buckets[-1] == ("+Inf", len(pictures))
    assert total == pytest.approx(float(scores.sum()), rel=1e-5)
    servable.close()
