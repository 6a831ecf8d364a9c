"""`examples/monitoring/`: queries name metrics of the server, its command takes its options."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

pytest.importorskip("tensorflow_serving")
pytest.importorskip("prometheus_client")
pytest.importorskip("yaml")

import yaml

from tfgad.cli.main import app
from tfgad.scores.drift import CalibrationScores
from tfgad.serving.server import metrics
from tfgad.serving.server.limits import Admission
from tfgad.serving.server.score_watch import ScoreWatch

from .conftest import Models

FOLDER = Path(__file__).parents[3] / "examples" / "monitoring"


@pytest.fixture(scope="module")
def samples():
    """The names of all samples of a server that has answered a request."""
    scores, levels = np.linspace(1, 2, 101), np.linspace(90, 110, 101)
    watch = ScoreWatch("parts", CalibrationScores.of(scores, brightness=levels), 1.95)
    seen = {"score": scores[::3], "brightness": levels[::3]}
    watch.add({**seen, "is_anomalous": np.zeros(len(scores[::3]), bool)})
    server = metrics.Metrics(Admission(4))
    server.observe_models(Models(parts=watch))
    server.request("REST", "Predict", "parts", "OK", 0.1)
    server.batch("parts", "serving_default", 4)
    return set(re.findall(r"^(tfgad_\w+)", server.page().decode(), re.MULTILINE))


def board():
    return json.loads((FOLDER / "grafana" / "dashboards" / "tfgad.json").read_text())


def read(name):
    return yaml.safe_load((FOLDER / name).read_text())


def test_board_and_alerts_ask_for_metrics_of_the_server(samples):
    queries = [each["expr"] for panel in board()["panels"] for each in panel["targets"]]
    queries += [rule["expr"] for group in read("rules.yml")["groups"] for rule in group["rules"]]
    queries.append(board()["templating"]["list"][0]["query"]["query"])
    asked = {name for query in queries for name in re.findall(r"\btfgad_\w+", query)}
    assert len(asked) >= 8
    assert asked <= samples


def test_panels_lie_beside_each_other():
    places = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & places, panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        places |= own


def test_prometheus_reads_the_pages_of_services_that_there_are():
    services = read("compose.yaml")["services"]
    for job in read("prometheus.yml")["scrape_configs"]:
        assert job["metrics_path"] == metrics.PATH
        assert job["static_configs"] == [{"targets": [f"{job['job_name']}:8501"]}]
        assert job["job_name"] in services
    assert f'path: "{metrics.PATH}"' in (FOLDER / "monitoring.config").read_text()


def test_services_are_open_to_this_machine_only_and_mount_files_that_there_are():
    for name, service in read("compose.yaml")["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (FOLDER / source).exists(), volume


def test_the_server_takes_its_options():
    serve = get_command(app).commands["serve"]
    options = {option for parameter in serve.params for option in parameter.opts}
    command, folder, *given = read("compose.yaml")["services"]["tfgad"]["command"]
    assert (command, folder) == ("serve", "/models")
    assert {each.split("=")[0] for each in given} <= options
    # Otherwise nobody could reach it, and Prometheus would be refused by its name.
    assert set(given) == {"--host=0.0.0.0", "--allowed-host=tfgad"}
    (target,) = read("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] == "tfgad"
