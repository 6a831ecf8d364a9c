"""`tfgad serve` under load: latency and throughput, beside the SavedModel called in a loop.

    pip install '.[serve]'
    python examples/benchmarks/serving_latency.py saved_models/weave_twill_ganomaly \
        saved_models/mnist_5_fanogan --out examples/benchmarks/results/serving_latency.json

Each client sends one image at a time, a PNG of noise of the size that the model was trained on, and
waits for its score and map. A model of large images shows the model's own time, a model of small
images the time that the server adds. Clients are threads of a process of their own, apart from the
server's; their processor time is part of the figures, as on a machine that does both. Servers, with
batching and without, are started and stopped for the measurement. The loop calls `score_bytes` of
the loaded model in this process, without any server: one by one, and as many at once as fit into
one of the server's batches of the larger and of the smaller images.

For each number of clients the load runs for `--warm-up` seconds unmeasured, then for `--seconds`.
Of the requests answered in that time the figures are the median (p50) and the 99th percentile (p99)
in milliseconds, and the number per second. The defaults take 6 minutes on two cores.
"""

import argparse
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tfgad import files
from tfgad.errors import exit_on_usage_error
from tfgad.export.saved_model import METADATA
from tfgad.serving.client import Client, ClientError
from tfgad.training import run_config

CLIENTS = (1, 8, 64)
SERVERS = {"batching": [], "no batching": ["--no-batching"]}
TOGETHER = (1, 8, 32)  # 8 is the server's largest batch of tiles of 128x128, 32 of digits
PICTURES = 16  # different ones
READY = re.compile(r"ready: .* REST (\S+), gRPC (\S+)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="folders of models' versions")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {
        "cores": os.cpu_count(),
        "seconds": arguments.seconds,
        "versions": run_config.versions(),
    }
    for model in arguments.models:
        results[model.name] = rows = measured(model, arguments)
        print(f"{model.name}\n{table(rows)}", flush=True)
        if arguments.out:
            files.write_json(arguments.out, results)


def measured(model: Path, arguments) -> list[dict]:
    """Measures one model, with servers and without."""
    version = max(
        (each for each in model.iterdir() if each.name.isdecimal()), key=lambda each: int(each.name)
    )
    pictures = pictures_for(version)
    rows = []
    for name, options in SERVERS.items():
        rows += with_server(model, arguments, name, options, pictures)
    return rows + loop(version, pictures, arguments.seconds)


def pictures_for(version: Path) -> list[bytes]:
    """Returns PNG files of noise, of the model's own size."""
    height, width, channels = json.loads((version / METADATA).read_text())["image_shape"]
    noise = np.random.default_rng(0).integers(0, 256, (PICTURES, height, width, channels), np.uint8)
    pictures = []
    for pixels in noise:
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(file, "PNG")
        pictures.append(file.getvalue())
    return pictures


def with_server(model: Path, arguments, name: str, options: list[str], pictures: list[bytes]):
    """Measures a server by REST and gRPC, each with all numbers of clients."""
    command = [sys.executable, "-m", "tfgad.cli.main", "serve", str(model), "--no-page"]
    command += ["--port", "0", "--grpc-port", "0", *options]
    rows = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = READY.search(server.stdout.readline())
            if not ready:
                raise SystemExit("the server did not start")
            served = model.resolve().name
            for api, url in (("REST", ready[1]), ("gRPC", f"grpc://{ready[2]}")):
                for clients in arguments.clients:
                    latencies, failed = load(url, served, clients, pictures, arguments)
                    row = figures(f"{api}, {name}", clients, 1, arguments.seconds, latencies)
                    rows.append(row | {"failed": failed})
        finally:
            server.send_signal(signal.SIGTERM)
    return rows


def load(url: str, model: str, clients: int, pictures: list[bytes], arguments):
    """Lets clients ask for a while; returns the answered requests' seconds, and how many failed."""
    latencies, failures, lock = [], [], threading.Lock()
    begin = time.perf_counter() + arguments.warm_up
    end = begin + arguments.seconds

    def ask(first: int):
        own = []
        with Client(url, model, timeout=600) as client:
            for i in itertools.count(first):
                start = time.perf_counter()
                if start >= end:
                    break
                try:
                    client.score(pictures[i % len(pictures)])
                except ClientError as error:
                    failures.append(error)
                    continue
                answered = time.perf_counter()
                if begin <= answered < end:
                    own.append(answered - start)
        with lock:
            latencies.extend(own)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, len(failures)


def loop(version: Path, pictures: list[bytes], seconds: float) -> list[dict]:
    """Measures the model without a server."""
    import tensorflow as tf

    model = tf.saved_model.load(str(version))
    score = model.signatures["score_bytes"]
    rows = []
    for count in TOGETHER:
        batch = tf.constant([pictures[i % len(pictures)] for i in range(count)])
        score(image_bytes=batch)
        latencies, start = [], time.perf_counter()
        while time.perf_counter() < start + seconds:
            before = time.perf_counter()
            {name: value.numpy() for name, value in score(image_bytes=batch).items()}
            latencies.append(time.perf_counter() - before)
        taken = time.perf_counter() - start
        name = "SavedModel in a loop" + (f", {count} at once" if count > 1 else "")
        rows.append(figures(name, 1, count, taken, latencies))
    return rows


def figures(name: str, clients: int, images: int, seconds: float, latencies: list[float]) -> dict:
    """Returns the figures of one way at one number of clients."""
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000 if latencies else (None, None)
    rate = images * len(latencies) / seconds
    row = {"way": name, "clients": clients, "requests": len(latencies)}
    return {**row, "p50_ms": p50, "p99_ms": p99, "images_per_second": rate}


def table(rows: list[dict]) -> str:
    """Returns the figures as a table in Markdown."""
    lines = ["| | clients | p50, ms | p99, ms | images/s | failed |", "|---" * 6 + "|"]
    for row in rows:
        numbers = [row[key] for key in ("p50_ms", "p99_ms", "images_per_second")]
        shown = " | ".join("–" if each is None else f"{each:.1f}" for each in numbers)
        lines.append(f"| {row['way']} | {row['clients']} | {shown} | {row.get('failed', '')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
