"""Runtimes for an exported model: the SavedModel, a frozen graph, LiteRT, OpenVINO, ONNX Runtime.

    pip install openvino==2026.4.1 onnxruntime==1.32.0 tf2onnx==1.17.0 ai-edge-litert==2.3.0
    python examples/benchmarks/runtimes.py --out examples/benchmarks/results/runtimes.json

The other runtimes give `score` and `map` alone, for images of one size: `frozen_for_size` is that
graph in TensorFlow, see `runtime_files.py`. `frozen` is the graph for any size, with the same two
outputs: it shows what the image quality check of the SavedModel costs. `litert_8bit` has weights of
8 bits, as `tfgad export --format litert` writes them. `openvino_litert` reads LiteRT's file, and
`openvino_saved_model` the exported SavedModel.

Each measurement is a process of its own, and the processes of one round take turns. The figures are
tiles per second in batches of 1 and 32, seconds from the import of the runtime to its first answer,
bytes on disk of the file for one tile, and the largest difference of the scores of held-out good
tiles to those of the SavedModel, in standard deviations of these. A runtime without scores, or with
scores that differ by more than one of them, is wrong: it is not timed, and the JSON says why.

Seconds are given as time and as processor time of the process. The table has processor time, which
other load on the machine changes less. Its ratios to the SavedModel are the median over the rounds,
with the lowest and the highest. 10 minutes of one core, with other work beside.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import runtime_files
import runtime_process
from peers import model_name
from runtime_process import BATCHES, REFERENCE

import tfgad  # before TensorFlow, which is to use oneDNN
from tfgad import files, processor
from tfgad.errors import exit_on_usage_error

MODELS = "weave_twill_ganomaly_unet", "mnist_5_ganomaly"
COMPARED = 32  # good tiles whose scores are compared
TOLERANCE = 1.0  # standard deviations of good scores; scores that differ by more are wrong
TIME_LIMIT = 150  # seconds, of one process
PACKAGES = {  # that a runtime needs, beside TensorFlow
    "litert": ["ai_edge_litert"],
    "litert_8bit": ["ai_edge_litert"],
    "openvino": ["openvino"],
    "openvino_bfloat16": ["openvino"],
    "openvino_litert": ["openvino"],
    "onnxruntime": ["onnxruntime", "tf2onnx"],
    "openvino_saved_model": ["openvino"],
}
RUNTIMES = (REFERENCE, "frozen", "frozen_for_size", *PACKAGES)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(__file__).parents[2] / "saved_models"
    models = [folder / name for name in MODELS]
    parser.add_argument("models", type=Path, nargs="*", default=models, help="folders of models")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), default=3, metavar="N")
    parser.add_argument("--threads", type=int, default=1, help="that each runtime may use")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        runtime, work = arguments.measure
        print(json.dumps(runtime_process.measured(runtime, Path(work), arguments.threads)))
        return
    missing = missing_packages()
    for package, left_out in missing.items():
        print(f"{package} is not installed; left out: {', '.join(left_out)}")
    left_out = {runtime for names in missing.values() for runtime in names}
    if not processor.has_bfloat16():
        left_out.add("openvino_bfloat16")
    results = described(arguments, missing)
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            runtimes = [each for each in RUNTIMES if each not in left_out]
            work = Path(folder) / model.name
            work.mkdir()
            results["models"][model.name] = converted(model, work, runtimes)
            files.write_json(arguments.out, results)
        for number in range(arguments.rounds):
            for name, found in results["models"].items():
                for runtime, entry in found["runtimes"].items():
                    measure(runtime, entry, Path(folder) / name, arguments)
                    files.write_json(arguments.out, results)
                print(f"round {number + 1}, {name}\n{table(found['runtimes'])}", flush=True)


def missing_packages():
    """Returns the packages that are not installed, each with the runtimes that need it."""
    missing = {}
    for runtime, packages in PACKAGES.items():
        for package in packages:
            if importlib.util.find_spec(package) is None:
                missing.setdefault(package, []).append(runtime)
    return missing


def described(arguments, missing):
    """Returns the head of the results: versions, the processor, what is not installed."""
    from importlib import metadata

    from tfgad.training import run_config

    packages = {package for needed in PACKAGES.values() for package in needed} - set(missing)
    return {
        "versions": run_config.versions() | {name: metadata.version(name) for name in packages},
        "processor": model_name(),
        "bfloat16": processor.has_bfloat16(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "not_installed": missing,
        "models": {},
    }


def converted(model, work, runtimes):
    """Writes the model's files for each runtime, and good tiles to score.

    Returns:
        The entry of the model in the results. A runtime whose file cannot be made is wrong.
    """
    import tensorflow as tf

    from tfgad.inference.saved_model import saved_model_folder, saved_model_metadata

    version = saved_model_folder(model)
    metadata = saved_model_metadata(version)
    tiles = good_tiles(metadata["data"])
    np.save(work / "tiles.npy", tiles)
    (work / REFERENCE).symlink_to(version.resolve())
    loaded = tf.saved_model.load(str(version))
    signature = loaded.signatures["serving_default"]
    scores = signature(images=tf.constant(tiles))["score"].numpy()
    found = {each: {"bytes": None, "wrong": None, "rounds": []} for each in runtimes}
    for batch in reversed(BATCHES):  # the sizes that remain are those of one tile
        folder = work / str(batch)
        runtime_files.write_graphs(signature, (batch, *tiles.shape[1:]), folder)
        for runtime in runtimes:
            try:
                path = runtime_files.write(runtime, folder)
                found[runtime]["bytes"] = size_of(path)
            except Exception as error:  # each converter has classes of its own
                found[runtime]["wrong"] = f"not converted: {last_line(error)}"
        print(f"{model.name}: files for batches of {batch} are made", flush=True)
    of_scores = {"tiles": len(tiles), "mean": float(scores.mean()), "spread": float(scores.std())}
    np.save(work / "scores.npy", scores)
    return {"image_shape": list(tiles.shape[1:]), "scores": of_scores, "runtimes": found}


def good_tiles(spec):
    """Returns held-out good images of a data set, uint8 `[N, H, W, C]`."""
    from tfgad.data.pixels import to_uint8
    from tfgad.data.sampling import spread

    data = tfgad.load(spec)
    some = spread(data.calibration, data.calibration_size, COMPARED)
    return np.stack([to_uint8(image) for image in some.as_numpy_iterator()])


def size_of(path):
    """Returns the bytes of a file, or of all files of a folder."""
    each = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in each if file.is_file())


def measure(runtime, entry, work, arguments):
    """Measures a runtime once, unless it was wrong before; its entry of the results takes all."""
    if entry["wrong"]:
        return
    own = np.load(work / "scores.npy")
    figures = in_process(runtime, work, arguments)
    entry["wrong"] = figures.get("error") or what_is_wrong(figures["scores"], own)
    entry["difference"] = None if "error" in figures else difference(figures["scores"], own)
    if not entry["wrong"]:
        entry["rounds"].append({key: figures[key] for key in ("start", "rates")})


def in_process(runtime, work, arguments):
    """Returns what a process of its own measures, or the line of its error."""
    command = [sys.executable, __file__, "--out", "-", "--threads", str(arguments.threads)]
    command += ["--measure", runtime, str(work)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {TIME_LIMIT} s"}
    if done.returncode:
        return {"error": last_line(done.stderr or f"exit code {done.returncode}")}
    return json.loads(done.stdout.splitlines()[-1])


def last_line(error):
    """Returns the line of an error's message that names missing operations, or its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    naming = [line for line in lines if "No conversion rule" in line]
    return (naming or lines or [type(error).__name__])[-1][:200]


def difference(scores, own):
    """Returns the largest difference of scores, in standard deviations of the SavedModel's own."""
    scores = np.asarray(scores, float)
    if scores.shape != own.shape or not np.isfinite(scores).all():
        return None
    return float(np.abs(scores - own).max() / own.std())


def what_is_wrong(scores, own):
    """Returns what is wrong with scores, or None."""
    scores = np.asarray(scores, float)
    if scores.shape != own.shape:
        return f"{scores.size} scores of {own.size} tiles"
    if not np.isfinite(scores).all():
        return "scores are not finite"
    far = difference(scores, own)
    return f"scores differ by {far:.2g} standard deviations" if far > TOLERANCE else None


def rates_of(entry, batch):
    """Returns a runtime's tiles per second of processor time, one figure per round."""
    return [each["rates"][str(batch)]["processor_time"] for each in entry["rounds"]]


def ratios(runtimes, runtime, batch):
    """Returns the ratios of a runtime's rates to the SavedModel's, one per round."""
    both = (rates_of(runtimes[each], batch) for each in (runtime, REFERENCE))
    return [own / other for own, other in zip(*both, strict=True)]


def table(runtimes):
    """Returns a Markdown table of the runtimes of a model."""
    head = [f"tiles/s, {batch} | ratio" for batch in BATCHES]
    lines = [f"| | {' | '.join([*head, 'start, s', 'MB', 'difference'])} |", "|---" * 8 + "|"]
    for runtime, entry in runtimes.items():
        lines.append(f"| {' | '.join([runtime, *cells(runtimes, runtime, entry)])} |")
    return "\n".join(lines)


def cells(runtimes, runtime, entry):
    """Returns the cells of a runtime's row."""
    if entry["wrong"]:
        return [f"wrong: {entry['wrong']}", *[""] * 6]
    shown = []
    for batch in BATCHES:
        of_rounds = ratios(runtimes, runtime, batch)
        spread = f"({min(of_rounds):.2f} to {max(of_rounds):.2f})"
        shown += [
            f"{statistics.median(rates_of(entry, batch)):.1f}",
            f"{statistics.median(of_rounds):.2f} {spread}",
        ]
    start = statistics.median(each["start"]["processor_time"] for each in entry["rounds"])
    return [*shown, f"{start:.1f}", f"{entry['bytes'] / 1e6:.1f}", f"{entry['difference']:.2g}"]


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
