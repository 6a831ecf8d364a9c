"""The parts of the page as HTML."""

import re
from pathlib import Path

import numpy as np
import pytest

from tfgad.data.image_files import ImageError
from tfgad.inference.scoring import Verdict
from tfgad.scores.verdicts import NOT_SCORED
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
        scale=0.5,
    )


def words_of(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_headline_shows_verdict_and_numbers():
    assert words_of(viewer.headline(verdict_of(), threshold=1.0, scale=0.5)) == (
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


def test_names_and_reasons_are_escaped():
    for result in (verdict_of(name="<b>&.png"), ImageError("<b>&.png", "is <i>")):
        page = viewer.headline(result, 1.0, 1.0)
        assert "&lt;b&gt;&amp;.png" in page
        assert "<b>&" not in page
        assert "<i>" not in page.replace("<i class", "")
    metadata = {"image_shape": [8, 8, 3], "resized": True, "method": "<m>", "data": "<d>"}
    assert "&lt;m&gt; on &lt;d&gt;" in viewer.model(metadata)
    assert "&lt;x&gt;" in viewer.no_rates("<x>")


def test_a_file_that_was_not_scored_shows_the_reason():
    page = viewer.headline(ImageError("a.png", "is empty"), 1.0, 1.0)
    assert NOT_SCORED in page
    assert "Is empty." in page


def test_a_strip_takes_the_whole_width():
    assert 'class="tfgad strip"' in viewer.pictures(verdict_of(shape=(20, 300, 1)))
    assert 'class="tfgad"' in viewer.pictures(verdict_of(shape=(300, 20, 1)))


def test_the_legend_goes_from_the_threshold_to_the_end_of_the_scale():
    page = viewer.pictures(verdict_of(score=4.0))
    assert "<span>1</span>" in page
    assert "<span>4</span>" in page  # 6 scales of 0.5
    assert "Nothing is above the threshold" in viewer.pictures(verdict_of(score=0.5))


def test_regions_have_boxes_and_rows():
    verdict = verdict_of(score=4.0)
    verdict.map[20:23, 7:12] = 2
    page = viewer.pictures(verdict)
    assert '<rect x="7" y="20" width="5" height="3"/>' in page
    assert '<rect x="5" y="5" width="1" height="1"/>' in page
    assert "1 7, 20 5 × 3 15 2 2 5, 5 1 × 1 1 4" in words_of(page)
    assert "<rect" not in viewer.pictures(verdict_of(score=0.5))


def test_regions_that_are_not_shown_are_counted():
    verdict = verdict_of(shape=(40, 60, 1))
    verdict.map[:] = 0
    verdict.map[::2, ::2] = 3  # 600 regions of a pixel
    page = viewer.pictures(verdict)
    assert page.count("<rect") == 64
    words = "600 regions are above the threshold: the 8 largest are listed, 64 have a box."
    assert words in words_of(page)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"data": "folder:/home/me/parts?size=256", "method": "vae"}, "vae on folder:parts"),
        ({"data": "folder:/x", "method": "vae", "name": "lids"}, "vae on lids"),
        ({"data": "mnist:7+8"}, "mnist:7+8"),
        ({}, "a model"),
    ],
)
def test_a_model_is_named_by_its_product(metadata, expected):
    page = words_of(viewer.model({**metadata, "image_shape": [8, 8, 1], "resized": True}))
    assert page.startswith(f"{expected} Resizes")


def test_a_reduced_picture_has_a_note(monkeypatch):
    assert "Shown at" not in viewer.pictures(verdict_of())
    monkeypatch.setattr(pictures, "SHOWN_PIXELS", 600)
    assert "Shown at 1/2 of its size" in viewer.pictures(verdict_of())


def test_summary_counts_verdicts():
    rows = [{"verdict": each} for each in ("good", "defective", "good", NOT_SCORED)]
    assert words_of(viewer.summary(rows, expected=4)) == f"2 good · 1 defective · 1 {NOT_SCORED}"
    assert "scoring 5 of 9" in viewer.summary(rows, expected=9)
