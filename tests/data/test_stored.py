"""Rows in a temporary file."""

import numpy as np
import pytest

from tfgad.data.stored import StoredRows
from tfgad.errors import UsageError


def test_rows_are_read_by_index():
    images = np.random.default_rng(0).uniform(-1, 1, (7, 5, 3, 2)).astype("float32")
    rows = StoredRows()
    for part in (images[:4], images[4:6], images[6:].transpose(0, 2, 1, 3).transpose(0, 2, 1, 3)):
        rows.append(part)
    assert len(rows) == 7
    assert rows.shape == images.shape
    for places in (
        slice(None),
        slice(2, 5),
        slice(5, 99),
        np.array([6, 0, 3]),
        [],
        images[:, 0, 0, 0] > 0,
        3,
        np.int64(-1),
    ):
        np.testing.assert_array_equal(rows[places], images[places])
    with pytest.raises(IndexError):
        rows[7]


def test_a_truncated_file_raises_an_error():
    rows = StoredRows()
    rows.append(np.ones((4, 8), "float32"))
    rows._file.truncate(3 * 32 + 5)
    assert (rows[:3] == 1).all()
    with pytest.raises(EOFError, match="row 3 of 4"):
        rows[:]


def test_a_full_disk_is_a_usage_error_with_a_hint(full_disk):
    with pytest.raises(UsageError, match=r"No space left on device.*TMPDIR"):
        StoredRows().append(np.zeros((4, 32, 32, 1), "float32"))


def test_without_a_folder_to_write_to_it_is_a_usage_error(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"temporary folder.*set TMPDIR to a folder"):
        StoredRows()
