"""What `tfgad score` writes and says: the tables, the counts, and what was left out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tfgad.cli import console
from tfgad.data.image_files import ImageError
from tfgad.errors import UsageError
from tfgad.inference import results

if TYPE_CHECKING:
    from tfgad.scores.map_regions import Region


@dataclasses.dataclass
class Tables:
    """The rows of both tables so far, and what was left out of them."""

    output: results.Output
    products: tuple[str, ...] = ()  # of the model
    images: list[dict[str, str]] = dataclasses.field(default_factory=list)
    regions: list[dict[str, str]] = dataclasses.field(default_factory=list)
    small: int = 0  # regions that --min-area left out
    bare: int = 0  # defective images that it left without a region

    def add_verdict(self, result: Any, found: Sequence[Region] | None) -> None:
        """Adds an image with its regions; None if these are unknown."""
        listed = results.listed(found, self.output.min_area, result.is_anomalous)
        row = results.row(result, listed.regions)
        self.images.append(row)
        self.regions += results.region_rows(row["image"], listed.regions, self.output.mm_per_pixel)
        self.small += listed.small
        self.bare += listed.is_bare

    def write(self) -> None:
        """Writes both, if a table is asked for."""
        if self.output.table:
            columns = results.region_columns(self.output.mm_per_pixel)
            path = Path(results.regions_path(self.output.table))
            results.write_csv(path, self.regions, columns)
            columns = results.columns(self.products)
            results.write_csv(Path(self.output.table), self.images, columns)


def report(tables: Tables, broken: list[ImageError]) -> None:
    """Writes the tables or prints the rows, and names the files that could not be scored.

    Raises:
        UsageError: none could be scored; nothing is written then.
        typer.Exit: some could not.
    """
    beyond = sorted({error.beyond for error in broken if error.beyond})
    if len(broken) == len(tables.images):
        first = broken[0]
        others = f", nor {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UsageError("image", first.path, f"{first.reason}{others}", results.hint(beyond))
    tables.write()
    for row in tables.images:
        if not tables.output.table and row["score"]:
            console.say(verdict_line(row))
    say_counts(tables.output.table, collections.Counter(row["verdict"] for row in tables.images))
    say_small(tables.small, tables.bare, tables.output.min_area)
    for error in broken:
        console.warn(f"not scored: {error}")
    say_hints(beyond)
    if broken:
        raise typer.Exit(console.BROKEN_IMAGES)


def say_small(small: int, bare: int, min_area: int) -> None:
    """Says how many regions were left out, and how many defective images have no others."""
    if small:
        left_out = f"{small} region{'s' * (small != 1)}"
        have = "image has" if bare == 1 else "images have"
        without = f"; {bare} defective {have} no other region" if bare else ""
        console.warn(f"--min-area {min_area} left out {left_out}{without}")


def say_hints(beyond: Sequence[str]) -> None:
    """Says which options would let more files be read, if any would."""
    if beyond:
        console.warn(results.hint(beyond))


def verdict_line(row: Mapping[str, str]) -> str:
    """Returns the row of an image that was scored, as one line for people."""
    numbers = f"probability {float(row['probability']):.3f}  score {row['score']:<8}"
    regions = f"regions {row['regions'] or '-':<2}"
    product = f"{row[results.PRODUCT]}  " if results.PRODUCT in row else ""
    reason = row["reason"] and f"  ({row['reason']})"
    return f"{row['verdict']:<9}  {numbers}  {regions}  {product}{row['image']}{reason}"


def say_counts(csv: Path | str | None, counts: Mapping[str, int]) -> None:
    """Writes how many images have each verdict, and where the table is."""
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.say(f"{csv}: {summary}" if csv else summary)
