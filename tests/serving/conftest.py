"""Exported models, and a server of them as a process of its own."""

import contextlib
import functools
import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image

from tfgad.export.saved_model import export

EXTRA = ("tensorflow_serving", "grpc_health", "starlette", "uvicorn", "orjson", "prometheus_client")
READY = re.compile(r"ready: (?P<models>.*); REST (?P<url>\S+), gRPC (?P<grpc>[^\s,]+)")
PATIENCE = 240  # seconds for a server to start on a busy machine
MAX_BODY, MAX_PIXELS = 8 * 2**20, 10**6


def export_small(model, folder, **changes):
    """Exports a model of the tests."""
    metadata = {"method": "ganomaly", "data": "weave:plain?size=48"}
    form = {"image_shape": (48, 48, 1), "resized": False, "metadata": metadata}
    return export(model, folder, **{**form, **changes})


def until(condition):
    """Waits for something that a server or another thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def kept_port():
    """A free port below 32768, so that the system assigns it to nobody who asks for any port.

    A server can be restarted at it while other tests open ports.
    """
    while True:
        port = random.SystemRandom().randrange(20000, 32768)  # no seed, so that workers differ
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def encoded(pixels, form="PNG"):
    """An image uint8 `[H, W, C]` as a file."""
    file = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(file, form)
    return file.getvalue()


def ask(url, image, model="native"):
    """Asks for the prediction of an image by REST."""
    body = {"instances": [image.tolist()]}
    return requests.post(f"{url}/v1/models/{model}:predict", json=body, timeout=PATIENCE)


def score_of(answer):
    """The score of an answer to `ask`."""
    assert answer.status_code == 200, answer.text[:300]
    return answer.json()["predictions"][0]["score"]


REASONS = ("", "zu dunkel: ä", "", "no texture")


def save_foreign(folder):
    """Writes a SavedModel with signatures that no model of tfgad has.

    `described` takes `x` float32 `[B]` and returns strings and numbers; `positive` returns fewer
    rows than its input; `named` has no input; `turned` returns complex numbers.
    """
    module = tf.Module()
    x = tf.TensorSpec([None], tf.float32, name="x")

    @tf.function(input_signature=[x])
    def described(x):
        reasons = tf.gather(tf.constant(REASONS), tf.cast(x, tf.int32))
        files = tf.strings.join([tf.constant(b"\xff"), reasons])
        return {"score": x / 4, "reason": reasons, "file_bytes": files, "raw": files}

    @tf.function(input_signature=[x])
    def positive(x):
        return {"y": tf.boolean_mask(x, x > 0)}

    @tf.function(input_signature=[])
    def named():
        return {"name": tf.constant("foreign")}

    @tf.function(input_signature=[x])
    def turned(x):
        return {"y": tf.complex(x, x)}

    signatures = {"described": described, "positive": positive, "named": named, "turned": turned}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def assert_answers(url, model="foreign"):
    """Asserts that a model as `save_foreign` writes it answers."""
    body = {"signature_name": "positive", "inputs": [1, -1]}
    answer = requests.post(f"{url}/v1/models/{model}:predict", json=body, timeout=PATIENCE)
    assert answer.json() == {"outputs": [1]}


class ServerProcess:
    """`tfgad serve` as a process.

    Attributes:
        url: of its REST interface.
        grpc: address of its gRPC interface.
        lines: its output on both streams.
    """

    def __init__(self, folder, *options):
        for needed in EXTRA:
            pytest.importorskip(needed)
        command = [sys.executable, "-m", "tfgad.cli.main", "serve", str(folder), "--no-page"]
        command += map(str, options)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines, self._ready, self._match = [], threading.Event(), None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(PATIENCE), self.lines
        assert self._match, self.lines
        self.url, self.grpc = self._match["url"], self._match["grpc"]

    @property
    def ports(self):
        """Options that start another server at the same ports."""
        rest, grpc = (each.rpartition(":")[2] for each in (self.url, self.grpc))
        return ["--port", rest, "--grpc-port", grpc]

    def memory(self):
        """The peak of its memory, in bytes."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def end(self, number=signal.SIGTERM):
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # does nothing if it has ended
        self.process.wait()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            self._match = self._match or READY.search(line)
            if self._match:
                self._ready.set()
        self._ready.set()  # it has ended


@pytest.fixture(scope="session")
def models_folder(fitted, tmp_path_factory):
    """`native` scores images at native resolution; for `foreign` see `save_foreign`."""
    folder = tmp_path_factory.mktemp("models")
    export_small(fitted("ganomaly"), folder / "native")
    save_foreign(folder / "foreign" / "1")
    return folder


@pytest.fixture(scope="session")
def server(models_folder):
    """A process that serves these models; a test may add others."""
    limits = ["--max-body", str(MAX_BODY // 2**20), "--max-pixels", str(MAX_PIXELS)]
    ports = ["--port", "0", "--grpc-port", "0"]
    with ServerProcess(models_folder, *ports, *limits, "--poll-seconds", "0.1") as started:
        yield started
        assert started.end() == 0, started.lines


@pytest.fixture(scope="session")
def pictures():
    """Twenty noisy images uint8 `[20, 48, 48, 1]`."""
    rng = np.random.default_rng(0)
    return rng.normal(128, 40, (20, 48, 48, 1)).clip(0, 255).astype("uint8")


@pytest.fixture(scope="session")
def expected(fitted, pictures):
    """`score` and `map` of the pictures by the model in Python."""
    outputs = fitted("ganomaly").anomaly(pictures.astype("float32") / 127.5 - 1)
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.fixture(scope="session")
def load_once():
    """Makes servers in this process share the loaded SavedModels, with their traced graphs."""
    servable = pytest.importorskip("tfgad.serving.server.servable")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servable, "load_saved_model", functools.cache(servable.load_saved_model))
        yield
