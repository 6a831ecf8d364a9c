"""What is released: the wheel and the source archive, built and installed as a user would."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import tfgad

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The wheel and the source archive, built of a copy of the tracked files."""
    copy = tmp_path_factory.mktemp("copy")
    for name in tracked("."):
        if not name.startswith(("saved_models/", "examples/pictures/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    for command in (["docs/addresses.py", "readme", "--ref", "v9"], ["-c", BUILD]):
        subprocess.run([sys.executable, *command], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


def tracked(folder):
    listed = subprocess.run(
        ["git", "ls-files", folder], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(listed.stdout.splitlines())


def test_the_wheel_holds_the_package_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"tfgad-{tfgad.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tracked("tfgad")
    assert wheel.stat().st_size < 1_000_000


def test_links_of_the_description_lead_into_the_repository(dist):
    """The registry shows the README alone."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    address = metadata["Home-page"]
    readme, shown = (ROOT / "README.md").read_text(), metadata.get_payload()
    links = re.findall(r"\]\(([^)#\s]+)", shown)
    assert len(links) == len(re.findall(r"\]\(([^)#\s]+)", readme)) > 30
    pictures = re.findall(r"!\[[^\]]*\]\((\S+)\)", shown)
    assert all(link.startswith("https://") for link in links)
    assert pictures
    assert all(each.startswith(f"{address}/raw/v9/") for each in pictures)
    for link in links:
        if link.startswith(address):
            assert (ROOT / link.removeprefix(address).split("/v9/")[1]).exists(), link


def test_the_source_archive_holds_the_package(dist):
    (source,) = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names > tracked("tfgad")
    assert {"README.md", "LICENSE", "setup.cfg", "pyproject.toml"} <= names


def test_the_installed_wheel_works(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", target, wheel], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def run(*arguments):
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert run(sys.executable, "-c", "import tfgad; print(tfgad.__file__)").startswith(str(target))
    assert f"tfgad {tfgad.__version__}" in run(target / "bin" / "tfgad", "--version")
    assert "ganomaly_unet" in run(target / "bin" / "tfgad", "list")
    assert "folder:PATH" in run(sys.executable, "-m", "tfgad", "list")
