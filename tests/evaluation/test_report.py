import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tfgad import plots
from tfgad.errors import UsageError
from tfgad.evaluation import metrics, report

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Reads a page, and checks that its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def make_report(path, **changes):
    labels, scores = np.repeat([0, 1], 20), np.arange(40.0)
    images = np.zeros((4, 16, 16, 1))
    content = {
        "title": "GANomaly on weave:twill",
        "metrics": metrics.evaluate(labels, scores, threshold=20.5, bootstrap=50),
        "baselines": {"patch_pca": metrics.evaluate(labels, -scores, bootstrap=50)},
        "pictures": [report.Picture(plots.samples(images), "Four tiles.", "Four grey squares.")],
        "data": {"training images": 1234, "true masks": True, "kinds": ("slub", "hole")},
        "configuration": {"Model": {"learning_rate": 2e-4, "critic": None}},
    }
    report.write_report(path, **{**content, **changes})
    return path.read_text(encoding="utf-8")


def test_page_is_well_formed_and_self_contained(tmp_path):
    text = make_report(tmp_path / "report.html")
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert not page.all("script")
    assert not page.all("link")
    assert not re.search(r"https?://", text)
    for image in page.all("img"):
        assert image["alt"] == "Four grey squares."
        kind, content = image["src"].split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")


def test_page_says_what_the_numbers_say(tmp_path):
    words = Page(make_report(tmp_path / "report.html")).words
    assert "finds 95.0% of the anomalous images and raises a false alarm on 0.0%" in words
    for fact in ("1,234", "yes", "slub, hole", "0.0002", "learning_rate"):
        assert fact in words


def test_page_says_what_was_counted(tmp_path):
    figures = {"unit": "tile", **metrics.evaluate([0, 1], [0.1, 0.9], threshold=0.5, bootstrap=0)}
    words = Page(make_report(tmp_path / "report.html", metrics=figures)).words
    for said in ("of the anomalous tiles and", "Tile AUROC", "the test tiles"):
        assert said in words
    assert "mage AUROC" not in words


def test_page_has_the_findings_and_the_kinds(tmp_path):
    of_kind = {"images": 3, "image_auroc": 0.5, "image_recall": 1.0}
    figures = metrics.evaluate([0, 1], [0.1, 0.9], bootstrap=0) | {
        "findings": ["worse than PCA of patches", "try <size=128>"],
        "by_kind": {"hole": of_kind, "cut & torn": {**of_kind, "image_auroc": None}},
    }
    page = Page(make_report(tmp_path / "r.html", metrics=figures))
    assert len(page.all("li")) == 2
    for said in ("try <size=128>", "Images found", "cut & torn", "0.500", "1.000"):
        assert said in page.words


def test_the_best_of_each_row_is_marked(tmp_path):
    cells = Page(make_report(tmp_path / "report.html")).all("td")
    # Three rows of image metrics; the pixel metrics are undefined.
    assert [cell.get("class") for cell in cells].count("best") == 3


def test_undefined_figures_are_dashes(tmp_path):
    one_class = metrics.evaluate(np.zeros(5), np.arange(5.0), bootstrap=10)
    words = Page(make_report(tmp_path / "r.html", metrics=one_class, baselines={})).words
    assert "one class only" in words
    assert "nan" not in words.lower()
    assert "None" not in words


def test_names_from_outside_are_escaped(tmp_path):
    text = make_report(
        tmp_path / "report.html",
        title="<script>alert(1)</script>",
        data={"<b>": "$page & <i>"},
    )
    assert not Page(text).all("script")
    assert "&lt;b&gt;" in text
    assert "$page &amp; &lt;i&gt;" in text


def test_unwritable_path_is_the_users_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        make_report(tmp_path / "file" / "report.html")
