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


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("TFGAD_DATA_DIR"), reason="TFGAD_DATA_DIR is not set")
def test_vae_mnist(tmp_path):
    out = run("vae_mnist.py", "--steps", "2", "--out", tmp_path)
    assert out.count("AUROC") == 4
    assert (tmp_path / "samples.png").is_file()
    assert (tmp_path / "reconstructions.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "steps"), [("vae", "2"), ("fanogan", "2+2")])
def test_latent_space(tmp_path, method, steps):
    arguments = ["--method", method, "--data", "digits", "--steps", steps]
    out = run("latent_space.py", *arguments, "--out", tmp_path)
    assert out.count("ARI") == 3
    for name in ("pca", "tsne", "interpolation", "generated"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_cgan_mnist(tmp_path):
    out = run("cgan_mnist.py", "--data", "digits:!2", "--steps", "2", "--out", tmp_path)
    assert "AUROC of 2" in out
    digits = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert digits == list("013456789")
    assert (tmp_path / "classes.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not os.environ.get("TFGAD_DATA_DIR"), reason="TFGAD_DATA_DIR is not set")
def test_rare_class(tmp_path):
    few = ["--seeds", "1", "--steps", "2", "--updates", "2"]
    out = run("rare_class.py", *few, "--out", tmp_path / "rare_class.json")
    table = out.splitlines()[-5:]
    assert [line.split()[0] for line in table[1:]] == ["nothing", "repeated", "moved", "generated"]
    assert (tmp_path / "rare_class.json").is_file()
    assert (tmp_path / "rare_class_0.png").stat().st_size > 10_000
