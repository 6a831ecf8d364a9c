"""docs/mistakes.md runs from top to bottom and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
CELL = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A training differs between processors by rounding; other numbers are as they are printed.
TRAINS = re.compile(r"\.fit\(|apply_gradients")


def test_the_page_prints_what_it_says():
    text = PAGE.read_text(encoding="utf-8")
    cells = CELL.findall(text)
    assert len(cells) == text.count("```python\n")
    names, by_training = {}, ""
    for code, expected in cells:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)
        found = printed.getvalue()
        assert NUMBER.sub("#", found) == NUMBER.sub("#", expected), code
        numbers = [list(map(float, NUMBER.findall(each))) for each in (found, expected)]
        trains = TRAINS.search(code)
        tolerance = {"abs": 0.1} if trains else {"abs": 0.002, "rel": 0.001}
        assert numbers[0] == pytest.approx(numbers[1], **tolerance), found
        by_training += found if trains else ""
    assert "weights moved by 0.000" in by_training
    changes = dict(re.findall(r"training=(\w+): .* by up to (\S+);", by_training))
    assert changes["False"] == "0.00"
    assert float(changes["True"]) > 0.05
