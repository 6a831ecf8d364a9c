"""Files that hold no model of this project."""

import json
import sys
import zipfile
from pathlib import Path

import keras
import pytest

from tfgad.errors import UsageError
from tfgad.training import load_model
from tfgad.training.saving import check_same_networks


@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_model_is_not_loaded(tmp_path, content):
    path = tmp_path / "model.keras"
    with pytest.raises(UsageError, match="is not there"):
        load_model(path)
    with pytest.raises(UsageError, match="is not a run"):
        load_model(tmp_path)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cut off|is no model that can be read") as error:
        load_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": []},
        {"module": 3},
        {"module": "antigravity", "registered_name": "other>Class", "class_name": "Class"},
        {"config": {"tile": "a"}},
        {"config": {"image_shape": 32}},
        {"config": {"config": [1]}},
    ],
    ids=str,
)
def test_a_damaged_configuration_is_one_line(build_small, tmp_path, change):
    path, damaged = tmp_path / "model.keras", tmp_path / "damaged.keras"
    build_small("vae").save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                inner = change.get("config")
                merged = {**config["config"], **inner} if isinstance(inner, dict) else inner
                content = json.dumps({**config, **change, "config": merged})
            new.writestr(name, content)
    with pytest.raises(UsageError, match="is no model that can be read") as error:
        load_model(damaged)
    assert len(str(error.value)) < 500  # Keras quotes the whole configuration
    assert "antigravity" not in sys.modules  # a file may name any module


@pytest.mark.parametrize(
    "change", [{"image_shape": 32}, {"settings": None}, {"data": 1}, {"seed": "a"}], ids=str
)
def test_values_of_other_types_in_a_run_are_one_line(tmp_path, change):
    config = {"method": "vae", "data": "weave:twill", "seed": 0, "settings": {}, "resized": False}
    config = {**config, "image_shape": [32, 32, 1], **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (key,) = change
    with pytest.raises(UsageError, match=f"is damaged: {key} is"):
        load_model(tmp_path)


class Unregistered(keras.layers.Layer):
    """What a loaded model does not know."""


@pytest.mark.parametrize(
    ("layer", "answer"),
    [(keras.layers.Flatten, "is a Sequential, no detector"), (Unregistered, "can be read")],
)
def test_a_model_of_another_program_is_not_loaded(tmp_path, monkeypatch, layer, answer):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), layer()]).save(path)
    monkeypatch.setattr(f"{__name__}.Unregistered", None)
    with pytest.raises(UsageError, match=answer):
        load_model(path)


def test_a_run_of_other_networks_is_not_trained_on(build_small):
    old, new = (build_small("ganomaly", width=width) for width in (4, 8))
    check_same_networks(Path("run"), old, build_small("ganomaly", width=4))
    with pytest.raises(UsageError, match="'run': has networks of an earlier version of tfgad"):
        check_same_networks(Path("run"), old, new)
