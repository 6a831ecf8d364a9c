"""A loaded version: large images by blocks, and missing metadata."""

import json
import math
import shutil
import threading

import numpy as np
import pytest

pytest.importorskip("tensorflow_serving")

from tfgad.data.pixels import to_uint8
from tfgad.errors import UsageError
from tfgad.serving.errors import ServingError
from tfgad.serving.server import graph_runs
from tfgad.serving.server import servable as servable_module
from tfgad.serving.server.batching import Batching, ClosedError
from tfgad.serving.server.image_sizes import Rows
from tfgad.serving.server.limits import Turns
from tfgad.serving.server.model_files import is_valid
from tfgad.serving.server.servable import Servable

from ..conftest import PATIENCE, encoded, until

SIZE = (210, 180)


class CountedTurns(Turns):
    """Counts runs, and holds them until they may go on."""

    def __init__(self):
        super().__init__(2)
        self.runs, self.go_on = 0, threading.Semaphore(0)

    def taken(self):
        self.runs += 1
        assert self.go_on.acquire(timeout=PATIENCE)
        return super().taken()


@pytest.fixture(scope="module")
def native(models_folder, load_once):
    """The model for native resolution; blocks of large images have 100x100 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("BLOCK_PIXELS", "BLOCK_PIXELS_EARLIER"):
            patch.setattr(servable_module, name, 100 * 100)
        servable = Servable("native", 1, models_folder / "native" / "1", Batching())
    yield servable
    servable.close()


@pytest.fixture
def turns(monkeypatch):
    """Runs are counted, and images of more than 100x100 pixels are large."""
    turns = CountedTurns()
    monkeypatch.setattr(graph_runs, "RUNS", turns)
    monkeypatch.setattr(servable_module, "LARGE", 100 * 100)
    return turns


def large_inputs():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (1, *SIZE, 1), "u1")
    dark = grey.copy()
    dark[:, 48:120, 60:150] = 0  # a covered part
    deep = rng.integers(0, 2**16, SIZE, "u2")
    colour = rng.integers(0, 256, (*SIZE, 3), "u1")
    files = {
        "16 bits": encoded(deep),
        "colour": encoded(colour),
        "alpha": encoded(np.dstack([colour, colour[..., :1]])),
        "black and white": encoded(colour[..., 0] > 100),
        "JPEG": encoded(colour, "JPEG"),
    }
    inputs = {
        "array": ("serving_default", {"images": grey}),
        "dark tile": ("serving_default", {"images": dark}),
        "black": ("serving_default", {"images": np.zeros_like(grey)}),
        "regions": ("regions", {"images": grey}),
        "regions of a file": ("regions_bytes", {"image_bytes": np.array([encoded(deep)], object)}),
        "map as PNG": ("map_png", {"image_bytes": np.array([encoded(deep)], object)}),
    }
    for name, file in files.items():
        inputs[name] = "score_bytes", {"image_bytes": np.array([file], object)}
    return {**inputs, "reconstruction": ("reconstruct", {"images": grey})}


@pytest.mark.parametrize(("name", "inputs"), large_inputs().values(), ids=large_inputs())
def test_blocks_give_the_results_of_the_whole_image(native, turns, name, inputs):
    turns.go_on.release(1000)
    signature = native.signature(name)
    whole = native.run(signature, inputs)
    assert turns.runs == 1
    by_block = native.submit(signature, inputs, Rows(1, math.prod(SIZE), "kind")).result(PATIENCE)
    assert turns.runs > 2
    assert by_block.keys() == whole.keys()
    assert name == "reconstruct" or whole["reason"][0]  # noise is unlike the good images
    for key, value in whole.items():
        assert by_block[key].dtype == value.dtype
        assert by_block[key].shape == value.shape
        if value.dtype == object:
            assert list(by_block[key]) == list(value)
            continue
        close = {"atol": 1} if value.dtype == np.uint8 else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(by_block[key].astype("f8"), value.astype("f8"), **close)


def test_a_large_good_image_has_no_reason_by_blocks_either(native, turns, images):
    turns.go_on.release(1000)
    rows = [np.concatenate(list(images[i : i + 4]), axis=1) for i in range(0, 16, 4)]
    inputs = {"images": to_uint8(np.concatenate(rows))[None]}
    signature = native.signature("")
    answer = native.submit(signature, inputs, Rows(1, 192**2, "kind"))
    assert answer.result(PATIENCE)["reason"][0] == native.run(signature, inputs)["reason"][0] == b""


def test_a_cancelled_large_image_ends_after_a_block(native, turns):
    name, inputs = large_inputs()["array"]
    signature, rows = native.signature(name), Rows(1, math.prod(SIZE), "kind")
    gone, kept = (native.submit(signature, inputs, rows) for _ in range(2))
    small = native.submit(signature, {"images": inputs["images"][:, :48, :48]}, Rows(1, 48**2, "s"))
    until(lambda: turns.runs == 2)  # the first block, and the small image beside it
    assert not gone.done()
    assert gone.cancel()
    turns.go_on.release(2)
    assert small.result(PATIENCE)["map"].shape == (1, 48, 48)  # it does not wait for the large ones
    turns.go_on.release(1000)
    kept.result(PATIENCE)
    with_one = turns.runs - 2
    native.submit(signature, inputs, rows).result(PATIENCE)
    assert turns.runs - 2 - with_one == with_one
    assert native.queued_rows == 0


def test_errors_of_the_graph_for_a_large_image_are_reported(native, turns):
    turns.go_on.release(1000)
    rows = Rows(1, math.prod(SIZE), "kind")
    half = np.array([large_inputs()["16 bits"][1]["image_bytes"][0][:500]], object)
    with pytest.raises(ServingError, match="PNG") as raised:
        native.submit(native.signature("score_bytes"), {"image_bytes": half}, rows).result(PATIENCE)
    assert raised.value.code == "INVALID_ARGUMENT"


def test_a_model_without_metadata_is_served_without_predictor(models_folder, tmp_path, caplog):
    folder = tmp_path / "1"
    shutil.copytree(models_folder / "native" / "1", folder)
    (folder / "assets.extra" / "tfgad.json").write_text("{")
    servable = Servable("parts", 1, folder, Batching())
    (line,) = [each.getMessage() for each in caplog.records if "tfgad.json" in each.getMessage()]
    assert line.startswith("parts version 1 has no assets.extra/tfgad.json that can be read; it is")
    outputs = servable.run(servable.signature(""), {"images": np.zeros((1, 48, 48, 1), "u1")})
    assert outputs["map"].shape == (1, 48, 48)
    with pytest.raises(UsageError, match="so that the page cannot use it"):
        servable.predictor  # noqa: B018
    servable.close()
    with pytest.raises(ClosedError):  # and the model is not loaded again
        servable.predictor  # noqa: B018


WRONG = {
    "image_shape": [[10**9, 10**9, 1], ["48", 48, 1], [48, 48], [0, 48, 1], "48x48"],
    "resized": ["no", None],
    "window": [None, [1.5, 2, 1]],
    "stride": [0, "8"],
    "tile": [[48], 48],
    "score": [1],
    "threshold": [math.nan, "high", None],
    "scale": [math.inf, [], True],
    "depth": ["12", 99, 12.0],
    "fit": ["crop", []],
    "products": [5, "bolt", ["bolt", 5], ["bolt", "bolt"]],
    "by_block": ["yes"],
    "false_positive_rate": ["0.01", 2],
    "thresholds": [5, [[0.01]], [[0.01, "3"]]],
    "largest_probability": [0.2, "1"],
    "ignored": [5, {"region": 5}, {"region": "48x48:eJw"}, {"share": 0.5}],
    "versions": [5],
}


@pytest.mark.parametrize(("key", "values"), WRONG.items(), ids=WRONG)
def test_metadata_with_wrong_values_are_invalid(native, key, values):
    metadata = json.loads((native.folder / "assets.extra" / "tfgad.json").read_text())
    assert is_valid(metadata)
    for value in values:
        assert not is_valid({**metadata, key: value})
