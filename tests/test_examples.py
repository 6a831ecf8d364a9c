"""The examples run, on little data and for few steps; what they reach is not tested here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW_TILES = "weave:twill?size=64&train=16&calibration=8&test=8"


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_fabric_inspection(tmp_path):
    out = run("fabric_inspection.py", "--data", FEW_TILES, "--steps", "2", "--out", tmp_path)
    assert "image_auroc" in out
    assert "threshold" in out
    assert (tmp_path / "heat_maps.png").stat().st_size > 10_000
    assert (tmp_path / "saved_model" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("TFGAD_DATA_DIR"), reason="TFGAD_DATA_DIR is not set")
def test_fanogan_mnist(tmp_path):
    out = run("fanogan_mnist.py", "--steps", "2+2", "--out", tmp_path)
    assert out.count("AUROC") == 4
    assert (tmp_path / "samples.png").is_file()
    assert (tmp_path / "reconstructions.png").is_file()
