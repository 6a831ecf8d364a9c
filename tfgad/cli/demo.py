"""The steps of `tfgad demo`: from synthetic fabric tiles to an exported detector."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfgad import data, plots, training
from tfgad.cli.progress import Progress, training_callbacks
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError
from tfgad.evaluation import evaluate
from tfgad.export.saved_model import export_run
from tfgad.training import Run
from tfgad.training.run_folder import RESULTS, RunFolder

METHOD, DATA = "ganomaly_unet", "weave:twill"
RUN, SAVED_MODEL, HEAT_MAPS = "run", "saved_model", "heat_maps.png"
FILES = (HEAT_MAPS, *RESULTS)
SHOWN = 16  # test tiles in the figure of heat maps; every second one is defective


def demo(
    out: Path,
    progress: Progress,
    *,
    overwrite: bool = False,
    spec: str = DATA,
    settings: dict[str, Any] | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Trains, calibrates, evaluates and exports a detector, and draws heat maps.

    Args:
        out: folder for the output.
        progress: shows the phases.
        overwrite: whether to replace an earlier demo.
        spec: the data set.
        settings: settings that differ from the method's defaults.

    Returns:
        The run, and the figures as `tfgad.evaluation.evaluate` returns them.

    Raises:
        UsageError: the folder holds other files, or a demo and `overwrite` is false.
    """
    _clear(out, overwrite)
    progress.phase("rendering the fabric")
    callbacks = training_callbacks(progress)
    run = training.train(METHOD, spec, out / RUN, settings=settings, callbacks=callbacks)
    assert run is not None  # only further workers of a distributed training have no run
    images = data.load(run.config["data"])
    figures = evaluate(run, images, out, progress.at)
    progress.phase("drawing heat maps")
    plots.save(_heat_maps(run, images), out / HEAT_MAPS)
    progress.phase("exporting the model")
    export_run(run, out / SAVED_MODEL)
    return run, figures


def _clear(out: Path, overwrite: bool) -> None:
    """Removes an earlier demo if `overwrite` is true; other files are never removed.

    The run is removed last, because `_is_demo` recognises a demo by it.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not _is_demo(out):
        raise UsageError("out", out, "is not a demo", "name a new folder")
    if not overwrite:
        raise UsageError("out", out, "holds a demo already", "give --overwrite to replace it")
    RunFolder(out / RUN).check_removable()
    if (out / SAVED_MODEL).exists():
        shutil.rmtree(out / SAVED_MODEL)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    RunFolder(out / RUN).remove()
    (out / RUN).rmdir()  # a new demo that stops early must not leave a folder that is in its way


def _is_demo(out: Path) -> bool:
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    return names <= {RUN, SAVED_MODEL, *FILES} and RunFolder(out / RUN).read_config() is not None


def _heat_maps(run: Run, images: AnomalyData) -> Figure:
    """Returns a figure of the first test tiles with their masks and heat maps."""
    (tiles,) = images.test.batch(SHOWN).take(1).as_numpy_iterator()
    predicted = run.model.anomaly(tiles["image"])
    return plots.heat_maps(
        tiles["image"],
        np.asarray(predicted["map"]),
        tiles["mask"],
        np.asarray(predicted["score"]),
        run.calibration["threshold"],
        [name.decode() for name in tiles["name"]],
        tiles["label"],
    )
