"""The notebooks run from top to bottom, on few images and steps, and hold what they showed."""

import configparser
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
LEAST_PICTURES = {"serve_a_model.ipynb": 1}  # of others 2


def code_cells(name):
    """The sources of a notebook's code cells, without the magics, and the cells themselves."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = [
        "".join(line for line in cell["source"] if not line.startswith("%")) for cell in cells
    ]
    return sources, cells


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_quick_mode(name, tmp_path, monkeypatch):
    """As on a machine without MNIST and without a display."""
    monkeypatch.setenv("TFGAD_QUICK", "1")
    monkeypatch.setenv("TFGAD_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source = "\n\n".join(code_cells(name)[0])
    assert "TFGAD_QUICK" in source
    try:
        exec(compile(source, name, "exec"), {})
    finally:
        plt.close("all")


def test_the_first_cell_is_that_of_all():
    """It installs the package."""
    assert len(NAMES) == 8
    assert len({code_cells(name)[0][0] for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_badge_opens_the_notebook_in_the_repository(name):
    """`python docs/addresses.py badges` writes it."""
    settings = configparser.ConfigParser()
    settings.read(NOTEBOOKS.parents[1] / "setup.cfg")
    owner = settings["metadata"]["url"].removeprefix("https://github.com/")
    first = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"][0]["source"]
    text = "".join(first)
    assert text.startswith("# ")
    assert text.count("Open in Colab") == 1
    colab = f"https://colab.research.google.com/github/{owner}/blob/main"
    assert f"({colab}/examples/notebooks/{name})" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_was_run_from_top_to_bottom_before_it_was_kept(name):
    _, cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures >= LEAST_PICTURES.get(name, 2)
