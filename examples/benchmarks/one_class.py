"""Methods beside trivial detectors on any data sets, over several seeds: the tables on fabric.

    python examples/benchmarks/one_class.py --data 'aitex:03?tile=128' --methods ganomaly \
        --seeds 3 --out examples/benchmarks/results/aitex_03.json
    python examples/benchmarks/one_class.py --methods feature_regions ganomaly --seeds 3 \
        --data 'folder:magnetic_tile?size=256&channels=1&group=num_([0-9]+?)[0-9]{0,3}[.]' \
        --scores regions marks --out examples/benchmarks/results/magnetic_tile.json

Every run trains on normal images only, keeps its last step, and sets its threshold on held-out
normal images; the test set is scored once. The JSON holds every figure of every seed with its 95 %
interval, which draws whole groups of images, the table their mean and spread. Figures that it holds
already are kept. AITEX, fabric 03: 2 minutes of two CPU cores per seed with `ganomaly`, 5 with
`ganomaly_unet`.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np

from tfgad import evaluation, files, training
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import baselines, metrics
from tfgad.training import run_config

FIGURES = [name for name in metrics.NAMES if name != "image_f1_max"]  # that bound is no result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="specs, such as aitex:03?tile=128")
    parser.add_argument("--methods", nargs="+", default=["ganomaly", "fanogan", "wgan_gp"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scores", nargs="*", default=[], help="further scores of each method")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs")
    parser.add_argument("--set", nargs="*", default=[], help="settings, name=value")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in arguments.set)

    results = files.read_results(arguments.out)
    if results.get("settings", settings) != settings:
        parser.error(f"{arguments.out} holds figures of other settings: {results['settings']}")
    results |= {"versions": run_config.versions(), "cores": os.cpu_count(), "settings": settings}
    for spec in arguments.data:
        if spec not in results:
            results[spec] = {"baselines": baseline_figures(spec)}
        for method in arguments.methods:
            names = [method, *(f"{method}, {score}" for score in arguments.scores)]
            finished = min(len(results[spec].get(name, [])) for name in names)
            for seed in range(finished, arguments.seeds):
                of_scores = evaluate_run(method, spec, seed, settings, arguments)
                for name, figures in of_scores.items():
                    of_seeds = results[spec].setdefault(name, [])
                    if len(of_seeds) == seed:  # else an earlier call has computed it
                        of_seeds.append(figures)
                    print(spec, name, seed, row([figures]), flush=True)
                files.write_json(arguments.out, results)
        print(table(results[spec]))


def baseline_figures(spec):
    """Returns the figures of each trivial detector."""
    return baselines.evaluate_baselines(tfgad.load(spec), bootstrap=0)["baselines"]


def evaluate_run(method, spec, seed, settings, arguments):
    """Trains one run; returns the figures of its score, and of further ones, by name."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"{method}_{spec}_{seed}".translate(str.maketrans(":?=&/", "_____"))
        run = training.train(
            method, spec, (arguments.runs or Path(folder)) / name, seed=seed, settings=settings,
            resume=True,
        )  # fmt: skip
    images = tfgad.load(run.config["data"])
    found = {}
    for score in (run.model.score, *arguments.scores):
        threshold = run.config["calibration"]["threshold"] if not found else None
        started_scoring = time.monotonic()
        predicted = evaluation.predict_test_set(run.model, images, score)
        figures = evaluation.figures_of(predicted, images, threshold)
        found[method if not found else f"{method}, {score}"] = {
            **{name: figures.get(name) for name in FIGURES},
            "intervals": {name: figures.get(f"{name}_ci") for name in FIGURES},
            "interval_groups": figures["interval_groups"],
            "unit": figures["unit"],
            **({"by_kind": kinds} if (kinds := by_kind(predicted, images)) else {}),
            "score": score,
            "training_seconds": run.config["training_seconds"],
            "scoring_seconds": round(time.monotonic() - started_scoring, 1),
        }
    return found


def by_kind(predicted, images):
    """Returns the AUROC of each kind that has a folder in the test set, against normal images."""
    folders = [name.split("/") for name in predicted.names]
    found = {}
    for kind in images.kinds:
        of_kind = np.array([kind in each for each in folders])
        if of_kind.any():
            rows = of_kind | (predicted.labels == 0)
            figures = metrics.image_metrics(predicted.labels[rows], predicted.scores[rows])
            found[kind] = round(figures["image_auroc"], 4)
    return found


def row(of_seeds):
    """Returns mean and spread of each figure over seeds, as cells of a table."""
    cells = []
    for name in FIGURES:
        values = [figures[name] for figures in of_seeds if figures[name] is not None]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "–")
    return " | ".join(cells)


def table(result):
    """Returns the data set's results as a Markdown table."""
    unit = next(each[0]["unit"] for name, each in result.items() if name != "baselines")
    names = " | ".join(metrics.names_of(unit)[name] for name in FIGURES)
    lines = [f"| detector | {names} |", "|---" * (len(FIGURES) + 1) + "|"]
    for name, figures in result["baselines"].items():
        lines.append(f"| {name} | {row([figures])} |")
    for method, of_seeds in result.items():
        if method != "baselines":
            lines.append(f"| {method} ({of_seeds[0]['score']}) | {row(of_seeds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
