"""The folder of a painter: which configurations are refused."""

import dataclasses
import json

import numpy as np
import pytest

from tfgad.errors import UsageError
from tfgad.multistage.painter import load_painter
from tfgad.multistage.painter_folder import CONFIG, PainterFolder
from tfgad.multistage.painter_training import train_painter
from tfgad.multistage.sources import Source

NO_KINDS = ("../../../escaped", "a/b", "a\\b", ".hidden", "..", "", " ", "slub\n", "\x1b[31m")


@pytest.fixture
def config():
    """The configuration of a painter."""
    return {
        "kinds": ["hole", "long slub"],
        "data": ["weave:plain?size=64"],
        "image_shape": [64, 64, 1],
        "resized": False,
        "settings": {"steps": "2+2"},
        "seed": 0,
        "seconds": {"generator": 1.5},
    }


def write(folder, config):
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def test_kinds_that_name_no_folder_are_refused(tmp_path, config):
    assert PainterFolder(write(tmp_path, config)).read_config() == config
    for kind in NO_KINDS:
        write(tmp_path, {**config, "kinds": ["hole", kind]})
        with pytest.raises(UsageError, match="is damaged: kinds is"):
            load_painter(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kinds", [1, 2]),
        ("kinds", []),
        ("kinds", "hole"),
        ("data", []),
        ("data", [5]),
        ("data", "weave:plain"),
        ("image_shape", None),
        ("image_shape", [64, 64]),
        ("image_shape", [64, 64, "1"]),
        ("resized", None),
        ("seconds", 5),
        ("seconds", {"generator": "1"}),
    ],
)
def test_a_damaged_configuration_is_one_line(tmp_path, config, key, value):
    config[key] = value
    if value is None:
        del config[key]
    write(tmp_path, config)
    with pytest.raises(UsageError, match=f"is damaged: {key} is"):
        load_painter(tmp_path)


def test_no_painter_is_trained_on_kinds_that_name_no_folder(tmp_path):
    images = np.zeros((1, 64, 64, 1), np.float32)
    source = Source("folder:parts", images, images, images, images.astype(np.uint8), ("hole",))
    for kind in NO_KINDS:
        with pytest.raises(UsageError, match="which cannot name a folder of images"):
            train_painter([dataclasses.replace(source, kinds=(kind,))], tmp_path / "painter")
    assert not (tmp_path / "painter").exists()
