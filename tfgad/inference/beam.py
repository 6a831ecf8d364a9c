"""Scoring many images with Apache Beam, here or on a cluster: the verdicts of `tfgad score`.

    patterns ─ match ┐
    files ───────────┴ once each ─ decode ─ RunInference ─ table, heat maps
                                     └ broken ─ dead letters

Paths are local or of any file system that Beam knows (`gs://`, `s3://`, `hdfs://`, ...); a runner
on other machines needs paths that those can reach, and tfgad installed there. Beam gathers images
to batches of about as many pixels; the SavedModel judges those of one size at once, and a large
one block by block.

The table is sorted by name. For that, one worker holds all its rows at the end, about a gigabyte
of a million images; nothing else grows with their number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import os
import shutil
import tempfile
import textwrap
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.data.images import read_levels
from tfgad.data.pixels import doubtful_depth, from_uint8, scaled, to_uint8
from tfgad.errors import UsageError
from tfgad.inference import results

try:
    import apache_beam as beam
    from apache_beam.io import fileio
    from apache_beam.io.filesystem import BeamIOError, CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.metrics import Metrics, MetricsFilter
    from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineState
except ImportError as error:
    hint = "pip install 'tfgad[scale]'"
    raise UsageError("--runner", "Apache Beam", "is not installed", hint) from error

# Beam's DirectRunner first looks for a program of another language, Prism, and downloads it where
# it is not there. This is what it uses otherwise.
LOCAL = {"DirectRunner": "FnApiRunner"}
NAMESPACE = "tfgad"  # of the counters
DOUBTFUL = "fits bits: "  # the counter of such images, with the bits behind it
BEYOND = "beyond: "  # the counter of images that go beyond an argument, with its name behind it
DEAD_LETTERS = ("image", "reason")
WILDCARDS = "*?["
SHOWN = 300  # characters of what a runner says when it fails: its lists of mistakes are long
# Of the rows of the table that Parquet holds: numbers are numbers there, in all their digits.
PARQUET_COLUMNS = results.COLUMNS


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a pipeline has done.

    Attributes:
        counts: verdict -> number of images.
        broken: path and reason of each file that could not be judged, sorted.
        dead_letters: where these are written, too.
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


class Pixels(NamedTuple):
    """A decoded image: its path, and uint8 `[H, W, C]`."""

    name: str
    pixels: np.ndarray


class Row(NamedTuple):
    """What the table says of an image; see `tfgad.inference.results.row`."""

    image: str
    score: float
    probability: float
    is_anomalous: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Form:
    """What of a SavedModel the workers must know before it is loaded; see `predictor.Predictor`."""

    image_shape: tuple[int, int, int]
    resized: bool
    window: tuple[int, int, int]
    score: str
    threshold: float
    depth: int | None


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
        depth: bits of files of 16 bits, if not those that the model knows.
        max_pixels: of an image; a larger one is a dead letter.

    Raises:
        UsageError: a mistake in what was given, a runner that cannot run, or no image that can be
            judged; no table is written then.
    """
    form = _form(model)
    _check_table(table)
    files, patterns = _sources(images)
    root = _common_folder([*files, *(_fixed_part(each) for each in patterns)])
    if maps:
        _check_maps(maps, root)
    pipeline_options = _options(runner, options)
    dead_letters = f"{os.path.splitext(table)[0]}.dead_letters.csv"
    partial = {path: _partial(path) for path in (table, dead_letters)}
    try:
        with _failures(runner):
            pipeline = beam.Pipeline(options=pipeline_options)
            outputs, reading = list(partial.values()), Reading(depth or form.depth, max_pixels)
            build(pipeline, model, form, reading, files, patterns, outputs, maps=maps, root=root)
            result = pipeline.run()
            state = result.wait_until_finish()
            if state != PipelineState.DONE:
                raise RuntimeError(f"the pipeline ended as {state}")
        return _finished(result, partial, table, dead_letters)
    finally:
        _delete(partial.values())


def build(
    pipeline: beam.Pipeline,
    model: str,
    form: Form,
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
        form: of the model.
        reading: of the images.
        files: paths that are taken as they are.
        patterns: what is matched by the workers.
        outputs: where the table and the dead letters go.
        maps: folder for heat maps.
        root: what the folders of all images have in common.
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
        | "Decode" >> beam.ParDo(_Decode(form, reading)).with_outputs("broken", main="images")
    )
    table, dead_letters = outputs
    _ = (
        decoded.images
        | RunInference(SavedModelHandler(model, form))
        | "Conclude" >> beam.ParDo(_Conclude(form, maps, root))
        | "Rows" >> beam.combiners.ToList()
        | "Table" >> beam.Map(_write_table, table)
    )
    _ = (
        decoded.broken
        | "Letters" >> beam.combiners.ToList()
        | "Dead letters" >> beam.Map(_write_dead_letters, dead_letters)
    )


class SavedModelHandler(ModelHandler[Pixels, PredictionResult, Any]):
    """Judges `Pixels` by a SavedModel; the inference is what its signature answers, as a dict."""

    def __init__(self, folder: str, form: Form):
        from tfgad.data.sampling import BATCH_PIXELS

        self._folder, self._form, self._budget = folder, form, BATCH_PIXELS
        super().__init__()

    def batch_elements_kwargs(self):
        """Counts batches in pixels.

        Their least is their most, so that Beam does not try out which size is quickest: the memory
        that they take is what limits them.
        """
        return {
            "min_batch_size": self._budget,
            "max_batch_size": self._budget,
            "element_size_fn": self.weight,
        }

    def weight(self, image: Pixels) -> int:
        """What an image counts of a batch; see `predictor.pixels_of`."""
        from tfgad.inference import predictor

        return predictor.pixels_of(self._form, image.pixels.shape)

    def load_model(self):
        """Loads the model, once a process."""
        from tfgad.quiet import import_tensorflow

        import_tensorflow()
        from tfgad.inference import predictor

        with _local_copy(self._folder) as folder:
            return predictor.SavedModelPredictor(_version(folder, self._folder))

    def run_inference(self, batch: Sequence[Pixels], model, inference_args=None):
        """Yields the result of each image."""
        by_shape = sorted(batch, key=lambda image: image.pixels.shape)
        for _, group in itertools.groupby(by_shape, key=lambda image: image.pixels.shape):
            alike = list(group)
            if self.weight(alike[0]) == self._budget:
                judged = [model.predict_pixels(image.pixels) for image in alike]
            else:
                judged = model.predict_batch(np.stack([image.pixels for image in alike]))
            yield from map(PredictionResult, alike, judged)

    def get_num_bytes(self, batch: Sequence[Pixels]) -> int:
        """The size of the images, which Beam reports."""
        return sum(image.pixels.nbytes for image in batch)


class _Decode(beam.DoFn):
    """Paths to `Pixels`; those of files that cannot be judged go to `broken`, with the reason."""

    def __init__(self, form: Form, reading: Reading):
        self._form, self._reading = form, reading
        self._broken = Metrics.counter(NAMESPACE, results.NOT_SCORED)

    def process(self, name: str):
        from tfgad.inference import predictor

        try:
            channels, max_pixels = self._form.image_shape[2], self._reading.max_pixels
            levels = read_levels(name, channels, _content(name), max_pixels)
            predictor.check_size(self._form, name, levels.shape)
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


class _Conclude(beam.DoFn):
    """Results to rows; writes the heat maps."""

    def __init__(self, form: Form, maps: str | None, root: str):
        self._form, self._maps, self._root = form, maps, root
        self._counters = {
            verdict: Metrics.counter(NAMESPACE, verdict)
            for verdict in (results.GOOD, results.DEFECTIVE)
        }

    def process(self, result: PredictionResult):
        from tfgad.inference import predictor

        name, pixels = result.example
        image = from_uint8(pixels)
        verdict = predictor.verdict_of(self._form, name, image, result.inference)
        if self._maps:
            _write(map_path(self._maps, self._root, name), results.map_png(verdict))
        self._counters[results.verdict_name(verdict.is_anomalous)].inc()
        yield Row(name, verdict.score, verdict.probability, verdict.is_anomalous, verdict.reason)


def map_path(maps: str, root: str, name: str) -> str:
    """Returns where the heat map of an image goes: no two images have one place."""
    inside = _absolute(name)[len(root) :].lstrip("/")
    return f"{maps.rstrip('/')}/{inside}.png"


# What the workers write


def _write_table(rows: list[Row], path: str) -> None:
    rows = sorted(rows)
    if _is_parquet(path):
        content = _parquet(rows)
    else:
        content = results.csv_text(
            (results.judged_row(*row) for row in rows), results.COLUMNS
        ).encode()
    _write(path, content)


def _parquet(rows: list[Row]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    verdicts = [results.verdict_name(row.is_anomalous) for row in rows]
    columns = (
        pyarrow.array([row.image for row in rows], pyarrow.string()),
        pyarrow.array([row.score for row in rows], pyarrow.float64()),
        pyarrow.array([row.probability for row in rows], pyarrow.float64()),
        pyarrow.array(verdicts, pyarrow.string()),
        pyarrow.array([row.reason for row in rows], pyarrow.string()),
    )
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(zip(PARQUET_COLUMNS, columns, strict=True))), content)
    return content.getvalue()


def _write_dead_letters(broken: list[tuple[str, str]], path: str) -> None:
    rows = (dict(zip(DEAD_LETTERS, letter, strict=True)) for letter in sorted(broken))
    _write(path, results.csv_text(rows, DEAD_LETTERS).encode())


def _write(path: str, content: bytes) -> None:
    """Writes a file whole or not at all, also where a worker is started anew."""
    partial = _partial(path)
    with FileSystems.create(partial, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)
    FileSystems.rename([partial], [path])


def _content(path: str) -> bytes:
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return file.read()
    except Exception as error:  # each file system has its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, f"cannot be read ({reason.splitlines()[0]})") from error


# What is given


def _form(model: str) -> Form:
    """Reads what there is to know of a SavedModel.

    Raises:
        UsageError: it is none.
    """
    from tfgad.inference import predictor

    with _local_copy(model) as folder:
        metadata = predictor.saved_model_metadata(_version(folder, model))
    return Form(
        image_shape=tuple(metadata["image_shape"]),
        resized=metadata["resized"],
        window=tuple(metadata["window"]),
        score=metadata["score"],
        threshold=metadata["threshold"],
        depth=metadata.get("depth"),
    )


def _version(folder: Path, given: str) -> Path:
    from tfgad.inference import predictor

    version = predictor.saved_model_folder(folder)
    if version is None:
        hint = f"export it first: tfgad export {given} FOLDER"
        raise UsageError("model", given, "is a run, and workers need a SavedModel", hint)
    return version


@contextlib.contextmanager
def _local_copy(folder: str):
    """Gives a folder as a local one: itself, or what is copied of a remote one meanwhile."""
    if not _is_remote(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as copy:
        for found in _matched("model", f"{folder.rstrip('/')}/**"):
            place = Path(copy, found.path[len(folder.rstrip("/")) :].lstrip("/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileSystems.open(found.path) as file, place.open("wb") as local:
                shutil.copyfileobj(file, local)
        yield Path(copy)


def _sources(images: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns files that are there, and patterns that match some.

    Raises:
        UsageError: one is neither.
    """
    files, patterns = [], []
    for image in images:
        if _is_remote(image) or (_has_wildcard(image) and not os.path.exists(image)):
            if not _matched("image", image, limit=1):
                raise UsageError("image", image, "matches no files", "check the pattern")
            patterns.append(image)
        else:
            files += map(str, results.find_images([Path(image)]))
    return files, patterns


def _matched(argument: str, pattern: str, limit: int | None = None) -> list:
    try:
        (match,) = FileSystems.match([pattern], None if limit is None else [limit])
    except (ValueError, BeamIOError, OSError) as error:
        problem = f"cannot be looked up ({_first_line(error)})"
        raise UsageError(argument, pattern, problem, "check the path") from error
    return match.metadata_list


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
    if os.path.splitext(table)[1].lower() not in (".csv", ".parquet"):
        raise UsageError("csv", table, "is no table", "name a .csv or .parquet file")
    if not _is_remote(table):
        results.check_writable("csv", Path(table))


def _check_maps(maps: str, root: str) -> None:
    if f"{root}/".startswith(f"{_absolute(maps).rstrip('/')}/"):
        problem = "would hold the maps among the images"
        raise UsageError("maps", maps, problem, "name another folder")
    if not _is_remote(maps):
        results.check_writable("maps", Path(maps), folder=True)


def _is_parquet(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _is_remote(path: str) -> bool:
    return "://" in path


def _has_wildcard(path: str) -> bool:
    return any(sign in path for sign in WILDCARDS)


def _fixed_part(pattern: str) -> str:
    """Returns what of a pattern is before the first folder or name with a wildcard."""
    before = itertools.takewhile(lambda part: not _has_wildcard(part), pattern.split("/"))
    return "/".join([*before, ""])


def _common_folder(names: Iterable[str]) -> str:
    """Returns the folder that all paths lie in; empty if they have none in common."""
    parts = [_absolute(name).split("/")[:-1] for name in names]
    alike = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*parts, strict=False))
    return "/".join(each[0] for each in alike)


def _absolute(path: str) -> str:
    if _is_remote(path):
        return path
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")


def _partial(path: str) -> str:
    """Returns a name beside a path for what is not finished, hidden and used once."""
    folder, slash, name = path.rpartition("/")
    stem, suffix = os.path.splitext(name)
    return f"{folder}{slash}.{stem}.{uuid.uuid4().hex}.partial{suffix}"


# What comes out


def _finished(result, partial: dict[str, str], table: str, dead_letters: str) -> Scored:
    """Puts the finished files in their places.

    Raises:
        UsageError: no image could be judged, or the files are not where this machine looks.
    """
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    counted = {each.key.metric.name: each.result for each in found}
    verdicts = (results.GOOD, results.DEFECTIVE, results.NOT_SCORED)
    counts = {verdict: counted[verdict] for verdict in verdicts if counted.get(verdict)}
    if not all(map(FileSystems.exists, partial.values())):
        hint = "name a place that the workers and this machine can reach"
        raise UsageError("csv", table, "is not where the workers wrote it", hint)
    broken = _read_dead_letters(partial[dead_letters])
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


def _read_dead_letters(path: str) -> list[tuple[str, str]]:
    import csv

    with FileSystems.open(path) as file:
        rows = csv.DictReader(io.StringIO(file.read().decode(), newline=""))
        return [(row["image"], row["reason"]) for row in rows]


def _delete(paths: Iterable[str]) -> None:
    with contextlib.suppress(BeamIOError, ValueError, OSError):
        FileSystems.delete([path for path in paths if FileSystems.exists(path)])


@contextlib.contextmanager
def _failures(runner: str):
    """Turns what a runner raises into one line, but for mistakes of tfgad's own here."""
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
