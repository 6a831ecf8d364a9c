"""The table of `docs/threshold.md` on groups shows the figures of its benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIFTS = ("shift 0", "shift 0.5", "shift 1")


def benchmark(world: str, groups: int) -> dict:
    """Returns the figures of a world for a rate of 0.01."""
    text = (ROOT / "examples/benchmarks/results/false_alarms.json").read_text()
    (row,) = (
        row
        for row in json.loads(text)["rows"]
        if (row["world"], row["rate"], row["groups"]) == (world, 0.01, groups)
    )
    return row


def test_the_table_shows_the_benchmark():
    text = (ROOT / "docs/threshold.md").read_text()
    _, _, section = text.partition("\n### How well it holds\n")
    section = re.split(r"\n#+ ", section)[0]
    rows = [line for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == 5
    for line in rows:
        groups, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        expected = []
        for world in SHIFTS:
            figures = benchmark(world, int(groups))
            observed = figures["tile-wise"]
            expected.append([observed["mean"], *observed["of nine in ten"]])
            expected.append([figures["interval holds"], figures["counted as independent"]])
        for cell, values in zip(cells, expected, strict=True):
            shown = [float(number) for number in re.findall(r"\d+\.\d+", cell)]
            assert shown == pytest.approx(values, abs=0.0051), (groups, cell)
