"""`tfgad check`: whether a model still holds its false-positive rate, on new good images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgad import files
from tfgad.cli import console
from tfgad.cli.arguments import Model
from tfgad.cli.loading import load_good, spec_of_good
from tfgad.cli.progress import Progress
from tfgad.data.spec import Spec
from tfgad.errors import UsageError
from tfgad.inference import results
from tfgad.quiet import import_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from tfgad.data.anomaly_data import AnomalyData
    from tfgad.inference.predictor import Predictor
    from tfgad.training import Run

UNKNOWN_DATA = "unknown:data"  # of a model that was exported by hand
NONE_LEFT = "give --data of good images that are new to the model"


def check(
    model: Model,
    data: Annotated[
        str, typer.Option(help="Good images: a folder of them, or a data set, as for `train`.")
    ],
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Results to write.")] = None,
) -> None:
    """Check on new good images that a model still keeps its false-positive rate.

    Compares the share of false alarms with the rate that was asked for, the
    scores with those of calibration, and the images' quality with that of good
    ones. Defective images in the data are left out, and so are images that a run
    was trained on or calibrated by.

    Exit code 3: the check failed. More false alarms than asked for, by the
    lower end of the interval; or the scores have drifted; or images are unlike
    any good one.
    """
    if json:
        results.check_writable("json", json)
    spec_of_good("data", data)  # a mistake is found before TensorFlow is imported
    import_tensorflow()
    with Progress() as progress:
        progress.phase("loading the model")
        predictor, config, run = _load(model)
        progress.phase("reading the data")
        images = load_good(config, "data", data)
        found = check_good_images(predictor, config, run, images, progress)
    report(model, found, json)


def check_run(run: Run, images: AnomalyData, progress: Progress) -> dict[str, Any]:
    """Returns what `check_good_images` does, of a run in memory."""
    from tfgad.inference.predictor import RunPredictor

    config = {**run.config, **run.calibration}
    return check_good_images(RunPredictor(run), config, run, images, progress)


def check_good_images(
    predictor: Predictor,
    config: dict[str, Any],
    run: Run | None,
    images: AnomalyData,
    progress: Progress,
) -> dict[str, Any]:
    """Checks a model on the good images of a data set that are new to it.

    Args:
        predictor: the model.
        config: metadata of the model: its `data`, `false_positive_rate`, and `per`.
        run: the run of the model; None of an exported one.
        images: the data set.
        progress: shows the scoring.

    Returns:
        What `tfgad.evaluation.rate_check.check_rate` does, and the `data`.

    Raises:
        UsageError: no good image is new to the model, or the images do not fit it.
    """
    import numpy as np

    from tfgad.evaluation import rate_check
    from tfgad.training import held_out
    from tfgad.training.run import check_form

    check_form(config, images)
    if run:
        images = held_out.unseen(run, images)
    elif _shares_images(config, images.spec):
        hint = "give the run's folder, which knows which images are new"
        raise UsageError("data", images.spec, "is what the model was made from", hint)
    else:
        images = held_out.all_good(images)

    def score(
        batch: np.ndarray, products: list[str] | None
    ) -> tuple[np.ndarray, list[str], np.ndarray]:
        found = predictor.predict_images(batch, products if predictor.products else None)
        scores = np.array([each["score"] for each in found])
        brightness = np.array([each.get("brightness", np.nan) for each in found])
        return scores, [each.get("reason", "") for each in found], brightness

    scored = rate_check.score_good_images(score, images, progress.at)
    if not len(scored.scores):
        raise UsageError("data", images.spec, "has no good image that is new", NONE_LEFT)
    if not np.isfinite(scored.scores).all():
        hint = "train it again with a smaller learning rate"
        raise UsageError("model", config.get("method"), "gives scores that are not finite", hint)
    if scored.defective:
        console.warn(f"left out: {scored.defective} defective images")
    found = rate_check.check_rate(
        scored,
        predictor.threshold,
        config["false_positive_rate"],
        config.get("per", "tile"),
        predictor.calibration_scores,
    )
    return {"data": images.spec, **found}


def report(model: Path, found: dict[str, Any], json: Path | None) -> None:
    """Prints the results and writes them.

    Raises:
        typer.Exit: the check failed.
    """
    if json:
        files.write_json(json, {"model": files.printable(model), **found})
    for finding in found["findings"]:
        console.say(finding)
    if found["failed"]:
        console.say(f"{model}: the check failed: {', '.join(found['failed'])}")
        console.say(f"to see which images: tfgad score {model} IMAGES --csv scores.csv")
        if found["false_alarms"]["groups"] == found["images"]:
            console.say("if several images show one part or roll, name it by group= in the data")
        raise typer.Exit(console.CHECK_FAILED)
    console.say(f"{model}: the check passed, as far as {found['images']} images can tell")


def _load(model: Path) -> tuple[Predictor, dict[str, Any], Run | None]:
    """Loads a run or an exported model, with what `check_good_images` needs to know of it."""
    from tfgad.inference.predictor import RunPredictor
    from tfgad.inference.saved_model import SavedModelPredictor, saved_model_folder
    from tfgad.training import load_run

    if folder := saved_model_folder(model):
        exported = SavedModelPredictor(folder)
        return exported, {"data": UNKNOWN_DATA, **exported.metadata}, None
    run = load_run(model)
    return RunPredictor(run), {**run.config, **run.calibration}, run


def _shares_images(config: dict[str, Any], spec: str) -> bool:
    """Returns whether a data set has images that an exported model was made from."""
    from tfgad.training.held_out import shares_images
    from tfgad.training.run_config import absolute_spec

    given = Spec.parse(absolute_spec(spec))
    used = [config["data"], config.get("calibration", {}).get("data", config["data"])]
    used += [spec for entry in config.get("learned", ()) for spec in entry.values()]
    return any(shares_images(Spec.parse(absolute_spec(own)), given) for own in used)
