"""Beam on a Dask cluster: a scheduler and workers of their own, one of which is killed.

    pip install 'tfgad[dask]'
    python examples/benchmarks/beam_cluster.py --out examples/benchmarks/results/beam_cluster.json

About 5 minutes on one core. Scores tiles of twill with `tfgad score`: with Beam's local runner, and
with DaskRunner on one worker, on two workers, and on two workers of which one gets SIGKILL when a
third of the tiles has its map. Compares tables, dead letters and heat maps. One tile in a hundred
is broken. Every tile is named twice, once by its folder and once by a pattern.

Scheduler and workers are processes that talk over TCP, as on several machines. They share the
processor cores here, so that two workers are faster than one only where a core is free for each.

A Dask scheduler has no authentication: whoever reaches its port runs code as its user. Here all of
them listen on 127.0.0.1 alone.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tfgad
from tfgad import files
from tfgad.errors import exit_on_usage_error
from tfgad.training import run_config

# isort: split

import numpy as np
from PIL import Image
from pyarrow import parquet

LOCALHOST = "127.0.0.1"
MODEL = Path(__file__).parents[2] / "saved_models/weave_twill_ganomaly"
TABLE, LETTERS, REGIONS = "scores.parquet", "scores.dead_letters.csv", "scores.defects.csv"
PARTITION = 16  # images per task: what is scored again when a worker is lost
EXIT_CODES = (0, 1)  # of `tfgad score`; 1 says that some files could not be scored


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--images", type=int, default=400, help="how many")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        broken = write_tiles(folder / "tiles", given.images)
        runs = {"local runner": score(folder, "local", ["--runner", "DirectRunner"])}
        runs["one worker"] = on_cluster(folder, "one", workers=1)
        runs["two workers"] = on_cluster(folder, "two", workers=2)
        kill_after = given.images // 3
        runs["two workers, one killed"] = on_cluster(folder, "killed", 2, kill_after)
        for name, run in runs.items():
            run |= compared(folder / run.pop("folder"), folder / "local", folder / "two")
            print(name, json.dumps(run), flush=True)
    measured = {
        "images": given.images,
        "broken": broken,
        "image": "128x128",
        "cores": len(os.sched_getaffinity(0)),
        "runs": runs,
        "versions": run_config.versions() | dask_versions(),
    }
    files.write_json(given.out, measured)


def dask_versions():
    """Returns the versions of Beam and Dask."""
    import apache_beam
    import distributed

    return {"apache-beam": apache_beam.__version__, "distributed": distributed.__version__}


def write_tiles(folder, count):
    """Writes tiles of twill, one in a hundred of them broken, and returns how many are broken."""
    folder.mkdir()
    normal = tfgad.load(f"weave:twill?train={count}&calibration=1&test=2").train
    for number, image in enumerate(normal.take(count).as_numpy_iterator()):
        path = folder / f"{number:05}.png"
        pixels = np.round((image.squeeze() + 1) * 127.5).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        if number % 100 == 50:
            path.write_bytes(path.read_bytes()[:200])
    return len(range(50, count, 100))


def on_cluster(folder, name, workers, kill_after=None):
    """Scores with DaskRunner on a cluster of its own; kills a worker after so many maps."""
    with contextlib.ExitStack() as cluster:
        address = start_scheduler(cluster, folder / f"{name}.json")
        of_workers = [start_worker(cluster, address, folder) for _ in range(workers)]
        wait_for_workers(address, workers)
        found = {}
        if kill_after:
            maps = folder / name / "maps"
            arguments = maps, kill_after, of_workers[0], found
            threading.Thread(target=kill_on_the_way, args=arguments, daemon=True).start()
        options = [f"dask_client_address={address}", f"dask_partition_size={PARTITION}"]
        runner = ["--runner", "DaskRunner"]
        runner += [part for option in options for part in ("--runner-option", option)]
        run = score(folder, name, runner) | found
        return run | {"workers_at_the_end": count_workers(address)}


def start_scheduler(cluster, file):
    """Starts a scheduler that listens on this machine only, and returns its address."""
    command = ["scheduler", "--host", LOCALHOST, "--port", "0", "--no-dashboard"]
    start(cluster, [*command, "--scheduler-file", str(file)])
    while not file.exists() or not file.read_text():
        time.sleep(0.1)
    return json.loads(file.read_text())["address"]


def start_worker(cluster, address, folder):
    """Starts a worker of one thread that listens on this machine only."""
    command = ["worker", address, "--host", LOCALHOST, "--nthreads", "1", "--no-dashboard"]
    return start(cluster, [*command, "--local-directory", str(folder / "scratch")])


def start(cluster, command):
    """Starts a part of the cluster, which is killed at the end with all its processes."""
    _, *options = command
    command = [sys.executable, "-m", f"distributed.cli.dask_{command[0]}", *options]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    cluster.callback(kill, process)
    return process


def kill(process):
    """Sends SIGKILL to a process and its children: a worker's nanny would start it anew."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_on_the_way(maps, count, worker, found):
    """Kills a worker when so many maps are written."""
    while count_maps(maps) < count:
        time.sleep(0.05)
    kill(worker)
    found["maps_when_killed"] = count_maps(maps)


def count_maps(maps):
    """Returns the number of maps that are finished."""
    return sum(not path.name.startswith(".") for path in maps.glob("*.png"))


def wait_for_workers(address, count):
    """Waits until so many workers have joined."""
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(count)


def count_workers(address):
    """Returns the number of workers that the scheduler has."""
    import distributed

    with distributed.Client(address, set_as_default=False) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


def score(folder, name, runner):
    """Scores all tiles, each named twice, and returns how long that took.

    Images per second are counted from the first map to the last, without start and model loading.
    """
    out = folder / name
    out.mkdir()
    images = [folder / "tiles", folder / "tiles/*.png"]
    written = ["--csv", out / TABLE, "--maps", out / "maps"]
    command = [sys.executable, "-m", "tfgad.cli.main", "score", MODEL, *images, *written, *runner]
    started = time.monotonic()
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    seconds = time.monotonic() - started
    if ended.returncode not in EXIT_CODES:
        raise SystemExit(f"{name}: {ended.stderr}")
    times = sorted(path.stat().st_mtime for path in (out / "maps").glob("*.png"))
    rate = (len(times) - 1) / (times[-1] - times[0])
    return {"folder": name, "seconds": round(seconds, 1), "images_per_second": round(rate, 1)}


def compared(of_run, of_local, of_two):
    """Compares what a run wrote with what the local runner wrote, and with two workers."""
    ours, local = (parquet.read_table(each / TABLE).to_pylist() for each in (of_run, of_local))
    names = [row["image"] for row in ours]
    pairs = list(zip(ours, local, strict=True))
    return {
        "rows": len(names),
        "rows_twice": len(names) - len(set(names)),
        "rows_lost": len({row["image"] for row in local} - set(names)),
        "other_verdicts_than_local_runner": sum(a["verdict"] != b["verdict"] for a, b in pairs),
        "largest_difference_to_local_runner": {
            column: max(abs(a[column] - b[column]) for a, b in pairs)
            for column in ("score", "probability")
        },
        "files": len(contents(of_run)),
        "other_files_than_local_runner": different(of_run, of_local),
        "other_files_than_two_workers": different(of_run, of_two),
    }


def different(first, second):
    """Returns the files of two folders that are in one only, or have other bytes."""
    first, second = contents(first), contents(second)
    return sorted(name for name in first | second if first.get(name) != second.get(name))


def contents(folder):
    """Returns the bytes of each file that a run wrote, by its place."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
