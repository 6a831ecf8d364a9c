import ast
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfgad import processor
from tfgad.errors import UsageError

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").rglob("*.py"))
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="TensorFlow's default is another")
INTEL = "processor : 0\nflags\t\t: fpu avx2 {}\nbogomips : 1\n\nprocessor : 1\nflags : fpu\n"
ARM = "processor : 0\nFeatures : fp asimd {}\n"


def python(program: str, **environment) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name != processor.ONEDNN}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("tfgad", {}, "1"),
        ("tfgad.data.images", {}, "1"),
        ("tfgad.cli.main", {}, "1"),
        ("tfgad", {processor.ONEDNN: "0"}, "0"),
    ],
)
def test_onednn_is_turned_on_unless_the_user_sets_the_variable(name, environment, expected):
    program = f"import os, {name}; print(os.environ.get('{processor.ONEDNN}'))"
    run = python(program, **environment)
    assert (run.stdout, run.stderr) == (f"{expected}\n", "")


@ON_LINUX
@pytest.mark.integration
def test_tensorflow_imported_first_is_logged_in_one_line():
    """oneDNN is turned off here on any processor, and the variable is then removed."""
    program = f"import os, tensorflow; del os.environ['{processor.ONEDNN}']; import tfgad"
    run = python(program, **{processor.ONEDNN: "0"})
    (line,) = run.stderr.splitlines()[-1:]
    assert "imported before tfgad and has oneDNN off" in line
    assert run.stderr.count("tfgad") == 2
    assert processor.ONEDNN in line


@ON_LINUX
def test_the_tests_run_with_onednn(monkeypatch, caplog):
    asked_for = os.environ[processor.ONEDNN] not in ("0", "false")
    monkeypatch.delenv(processor.ONEDNN)
    processor.ask_for_onednn()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (not asked_for)
    assert processor.ONEDNN not in os.environ  # too late


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_example_imports_tensorflow_before_tfgad(path):
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    packages = [name.partition(".")[0] for name in names]
    packages = [name for name in packages if name in ("tfgad", "tensorflow", "keras")]
    assert packages[:1] in ([], ["tfgad"])


@pytest.fixture
def described(tmp_path, monkeypatch):
    """A function that sets the content of `/proc/cpuinfo` and the environment."""
    for name in (processor.ONEDNN, *processor.LIMITS):
        monkeypatch.delenv(name, raising=False)

    def describe(text, environment):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(processor, "CPU_INFO", path)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return describe


BELOW, JUST_BELOW = {"ONEDNN_MAX_CPU_ISA": "AVX2"}, {"DNNL_MAX_CPU_ISA": "avx512_core"}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (INTEL.format("avx512f avx512_bf16"), {}, True),
        (INTEL.format("amx_bf16"), {}, True),
        (INTEL.format("avx512f"), {}, False),
        (INTEL.format(""), {}, False),
        (ARM.format("bf16"), {}, True),
        (ARM.format("i8mm"), {}, False),
        ("processor : 0\n", {}, None),
        (None, {}, None),
        (INTEL.format("avx512f avx512_bf16"), JUST_BELOW, False),
        (INTEL.format("avx512_bf16"), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, True),
        (INTEL.format(""), BELOW, False),  # by TensorFlow's own kernels
        (INTEL.format("avx512f avx512_bf16"), {processor.ONEDNN: "0", **BELOW}, False),
    ],
)
def test_slow_bfloat16_is_logged(described, caplog, text, environment, expected):
    described(text, environment)
    assert processor.has_bfloat16() is expected
    processor.check_bfloat16()
    said = {True: [], False: ["only emulates bfloat16"], None: ["it is unknown"]}[expected]
    assert len(caplog.messages) == len(said)
    assert all(part in message for part, message in zip(said, caplog.messages, strict=True))


@pytest.mark.parametrize("flags", ["avx512f avx512_bf16", "avx_ne_convert"])
def test_bfloat16_that_would_crash_is_refused(described, flags):
    described(INTEL.format(flags), BELOW)
    assert processor.has_bfloat16() is False
    with pytest.raises(UsageError, match="ONEDNN_MAX_CPU_ISA=AVX2; give float32") as error:
        processor.check_bfloat16()
    assert "\n" not in str(error.value)
