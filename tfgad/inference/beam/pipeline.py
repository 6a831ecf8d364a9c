"""The pipeline: its steps, and a run of it with its options, failures and results."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import apache_beam as beam
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.data.images import read_levels
from tfgad.data.pixels import doubtful_depth, from_uint8, scaled, to_uint8
from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.inference.beam import storage, tables
from tfgad.inference.beam.model import InputSpec, Pixels, SavedModelHandler, input_spec_of

# Beam's DirectRunner first looks for a program of another language, Prism, and downloads it where
# it is not there. This is what it uses otherwise.
LOCAL = {"DirectRunner": "FnApiRunner"}
NAMESPACE = "tfgad"  # of the counters
DOUBTFUL = "fits bits: "  # the counter of such images, with the bits behind it
BEYOND = "beyond: "  # the counter of images that go beyond an argument, with its name behind it
SHOWN = 300  # characters of a runner's message when it fails: its lists of mistakes are long


@dataclasses.dataclass(frozen=True)
class Scored:
    """The outcome of a pipeline.

    Attributes:
        counts: verdict -> number of images.
        broken: path and reason of each file that could not be scored, sorted.
        dead_letters: the file where these are written, too.
        doubtful: the fewer bits that images of 16 would fit -> how many; see
            `tfgad.data.pixels.doubtful_depth`.
        beyond: the arguments that some files go beyond, sorted; see
            `tfgad.data.image_files.ImageError`.
    """

    counts: dict[str, int]
    broken: list[tuple[str, str]]
    dead_letters: str
    doubtful: dict[int, int]
    beyond: list[str]


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read; see `tfgad.data.images.read_levels` and `scaled`."""

    depth: int | None
    max_pixels: int


def score(
    model: str,
    images: Sequence[str],
    table: str,
    *,
    maps: str | None = None,
    runner: str = "DirectRunner",
    options: Sequence[str] = (),
    depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Scored:
    """Scores images and writes the table, the dead letters and the heat maps.

    Args:
        model: folder of a SavedModel that `tfgad export` wrote, or of its versions.
        images: files, folders, or patterns such as `gs://bucket/day-1/*.png`; `**` goes through
            folders.
        table: `.csv`, or `.parquet`; with the dead letters beside it as `NAME.dead_letters.csv`.
            Both are written whole or not at all.
        maps: folder for heat maps. It mirrors the images' folders; that of `a.png` is `a.png.png`.
        runner: a runner of Beam's.
        options: of Beam and of the runner, as `name=value`, or `name` for a flag.
        depth: bits of files of 16 bits, if they differ from the model's.
        max_pixels: of an image; a larger one is a dead letter.

    Raises:
        UsageError: a mistake in the arguments, a runner that cannot run, or no image that can be
            scored; no table is written then.
    """
    spec = input_spec_of(model)
    _check_table(table)
    files, patterns = storage.find_images(images)
    root = storage.common_folder([*files, *map(storage.fixed_part, patterns)])
    if maps:
        _check_maps(maps, root)
    pipeline_options = _options(runner, options)
    dead_letters = f"{os.path.splitext(table)[0]}.dead_letters.csv"
    partial = {path: storage.partial_name(path) for path in (table, dead_letters)}
    try:
        with _failures(runner):
            pipeline = beam.Pipeline(options=pipeline_options)
            outputs, reading = list(partial.values()), Reading(depth or spec.depth, max_pixels)
            build(pipeline, model, spec, reading, files, patterns, outputs, maps=maps, root=root)
            result = pipeline.run()
            state = result.wait_until_finish()
            if state != PipelineState.DONE:
                raise RuntimeError(f"the pipeline ended as {state}")
        return _finished(result, partial, table, dead_letters)
    finally:
        storage.delete(partial.values())


def build(
    pipeline: beam.Pipeline,
    model: str,
    spec: InputSpec,
    reading: Reading,
    files: Sequence[str],
    patterns: Sequence[str],
    outputs: Sequence[str],
    *,
    maps: str | None,
    root: str,
) -> None:
    """Adds all steps to a pipeline.

    Args:
        pipeline: an empty one.
        model: folder of the SavedModel, which each worker loads.
        spec: of the model.
        reading: of the images.
        files: paths that are taken literally.
        patterns: those that the workers match.
        outputs: paths of the table and of the dead letters.
        maps: folder for heat maps.
        root: the folder that all images have in common.
    """
    named = pipeline | "Files" >> beam.Create(list(files))
    matched = (
        pipeline
        | "Patterns" >> beam.Create(list(patterns))
        | fileio.MatchAll(fileio.EmptyMatchTreatment.ALLOW)
        | beam.Map(lambda match: match.path)
    )
    decoded = (
        (named, matched)
        | beam.Flatten()
        | "Once each" >> beam.Distinct()
        | "Decode" >> beam.ParDo(_Decode(spec, reading)).with_outputs("broken", main="images")
    )
    table, dead_letters = outputs
    _ = (
        decoded.images
        | RunInference(SavedModelHandler(model, spec))
        | "Verdicts" >> beam.ParDo(_ToRows(maps, root))
        | "Rows" >> beam.combiners.ToList()
        | "Table" >> beam.Map(tables.write_table, table)
    )
    _ = (
        decoded.broken
        | "Letters" >> beam.combiners.ToList()
        | "Dead letters" >> beam.Map(tables.write_dead_letters, dead_letters)
    )


class _Decode(beam.DoFn):
    """Decodes paths to `Pixels`; files that cannot be scored go to `broken`, with the reason."""

    def __init__(self, spec: InputSpec, reading: Reading):
        self._spec, self._reading = spec, reading
        self._broken = Metrics.counter(NAMESPACE, results.NOT_SCORED)

    def process(self, name: str) -> Iterator[Any]:
        from tfgad.inference import scoring

        try:
            channels, max_pixels = self._spec.image_shape[2], self._reading.max_pixels
            levels = read_levels(name, channels, storage.read(name), max_pixels)
            scoring.check_size(self._spec, name, levels.shape)
            pixels = to_uint8(scaled(name, levels, self._reading.depth))
        except ImageError as error:
            self._broken.inc()
            if error.beyond:
                Metrics.counter(NAMESPACE, f"{BEYOND}{error.beyond}").inc()
            yield beam.pvalue.TaggedOutput("broken", (name, error.reason))
            return
        if fitting := doubtful_depth(levels, self._reading.depth):
            Metrics.counter(NAMESPACE, f"{DOUBTFUL}{fitting}").inc()
        yield Pixels(name, pixels)


class _ToRows(beam.DoFn):
    """Turns predictions into rows of the table; writes the heat maps."""

    def __init__(self, maps: str | None, root: str):
        self._maps, self._root = maps, root
        self._counters = {
            verdict: Metrics.counter(NAMESPACE, verdict)
            for verdict in (results.GOOD, results.DEFECTIVE)
        }

    def process(self, result: PredictionResult) -> Iterator[tables.Row]:
        from tfgad.inference import scoring

        name, pixels = cast(Pixels, result.example)
        prediction = cast(dict[str, Any], result.inference)
        image, map_threshold = from_uint8(pixels), prediction["map_threshold"]
        verdict = scoring.verdict_of(Path(name), image, prediction, map_threshold)
        if self._maps:
            path = storage.map_path(self._maps, self._root, name)
            storage.write(path, results.map_png(verdict))
        self._counters[results.verdict_name(verdict.is_anomalous)].inc()
        yield tables.Row(
            name, verdict.score, verdict.probability, verdict.is_anomalous, verdict.reason
        )


def _options(runner: str, given: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options.

    Raises:
        UsageError: one that Beam refuses.
    """
    flags = [f"--{each.lstrip('-')}" for each in given]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions([*flags, f"--runner={LOCAL.get(runner, runner)}"])
            options.get_all_options()
    except SystemExit:
        problem = said.getvalue().strip().splitlines()[-1].rpartition("error: ")[2]
        hint = "see the options of the runner"
        raise UsageError("--runner-option", " ".join(given), problem, hint) from None
    return options


def _check_table(table: str) -> None:
    if os.path.splitext(table)[1].lower() not in tables.SUFFIXES:
        raise UsageError("csv", table, "is no table", "name a .csv or .parquet file")
    if not storage.is_remote(table):
        results.check_writable("csv", Path(table))


def _check_maps(maps: str, root: str) -> None:
    if f"{root}/".startswith(f"{storage.absolute(maps).rstrip('/')}/"):
        problem = "would hold the maps among the images"
        raise UsageError("maps", maps, problem, "name another folder")
    if not storage.is_remote(maps):
        results.check_writable("maps", Path(maps), folder=True)


def _finished(result: Any, partial: dict[str, str], table: str, dead_letters: str) -> Scored:
    """Renames the finished files to their final names, and returns the outcome.

    Raises:
        UsageError: no image could be scored, or this machine does not find the files.
    """
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    counted = {each.key.metric.name: each.result for each in found}
    verdicts = (results.GOOD, results.DEFECTIVE, results.NOT_SCORED)
    counts = {verdict: counted[verdict] for verdict in verdicts if counted.get(verdict)}
    if not all(map(FileSystems.exists, partial.values())):
        hint = "name a place that the workers and this machine can reach"
        raise UsageError("csv", table, "is not where the workers wrote it", hint)
    broken = tables.read_dead_letters(partial[dead_letters])
    beyond = sorted(name.removeprefix(BEYOND) for name in counted if name.startswith(BEYOND))
    if found and not counts.keys() - {results.NOT_SCORED}:  # a runner may count nothing at all
        name, reason = broken[0]
        others = f", nor {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UsageError("image", name, f"{reason}{others}", results.hint(beyond))
    FileSystems.rename(list(partial.values()), list(partial))
    doubtful = {
        int(name.removeprefix(DOUBTFUL)): count
        for name, count in counted.items()
        if name.startswith(DOUBTFUL)
    }
    return Scored(counts, broken, dead_letters, doubtful, beyond)


@contextlib.contextmanager
def _failures(runner: str) -> Iterator[None]:
    """Turns a runner's exceptions into one line; of the local runner they are tfgad's own bugs."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if runner in LOCAL and not isinstance(error, OSError):
            raise
        problem = f"failed ({textwrap.shorten(str(error) or type(error).__name__, SHOWN)})"
        hint = "install what the runner needs, and check its options"
        raise UsageError("--runner", runner, problem, hint) from error
    except SystemExit as error:  # Beam's way to refuse an option
        problem = f"was refused its options ({error})"
        raise UsageError("--runner", runner, problem, "see --runner-option") from error
