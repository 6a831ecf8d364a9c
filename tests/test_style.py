"""The code's style, by ruff with the settings of `ruff.toml`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_has_nothing_to_say(arguments):
    ruff = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            *arguments,
            "--no-cache",
            "tfgad",
            "tests",
            "examples",
            "docs",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr
