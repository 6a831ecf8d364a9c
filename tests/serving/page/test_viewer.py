"""The page's parts in HTML."""

import re
from pathlib import Path

import numpy as np
import pytest

from tfgad.data.image_files import ImageError
from tfgad.inference.predictor import Verdict
from tfgad.serving.inspection import pictures, viewer


def verdict_of(score=2.0, threshold=1.0, shape=(40, 60, 1), name="a.png"):
    anomaly_map = np.zeros(shape[:2], "float32")
    anomaly_map[5, 5] = score
    return Verdict(
        path=Path(name),
        image=np.zeros(shape, "float32"),
        score=score,
        probability=0.75,
        is_anomalous=score > threshold,
        map=anomaly_map,
        map_threshold=threshold,
    )


def test_headline_says_verdict_and_numbers():
    words = re.sub(r"(<[^>]*>)+", " ", viewer.headline(verdict_of(), threshold=1.0, scale=0.5))
    assert words.strip() == (
        "defective a.png 60 × 40, grey score 2 threshold 1 probability 0.750 "
        "good threshold defective"
    )


@pytest.mark.parametrize(
    ("score", "place", "beyond"),
    [(1.0, "50.0", False), (2.5, "75.0", False), (-2.5, "1.0", True), (99.0, "99.0", True)],
)
def test_the_threshold_is_in_the_middle_of_the_bar(score, place, beyond):
    page = viewer.headline(verdict_of(score), threshold=1.0, scale=0.5)  # 3 units to either side
    assert f'style="left:{place}%"' in page
    assert ("beyond" in page) == beyond


def test_names_and_reasons_are_no_markup():
    for result in (verdict_of(name="<b>&.png"), ImageError("<b>&.png", "is <i>")):
        page = viewer.headline(result, 1.0, 1.0)
        assert "&lt;b&gt;&amp;.png" in page
        assert "<b>&" not in page
        assert "<i>" not in page.replace("<i class", "")
    metadata = {"image_shape": [8, 8, 3], "resized": True, "method": "<m>", "data": "<d>"}
    assert "&lt;m&gt; on &lt;d&gt;" in viewer.model_facts(metadata)
    assert "&lt;x&gt;" in viewer.no_rates("<x>")


def test_a_file_that_was_not_judged_says_why():
    page = viewer.headline(ImageError("a.png", "is empty"), 1.0, 1.0)
    assert "not judged" in page
    assert "Is empty." in page


def test_a_strip_takes_the_whole_width():
    assert 'class="tfgad strip"' in viewer.pictures(verdict_of(shape=(20, 300, 1)))
    assert 'class="tfgad"' in viewer.pictures(verdict_of(shape=(300, 20, 1)))


def test_what_the_colours_mean_stands_below_a_defective_image_only():
    page = viewer.pictures(verdict_of(score=4.0))  # median 0, threshold 1
    assert "<span>1</span>" in page
    assert "<span>2</span>" in page
    assert "Nothing to mark" in viewer.pictures(verdict_of(score=0.5))


def test_a_reduced_picture_says_so(monkeypatch):
    assert "Shown at" not in viewer.pictures(verdict_of())
    monkeypatch.setattr(pictures, "SHOWN_PIXELS", 600)
    assert "Shown at 1/2 of its size" in viewer.pictures(verdict_of())


def test_summary_counts_verdicts():
    judged = [{"verdict": each} for each in ("good", "defective", "good", "not judged")]
    words = re.sub(r"<[^>]*>", "", viewer.summary(judged, expected=4))
    assert words == "2 good · 1 defective · 1 not judged"
    assert "judging 5 of 9" in viewer.summary(judged, expected=9)
