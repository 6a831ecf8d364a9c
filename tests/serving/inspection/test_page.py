"""The event handlers of the page, without a browser."""

import csv
import importlib
import os
import re
import shutil
import sys

import pytest

from tfgad.errors import UsageError
from tfgad.scores.calibration import RATES
from tfgad.scores.verdicts import NOT_SCORED
from tfgad.serving.errors import ServingError
from tfgad.serving.inspection import batch as batch_module
from tfgad.serving.inspection.style import style_element
from tfgad.serving.inspection.thresholds import thresholds_of

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'tfgad[serve]'")

from tfgad.serving.inspection import page as module  # noqa: E402  # it needs gradio
from tfgad.serving.inspection.handlers import Handlers  # noqa: E402
from tfgad.serving.inspection.layout import Layout  # noqa: E402
from tfgad.serving.inspection.uploads import Uploads  # noqa: E402

from .conftest import OWN_RATE  # noqa: E402


@pytest.fixture
def page(models):
    """The handlers of a page."""
    with gradio.Blocks(analytics_enabled=False):
        return Handlers(Layout(), models, Uploads())


NAMES = ("good.png", "broken.png", "noise.png")


@pytest.fixture
def files(page, paths):
    """Gradio's description of uploaded files."""
    return [
        {"path": shutil.copy(paths[name], page.uploads.folder), "orig_name": name} for name in NAMES
    ]


@pytest.fixture
def batch(page, files):
    """The files, scored."""
    first, *_ = list(page.score(files, "fabric", OWN_RATE))
    return first[page.layout.batch]


def verdicts(shown, page):
    return [row[2].split(">")[1].split("<")[0] for row in shown[page.layout.table]]


def names(shown, page):
    return [row[1] for row in shown[page.layout.table]]


def test_files_are_shown_one_after_another(page, files):
    started, first, reconstruction, second, third, last = page.score(files, "fabric", OWN_RATE)
    assert "Scoring 1 of 3" in started[page.layout.headline]
    assert started[page.layout.summary] == ""
    assert "good.png" in first[page.layout.headline]
    assert "scoring 2 of 3" in first[page.layout.summary]
    assert "data:image/png" in reconstruction[page.layout.reconstruction]
    assert page.layout.headline not in second  # what was selected meanwhile stays
    assert names(third, page) == list(NAMES)
    assert verdicts(third, page) == ["good", NOT_SCORED, "defective"]
    assert third[page.layout.table][1][3:] == [None, "", "is not a PNG, JPEG, BMP, TIFF or WebP"]
    assert "scoring" not in third[page.layout.summary]
    assert names(last, page) == list(NAMES)


def test_files_that_were_not_uploaded_are_not_read(page, paths, files):
    link = page.uploads.folder / "link.png"
    link.symlink_to(paths["good.png"])
    pipe = page.uploads.folder / "pipe.png"
    os.mkfifo(pipe)
    gone = page.uploads.folder / "gone.png"
    named = [paths["good.png"], link, "/dev/zero", pipe, f"{page.uploads.folder}/../x", gone]
    *_, last = page.score([{"path": str(each)} for each in named], "fabric", OWN_RATE)
    assert set(verdicts(last, page)) == {NOT_SCORED}
    reasons = [row[5] for row in last[page.layout.table]]
    strange = "is not one of the uploaded files"
    expected = [*[strange] * 3, "is no regular file", strange, "was removed from the server"]
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason


def test_no_files_clear_the_page(page):
    (shown,) = page.score([], "fabric", OWN_RATE)
    assert shown[page.layout.batch] is None
    assert "Drop images" in shown[page.layout.headline]


def test_scoring_can_be_stopped(page, files):
    scoring = page.score(files, "fabric", OWN_RATE)
    batch = next(scoring)[page.layout.batch]
    next(scoring)
    page.stop(batch)
    last = list(scoring)[-1]
    assert names(last, page) == ["good.png"]
    assert "scoring" not in last[page.layout.summary]


def test_a_replaced_batch_ends_without_results(page, files):
    scoring = page.score(files, "fabric", OWN_RATE)
    batch = next(scoring)[page.layout.batch]
    page.replace(batch)
    assert list(scoring) == []
    assert len(batch) == 1
    page.replace(None)


def test_the_rate_can_be_changed_while_scoring(page, files):
    scoring = page.score(files, "fabric", OWN_RATE)
    batch = next(scoring)[page.layout.batch]
    (line,) = page.change_rate(batch, 0, "fabric").values()  # nothing is scored yet
    assert "<b>0.01 %</b>" in line
    list(scoring)
    assert batch.threshold == thresholds_of(batch.metadata)[0.0001]


def test_the_rate_changes_verdicts_and_table(page, batch):
    thresholds = list(thresholds_of(batch.metadata).values())
    for rate, words in (
        (len(RATES) - 1, "<b>20 %</b>"),
        (OWN_RATE, "as exported"),
        (0, "<b>0.01 %</b>"),
    ):
        shown = page.change_rate(batch, rate, "fabric")
        assert words in shown[page.layout.rate_line]
        assert f"threshold {thresholds[rate]:.4g}" in shown[page.layout.rate_line]
        expected = [
            NOT_SCORED
            if index == 1
            else "defective"
            if batch.results[index].score > thresholds[rate]
            else "good"
            for index in range(3)
        ]
        assert verdicts(shown, page) == expected
        assert f">{expected[0]}<" in shown[page.layout.headline]
        with open(shown[page.layout.csv], newline="") as file:
            table = list(csv.DictReader(file))
        assert [row["verdict"] for row in table] == expected


def test_the_rate_can_be_changed_before_scoring(page):
    (shown,) = page.change_rate(None, 0, "fabric").values()
    assert "<b>0.01 %</b>" in shown
    assert page.change_rate(None, 0, None) == {}


def test_a_row_selects_the_image_by_its_number(page, batch):
    """Sorting the table changes the order of the rows, but not their numbers."""
    row = {"index": [0, 1], "value": "noise.png", "row_value": [3, "noise.png"]}
    shown = page.select(batch, gradio.SelectData(None, row))
    assert batch.shown == 2
    assert "noise.png" in shown[page.layout.headline]
    broken = {**row, "row_value": ["2", "broken.png"]}
    shown = page.select(batch, gradio.SelectData(None, broken))
    assert shown[page.layout.pictures] == ""
    assert page.reconstruct(batch) == ""


class Visitor:
    """The part of gradio's request that identifies the visitor."""

    def __init__(self, name):
        self.session_hash = name


def scored_for(page, files, name):
    started, *_ = page.score(files, "fabric", OWN_RATE, Visitor(name))
    return started[page.layout.batch]


def test_removed_pictures_are_reported(page, files, monkeypatch):
    monkeypatch.setattr(batch_module, "MAX_OPEN_BATCHES", 1)
    first, second = scored_for(page, files, "a"), scored_for(page, files, "b")
    row = {"index": [2, 1], "value": "noise.png", "row_value": [3, "noise.png"]}
    selected = gradio.SelectData(None, row)
    shown = page.select(first, selected)
    assert "Score the files again" in shown[page.layout.pictures]
    assert "noise.png" in shown[page.layout.headline]
    assert "70 × 60" in shown[page.layout.headline]
    assert page.reconstruct(first) == ""
    shown = page.change_rate(first, 0, "fabric")
    assert "Score the files again" in shown[page.layout.pictures]
    assert names(shown, page) == list(NAMES)
    assert "data:image/png" in page.select(second, selected)[page.layout.pictures]
    assert "data:image/png" in page.reconstruct(second)


def test_pictures_are_freed_when_the_visitor_leaves(page, files):
    first, second = scored_for(page, files, "a"), scored_for(page, files, "b")
    page.leave(Visitor("a"))
    assert (first.bytes, second.bytes > 0) == (0, True)
    list(page.score([], "fabric", OWN_RATE, Visitor("b")))
    assert second.bytes == 0


def test_a_method_without_reconstruction_is_reported(page, batch, monkeypatch):
    monkeypatch.setattr(batch, "reconstructs", False)
    assert "ganomaly makes no reconstructions" in page.reconstruct(batch)
    assert page.reconstruct(None) == ""


def test_a_model_has_rates_and_examples(page):
    shown = page.show_model("fabric")
    assert "ganomaly on weave:plain?size=48" in shown[page.layout.metadata]
    slider = shown[page.layout.rate]
    assert (slider["maximum"], slider["value"], slider["interactive"]) == (33, OWN_RATE, True)
    assert len(shown[page.layout.gallery]["value"]) == 8
    selected = gradio.SelectData(None, {"index": 2, "value": None})
    taken = page.take_example("fabric", selected)[page.layout.files]
    assert [path.rsplit("_")[-1] for path in taken] == ["hole.png"]
    assert page.take_examples("fabric")[2] == taken[0]


def test_an_older_model_has_a_fixed_rate(page, predictor, monkeypatch):
    older = {key: value for key, value in predictor.metadata.items() if key != "thresholds"}
    monkeypatch.setattr(predictor, "metadata", older)
    shown = page.show_model("fabric")
    assert shown[page.layout.rate]["interactive"] is False
    assert "tfgad calibrate" in shown[page.layout.rate_line]


def test_the_models_in_service_are_listed(page, models, predictor, monkeypatch):
    monkeypatch.setattr(models, "predictors", {})
    shown = page.list_models(None)
    assert shown[page.layout.model] == gradio.update(choices=[], value=None)
    assert "No model is in service" in shown[page.layout.headline]
    assert page.show_model(None) == {page.layout.metadata: ""}
    monkeypatch.setattr(models, "predictors", {"a": predictor, "b": predictor})
    assert page.list_models("b")[page.layout.model] == gradio.update(choices=["a", "b"], value="b")
    assert page.list_models("gone")[page.layout.model] == gradio.update(
        choices=["a", "b"], value="a"
    )


def test_a_model_that_is_not_in_service_is_reported(page, models, monkeypatch):
    def fail(_):
        raise ServingError("NOT_FOUND", "no version of it is in service")

    monkeypatch.setattr(models, "predictor", fail)
    with pytest.raises(gradio.Error, match="no version of it"):
        page.show_model("fabric")


def test_the_page_needs_no_network(models):
    blocks = module.build(models)
    assert not blocks.analytics_enabled
    looks = module.theme()._get_theme_css() + style_element()
    assert set(re.findall(r"url\(.?(\w+)", looks)) <= {"data"}
    assert "@import" not in looks
    assert set(re.findall(r"https?://[\w.]+", looks)) == {"http://www.w3.org"}  # of SVG
    assert module.theme()._stylesheets == []


def test_without_gradio_the_error_has_a_hint(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tfgad.serving.inspection.page")
    with pytest.raises(UsageError, match=r"pip install 'tfgad\[serve\]'"):
        importlib.import_module("tfgad.serving.inspection.page")
