"""What the page's components show when something happens, without a browser."""

import csv
import importlib
import os
import re
import shutil
import sys

import pytest

from tfgad.errors import UsageError
from tfgad.scores.calibration import RATES
from tfgad.serving.inspection import inspection
from tfgad.serving.inspection.inspection import thresholds_of
from tfgad.serving.inspection.page_style import CSS
from tfgad.serving.server.errors import ServingError

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'tfgad[serve]'")

from tfgad.serving.inspection import page as module  # noqa: E402  # it needs gradio
from tfgad.serving.inspection.uploads import Uploads  # noqa: E402

OWN = RATES.index(0.1)  # of the false-positive rates


@pytest.fixture
def page(models):
    page = module._Page(models, Uploads())
    with gradio.Blocks(analytics_enabled=False):
        page.lay_out()
    return page


NAMES = ("good.png", "broken.png", "noise.png")


@pytest.fixture
def files(page, paths):
    """What gradio says of files that were uploaded."""
    return [
        {"path": shutil.copy(paths[name], page.uploads.folder), "orig_name": name} for name in NAMES
    ]


@pytest.fixture
def batch(page, files):
    """The files, judged."""
    first, *_ = list(page.judge(files, "fabric", OWN))
    return first[page.batch]


def verdicts(shown, page):
    return [row[2].split(">")[1].split("<")[0] for row in shown[page.table]]


def names(shown, page):
    return [row[1] for row in shown[page.table]]


def test_files_are_shown_one_after_another(page, files):
    begun, first, rebuilt, second, third, last = page.judge(files, "fabric", OWN)
    assert "Judging 1 of 3" in begun[page.headline]
    assert begun[page.summary] == ""
    assert "good.png" in first[page.headline]
    assert "judging 2 of 3" in first[page.summary]
    assert "data:image/png" in rebuilt[page.rebuilt]
    assert page.headline not in second  # what was chosen meanwhile stays
    assert names(third, page) == list(NAMES)
    assert verdicts(third, page) == ["good", "not judged", "defective"]
    assert third[page.table][1][3:] == [None, "", "is not a PNG, JPEG, BMP, TIFF or WebP"]
    assert "judging" not in third[page.summary]
    assert names(last, page) == list(NAMES)


def test_files_of_no_visitor_are_not_read(page, paths, files):
    link = page.uploads.folder / "link.png"
    link.symlink_to(paths["good.png"])
    pipe = page.uploads.folder / "pipe.png"
    os.mkfifo(pipe)
    gone = page.uploads.folder / "gone.png"
    named = [paths["good.png"], link, "/dev/zero", pipe, f"{page.uploads.folder}/../x", gone]
    *_, last = page.judge([{"path": str(each)} for each in named], "fabric", OWN)
    assert set(verdicts(last, page)) == {"not judged"}
    reasons = [row[5] for row in last[page.table]]
    strange = "is none of the files that were given"
    expected = [*[strange] * 3, "is no regular file", strange, "is gone from the server"]
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason


def test_no_files_empty_the_page(page):
    (shown,) = page.judge([], "fabric", OWN)
    assert shown[page.batch] is None
    assert "Drop images" in shown[page.headline]


def test_judging_can_be_stopped(page, files):
    judging = page.judge(files, "fabric", OWN)
    batch = next(judging)[page.batch]
    next(judging)
    page.stop_judging(batch)
    last = list(judging)[-1]
    assert names(last, page) == ["good.png"]
    assert "judging" not in last[page.summary]


def test_a_batch_that_is_replaced_ends_unseen(page, files):
    judging = page.judge(files, "fabric", OWN)
    batch = next(judging)[page.batch]
    page.replace(batch)
    assert list(judging) == []
    assert len(batch) == 1
    page.replace(None)


def test_the_rate_can_be_changed_while_judging(page, files):
    judging = page.judge(files, "fabric", OWN)
    batch = next(judging)[page.batch]
    (line,) = page.change_rate(batch, 0, "fabric").values()  # nothing is judged yet
    assert "<b>0.01 %</b>" in line
    list(judging)
    assert batch.threshold == thresholds_of(batch.metadata)[0.0001]


def test_the_rate_changes_verdicts_and_table(page, batch):
    thresholds = list(thresholds_of(batch.metadata).values())
    for rate, words in (
        (len(RATES) - 1, "<b>20 %</b>"),
        (OWN, "as exported"),
        (0, "<b>0.01 %</b>"),
    ):
        shown = page.change_rate(batch, rate, "fabric")
        assert words in shown[page.rate_line]
        assert f"threshold {thresholds[rate]:.4g}" in shown[page.rate_line]
        expected = [
            "not judged"
            if index == 1
            else "defective"
            if batch.results[index].score > thresholds[rate]
            else "good"
            for index in range(3)
        ]
        assert verdicts(shown, page) == expected
        assert f">{expected[0]}<" in shown[page.headline]
        with open(shown[page.csv], newline="") as file:
            table = list(csv.DictReader(file))
        assert [row["verdict"] for row in table] == expected


def test_the_rate_can_be_moved_before_anything_is_judged(page):
    (shown,) = page.change_rate(None, 0, "fabric").values()
    assert "<b>0.01 %</b>" in shown
    assert page.change_rate(None, 0, None) == {}


def test_a_row_chooses_the_image_by_its_number(page, batch):
    """Sorting the table moves the rows, and leaves the numbers."""
    row = {"index": [0, 1], "value": "noise.png", "row_value": [3, "noise.png"]}
    shown = page.choose(batch, gradio.SelectData(None, row))
    assert batch.shown == 2
    assert "noise.png" in shown[page.headline]
    broken = {**row, "row_value": ["2", "broken.png"]}
    shown = page.choose(batch, gradio.SelectData(None, broken))
    assert shown[page.pictures] == ""
    assert page.reconstruct(batch) == ""


class Visitor:
    """What gradio says of who asks."""

    def __init__(self, name):
        self.session_hash = name


def judged_for(page, files, name):
    begun, *_ = page.judge(files, "fabric", OWN, Visitor(name))
    return begun[page.batch]


def test_pictures_that_made_room_for_others_are_said_to_be_gone(page, files, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_OPEN_BATCHES", 1)
    first, second = judged_for(page, files, "a"), judged_for(page, files, "b")
    row = {"index": [2, 1], "value": "noise.png", "row_value": [3, "noise.png"]}
    chosen = gradio.SelectData(None, row)
    shown = page.choose(first, chosen)
    assert "Predictor them again" in shown[page.pictures]
    assert "noise.png" in shown[page.headline]
    assert "70 × 60" in shown[page.headline]
    assert page.reconstruct(first) == ""
    shown = page.change_rate(first, 0, "fabric")
    assert "Predictor them again" in shown[page.pictures]
    assert names(shown, page) == list(NAMES)
    assert "data:image/png" in page.choose(second, chosen)[page.pictures]
    assert "data:image/png" in page.reconstruct(second)


def test_who_leaves_takes_the_pictures_along(page, files):
    first, second = judged_for(page, files, "a"), judged_for(page, files, "b")
    page.leave(Visitor("a"))
    assert (first.bytes, second.bytes > 0) == (0, True)
    list(page.judge([], "fabric", OWN, Visitor("b")))
    assert second.bytes == 0


def test_a_method_without_reconstruction_says_so(page, batch, monkeypatch):
    monkeypatch.setattr(batch, "reconstructs", False)
    assert "ganomaly reconstructs nothing" in page.reconstruct(batch)
    assert page.reconstruct(None) == ""


def test_a_model_brings_its_rates_and_examples(page):
    shown = page.show_model("fabric")
    assert "ganomaly on weave:plain?size=48" in shown[page.metadata]
    slider = shown[page.rate]
    assert (slider["maximum"], slider["value"], slider["interactive"]) == (33, OWN, True)
    assert len(shown[page.gallery]["value"]) == 8
    chosen = gradio.SelectData(None, {"index": 2, "value": None})
    taken = page.take_example("fabric", chosen)[page.files]
    assert [path.rsplit("_")[-1] for path in taken] == ["hole.png"]
    assert page.take_examples("fabric")[2] == taken[0]


def test_an_older_model_cannot_move_the_rate(page, judge, monkeypatch):
    older = {key: value for key, value in judge.metadata.items() if key != "thresholds"}
    monkeypatch.setattr(judge, "metadata", older)
    shown = page.show_model("fabric")
    assert shown[page.rate]["interactive"] is False
    assert "tfgad calibrate" in shown[page.rate_line]


def test_the_models_are_those_in_service_as_the_page_is_opened(page, models, judge, monkeypatch):
    monkeypatch.setattr(models, "judges", {})
    shown = page.list_models(None)
    assert shown[page.model] == gradio.update(choices=[], value=None)
    assert "No model is in service" in shown[page.headline]
    assert page.show_model(None) == {page.metadata: ""}
    monkeypatch.setattr(models, "judges", {"a": judge, "b": judge})
    assert page.list_models("b")[page.model] == gradio.update(choices=["a", "b"], value="b")
    assert page.list_models("gone")[page.model] == gradio.update(choices=["a", "b"], value="a")


def test_a_model_that_is_not_served_is_told_in_words(page, models, monkeypatch):
    def fail(_):
        raise ServingError("NOT_FOUND", "no version of it is in service")

    monkeypatch.setattr(models, "judge", fail)
    with pytest.raises(gradio.Error, match="no version of it"):
        page.show_model("fabric")


def test_the_page_asks_nothing_of_the_network(models):
    blocks = module.build(models)
    assert not blocks.analytics_enabled
    looks = module.theme()._get_theme_css() + CSS
    assert set(re.findall(r"url\(.?(\w+)", looks)) <= {"data"}
    assert "@import" not in looks
    assert set(re.findall(r"https?://[\w.]+", looks)) == {"http://www.w3.org"}  # SVG's name
    assert module.theme()._stylesheets == []


def test_without_gradio_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tfgad.serving.inspection.page")
    with pytest.raises(UsageError, match=r"pip install 'tfgad\[serve\]'"):
        importlib.import_module("tfgad.serving.inspection.page")
