import errno
import json
import os
import stat
from pathlib import Path

import pytest

from tfgad import files
from tfgad.errors import UsageError


def test_writes_text_and_makes_the_folder(tmp_path):
    files.write_text(tmp_path / "a" / "b.txt", "Köper\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Köper\n".encode()


def test_a_name_is_shown_in_one_line():
    shown = {
        "a/ü b.png": "a/ü b.png",
        "a\u202fb.png": "a\u202fb.png",  # a narrow space, as in the names of screenshots
        "a.png\ngood       probability": "a.png\\ngood       probability",
        "\x1b[31m\t\u202e.png": "\\x1b[31m\\t\\u202e.png",
        os.fsdecode(b"\xff.png"): "\\xff.png",
        "\ud800": "\\ud800",
    }
    assert {name: files.printable(name) for name in shown} == shown
    assert files.printable("\u0645\u06cc\u200c\u062e.png") == "\u0645\u06cc\u200c\u062e.png"
    assert files.summarize(["a\nb", Path("a/\r.png")]) == "2 (a\\nb, \\r.png)"


def test_no_cell_of_a_table_is_a_formula():
    names = ["=1+cmd|calc!A1.png", "@a.png", "+a.png", "-a.png", "\ta.png", "a=b.png"]
    rows = [{"image": name, "score": f"{score:.6g}"} for score, name in enumerate(names, -3)]
    rows.append({"image": "-", "score": "-inf"})
    lines = files.csv_text(rows, ("image", "score")).splitlines()[1:]
    starts = ["./=1+cmd|calc!A1.png", "./@a.png", "./+a.png", "./-a.png", "./\ta.png", "a=b.png"]
    assert lines == [*(f"{name},{score}" for score, name in enumerate(starts, -3)), "-,-inf"]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "\u7d20" * 83 + ".png"])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    files.write_bytes(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not files.has_too_long_name(tmp_path / name)
    assert files.has_too_long_name(tmp_path / f"longer{name}")


def test_a_file_gets_the_usual_permissions(tmp_path):
    files.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "usual").write_bytes(b"")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")]
    assert modes[0] == modes[1]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    files.write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "(No space left on device); free some"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "(No space left on device); free some"),
        (RuntimeError("{{node}} a.data; No space left on device [Op]"), "; free some"),
        (OSError(errno.EROFS, "Read-only file system"), "(Read-only file system); name a file"),
    ],
)
def test_unwritable_paths_give_a_reason_and_a_hint(error, said):
    assert said in str(files.unwritable("csv", "t.csv", error))


def test_a_path_below_a_file_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        files.write_text(tmp_path / "file" / "x.txt", "")


def test_a_folder_is_not_overwritten_by_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        files.write_text(tmp_path / "folder", "")
    assert os.listdir(tmp_path) == ["folder"]


def test_results_are_added_to_but_not_replaced_if_damaged(tmp_path):
    path = tmp_path / "results.json"
    assert files.read_results(path) == {}
    files.write_json(path, {"seed": 0})
    assert files.read_results(path) == {"seed": 0}
    for damaged in ('{"seed": 0', "[1]"):
        path.write_text(damaged)
        with pytest.raises(UsageError, match="cannot be read as a JSON object"):
            files.read_results(path)


def test_json_holds_no_nan(tmp_path):
    files.write_json(tmp_path / "m.json", {"image_auroc": 0.5, "pixel_auroc": None})
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "image_auroc": 0.5,
        "pixel_auroc": None,
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "n.json", {"image_auroc": float("nan")})
    assert not (tmp_path / "n.json").exists()
