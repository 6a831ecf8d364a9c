"""A strip of AITEX is a group of tiles, in its data set and in the calibration of another run."""

import types

import numpy as np
import pytest
from PIL import Image

from tfgad.data import load
from tfgad.data.datasets.aitex_strips import LEFT
from tfgad.multistage.sources import Source, held_out_origins, joined_origins
from tfgad.training import held_out

TILES = 2 * 4  # of a strip


@pytest.fixture
def fabric(tmp_path):
    """Eight normal strips of fabric 03, each of one grey level, and a defective one."""
    folders = [tmp_path / f"{name}_images" for name in ("NODefect", "Defect", "Mask")]
    for folder in (*folders, folders[0] / "a"):
        folder.mkdir()
    for i in range(1, 9):
        Image.new("L", (LEFT + 70, 32), 10 * i).save(folders[0] / "a" / f"{i:04d}_000_03.png")
    Image.new("L", (LEFT + 70, 32), 100).save(folders[1] / "0030_010_03.png")
    mask = np.zeros((32, LEFT + 70), np.uint8)
    mask[:8, LEFT : LEFT + 8] = 255
    Image.fromarray(mask).save(folders[2] / "0030_010_03_mask.png")
    return load(f"aitex:03?tile=16&root={tmp_path}&calibration=0.4")


def strips_of(stream):
    """The names of the strips of tiles, by their grey level."""
    levels = [round((image[0, 0, 0] + 1) * 127.5) for image in stream.as_numpy_iterator()]
    return [f"{level // 10:04d}_000_03" for level in levels]


def test_each_tile_knows_its_strip(fabric):
    for stream, size, origins in (
        (fabric.train, fabric.train_size, fabric.train_origins),
        (fabric.calibration, fabric.calibration_size, fabric.calibration_origins),
    ):
        assert origins.groups.tolist() == origins.images.tolist() == strips_of(stream)
        assert (len(origins), origins.kind) == (size, "strip")
        assert np.unique(origins.groups, return_counts=True)[1].tolist() == [TILES] * (
            size // TILES
        )
    assert not set(fabric.train_origins.groups) & set(fabric.calibration_origins.groups)


def test_a_run_on_other_data_is_calibrated_by_all_strips(fabric):
    run = types.SimpleNamespace(config={"data": "weave:twill"}, folder="run")
    images = held_out.for_calibration(run, fabric)
    assert images.calibration_origins.groups.tolist() == strips_of(images.calibration)
    assert len(images.calibration_origins) == images.calibration_size


def test_origins_of_several_fabrics_do_not_mix(fabric):
    def source(origins):
        images = np.zeros((TILES, 16, 16, 1), np.float32)
        return Source("aitex:03", images, images, images, images, ("nep",), origins=origins)

    origins = held_out_origins(fabric)
    assert origins.groups.tolist() == fabric.calibration_origins.groups.tolist()
    one = origins.at(np.arange(TILES))
    both = joined_origins([source(one), source(None), source(one)])
    assert len(both) == 3 * TILES
    assert len(set(both.groups)) == 1 + TILES + 1
    assert joined_origins([source(None)]) is None
