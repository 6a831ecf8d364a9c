"""The pipeline: a run of it, with its options, failures and results."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import itertools
import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import MetricsFilter
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from tfgad.data.image_files import MAX_PIXELS
from tfgad.errors import UsageError
from tfgad.files import printable
from tfgad.inference import results
from tfgad.inference.beam import storage, tables
from tfgad.inference.beam.model import InputSpec, Pixels, SavedModelHandler, input_spec_of
from tfgad.inference.beam.steps import (
    BARE,
    BEYOND,
    DOUBTFUL,
    NAMESPACE,
    SMALL,
    Broken,
    Decode,
    Reading,
    ToRows,
)
from tfgad.scores.verdicts import DEFECTIVE, GOOD, NOT_SCORED

# Beam's DirectRunner first looks for a program of another language, Prism, and downloads it where
# it is not there. This is what it uses otherwise.
LOCAL = {"DirectRunner": "FnApiRunner"}
DASK = "DaskRunner"
NAMES = {**LOCAL, DASK: "apache_beam.runners.dask.dask_runner.DaskRunner"}  # Beam's own
MAP_SUFFIXES = {"maps": ".png", "raw-maps": ".tiff"}
NOT_UTF8 = "has a name that is not UTF-8, which Beam cannot give to its workers"
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
        small: number of regions that were left out for their area.
        bare: number of defective images that were left without a region so.
    """

    counts: dict[str, int]
    broken: list[tuple[str, str]]
    dead_letters: str
    doubtful: dict[int, int]
    beyond: list[str]
    small: int
    bare: int


def score(
    model: str,
    images: Sequence[str],
    table: str,
    *,
    maps: str | None = None,
    raw_maps: str | None = None,
    min_area: int = 1,
    mm_per_pixel: float | None = None,
    runner: str = "DirectRunner",
    options: Sequence[str] = (),
    depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
    product: str | None = None,
) -> Scored:
    """Scores images and writes the tables, the dead letters and the maps.

    Args:
        model: folder of a SavedModel that `tfgad export` wrote, or of its versions.
        images: files, folders, or patterns such as `gs://bucket/day-1/*.png`; `**` goes through
            folders.
        table: `.csv`, or `.parquet`; beside it are the regions as `NAME.defects.csv` and the dead
            letters as `NAME.dead_letters.csv`. All are written whole or not at all.
        maps: folder for heat maps. It mirrors the images' folders; that of `a.png` is `a.png.png`.
        raw_maps: folder for the values of the maps, as `a.png.tiff`.
        min_area: pixels of the smallest region that is listed.
        mm_per_pixel: side of a pixel, for areas in mm².
        runner: a runner of Beam's.
        options: of Beam and of the runner, as `name=value`, or `name` for a flag.
        depth: bits of files of 16 bits, if they differ from the model's.
        max_pixels: of an image; a larger one is a dead letter.
        product: of all images; None where the model has one, or is to recognise it.

    Raises:
        UsageError: a mistake in the arguments, a runner that cannot run, or no image that can be
            scored; no table is written then.
    """
    spec = input_spec_of(model, product)
    _check_table(table)
    files, patterns = storage.find_images(images)
    root = storage.common_folder([*files, *map(storage.fixed_part, patterns)])
    for argument, folder in (("maps", maps), ("raw-maps", raw_maps)):
        if folder:
            _check_maps(argument, folder, root, images, files)
    output = results.Output(table, maps, raw_maps, min_area, mm_per_pixel)
    pipeline_options = _options(runner, options)
    dead_letters = f"{os.path.splitext(table)[0]}.dead_letters.csv"
    names = (table, results.regions_path(table), dead_letters)
    partial = {path: storage.partial_name(path) for path in names}
    try:
        with _failures(runner):
            pipeline = beam.Pipeline(options=pipeline_options)
            outputs, reading = list(partial.values()), Reading(depth or spec.depth, max_pixels)
            build(
                pipeline,
                model,
                spec,
                reading,
                files,
                patterns,
                outputs,
                output=output,
                root=root,
                batches=runner != DASK,
            )
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
    output: results.Output,
    root: str,
    batches: bool = True,
) -> None:
    """Adds all steps to a pipeline.

    Beam's DaskRunner (2.77) runs only what the last step needs, and gives every output of a step to
    whoever reads one of them. So the pipeline has one end, and images and broken files are told
    apart by their type. It has no side inputs, either.

    Args:
        pipeline: an empty one.
        model: folder of the SavedModel, which each worker loads.
        spec: of the model.
        reading: of the images.
        files: paths that are taken literally.
        patterns: those that the workers match.
        outputs: paths of the table, of the regions and of the dead letters.
        output: what is written of each image.
        root: the folder that all images have in common.
        batches: score several images at once. DaskRunner drops what a step yields at the end of a
            bundle, which is the last batch.
    """
    named = pipeline | "Files" >> beam.Create([name for name in files if _is_unicode(name)])
    unsendable = [Broken(printable(name), NOT_UTF8) for name in files if not _is_unicode(name)]
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
        | "Decode" >> beam.ParDo(Decode(spec, reading))
    )
    named_otherwise = pipeline | "Names not in UTF-8" >> beam.Create(unsendable)
    decoded = (decoded, named_otherwise) | "All" >> beam.Flatten()
    images = decoded | "Images" >> beam.Filter(lambda each: isinstance(each, Pixels))
    broken = decoded | "Broken" >> beam.Filter(lambda each: isinstance(each, Broken))
    table, regions, dead_letters = outputs
    predictions = _scored(images, SavedModelHandler(model, spec), batches)
    rows = predictions | "Verdicts" >> beam.ParDo(ToRows(output, root)) | "Rows" >> _ToList()
    letters = broken | "Letters" >> _ToList()
    written = (
        rows | "Table" >> beam.Map(tables.write_table, table),
        rows | "Regions" >> beam.Map(tables.write_regions, regions, output.mm_per_pixel),
        letters | "Dead letters" >> beam.Map(tables.write_dead_letters, dead_letters),
    )
    _ = written | "Written" >> beam.Flatten()


def _is_unicode(name: str) -> bool:
    """Returns whether Beam can give a path to its workers: it sends text as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _scored(images: beam.PCollection, handler: SavedModelHandler, batches: bool) -> Any:
    """Returns the predictions of images, scored in batches or one by one."""
    if batches:
        return images | RunInference(handler)
    alone = images | "One by one" >> beam.Map(lambda image: [image])
    return alone | RunInference(handler.with_no_batching())


class _ToList(beam.PTransform):
    """Makes one list of all elements, an empty one if there are none.

    Beam's own `ToList` makes the empty one by a side input, and for a side input DaskRunner runs
    all steps before it once more.
    """

    def expand(self, elements: beam.PCollection) -> Any:
        """Returns the list as the only element."""
        none = elements.pipeline | "None" >> beam.Create([(0, [])])
        each = elements | "Each" >> beam.Map(lambda element: (0, [element]))
        lists = (none, each) | beam.Flatten() | beam.GroupByKey()
        return lists | "All" >> beam.Map(lambda pair: list(itertools.chain(*pair[1])))


def _options(runner: str, given: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options.

    Raises:
        UsageError: one that Beam refuses, or a runner whose packages are not installed.
    """
    if runner == DASK and not importlib.util.find_spec("distributed"):
        raise UsageError("--runner", DASK, "needs Dask", "pip install 'tfgad[dask]'")
    flags = [f"--{each.lstrip('-')}" for each in given]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions([*flags, f"--runner={NAMES.get(runner, runner)}"])
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


def _check_maps(
    argument: str, maps: str, root: str, images: Sequence[str], files: Sequence[str]
) -> None:
    if f"{root}/".startswith(f"{storage.absolute(maps).rstrip('/')}/"):
        problem = "would hold the maps among the images"
        raise UsageError(argument, maps, problem, "name another folder")
    if not storage.is_remote(maps):
        local = [Path(image) for image in images if not storage.is_remote(image)]
        results.check_outside(argument, Path(maps), local)
        results.check_writable(argument, Path(maps), folder=True)
        suffix = MAP_SUFFIXES[argument]
        for name in files:
            results.check_map_name(argument, name, storage.map_path(maps, root, name, suffix))


def _finished(result: Any, partial: dict[str, str], table: str, dead_letters: str) -> Scored:
    """Renames the finished files to their final names, and returns the outcome.

    Raises:
        UsageError: no image could be scored, or this machine does not find the files.
    """
    counted = _counted(result)
    if not all(map(FileSystems.exists, partial.values())):
        hint = "name a place that the workers and this machine can reach"
        raise UsageError("csv", table, "is not where the workers wrote it", hint)
    broken = tables.read_dead_letters(partial[dead_letters])
    found = tables.count_verdicts(partial[table])
    counts = {verdict: found[verdict] for verdict in (GOOD, DEFECTIVE) if verdict in found}
    beyond = sorted(name.removeprefix(BEYOND) for name in counted if name.startswith(BEYOND))
    if broken and not counts:
        name, reason = broken[0]
        others = f", nor {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UsageError("image", name, f"{reason}{others}", results.hint(beyond))
    if broken:
        counts[NOT_SCORED] = len(broken)
    FileSystems.rename(list(partial.values()), list(partial))
    doubtful = {
        int(name.removeprefix(DOUBTFUL)): count
        for name, count in counted.items()
        if name.startswith(DOUBTFUL)
    }
    left_out = counted.get(SMALL, 0), counted.get(BARE, 0)
    return Scored(counts, broken, dead_letters, doubtful, beyond, *left_out)


def _counted(result: Any) -> dict[str, int]:
    """Returns what the workers counted; nothing where the runner does not count."""
    try:
        found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    except NotImplementedError:
        return {}
    return {each.key.metric.name: each.result for each in found}


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
