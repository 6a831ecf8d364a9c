"""`tfgad demo`, `train`, `calibrate` and `evaluate`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgad.cli import checking, console
from tfgad.cli.arguments import Data, OtherData, Overwrite, Rate, RunFolder, settings_given
from tfgad.cli.loading import load_run_and_data
from tfgad.cli.progress import Progress, training_callbacks
from tfgad.inference import results
from tfgad.quiet import import_tensorflow

if TYPE_CHECKING:
    from tfgad.training import Run


class Per(str, enum.Enum):
    """What the false-positive rate of `calibrate` is a share of."""

    TILE = "tile"
    IMAGE = "image"


class Distribute(str, enum.Enum):
    """Distribution strategies of `train`; see `tfgad.training.distribution`."""

    ALONE = "alone"
    MIRRORED = "mirrored"
    MULTIWORKER = "multiworker"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the output.")] = Path("demo"),
    overwrite: Overwrite = False,
) -> None:
    """Train, calibrate, evaluate and export on synthetic fabric, in about five minutes."""
    import_tensorflow()
    from tfgad.cli import demo as steps

    with Progress() as progress:
        run, figures = steps.demo(out, progress, overwrite=overwrite)
    _show_figures(run.config["method"], run.config["data"], figures)
    written = [
        ("report.html", "the whole report in one page; open it in a browser"),
        (steps.HEAT_MAPS, "test images, true masks and heat maps"),
        ("metrics.json", "the figures above"),
        (f"{steps.RUN}/", f"try: tfgad score {out / steps.RUN} YOUR_IMAGE.png"),
        (f"{steps.SAVED_MODEL}/1/", "ready for TensorFlow Serving"),
    ]
    console.show(console.two_columns((out / name, meaning) for name, meaning in written))


def train(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the run.")],
    method: Annotated[
        str | None,
        typer.Argument(help="A method: see `tfgad list`. By default the best for the data."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Training steps; 600+1500 for a method of two stages.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of the method."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of weights, training, data split.")
    ] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted run, or one with more --steps."),
    ] = False,
    overwrite: Overwrite = False,
    distribute: Annotated[
        Distribute, typer.Option(help="Over all GPUs, or the workers that TF_CONFIG names.")
    ] = Distribute.ALONE,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Image, white where the pixels of all images are ignored."
        ),
    ] = None,
) -> None:
    """Train a method on good images, and set its threshold on held-out good images.

    With --mask the white pixels of FILE are ignored in every image, in training
    and ever after: whatever they show changes no score and no map. The images
    must be resized, as with folder:PATH?size=256.
    """
    given = settings_given(settings or [], steps)
    import_tensorflow()
    from tfgad import training
    from tfgad.data.ignored import share_of

    with Progress() as progress:
        progress.phase("reading the data")
        run = training.train(
            method,
            data,
            out,
            seed=seed,
            settings=given,
            resume=resume,
            overwrite=overwrite,
            callbacks=training_callbacks(progress),
            distribute=distribute.value,
            mask=mask,
        )
    if run is None:
        console.say(f"{out}: done; the chief worker writes it")
        return
    console.say(f"{out}: trained in {run.config['training_seconds']:.0f} s")
    counts, unit = run.config["images"], run.calibration.get("unit", "image")
    console.say(
        f"{counts['train']} good {unit}s to train on, {counts['calibration']} for the threshold, "
        f"{counts['test']} {unit}s to test"
    )
    if "ignored" in run.config:
        console.say(f"{share_of(run.config)} of each image is ignored")
    _show_threshold(run)
    if run.config["images"]["test"]:
        console.say(f"next: tfgad evaluate {out}")
    else:
        console.say(f"next: tfgad score {out} IMAGE...")


def calibrate(
    run: RunFolder,
    data: OtherData = None,
    false_positive_rate: Rate = 0.01,
    per: Annotated[
        Per | None,
        typer.Option(help="Whether it is a share of the tiles (the default) or of whole images."),
    ] = None,
) -> None:
    """Set a run's threshold again, on good images that it was not trained on.

    With --data these are all good images of that data set except those in its test set. With
    --per image an image counts once, however many tiles it has: by its highest score.
    """
    loaded, images = load_run_and_data(run, data)
    from tfgad import training

    before = loaded.calibration["threshold"]
    with Progress() as progress:
        progress.phase("scoring good images")
        training.calibrate(loaded, images, false_positive_rate, per.value if per else None)
    _show_threshold(loaded)
    seen = loaded.model.calibration.seen
    highest = f"; the highest score of the good images is {seen.quantiles[-1]:.4g}" if seen else ""
    console.say(f"before, the threshold was {before:.4g}{highest}")
    console.say(f"exported models keep theirs; next: tfgad export {run} DIRECTORY")


def evaluate(
    run: RunFolder,
    data: OtherData = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default the run's.")
    ] = None,
) -> None:
    """Score a test set, beside trivial detectors, and write a report.

    A folder with good images alone is checked as by `tfgad check`, with its exit
    codes; the results are in check.json.
    """
    if out:
        results.check_writable("out", out, folder=True)
    loaded, images = load_run_and_data(run, data)
    from tfgad import evaluation
    from tfgad.training.run import PATIENCE
    from tfgad.training.run_folder import CHECK

    if images.files and not images.kinds:
        with Progress() as progress:
            found = checking.check_run(loaded, images, progress)
        with loaded.writing(out, patience=PATIENCE):
            checking.report(run, found, (out or run) / CHECK)
        return

    with Progress() as progress:
        figures = evaluation.evaluate(loaded, images, out, progress.at)
    _show_figures(loaded.config["method"], images.spec, figures)
    console.say(", ".join(str(path) for path in evaluation.written(out or run)))


def _show_figures(method: str, spec: str, figures: dict[str, Any]) -> None:
    """Prints the method's figures beside those of the trivial detectors, and what they mean."""
    from tfgad.evaluation import baselines, metrics
    from tfgad.evaluation.by_kind import KIND_FIGURES
    from tfgad.evaluation.by_product import PRODUCT_FIGURES

    rows = metrics.names_of(figures["unit"])
    trivial = {baselines.NAMES[name]: each for name, each in figures["baselines"].items()}
    console.show(console.figures_table(spec, {method: figures, **trivial}, rows))
    if figures["by_kind"]:
        console.show(console.kinds_table(figures["by_kind"], KIND_FIGURES))
    if of_products := figures.get("by_product"):
        console.show(console.kinds_table(of_products, PRODUCT_FIGURES, "product"))
    for name, reason in figures["baselines_left_out"].items():
        console.say(f"{baselines.NAMES[name]} is left out: {reason}")
    for finding in figures["findings"]:
        console.say(finding)


def _show_threshold(run: Run) -> None:
    calibration = run.calibration
    unit = calibration.get("unit", "image")  # runs of before have neither it nor the interval
    products = calibration.get("products", {})
    # The scores of several products are standardised by the thresholds in the lines below.
    method = "" if products else f"{calibration['method']} of "
    console.say(
        f"threshold {calibration['threshold']:.4g}{' of each product' if products else ''}, for a "
        f"false-positive rate of {console.false_positive_rate({**run.config, **calibration})} "
        f"({method}{calibration['images']} good {unit}s)"
    )
    for name, each in products.items():
        console.say(
            f"product {name}: threshold {each['threshold']:.4g} of its raw scores "
            f"({each['method']} of {each['images']} good {unit}s)"
        )
    for line in console.rates_on_new_groups(calibration):
        console.say(line)
