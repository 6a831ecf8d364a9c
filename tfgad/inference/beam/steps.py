"""The steps of the pipeline that read images and write rows, and what the workers count."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import PredictionResult

from tfgad.data.image_files import ImageError
from tfgad.data.images import read_levels
from tfgad.data.pixels import doubtful_depth, from_uint8, scaled, to_uint8
from tfgad.files import printable
from tfgad.inference import results
from tfgad.inference.beam import storage, tables
from tfgad.inference.beam.model import InputSpec, Pixels

NAMESPACE = "tfgad"  # of the counters
DOUBTFUL = "fits bits: "  # the counter of such images, with the bits behind it
BEYOND = "beyond: "  # the counter of images that go beyond an argument, with its name behind it
SMALL, BARE = "small regions", "images without a listed region"  # see `pipeline.Scored`


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read; see `tfgad.data.images.read_levels` and `scaled`."""

    depth: int | None
    max_pixels: int


class Broken(NamedTuple):
    """A file that cannot be scored: its path, and why."""

    name: str
    reason: str


class Decode(beam.DoFn):
    """Decodes paths to `Pixels`; files that cannot be scored become `Broken`."""

    def __init__(self, spec: InputSpec, reading: Reading):
        self._spec, self._reading = spec, reading

    def process(self, name: str) -> Iterator[Any]:
        """Yields the image of a path."""
        from tfgad.inference import scoring

        try:
            channels, max_pixels = self._spec.image_shape[2], self._reading.max_pixels
            levels = read_levels(name, channels, storage.read(name), max_pixels)
            scoring.check_size(self._spec, name, levels.shape)
            pixels = to_uint8(scaled(name, levels, self._reading.depth))
        except ImageError as error:
            if error.beyond:
                Metrics.counter(NAMESPACE, f"{BEYOND}{error.beyond}").inc()
            yield Broken(name, error.reason)
            return
        if fitting := doubtful_depth(levels, self._reading.depth):
            Metrics.counter(NAMESPACE, f"{DOUBTFUL}{fitting}").inc()
        yield Pixels(name, pixels)


class ToRows(beam.DoFn):
    """Turns predictions into rows of the table; writes the maps."""

    def __init__(self, output: results.Output, root: str):
        self._output, self._root = output, root
        self._small, self._bare = (Metrics.counter(NAMESPACE, name) for name in (SMALL, BARE))

    def process(self, result: PredictionResult) -> Iterator[tables.Row]:
        """Yields the row of an image."""
        from tfgad.inference import heat_maps, scoring

        name, pixels = cast(Pixels, result.example)
        prediction = cast(dict[str, Any], result.inference)
        image, of_map = from_uint8(pixels), (prediction["map_threshold"], prediction["scale"])
        verdict = scoring.verdict_of(Path(name), image, prediction, *of_map)
        if self._output.maps:
            path = storage.map_path(self._output.maps, self._root, name)
            storage.write(path, heat_maps.map_png(verdict))
        if self._output.raw_maps:
            path = storage.map_path(self._output.raw_maps, self._root, name, ".tiff")
            storage.write(path, heat_maps.raw_map_tiff(verdict))
        found, min_area = scoring.regions_of(verdict), self._output.min_area
        listed = results.listed(found, min_area, verdict.is_anomalous)
        self._small.inc(listed.small)
        self._bare.inc(listed.is_bare)
        yield tables.Row(
            printable(name),
            verdict.score,
            verdict.probability,
            verdict.is_anomalous,
            verdict.reason,
            listed.regions,
            verdict.product,
        )
