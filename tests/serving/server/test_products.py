"""A model of several products, served: it names them, and takes them, by REST and gRPC."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tfgad import training
from tfgad.export.saved_model import export_run

requests = pytest.importorskip("requests")
from tfgad.serving.client import Client, ClientError  # noqa: E402

from ..conftest import ServerProcess, encoded  # noqa: E402

pytestmark = pytest.mark.integration

SPEC = "weave:twill+herringbone?size=48&train=40&calibration=20&test=2"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server of a model of two weaves."""
    folder = tmp_path_factory.mktemp("products")
    settings = {"steps": 2, "width": 8, "latent_dim": 8, "stride": 32}
    run = training.train("ganomaly", SPEC, folder / "run", settings=settings)
    export_run(run, folder / "models" / "weaves")
    shutil.rmtree(folder / "run")
    with ServerProcess(folder / "models", "--port", "0", "--grpc-port", "0") as server:
        yield server


@pytest.fixture(scope="module")
def pixels():
    """A good tile of each weave, uint8 `[2, 48, 48, 1]`."""
    from tfgad.data.datasets.weave.weave import render

    tiles = [render(name, seed=3, index=0, size=48)[0] for name in ("twill", "herringbone")]
    return np.stack(tiles)


def ask(server, **body):
    return requests.post(f"{server.url}/v1/models/weaves:predict", json=body, timeout=60)


def test_json_names_the_product_and_takes_it(served, pixels):
    rows = ask(served, instances=pixels.tolist()).json()["predictions"]
    assert [row["product"] for row in rows] == ["twill", "herringbone"]
    assert [row["reason"] for row in rows] == ["", ""]
    named = [{"images": each.tolist(), "product": "twill"} for each in pixels]
    rows = ask(served, signature_name="score_product", instances=named).json()["predictions"]
    assert [row["product"] for row in rows] == ["twill", "twill"]
    wrong = {"images": pixels[:1].tolist(), "product": ["../twill"]}
    answer = ask(served, signature_name="score_product", inputs=wrong)
    assert answer.status_code == 400
    assert "the products of this model are twill, herringbone" in answer.json()["error"]


def test_grpc_names_the_product_and_takes_it(served, pixels):
    with Client(f"grpc://{served.grpc}", "weaves") as client:
        assert client.score(pixels)["product"].tolist() == [b"twill", b"herringbone"]
        files = [encoded(each) for each in pixels]
        assert client.regions(files)["product"].tolist() == [b"twill", b"herringbone"]
        inputs = {"images": pixels, "product": np.array([b"", b"twill"], object)}
        assert client.predict(inputs, "score_product")["product"].tolist() == [b"twill", b"twill"]
        inputs["product"] = np.array([b"twill", b"satin"], object)
        with pytest.raises(ClientError, match="the products of this model are twill, herringbone"):
            client.predict(inputs, "score_product")


def test_a_large_image_is_answered_with_its_product(served, pixels):
    large = tf.tile(pixels[1:], (1, 44, 44, 1)).numpy()
    with Client(f"grpc://{served.grpc}", "weaves") as client:
        assert client.score(large)["product"].tolist() == [b"herringbone"]
        named = {"images": large, "product": np.array([b"herringbone"], object)}
        assert client.predict(named, "score_product")["reason"].tolist() == [b""]
