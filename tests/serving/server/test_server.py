"""A server from start to stop: new versions under load, kill and restart, invalid arguments."""

import concurrent.futures
import contextlib
import json
import shutil
import signal
import socket
import threading

import numpy as np
import pytest
import requests
import tensorflow as tf
from typer.testing import CliRunner

from tfgad.cli import main

from ..conftest import (
    PATIENCE,
    ServerProcess,
    ask,
    assert_answers,
    kept_port,
    score_of,
    until,
)

pytestmark = pytest.mark.integration


def tfgad(*arguments):
    """Runs the command in this process; returns exit code, standard output and error."""
    return CliRunner().invoke(main.app, [str(each) for each in arguments])


def states_of(server, model):
    answer = requests.get(f"{server.url}/v1/models/{model}").json()
    return {int(each["version"]): each for each in answer.get("model_version_status", ())}


# Versions


def save_with_doubled_scores(folder, target):
    """Saves a model that returns twice the scores of an exported one."""
    module = tf.Module()
    module.exported = tf.saved_model.load(str(folder))
    score = module.exported.signatures["serving_default"]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.uint8, name="images")])
    def doubled(images):
        outputs = score(images=images)
        return {**outputs, "score": 2 * outputs["score"]}

    tf.saved_model.save(module, str(target), signatures={"serving_default": doubled})
    shutil.copytree(folder / "assets.extra", target / "assets.extra", dirs_exist_ok=True)


def test_a_new_version_under_load_fails_no_request(server, models_folder, pictures, expected):
    folder, prepared = models_folder / "switching", models_folder / ".prepared"
    shutil.copytree(models_folder / "native", folder)
    # Prepared before the requests keep the cores busy.
    save_with_doubled_scores(models_folder / "native" / "1", prepared)
    until(lambda: states_of(server, "switching").get(1, {}).get("state") == "AVAILABLE")
    scores = [expected["score"], 2 * expected["score"]]
    done, given = threading.Event(), [[] for _ in range(4)]

    def keep_asking(i):
        while not done.is_set():
            given[i].append(
                (len(given[i]) % 20, ask(server.url, pictures[len(given[i]) % 20], "switching"))
            )

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(keep_asking, i) for i in range(4)]
        try:
            until(lambda: all(given))
            prepared.rename(folder / "2")
            until(lambda: states_of(server, "switching").get(1, {}).get("state") == "END")
            asked = [len(each) for each in given]
            until(
                lambda: all(len(each) > before for each, before in zip(given, asked, strict=True))
            )
        finally:
            done.set()
        for each in asking:
            each.result()
    for answers in given:
        versions = [_version(score_of(answer), i, scores) for i, answer in answers]
        assert set(versions) == {0, 1}
        assert versions == sorted(versions)  # never back to version 1
    refused = requests.post(f"{server.url}/v1/models/switching/versions/1:predict", data=b"{}")
    assert refused.status_code == 400  # the body is parsed first


def _version(score, i, scores):
    """The index of the model that gave a score to picture i."""
    close = [np.isclose(score, each[i], rtol=1e-4, atol=1e-5) for each in scores]
    assert sum(close) == 1
    return close.index(True)


def test_a_broken_version_is_reported_and_the_old_serves_on(server, models_folder):
    folder = models_folder / "breaking"
    shutil.copytree(models_folder / "foreign", folder)
    until(lambda: 1 in states_of(server, "breaking"))
    (folder / ".partial").mkdir()
    (folder / ".partial" / "saved_model.pb").write_bytes(b"no model")
    (folder / ".partial").rename(folder / "2")
    until(lambda: 2 in states_of(server, "breaking"))
    until(lambda: states_of(server, "breaking")[2]["state"] == "END")
    states = states_of(server, "breaking")
    assert list(states) == [2, 1]
    assert states[2]["status"]["error_code"] == "UNKNOWN"
    assert states[2]["status"]["error_message"]
    assert str(models_folder) not in states[2]["status"]["error_message"]
    assert states[1]["state"] == "AVAILABLE"
    assert_answers(server.url, "breaking")


# Start and stop


def test_kill_and_restart_then_graceful_stop(models_folder, pictures, expected):
    folder = models_folder / "native"  # one model alone
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(
            ServerProcess(folder, "--port", kept_port(), "--grpc-port", kept_port())
        )
        kill(first, pictures, expected)
        second = servers.enter_context(ServerProcess(folder, *first.ports))
        assert (second.url, second.grpc) == (first.url, first.grpc)
        stop_in_order(second, pictures, expected)


def kill(first, pictures, expected):
    """Kills a server that has answered and has a connection open."""
    np.testing.assert_allclose(score_of(ask(first.url, pictures[0])), expected["score"][0], 1e-5)
    with requests.Session() as session:
        session.get(f"{first.url}/healthz")
        assert first.end(signal.SIGKILL) == -signal.SIGKILL


def stop_in_order(second, pictures, expected):
    """Stops a server that has requests in progress; they are answered."""
    assert second.lines[-1].startswith("ready: native 1; REST http://127.0.0.1:")
    # The body is made once, so that both requests are sent at the same time.
    body = json.dumps({"instances": np.concatenate([pictures] * 20).tolist()})
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(ask_for, second.url, body) for _ in range(2)]
        until(lambda: in_progress(second) == 2)
        assert second.end() == 0, second.lines
        for answer in answers:
            scores = [row["score"] for row in answer.result().json()["predictions"]]
            np.testing.assert_allclose(scores, np.tile(expected["score"], 20), 1e-4, 1e-5)
    assert second.lines[-1] == "stopped\n"
    assert not any("Traceback" in line for line in second.lines)


def ask_for(url, body):
    return requests.post(f"{url}/v1/models/native:predict", data=body, timeout=PATIENCE)


IN_PROGRESS = "tfgad_serving_requests_in_progress "


def in_progress(server):
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics").text
    line = next(each for each in page.splitlines() if each.startswith(IN_PROGRESS))
    return float(line.split()[1])


def test_invalid_arguments_give_one_line(tmp_path, models_folder):
    pytest.importorskip("starlette")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"no model")
    free = ["--port", "0", "--grpc-port", "0"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        mistakes = [
            ([tmp_path / "none", *free], "does not exist"),
            ([tmp_path / "file", *free], "is no folder"),
            ([tmp_path / "empty", *free], "holds no model;"),
            ([tmp_path / "broken", *free], "holds no model that can be loaded (broken version 1"),
            ([models_folder / "foreign", "--port", port, "--grpc-port", "0"], "--rest-port"),
            ([models_folder / "foreign", "--port", "0", "--grpc-port", port], "--grpc-port"),
            ([models_folder, "--port", "70000"], "cannot listen there"),
            ([models_folder, *free, "--host", "192.0.2.1"], "cannot listen there"),
        ]
        for arguments, problem in mistakes:
            result = tfgad("serve", *arguments, "--no-page")
            assert result.exit_code == 2, result.output
            last = result.stderr.strip().splitlines()[-1]
            assert problem in last
            assert "Traceback" not in result.stderr


def test_a_missing_extra_is_an_error_with_a_hint(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = tfgad("serve", tmp_path)
    assert result.exit_code == 2
    assert "pip install 'tfgad[serve]'" in result.stderr
