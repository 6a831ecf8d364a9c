"""The `tfgad` command. TensorFlow is imported by the commands that need it, not by `--help`."""

from __future__ import annotations

import collections
import enum
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgad.cli import console, multistage, serving
from tfgad.cli.multistage import settings_given
from tfgad.cli.progress import Progress, training_callbacks
from tfgad.data.datasets.weave.cloth import FABRICS
from tfgad.data.image_files import MAX_PIXELS, ImageError
from tfgad.data.pixels import FULL_DEPTH
from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.quiet import import_tensorflow
from tfgad.version import __version__

if TYPE_CHECKING:
    from tfgad.training.runs import Run

app = typer.Typer(
    name="tfgad",
    cls=console.Commands,
    help="Find what does not belong: learn from good images alone, judge others.",
    epilog="Exit codes: 0 done; 1 done, but images that cannot be read were left out; "
    "2 a mistake in what was given; 130 stopped by Ctrl-C.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[str, typer.Option(help="Data set, such as weave:twill or folder:PATH?size=128.")]
OtherData = Annotated[
    str | None, typer.Option("--data", help="Another data set than the run was trained on.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a run or of an exported model.")
]
Rate = Annotated[float, typer.Option(help="Share of the good images that may be called defective.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


METHODS = {
    "ganomaly": "encode, decode, encode again (Akcay 2018): heat maps; the one to start with",
    "anogan": "a GAN, and a search for each image's code (Schlegl 2017): heat maps, samples",
    "fanogan": "WGAN-GP and an encoder (Schlegl 2019): heat maps, samples",
    "vae": "a variational autoencoder (Kingma, Welling 2014): heat maps, samples",
    "gan": "fully connected (Goodfellow 2014): samples, for digits",
    "dcgan": "convolutional (Radford 2016): samples",
    "cgan": "given the class (Mirza 2014): samples of each class; data with several",
    "wgan": "a clipped critic (Arjovsky 2017): samples",
    "wgan_gp": "a critic with a gradient penalty (Gulrajani 2017): samples",
}
DATA_SETS = {
    "folder:PATH": "your images: good/ and other folders, MVTec AD's layout, or good ones alone",
    "weave:NAME": f"woven fabric made for the purpose: {', '.join(FABRICS)}",
    "aitex:FF": "AITEX strips of woven fabric: 00 to 06 (needs TFGAD_DATA_DIR)",
    "mnist:8": "handwritten digits; 8 is normal. mnist:!2, mnist:7+8",
    "fashion_mnist:0": "pictures of clothes; T-shirts are normal",
    "digits:8": "scikit-learn's small digits; no download",
}


class ExportFormat(str, enum.Enum):
    """What `export` can write."""

    SAVED_MODEL = "savedmodel"
    LITERT = "litert"


class Runner(str, enum.Enum):
    """What `score` can hand its images to."""

    DIRECT = "DirectRunner"
    FLINK = "FlinkRunner"
    SPARK = "SparkRunner"
    DATAFLOW = "DataflowRunner"


WARNED = 20  # files of a large batch that are named one by one; the dead letters name them all


class Distribute(str, enum.Enum):
    """How `train` shares the work; see `tfgad.training.distribution`."""

    ALONE = "alone"
    MIRRORED = "mirrored"
    MULTIWORKER = "multiworker"


def main() -> None:
    """Runs the command; the entry point of the package."""
    console.show_log()
    if hasattr(sys.stdout, "reconfigure"):  # names of files need not be UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="tfgad")


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        console.say(f"tfgad {__version__}")
    elif context.invoked_subcommand is None:
        console.say(context.get_help())


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what it writes.")] = Path("demo"),
    overwrite: Overwrite = False,
) -> None:
    """The main job end to end on fabric made for it, in about three minutes."""
    import_tensorflow()
    from tfgad.cli import demo as steps

    with Progress() as progress:
        run, figures = steps.demo(out, progress, overwrite=overwrite)
    _show_figures(run.config["method"], run.config["data"], figures)
    written = [
        ("report.html", "open it in a browser: everything in one page"),
        (steps.HEAT_MAPS, "what was found, beside what was to be found"),
        ("metrics.json", "the figures above"),
        (f"{steps.RUN}/", f"try: tfgad score {out / steps.RUN} YOUR_IMAGE.png"),
        (f"{steps.SAVED_MODEL}/1/", "ready for TensorFlow Serving"),
    ]
    console.show(console.two_columns((out / name, meaning) for name, meaning in written))


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A method: see `tfgad list`.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the run.")],
    steps: Annotated[
        str | None, typer.Option(help="Training steps; 600+1500 for a method of two stages.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of the recipe."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, training and data split.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    overwrite: Overwrite = False,
    distribute: Annotated[
        Distribute, typer.Option(help="Over all GPUs, or the workers that TF_CONFIG names.")
    ] = Distribute.ALONE,
) -> None:
    """Train a method on good images, and set its threshold on others held out of them."""
    chosen = settings_given(settings or [], steps)
    import_tensorflow()
    from tfgad.training import runs

    with Progress() as progress:
        progress.phase("reading the data")
        run = runs.train(
            method,
            data,
            out,
            seed=seed,
            settings=chosen,
            resume=resume,
            overwrite=overwrite,
            callbacks=training_callbacks(progress),
            distribute=distribute.value,
        )
    if run is None:
        console.say(f"{out}: done; the chief writes it")
        return
    console.say(f"{out}: trained in {run.config['training_seconds']:.0f} s")
    _show_threshold(run)
    next_command = "evaluate" if run.config["images"]["test"] else "score"
    console.say(f"next: tfgad {next_command} {out}{' IMAGE...' * (next_command == 'score')}")


@app.command()
def calibrate(run: RunFolder, data: OtherData = None, false_positive_rate: Rate = 0.01) -> None:
    """Set a run's threshold anew, from good images alone that it was not trained on.

    Of another data set all serve, but for those that its test needs.
    """
    loaded, images = _load(run, data)
    from tfgad.training import runs

    with Progress() as progress:
        progress.phase("judging good images")
        runs.calibrate(loaded, images, false_positive_rate)
    _show_threshold(loaded)


@app.command()
def evaluate(
    run: RunFolder,
    data: OtherData = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report, if not the run's.")
    ] = None,
) -> None:
    """Predictor a test set, beside three trivial detectors, and write a report."""
    if out:
        results.check_writable("out", out, folder=True)
    loaded, images = _load(run, data)
    from tfgad.evaluation import evaluator

    with Progress() as progress:
        progress.phase("judging the test set")
        figures = evaluator.evaluate(loaded, images, out)
    _show_figures(loaded.config["method"], images.spec, figures)
    folder = out or run
    console.say(f"{folder / 'report.html'}, {folder / 'metrics.json'}")


@app.command()
def score(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a run or of an exported model.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files or folders; with --runner patterns, too."),
    ],
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Table to write; with --runner .csv or .parquet."),
    ] = None,
    maps: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for a heat map of each image.")
    ] = None,
    runner: Annotated[
        Runner | None,
        typer.Option(help="Score with Apache Beam; MODEL is an exported one then."),
    ] = None,
    runner_options: Annotated[
        list[str] | None,
        typer.Option(
            "--runner-option",
            metavar="NAME=VALUE",
            help="An option of Beam's, such as direct_num_workers=4.",
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(min=9, max=16, help="Bits of files of 16 bits, if not those trained on."),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of the largest image that is read.")
    ] = MAX_PIXELS,
) -> None:
    """Predictor images of any size; those that cannot be read are named and left out.

    With --runner Apache Beam judges them, here or on a cluster. Model, images, table and maps may
    then be remote. Files that cannot be judged are listed in NAME.dead_letters.csv beside the
    table.
    """
    reading = {"depth": depth, "max_pixels": max_pixels}
    if runner:
        _score_with_beam(model, images, csv, maps, runner, runner_options or [], reading)
    elif runner_options:
        raise UsageError("--runner-option", runner_options[0], "needs a runner", "add --runner")
    else:
        paths = csv and Path(csv), maps and Path(maps)
        _score(Path(model), [Path(image) for image in images], *paths, reading)


def _score(
    model: Path, images: list[Path], csv: Path | None, maps: Path | None, reading: dict[str, Any]
) -> None:
    paths = results.find_images(images)
    if csv:
        results.check_writable("csv", csv)
    if maps:
        results.check_writable("maps", maps, folder=True)
    places = results.map_paths(maps, paths) if maps else {}
    import_tensorflow()
    from tfgad.inference import predictor

    rows, broken = [], []
    with Progress() as progress:
        progress.phase("loading the model")
        judge = predictor.load_predictor(model)
        progress.phase("judging", len(paths))
        try:
            for result in predictor.score_files(judge, paths, **reading):
                rows.append(results.row(result))
                if isinstance(result, ImageError):
                    broken.append(result)
                elif maps:
                    results.write_map(places[result.path], result)
                del result  # or a large image stays in memory while the next is read
                progress.advance()
        except UsageError:  # such as a full disk: what was scored is not to be lost
            if csv and rows:
                results.write_csv(csv, rows)
                console.warn(f"{csv} holds {len(rows)} of {len(paths)} images")
            raise
    _report_scores(rows, broken, csv)


def _score_with_beam(
    model: str,
    images: list[str],
    csv: str | None,
    maps: str | None,
    runner: Runner,
    options: list[str],
    reading: dict[str, Any],
) -> None:
    if csv is None:
        hint = "add --csv FILE, a .csv or .parquet file"
        raise UsageError("--runner", runner.value, "needs a table to write", hint)
    import_tensorflow()
    # Else Beam's first warning opens the terminal to all that libraries log.
    logging.getLogger().addHandler(logging.NullHandler())
    from tfgad.inference import beam
    from tfgad.inference.predictor import doubt

    with Progress() as progress:
        progress.phase(f"judging with {runner.value}")
        scored = beam.score(
            model, images, csv, maps=maps, runner=runner.value, options=options, **reading
        )
    _say_counts(csv, scored.counts)
    for fitting, count in scored.doubtful.items():
        console.warn(doubt(f"{count} images", fitting))
    for name, reason in scored.broken[:WARNED]:
        console.warn(f"not judged: {name}: {reason}")
    if len(scored.broken) > WARNED:
        console.warn(f"not judged: {len(scored.broken) - WARNED} others")
    _say_hints(scored.beyond)
    if scored.broken:
        console.warn(f"all that were not judged: {scored.dead_letters}")
        raise typer.Exit(console.BROKEN_IMAGES)


@app.command()
def export(
    run: RunFolder,
    directory: Annotated[
        Path, typer.Argument(help="Folder of the model's versions; for litert, of its files.")
    ],
    format: Annotated[
        ExportFormat,
        typer.Option(help="TensorFlow Serving's format, or LiteRT's for phones and small boards."),
    ] = ExportFormat.SAVED_MODEL,
    data: Annotated[
        str | None,
        typer.Option(help="For litert: images to compare scores on, if not those of the run."),
    ] = None,
) -> None:
    """Write a run's model for other programs, preprocessing and threshold inside.

    As litert it takes images of the run's size alone, and is written only if it gives the scores
    of the run's model. A variant with weights of 8 bits lies beside; what it loses is printed.
    """
    if format is ExportFormat.LITERT:
        _export_litert(run, directory, data)
        return
    import_tensorflow()
    from tfgad.export.saved_model import export_run
    from tfgad.training import runs

    with Progress() as progress:
        progress.phase("exporting")
        written = export_run(runs.load_run(run), directory)
    console.say(str(written))


def _export_litert(run: Path, directory: Path, spec: str | None) -> None:
    loaded, images = _load(run, spec)
    from tfgad.export import litert

    with Progress() as progress:
        progress.phase("converting, and comparing scores")
        variants = litert.export_litert(loaded, images, directory)
    unit = images.counted_unit
    for each in variants:
        line = (
            f"{directory / each.name}: {each.size / 1e6:.2f} MB, {each.milliseconds:.1f} ms an "
            f"image, scores differ by {each.largest_difference:.2g} at most"
        )
        if each.image_auroc is not None:
            line += f", {unit} AUROC {each.image_auroc:.3f} (loss {each.auroc_loss:.4f})"
        console.say(line)


@app.command()
def info(model: Model) -> None:
    """Say what a model is: method, data, sizes, threshold, versions."""
    console.show(console.two_columns(_facts(model)))


@app.command("list")
def list_names() -> None:
    """List the methods and the data sets."""
    for title, names in (("Methods", METHODS), ("Data sets", DATA_SETS)):
        console.say(title)
        console.show(console.two_columns((f"  {name}", line) for name, line in names.items()))
    console.say("The recipe of a method's paper is named METHOD/paper.")


app.command()(serving.serve)
app.add_typer(multistage.synthesize, name="synthesize")
app.add_typer(multistage.segment, name="segment")
for command in (evaluate, score, export):  # a segmenter is judged as every detector is
    multistage.segment.command()(command)


def _load(folder: Path, spec: str | None):
    """Loads a run, and its own data set or another that is read as its own was."""
    import_tensorflow()
    from tfgad import data
    from tfgad.training import runs

    run = runs.load_run(folder)
    return run, data.load(spec or run.config["data"], **data_defaults(run.config, spec))


def data_defaults(config: dict[str, Any], spec: str | None) -> dict[str, Any]:
    """Returns how to read a data set that a run is to judge, where its spec does not say.

    As the run's own was read, if the kind is the same: split by the same seed, so that no training
    image comes back as a held-out one. Else at the run's size, resized or as tiles. A spec that
    gives a `size` asks for whole images, not for tiles.
    """
    from tfgad.data.spec import Spec

    own, given = Spec.parse(config["data"]), Spec.parse(spec or config["data"])
    side, _, channels = config["image_shape"]
    depth = config.get("depth", FULL_DEPTH)  # before runs had it, files of 16 bits had all 16
    depth = depth if depth > 8 else None  # nothing is known of such files
    if given.kind == own.kind:
        defaults = {"channels": channels, "depth": depth, **own.options}
    else:
        tile = None if config["resized"] else side
        defaults = {"channels": channels, "depth": depth, "size": side, "tile": tile}
    return {**defaults, "tile": None} if "size" in given.options else defaults


def _show_figures(method: str, spec: str, figures: dict[str, Any]) -> None:
    """Prints the method's figures beside those of the trivial detectors."""
    from tfgad.evaluation import baselines, metrics

    rows = metrics.names_of(figures["unit"])
    trivial = {baselines.NAMES[name]: each for name, each in figures["baselines"].items()}
    console.show(console.figures_table(spec, {method: figures, **trivial}, rows))
    for label, reasons in figures.get("reasons", {}).items():
        if reasons:
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            console.say(f"of the {label} images, unlike any good one: {counts}")


def _show_threshold(run: Run) -> None:
    calibration = run.calibration
    console.say(
        f"threshold {calibration['threshold']:.4g}, for a false-positive rate of "
        f"{_rate({**run.config, **calibration})} ({calibration['method']} of "
        f"{calibration['images']} good images)"
    )


def _rate(metadata: dict[str, Any]) -> str:
    """Returns the false-positive rate, and of what: a large image holds many tiles."""
    height, width, _ = metadata["image_shape"]
    of = "" if metadata["resized"] else f" a tile of {height} x {width}"
    return f"{metadata['false_positive_rate']:g}{of}"


def _report_scores(rows: list[dict[str, str]], broken: list[ImageError], csv: Path | None) -> None:
    """Writes the table or prints it, and names the files that could not be judged.

    Raises:
        UsageError: none could be judged; nothing is written then.
        typer.Exit: some could not.
    """
    beyond = sorted({error.beyond for error in broken if error.beyond})
    if len(broken) == len(rows):
        first = broken[0]
        others = f", nor {len(broken) - 1} others" if len(broken) > 1 else ""
        raise UsageError("image", first.path, f"{first.reason}{others}", results.hint(beyond))
    if csv:
        results.write_csv(csv, rows)
    for row in rows:
        if not csv and row["score"]:
            numbers = f"probability {float(row['probability']):.3f}  score {row['score']:<8}"
            reason = row["reason"] and f"  ({row['reason']})"
            console.say(f"{row['verdict']:<9}  {numbers}  {row['image']}{reason}")
    _say_counts(csv, collections.Counter(row["verdict"] for row in rows))
    for error in broken:
        console.warn(f"not judged: {error}")
    _say_hints(beyond)
    if broken:
        raise typer.Exit(console.BROKEN_IMAGES)


def _say_hints(beyond: Sequence[str]) -> None:
    if beyond:
        console.warn(results.hint(beyond))


def _say_counts(csv: Path | str | None, counts: dict[str, int]) -> None:
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.say(f"{csv}: {summary}" if csv else summary)


def _facts(model: Path) -> Iterator[tuple[str, str]]:
    """Yields what there is to say of a run or a SavedModel."""
    import_tensorflow()
    from tfgad.inference import predictor

    metadata = predictor.metadata_of(model)
    height, width, channels = metadata["image_shape"]
    colour = "grey" if channels == 1 else "colour"
    how = "images are resized to it" if metadata["resized"] else "images are judged as they are"
    for name in ("method", "data"):
        if name in metadata:  # who exports a model by hand says of it what there is to say
            yield name, metadata[name]
    if "train" in metadata.get("images", {}):
        yield "training images", f"{metadata['images']['train']:,}"
    yield "image size", f"{height} x {width}, {colour}; {how}"
    if "depth" in metadata:
        yield "depth", f"{metadata['depth']} bits"
    yield "window", f"{metadata['window'][0]} x {metadata['window'][1]}"
    yield "score", metadata["score"]
    yield "threshold", f"{metadata['threshold']:.4g}"
    yield "false-positive rate", _rate(metadata)
    if "versions" in metadata:
        yield (
            "versions",
            ", ".join(f"{name} {number}" for name, number in metadata["versions"].items()),
        )


if __name__ == "__main__":
    main()
