"""tfgad and PyTorch: training steps and the scoring of tiles, with the same networks.

    pip install torch==2.13.0
    python examples/benchmarks/peers.py --out examples/benchmarks/results/peers.json

The steps of GANomaly and WGAN-GP at 32x32 pixels, of a DCGAN at 64x64, and GANomaly's errors on
tiles of 128x128, window by window. `torch_gans.py` has PyTorch's side: the same layers, losses,
optimizers and batches; the numbers of weights are checked to be equal. PyTorch is timed in four
variants, of which the best is compared; tfgad in float32 and, where the processor has it, in
bfloat16. tfgad's scoring of tiles includes maps and scores, and it is in float32 always. PyTorch's
is the networks and their errors alone.

Each measurement is a process of its own, and the processes of one round take turns, so that other
load on the machine meets all alike. The table has the median over the rounds, and the ratio to
PyTorch's best with the lowest and highest of the rounds. The JSON has every figure, the kind of
processor, and what the cores reach in products of 2048x2048 matrices. About 15 minutes of two idle
cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN
from tfgad import files, processor
from tfgad.errors import UsageError, exit_on_usage_error

TASKS = ("ganomaly", "wgan_gp", "dcgan", "tiles")
SETTINGS = {  # those of `torch_gans.py`
    "ganomaly": {},
    "wgan_gp": {},
    "dcgan": {"networks": "radford", "width": 64, "r1": 0.0, "learning_rate": 2e-4, "window": 64},
}
OURS = ("float32", "bfloat16")
TILES, SIDE = 16, 128
SECONDS, WARM_UP = 4.0, 3  # of a measurement, steps before it
MATRIX = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--rounds", type=int, choices=range(1, 100), default=3, metavar="N")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(*arguments.measure)))
        return
    has_bfloat16 = processor.has_bfloat16()
    try:
        from torch_gans import VARIANTS
    except ImportError as error:
        raise UsageError("torch", "module", "is not installed", "pip install torch") from error

    from tfgad.training import run_config

    ways = [("tfgad", way) for way in OURS] + [("torch", way) for way in VARIANTS]
    ways = [way for way in ways if has_bfloat16 or "bfloat16" not in way[1]]
    measured_so_far = {task: {"tfgad": {}, "torch": {}} for task in (*TASKS, "matrix products")}
    results = {
        "versions": run_config.versions(),
        "processor": model_name(),
        "cores": os.cpu_count(),
        "measured": measured_so_far,
    }
    for number in range(arguments.rounds):
        for task, sides in measured_so_far.items():
            for side, way in ways:
                if (task, side, way) == ("tiles", "tfgad", "bfloat16"):
                    continue  # it is float32, too
                found = in_process(arguments.out, side, task, way)
                sides[side].setdefault(way, []).append(found)
                print(number, task, side, way, found, flush=True)
                files.write_json(arguments.out, results)
        check_weights(measured_so_far)
    print(table(measured_so_far))


def in_process(out, side, task, way):
    """Returns what `measured` does, in a process of its own."""
    command = [sys.executable, __file__, "--out", str(out), "--measure", side, task, way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(side, task, way):
    """Returns images a second, or GFLOP/s of matrix products, and the number of weights."""
    work, count, weights = (of_tfgad if side == "tfgad" else of_torch)(task, way)
    for _ in range(WARM_UP):
        work()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return {"rate": round(count / statistics.median(times), 1), "weights": weights}


def of_tfgad(task, way):
    """Returns a function to time, how many images it takes, and the number of trained weights."""
    import tensorflow as tf

    if task == "matrix products":
        x = tf.cast(tf.random.normal((MATRIX, MATRIX)), way)
        product = tf.function(lambda: tf.reduce_sum(tf.matmul(x, x)))
        return (lambda: product().numpy()), 2e-9 * MATRIX**3, 0
    if task == "tiles":
        model = tfgad.build("ganomaly", (SIDE, SIDE, 1), precision=way)
        tiles = tf.random.uniform((TILES, SIDE, SIDE, 1), -1, 1)
        return (
            lambda: model.anomaly_in_graph(tiles, model.score)["score"].numpy(),
            TILES,
            weights_of(model),
        )
    side = SETTINGS[task].get("window", 32)
    model = tfgad.build(task, (side, side, 1), precision=way, **SETTINGS[task])
    model.begin(model.stages[0])
    images = tf.random.uniform((model.images_per_step, side, side, 1), -1, 1)
    endless = iter(tf.data.Dataset.from_tensors(images).repeat())
    train = model.make_train_function() or model.train_function
    return (lambda: train(endless)), len(images), weights_of(model)


def weights_of(model):
    """Returns the number of trained weights."""
    return sum(int(weight.shape.num_elements()) for weight in model.trainable_weights)


def of_torch(task, way):
    """Returns a function to time, how many images it takes, and the number of trained weights."""
    import torch
    from torch_gans import PEERS, VARIANTS

    if task == "matrix products":
        dtype = torch.bfloat16 if VARIANTS[way].get("bfloat16") else torch.float32
        x = torch.randn(MATRIX, MATRIX).to(dtype)
        return (lambda: (x @ x).sum().item()), 2e-9 * MATRIX**3, 0
    peer = PEERS["ganomaly" if task == "tiles" else task](**VARIANTS[way])
    if task == "tiles":
        peer.eval()
        tiles = peer.images(TILES, SIDE)
        return (lambda: peer.errors(tiles)), TILES, peer.size()
    images = peer.images(peer.batch, peer.side)
    return (lambda: peer.step(images)), len(images), peer.size()


def check_weights(found):
    """Raises RuntimeError if a network is not the same on both sides."""
    for task in TASKS:
        counts = {each["weights"] for side in found[task].values() for of in side.values()
                  for each in of}  # fmt: skip
        if len(counts) != 1:
            raise RuntimeError(f"{task}: the networks have {counts} weights")


def model_name():
    """Returns the processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def table(found):
    """Returns a Markdown table: images or GFLOP a second, and how many times PyTorch's best."""
    lines = ["| task | tfgad | a second | PyTorch's best | a second | ratio |", "|---" * 6 + "|"]
    for task, sides in found.items():
        best = max(sides["torch"], key=lambda way: median(sides["torch"][way]))
        for way, own in sides["tfgad"].items():
            pairs = zip(own, sides["torch"][best], strict=True)
            ratios = [ours["rate"] / theirs["rate"] for ours, theirs in pairs]
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells = [task, way, f"{median(own):.0f}", best, f"{median(sides['torch'][best]):.0f}"]
            lines.append(f"| {' | '.join([*cells, ratio])} |")
    return "\n".join(lines)


def median(of_rounds):
    """Returns the median rate of some rounds."""
    return statistics.median(each["rate"] for each in of_rounds)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
