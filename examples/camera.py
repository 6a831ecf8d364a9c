"""A camera: a stream of frames to a server, which need not keep up with it.

    pip install '.[serve]'
    tfgad serve saved_models &
    python examples/camera.py --url grpc://127.0.0.1:8500 --model weave_twill_ganomaly --fps 30

Frames are twill with a defect in every tenth, or with `--frames DIR` the PNG and JPEG files of a
folder, over and over. The camera takes `--fps` a second, whatever the server does. Frames wait in a
queue of `--queue`; if it is full, the oldest one is dropped and counted, so that a verdict is never
about the distant past. `--workers` clients take the oldest frame each and wait for its verdict.
Several of them let the server score several frames in a batch.

Prints a line a second, and at the end the verdicts per second, the median (p50) and the 99th
percentile (p99) of the time from frame to verdict, and how many frames were dropped or refused. It
runs for `--seconds`, by default 20. On two cores that other programs kept busy, the command above
gave 4.5 verdicts a second, p50 1.1 s, p99 1.5 s, and dropped 503 of 600 frames.
"""

import argparse
import collections
import io
import itertools
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tfgad.data.datasets.weave.weave import DEFECTS, render
from tfgad.errors import UsageError, exit_on_usage_error
from tfgad.serving.client import Client, ClientError

SIZE, DISTINCT, DEFECTIVE = 128, 60, 10  # of the frames of twill; every tenth has a defect
FILES = (".png", ".jpg", ".jpeg")


class Queue:
    """Frames that wait, the oldest first, with the time at which each was taken.

    Args:
        size: most frames that wait; one more drops the oldest.
    """

    def __init__(self, size):
        self.frames, self.size = collections.deque(), size
        self.taken = self.dropped = 0
        self.changed, self.is_closed = threading.Condition(), False

    def put(self, frame):
        """Adds a frame, and never waits."""
        with self.changed:
            self.taken += 1
            if len(self.frames) == self.size:
                self.frames.popleft()
                self.dropped += 1
            self.frames.append((time.perf_counter(), frame))
            self.changed.notify()

    def get(self):
        """Waits for a frame, and returns its time and itself; None once the queue is closed."""
        with self.changed:
            self.changed.wait_for(lambda: self.frames or self.is_closed)
            return self.frames.popleft() if self.frames else None

    def close(self):
        """Lets `get` return the frames that still wait, and then None."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()


class Verdicts:
    """The verdicts so far: seconds from frame to verdict, how many are defective, the errors."""

    def __init__(self):
        self.lock, self.latencies = threading.Lock(), []
        self.defective, self.errors = 0, collections.Counter()

    def ask(self, client, queue):
        """Asks for the verdicts of frames until the queue is closed."""
        while (item := queue.get()) is not None:
            start, frame = item
            try:
                is_anomalous = bool(client.score(frame)["is_anomalous"][0])
            except ClientError as error:
                with self.lock:
                    self.errors[error.code] += 1
                continue
            with self.lock:
                self.latencies.append(time.perf_counter() - start)
                self.defective += is_anomalous

    def report(self, queue, begin):
        """Returns a line about all frames so far."""
        with self.lock:
            latencies, errors = np.array(self.latencies), dict(self.errors)
            line = f"{len(latencies) / (time.perf_counter() - begin):.1f} verdicts/s"
            if len(latencies):
                p50, p99 = 1000 * np.quantile(latencies, [0.5, 0.99])
                line += f", p50 {p50:.0f} ms, p99 {p99:.0f} ms"
        line += f"; {queue.taken} frames: {len(latencies)} scored, {self.defective} defective"
        refused = "".join(f", {count} {code}" for code, count in errors.items())
        return f"{line}, {queue.dropped} dropped{refused}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="grpc://127.0.0.1:8500", help="of the server")
    parser.add_argument("--model", default="weave_twill_ganomaly")
    parser.add_argument("--frames", type=Path, help="folder of PNG and JPEG files")
    parser.add_argument("--fps", type=float, default=30, help="frames that are taken a second")
    parser.add_argument("--queue", type=int, default=8, help="most frames that wait")
    parser.add_argument("--workers", type=int, default=4, help="requests at once")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    frames = of_folder(arguments.frames) if arguments.frames else twill()
    clients = [Client(arguments.url, arguments.model) for _ in range(arguments.workers)]
    try:
        for client in clients:  # the first call of each connects
            client.score(frames[0])
    except ClientError as error:
        raise SystemExit(f"{arguments.url}: {error}") from None

    queue, verdicts = Queue(arguments.queue), Verdicts()
    workers = [threading.Thread(target=verdicts.ask, args=(each, queue)) for each in clients]
    for worker in workers:
        worker.start()
    begin = time.perf_counter()
    next_line = 1
    for number, frame in enumerate(itertools.cycle(frames)):
        moment = number / arguments.fps
        if moment >= arguments.seconds:
            break
        time.sleep(max(0, begin + moment - time.perf_counter()))
        queue.put(frame)
        if moment >= next_line:
            print(f"{moment:3.0f} s: {verdicts.report(queue, begin)}", flush=True)
            next_line += 1
    queue.close()
    for worker in workers:
        worker.join()
    print(f"  all: {verdicts.report(queue, begin)}")
    for client in clients:
        client.close()


def twill():
    """Returns frames of twill as PNG files."""
    kinds = itertools.cycle(DEFECTS)
    frames = []
    for index in range(DISTINCT):
        defect = next(kinds) if index % DEFECTIVE == DEFECTIVE - 1 else None
        image, _ = render("twill", seed=0, index=index, split="test", size=SIZE, defect=defect)
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "PNG")
        frames.append(file.getvalue())
    return frames


def of_folder(folder):
    """Returns the image files of a folder, in the order of their names."""
    frames = [
        path.read_bytes() for path in sorted(folder.glob("*")) if path.suffix.lower() in FILES
    ]
    if not frames:
        raise UsageError("--frames", folder, "holds no PNG or JPEG files", "name another folder")
    return frames


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
