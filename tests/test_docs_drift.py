"""The tables of drift in `docs/threshold.md` show the figures of the benchmark."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIGURES = json.loads((ROOT / "examples/benchmarks/results/drift.json").read_text())
MODELS = ("weave_twill_ganomaly", "weave_satin_ganomaly_unet")
SIZES = ("25", "100", "400", "1600")


def rows():
    """The cells of the tables under the heading, by the first cell."""
    text = (ROOT / "docs/threshold.md").read_text(encoding="utf-8")
    section = text.partition("\n## Drift\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: others for first, *others in cells}


def shown(figures):
    """Median and 95th percentile as the tables have them."""
    return ", ".join(
        "-" if figures[key] is None else str(figures[key]) for key in ("median", "95 %")
    )


@pytest.mark.parametrize("change", FIGURES[MODELS[0]]["changes, model's calibration"])
def test_a_change(change):
    expected = []
    for model in MODELS:
        figures = FIGURES[model]["changes, model's calibration"][change]
        ranks = (figures[key] for key in ("mean rank", "mean rank of the brightness"))
        expected += [", ".join(f"{rank:.2f}" for rank in ranks), shown(figures)]
    assert rows()[change] == expected


@pytest.mark.parametrize("size", SIZES)
def test_a_number_of_calibration_images(size):
    of_size = [FIGURES[model]["calibration images drawn from the good ones"] for model in MODELS]
    changes = ("lamp at 0.9", "lamp at 0.8")
    expected = [shown(each[size]["changes"][change]) for each in of_size for change in changes]
    assert rows()[size] == expected


@pytest.mark.parametrize("model", MODELS)
def test_no_alarm_without_drift(model):
    figures = FIGURES[model]
    assert figures["images until an alarm"] == {"good": None, "5 % defective": None}


def test_alarms_with_calibrations_drawn_anew():
    sizes = [FIGURES[model]["calibration images drawn from the good ones"] for model in MODELS]
    streams = [each[size] for each in sizes for size in SIZES]
    alarms = sum(each["streams with an alarm, 5 % defective"] * each["streams"] for each in streams)
    assert (round(alarms), sum(each["streams"] for each in streams)) == (0, 800)
    lengths = [each["images of a stream"] for each in streams]
    assert (min(lengths), max(lengths)) == (3400, 4975)
