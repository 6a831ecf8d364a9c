"""docs/mistakes.md runs from top to bottom and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
CELL = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_prints_what_it_says():
    cells = CELL.findall(PAGE.read_text(encoding="utf-8"))
    assert len(cells) == PAGE.read_text(encoding="utf-8").count("```python\n")
    names = {}
    for code, expected in cells:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)
        found = printed.getvalue()
        assert NUMBER.sub("#", found) == NUMBER.sub("#", expected), code
        numbers = [list(map(float, NUMBER.findall(text))) for text in (found, expected)]
        # A short training differs between processors by rounding.
        assert numbers[0] == pytest.approx(numbers[1], abs=0.1, rel=0.05), found
