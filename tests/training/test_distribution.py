"""Trainings that several replicas share: replicas of one process, and processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfgad import methods
from tfgad.errors import UsageError
from tfgad.training import distribution, load_run, train
from tfgad.training.run_folder import CHECKPOINT, CONFIG, MODEL

HERE = Path(__file__).parent
SECONDS = 240  # for a worker; it takes about 15 on two idle cores
WORKERS = []  # all that were started


@pytest.mark.slow
@pytest.mark.integration
def test_two_replicas_train_every_method_as_one_does():
    """Batch normalisation is frozen: it alone sees the part of a batch and not the whole."""
    script = [sys.executable, HERE / "mirrored_training.py"]
    said = subprocess.run(script, capture_output=True, text=True, timeout=SECONDS, check=True)
    found = json.loads(said.stdout.splitlines()[-1])
    assert set(found) == set(methods.METHODS)
    for method, each in found.items():
        assert each["moved"] > 1e-6, method
        assert each["apart"] < 1e-3, method
        assert each["logs"] < 1e-4, method


@pytest.mark.slow
@pytest.mark.parametrize("way", ["alone", "mirrored"])
def test_one_device_trains_a_run_that_can_be_loaded(tmp_path, way):
    small = {"width": 4, "latent_dim": 4, "batch_size": 4, "steps": 2, "stride": 24}
    run = train("ganomaly", "digits:8?size=24", tmp_path / "run", settings=small, distribute=way)
    loaded = load_run(run.folder)
    assert loaded.calibration == run.calibration
    assert loaded.model.steps_done == 2
    assert not (run.folder / CHECKPOINT).exists()


@pytest.fixture(scope="module", autouse=True)
def no_worker_is_left():
    """Kills what a failed test has left running."""
    yield
    for worker in WORKERS:
        worker.kill()
        worker.wait()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of a run that two workers trained, with the weights that each ended with."""
    folder = tmp_path_factory.mktemp("together")
    for worker in started(folder):
        out, err = worker.communicate(timeout=SECONDS)
        assert worker.returncode == 0, out + err
    return folder


@pytest.mark.slow
@pytest.mark.integration
def test_workers_end_with_the_same_weights_and_near_those_of_one(together, tmp_path):
    first, second = weights(together, 0), weights(together, 1)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    alone = worker(tmp_path, 0, ports=[])
    assert alone.wait(timeout=SECONDS) == 0
    whole, of_one = (
        np.concatenate([w.ravel() for w in each]) for each in (first, weights(tmp_path, 0))
    )
    assert np.corrcoef(whole, of_one)[0, 1] > 0.999
    config = json.loads((together / "run" / CONFIG).read_text())
    assert config["calibration"]["images"] == 6


@pytest.mark.slow
@pytest.mark.integration
def test_a_worker_that_dies_comes_back_and_all_end_as_if_it_had_not(together, tmp_path):
    chief, other = started(tmp_path, die_at=5)
    assert other.wait(timeout=SECONDS) == 9
    assert "has lost a worker" in chief.communicate(timeout=SECONDS)[1]
    assert chief.returncode == 1
    assert not (tmp_path / "run" / MODEL).exists()
    for each in started(tmp_path, resume=True):
        out, err = each.communicate(timeout=SECONDS)
        assert each.returncode == 0, out + err
    for resumed, unbroken in zip(weights(tmp_path, 0), weights(together, 0), strict=True):
        np.testing.assert_allclose(resumed, unbroken, atol=1e-6)


def started(folder, die_at=0, **options):
    """Starts two workers; the second dies at a step, if one is given."""
    ports = free_ports(2)
    return worker(folder, 0, ports, **options), worker(folder, 1, ports, die_at=die_at, **options)


def worker(folder, index, ports, die_at=0, resume=False):
    """Starts a process that trains; alone, if there are no ports."""
    task = {"cluster": {"worker": [f"127.0.0.1:{port}" for port in ports]}}
    task |= {"task": {"type": "worker", "index": index}}
    own = {"TF_CONFIG": json.dumps(task)} if ports else {}
    script = [sys.executable, HERE / "worker_training.py", folder / "run"]
    script += [folder / f"weights-{index}.npz", f"--die-at={die_at}", *["--resume"] * resume]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    worker = subprocess.Popen([str(part) for part in script], env={**os.environ, **own}, **pipes)
    WORKERS.append(worker)
    return worker


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def weights(folder, index):
    with np.load(folder / f"weights-{index}.npz") as file:
        return [file[name] for name in file.files]


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ("", "is not set"),
        ("{", "cannot be understood"),
        ('{"cluster": {"worker": ["a:1"]}}', "cannot be understood"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "does not name this process",
        ),
        (
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
            "does not name this process",
        ),
    ],
)
def test_what_tf_config_must_say(config, fault, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match=fault):
        distribution.connect("multiworker")


def test_ways_that_are_not_known():
    with pytest.raises(UsageError, match="mirrored"):
        distribution.connect("mirror")


def test_a_batch_is_shared_equally():
    class Three:
        num_replicas_in_sync = 3

    cluster = distribution.Cluster(Three())
    cluster.check_batch(12)
    with pytest.raises(UsageError, match="3 replicas"):
        cluster.check_batch(16)


def test_a_cluster_of_one_process_waits_for_nobody():
    cluster = distribution.connect("alone")
    assert cluster.is_chief
    assert cluster.broadcast(2) == 2
    cluster.barrier()
    cluster.check_same_step(7)
