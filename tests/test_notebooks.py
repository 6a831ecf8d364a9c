"""The notebooks run from top to bottom, on few images and steps, and hold what they showed."""

import configparser
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

NOTEBOOKS = Path(__file__).parents[1] / "examples" / "notebooks"
FEW = "size=64&train=16&calibration=8&test=24"
IN_QUICK_MODE = sorted(
    path.stem
    for path in NOTEBOOKS.glob("*.ipynb")
    if "TFGAD_QUICK" in path.read_text(encoding="utf-8")
)
LEAST_PICTURES = {"serve_a_model.ipynb": 1}  # of others 2
KNOWN = '["weave:plain", "weave:satin", "weave:denim", "weave:herringbone"], "weave:twill"'


def code_cells(name):
    """The sources of a notebook's code cells, without the magics, and the cells themselves."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    sources = [
        "".join(line for line in cell["source"] if not line.startswith("%")) for cell in cells
    ]
    return sources, cells


def run(name, instead, folder, monkeypatch):
    """Runs a notebook with some of its text replaced; returns what its names stand for then."""
    monkeypatch.chdir(folder)
    source = "\n\n".join(code_cells(name)[0])
    for text, replacement in instead.items():
        assert source.count(text) == 1
        source = source.replace(text, replacement)
    namespace = {}
    exec(compile(source, name, "exec"), namespace)
    plt.close("all")
    return namespace


@pytest.mark.slow
def test_inspect_fabric(tmp_path, monkeypatch):
    instead = {"STEPS = 1500": "STEPS = 2", '"weave:twill"': f'"weave:twill?{FEW}"'}
    left = run("inspect_fabric.ipynb", instead, tmp_path, monkeypatch)
    assert left["served"] is not None
    assert left["answer"]["is_anomalous"].shape == (4,)
    assert (tmp_path / "saved_models" / "twill" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
def test_paint_defects(tmp_path, monkeypatch, capsys, quicker):
    instead = {KNOWN: f'["weave:plain?{FEW}", "weave:satin?{FEW}"], "weave:twill?{FEW}"'}
    left = run("paint_defects.ipynb", instead, tmp_path, monkeypatch)
    assert isinstance(left["gallery"](list(left["painter"].paint(left["good"], 2))), Figure)
    assert capsys.readouterr().out.count("IoU") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_QUICK_MODE)
def test_quick_mode(name, tmp_path, monkeypatch):
    """As on a machine without MNIST and without a display."""
    monkeypatch.setenv("TFGAD_QUICK", "1")
    monkeypatch.setenv("TFGAD_DATA_DIR", str(tmp_path))
    run(f"{name}.ipynb", {}, tmp_path, monkeypatch)


def test_the_first_cell_is_that_of_all():
    """It installs the package."""
    assert len(IN_QUICK_MODE) >= 6
    first = {code_cells(f"{name}.ipynb")[0][0] for name in IN_QUICK_MODE}
    assert len(first) == 1


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
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


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_was_run_from_top_to_bottom_before_it_was_kept(name):
    _, cells = code_cells(name)
    ran = [cell for cell in cells if not cell["source"][0].startswith("%pip")]
    first = 1 + len(cells) - len(ran)
    assert [cell["execution_count"] for cell in ran] == list(range(first, first + len(ran)))
    outputs = [output for cell in ran for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures >= LEAST_PICTURES.get(name, 2)
