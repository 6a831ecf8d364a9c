"""The tables that a pipeline writes: verdicts as CSV or Parquet, and dead letters."""

from __future__ import annotations

import collections
import csv
import io
from typing import NamedTuple

from apache_beam.io.filesystems import FileSystems

from tfgad.files import csv_text, printable
from tfgad.inference import results
from tfgad.inference.beam import storage
from tfgad.scores.map_regions import Region
from tfgad.scores.verdicts import verdict_name

SUFFIXES = (".csv", ".parquet")
DEAD_LETTERS = ("image", "reason")


class Row(NamedTuple):
    """A row of the table, with all digits of its numbers; see `tfgad.inference.results.row`."""

    image: str
    score: float
    probability: float
    is_anomalous: bool
    reason: str
    regions: list[Region] | None
    product: str = ""  # of a model of several


def write_table(rows: list[Row], path: str) -> None:
    """Writes the rows, sorted by name, as Parquet or CSV by the path's ending."""
    rows = sorted(rows)
    if path.lower().endswith(".parquet"):
        content = _parquet(rows)
    else:
        columns = results.columns(_products(rows))
        lines = [results.scored_row(*row) for row in rows]
        content = csv_text(lines, columns).encode()
    storage.write(path, content)


def _products(rows: list[Row]) -> list[str]:
    """Returns the products of the rows, none of a model of one product."""
    return sorted({row.product for row in rows} - {""})


def _parquet(rows: list[Row]) -> bytes:
    """Returns the table as Parquet, where numbers are numbers."""
    import pyarrow
    from pyarrow import parquet

    verdicts = [verdict_name(row.is_anomalous) for row in rows]
    largest = [row.regions[0] if row.regions else None for row in rows]
    counts = [None if row.regions is None else len(row.regions) for row in rows]
    boxes = [[each and getattr(each, name) for each in largest] for name in results.BOX]
    columns = [
        pyarrow.array([row.image for row in rows], pyarrow.string()),
        pyarrow.array([row.score for row in rows], pyarrow.float64()),
        pyarrow.array([row.probability for row in rows], pyarrow.float64()),
        pyarrow.array(verdicts, pyarrow.string()),
        pyarrow.array([row.reason for row in rows], pyarrow.string()),
        *(pyarrow.array(each, pyarrow.int64()) for each in (counts, *boxes)),
    ]
    names = results.columns(_products(rows))
    if results.PRODUCT in names:
        columns.append(pyarrow.array([row.product for row in rows], pyarrow.string()))
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(zip(names, columns, strict=True))), content)
    return content.getvalue()


def count_verdicts(path: str) -> dict[str, int]:
    """Returns the number of images of each verdict in a table that `write_table` wrote."""
    with FileSystems.open(path) as file:
        content = file.read()
    if path.lower().endswith(".parquet"):
        from pyarrow import parquet

        column = parquet.read_table(io.BytesIO(content), columns=["verdict"])["verdict"]
        return dict(collections.Counter(column.to_pylist()))
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return dict(collections.Counter(row["verdict"] for row in rows))


def write_regions(rows: list[Row], path: str, mm_per_pixel: float | None) -> None:
    """Writes the table of regions as CSV, sorted by the name of their image."""
    lines = [
        line
        for row in sorted(rows)
        for line in results.region_rows(row.image, row.regions, mm_per_pixel)
    ]
    storage.write(path, csv_text(lines, results.region_columns(mm_per_pixel)).encode())


def write_dead_letters(broken: list[tuple[str, str]], path: str) -> None:
    """Writes path and reason of each file that could not be scored, sorted."""
    letters = ((printable(name), reason) for name, reason in sorted(broken))
    rows = (dict(zip(DEAD_LETTERS, letter, strict=True)) for letter in letters)
    storage.write(path, csv_text(rows, DEAD_LETTERS).encode())


def read_dead_letters(path: str) -> list[tuple[str, str]]:
    """Reads what `write_dead_letters` wrote."""
    with FileSystems.open(path) as file:
        rows = csv.DictReader(io.StringIO(file.read().decode(), newline=""))
        return [(row["image"], row["reason"]) for row in rows]
