"""The layers of the package, by import-linter, and its types, by mypy: settings in `setup.cfg`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_imports_point_down():
    run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")


def test_types_are_checked(tmp_path):
    run(sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path))


def test_no_module_of_a_method_is_imported_by_name():
    """Only the registry knows which methods there are."""
    names = [path.stem for path in (ROOT / "tfgad" / "methods").glob("*.py")]
    for path in (ROOT / "tfgad").rglob("*.py"):
        if path.parent.name == "methods":
            continue
        text = path.read_text()
        for name in names:
            if name != "__init__":
                assert f"tfgad.methods.{name}" not in text, path
                assert f"from tfgad.methods import {name}" not in text, path
