"""The table of a watched folder holds whole rows, and no other program's file."""

import errno
import os
import shutil

import pytest

from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.inference.watch_table import COLUMNS, Table, Version, shown

from .conftest import BAD, GOOD


def test_odd_names_stay_apart():
    names = ["a\nb", "a\\nb", "a\\\nb", os.fsdecode(b"\xff"), "\xff", "\\udcff", "\\xff"]
    assert len({shown(name) for name in names}) == len(names)
    assert all(shown(name).isprintable() for name in names)


def test_a_row_torn_anywhere_is_written_again(scene):
    for name, level in (("a.png", GOOD), ("b.png", BAD), ("c.png", GOOD)):
        scene.write(name, level)
    (scene.folder / "broken.png").write_text("no image")
    scene.process()
    whole, rows = scene.csv.read_bytes(), scene.rows()
    for cut in (*range(0, len(whole), 7), len(whole) - 1):
        scene.csv.write_bytes(whole[:cut])
        scene.process()
        found = scene.rows()
        assert sorted(map(str, found)) == sorted(map(str, rows)), whole[:cut]


@pytest.mark.parametrize(
    "content",
    [
        b"image,score\r\na.png,1\r\n",  # of `tfgad score`
        b"photographs of a holiday",
        b"\n",
        ",".join(COLUMNS).encode() + b"\r\na.png,1,1,good,,12\r\n",
        ",".join(COLUMNS).encode() + b"\r\na.png,1,1,good,,12,x\r\n",
        ",".join(COLUMNS).encode() + b"\r\n\xfc.png,1,1,good,,12,1\r\n",  # saved by another program
    ],
)
def test_another_file_than_a_table_is_refused_and_kept(scene, content):
    scene.csv.write_bytes(content)
    with pytest.raises(UsageError, match="name another file"):
        Table(scene.csv)
    assert scene.csv.read_bytes() == content


def test_a_full_disk_leaves_whole_rows(scene):
    table = Table(scene.csv)
    row = dict.fromkeys(results.COLUMNS, "0")
    table.append({**row, "image": "a"}, Version(1, 1))
    before, file = scene.csv.read_bytes(), table._file

    class Full:
        """A file on a disk that has room for five more bytes."""

        left = 5

        def write(self, content):
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = file.write(content[: self.left])
            self.left -= written
            return written

        def fileno(self):
            return file.fileno()

    table._file = Full()
    with pytest.raises(UsageError, match="No space left on device"):
        table.append({**row, "image": "b"}, Version(1, 1))
    assert scene.csv.read_bytes() == before
    assert set(table.seen) == {"a"}
    file.close()


@pytest.mark.parametrize("change", [os.unlink, lambda path: shutil.copy(path, path + ".new")])
def test_a_table_replaced_while_in_use_is_noticed(scene, change):
    table = Table(scene.csv)
    change(str(scene.csv))
    if scene.csv.exists():
        os.replace(f"{scene.csv}.new", scene.csv)
    with pytest.raises(UsageError, match="was replaced or deleted while in use"):
        table.sync()
    table.close()
