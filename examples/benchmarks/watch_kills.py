"""`tfgad watch` killed at random while images arrive: each is scored once, and none is missed.

    python examples/benchmarks/watch_kills.py --out examples/benchmarks/results/watch_kills.json

MNIST's test digits arrive in a folder and its sub-folders, as PNG files. Of ten files, eight are
written at once, one under another name that is then changed, and one in two parts with half a
second between them. Meanwhile `tfgad watch` scores them by `saved_models/mnist_5_fanogan` and moves
the defective ones away. It is killed by SIGKILL, `--kills` times, and started again. Each time as
many digits arrive, once it watches: it is killed after a random number of them is scored, and up to
0.2 seconds more. One of five times they arrive, and it is killed, while it starts.

At the end each image must have one row in the table, with the score that it has when nothing is
killed; the good ones must be in the folder and the defective ones in the other, with the bytes that
were written. Most of the time is for starting TensorFlow: 5 minutes on two idle cores. `mnist:5`
needs the data set (`TFGAD_DATA_DIR`); with `--data digits:5` it runs without.
"""

import argparse
import csv
import io
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

import tfgad
from tfgad import files
from tfgad.errors import exit_on_usage_error
from tfgad.training import run_config

MODEL = Path(__file__).parents[2] / "saved_models" / "mnist_5_fanogan"
GAP = 0.5  # seconds between the two parts of a file
TOLERANCE = 1e-3  # of a score, relative: batches of other sizes are rounded otherwise
START = 10  # seconds in which a start is killed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist:5")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--per-second", type=float, default=100, help="images that arrive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    test = tfgad.load(arguments.data).test
    pictures = [png(each["image"]) for each in itertools.islice(test, arguments.images)]
    with tempfile.TemporaryDirectory() as folder:
        results = measured(Path(folder), pictures, arguments)
    print("\n".join(f"{name}: {value}" for name, value in results.items()))
    if arguments.out:
        files.write_json(arguments.out, {**results, "versions": run_config.versions()})


def png(image) -> bytes:
    """Returns an image float32 `[H, W, 1]` in [-1, 1] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(127.5 * (np.asarray(image)[..., 0] + 1)))).save(file, "PNG")
    return file.getvalue()


def measured(folder: Path, pictures: list[bytes], arguments) -> dict:
    """Lets the pictures arrive, kills the watch, and compares the tables and the folders."""
    arriving = folder / "arriving"
    names = [f"camera_{i % 7}/{i:05d}.png" for i in range(len(pictures))]
    for name in names[:7]:
        (arriving / name).parent.mkdir(parents=True)
    rng = random.Random(arguments.seed)
    arriving_now = np.array_split(np.arange(len(pictures)), arguments.kills)
    rows_at_kill = []
    for numbers in arriving_now:
        part = {arriving / names[i]: pictures[i] for i in numbers}
        rows_at_kill.append(killed(folder, part, arguments.per_second, rng))
    last = subprocess.run([*command(folder), "--once"], capture_output=True, text=True, check=True)
    rows = read(folder / "results.csv")

    reference = folder / "reference"
    for name, picture in zip(names, pictures, strict=True):
        files.write_bytes(reference / "arriving" / name, picture)
    subprocess.run([*command(reference), "--once"], capture_output=True, check=True)
    expected = {row["image"]: row for row in read(reference / "results.csv")}

    found = [row["image"] for row in rows]
    wrong = [row for row in rows if not same(row, expected.get(row["image"]))]
    lost = [
        name
        for name, picture in zip(names, pictures, strict=True)
        if contents(folder, expected[name]["verdict"], name) != picture
    ]
    return {
        "images": len(pictures),
        "kills": arguments.kills,
        "rows_at_each_kill": rows_at_kill,
        "torn_rows": last.stderr.count("torn"),
        "rows": len(rows),
        "images_with_several_rows": len(found) - len(set(found)),
        "images_without_a_row": len(set(names) - set(found)),
        "rows_with_another_score_or_verdict": len(wrong),
        "images_not_where_they_belong": len(lost),
        "defective": sum(row["verdict"] == "defective" for row in rows),
    }


def write(pictures: dict[Path, bytes], per_second: float):
    """Writes files as cameras do."""
    start = time.monotonic()
    for number, (path, picture) in enumerate(pictures.items()):
        time.sleep(max(0, start + number / per_second - time.monotonic()))
        if number % 10 == 8:
            part = path.with_suffix(".part")
            part.write_bytes(picture)
            part.rename(path)
        elif number % 10 == 9:
            path.write_bytes(picture[: len(picture) // 2])
            threading.Timer(GAP, append, (path, picture[len(picture) // 2 :])).start()
        else:
            path.write_bytes(picture)
    time.sleep(2 * GAP)


def append(path: Path, part: bytes):
    with path.open("ab") as file:
        file.write(part)


def command(folder: Path) -> list[str]:
    watch = [sys.executable, "-m", "tfgad.cli.main", "watch", MODEL, folder / "arriving"]
    return list(map(str, [*watch, "--csv", folder / "results.csv", "--bad", folder / "bad"]))


def killed(folder: Path, pictures: dict[Path, bytes], per_second: float, rng: random.Random) -> int:
    """Starts a watch, lets pictures arrive, kills it, and returns how many rows the table has."""
    process = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    writer = threading.Thread(target=write, args=(pictures, per_second))
    table = folder / "results.csv"
    if rng.random() < 0.2:
        writer.start()
        time.sleep(rng.uniform(0, START))
    else:
        next(line for line in process.stderr if "watching" in line)
        wanted = count(table) + rng.randint(1, len(pictures))
        writer.start()
        while count(table) < wanted:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    writer.join()
    return count(table)


def count(table: Path) -> int:
    """Returns how many whole rows a table has."""
    return max(0, table.read_bytes().count(b"\n") - 1) if table.exists() else 0


def read(table: Path) -> list[dict[str, str]]:
    """Returns the rows of a table, with the images' names within their folder."""
    arriving = (table.parent / "arriving").resolve()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row | {"image": Path(row["image"]).relative_to(arriving).as_posix()} for row in rows]


def same(row: dict[str, str], expected: dict[str, str] | None) -> bool:
    """Returns whether a row has the expected verdict and score."""
    if expected is None or row["verdict"] != expected["verdict"]:
        return False
    return np.isclose(float(row["score"]), float(expected["score"]), rtol=TOLERANCE)


def contents(folder: Path, verdict: str, name: str) -> bytes | None:
    """Returns the content of an image that is in the folder of its verdict, and nowhere else."""
    there, elsewhere = folder / "arriving" / name, folder / "bad" / name
    if verdict == "defective":
        there, elsewhere = elsewhere, there
    return there.read_bytes() if there.is_file() and not elsewhere.exists() else None


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
