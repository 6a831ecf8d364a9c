"""Painted data sets on disk, by hand-made masks."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import tfgad
from tfgad.errors import UsageError
from tfgad.multistage import annotations
from tfgad.multistage.painter import Painted

KINDS = ("hole", "slub")


def painted(kind="slub"):
    """An image of 32x40 with a defect of 4x6 pixels at row 10, column 20, and a speck."""
    image = np.zeros((32, 40, 1), "float32")
    mask = np.zeros((32, 40, 1), np.uint8)
    mask[10:14, 20:26] = 1
    mask[0, 0] = 1
    patch = np.concatenate([image, mask * 2.0 - 1.0], axis=-1)[:, :32]
    return Painted(image, mask, kind, image, patch, (0, 0, 32))


def test_coco_boxes_and_outlines_by_hand(tmp_path):
    count = annotations.write_dataset(tmp_path / "coco", [painted()], [], [], KINDS, "coco")
    assert count == 1
    content = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "000001.png", "width": 40, "height": 32}]
    (defect,) = content["annotations"]  # the speck is none
    assert defect["bbox"] == [20, 10, 6, 4]
    assert defect["area"] == 24
    assert defect["category_id"] == 2
    assert defect["image_id"] == 1
    (polygon,) = defect["segmentation"]
    xs, ys = polygon[::2], polygon[1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == (20.0, 26.0, 10.0, 14.0)
    assert content["categories"][1] == {"id": 2, "name": "slub"}
    assert {"info", "licenses"} <= content.keys()  # pycocotools' loadRes fails without the first
    assert Image.open(tmp_path / "coco" / "images" / "000001.png").size == (40, 32)


def test_an_outline_encloses_about_the_area():
    """Shoelace formula; corners of pixels are cut."""
    region = np.zeros((32, 32), bool)
    y, x = np.mgrid[:32, :32]
    region[(y - 16) ** 2 + (x - 16) ** 2 < 100] = True
    (polygon,) = annotations.outlines(region)
    xs, ys = np.array(polygon[::2]), np.array(polygon[1::2])
    area = abs(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1))) / 2
    assert area == pytest.approx(region.sum(), rel=0.08)


def test_yolo_lines_by_hand(tmp_path):
    annotations.write_dataset(tmp_path / "yolo", [painted("hole")], [], [], KINDS, "yolo")
    line = (tmp_path / "yolo" / "labels" / "000001.txt").read_text()
    assert line == "0 0.575000 0.375000 0.150000 0.125000\n"


def test_yolo_description_keeps_the_kinds_names_and_names_no_folder(tmp_path):
    yaml = pytest.importorskip("yaml")
    kinds = ("002", "no", "hole: large", 'a "slub"', "Masche 🧶")
    annotations.write_dataset(tmp_path / "yolo", [painted("no")], [], [], kinds, "yolo")
    content = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8"))
    assert content["names"] == dict(enumerate(kinds))
    assert {"train", "val", "names"} == content.keys()  # with `path` it is found in one place alone


def test_mvtec_layout_is_a_data_set(tmp_path):
    good = np.random.default_rng(0).uniform(-1, 1, (10, 32, 40, 1)).astype("float32")
    train, test = annotations.share_out(good, "mvtec")
    rows = [painted(), painted("hole")]
    annotations.write_dataset(tmp_path / "mvtec", rows, train, test, KINDS, "mvtec")
    data = tfgad.load(f"folder:{tmp_path / 'mvtec'}?tile=32")
    assert data.has_masks
    assert set(data.kinds) == {"hole", "slub"}
    assert data.train_size + data.calibration_size == 10  # two tiles an image
    labels = [int(row["label"]) for row in data.test.as_numpy_iterator()]
    assert labels.count(0) >= 10


def test_no_image_is_both_trained_on_and_painted_on_where_both_are_written():
    good = np.arange(5)
    np.testing.assert_array_equal(annotations.share_out(good, "mvtec")[0], [0, 2, 4])
    np.testing.assert_array_equal(annotations.share_out(good, "mvtec")[1], [1, 3])
    for form in ("coco", "yolo"):
        assert annotations.share_out(good, form)[0].size == 0
        np.testing.assert_array_equal(annotations.share_out(good, form)[1], good)
    with pytest.raises(UsageError, match="two or more"):
        annotations.share_out(good[:1], "mvtec")


def test_an_empty_folder_is_filled_where_it_is(tmp_path, monkeypatch):
    """As `.` must be: it cannot be replaced."""
    monkeypatch.chdir(tmp_path)
    annotations.write_dataset(".", [painted()], [], [], KINDS, "coco")
    assert {path.name for path in tmp_path.iterdir()} == {
        "annotations.json", "gallery.png", "images",
    }  # fmt: skip


@pytest.mark.parametrize("form", annotations.FORMATS)
def test_a_picture_shows_the_first_images(tmp_path, form, monkeypatch):
    shown = []
    monkeypatch.setattr(annotations.plots, "painted", lambda *of: shown.append(of) or Figure())
    good = np.zeros((1, 32, 40, 1), "float32")
    rows = [painted(KINDS[n % 2]) for n in range(annotations.SHOWN + 3)]
    annotations.write_dataset(tmp_path / form, rows, good, good, KINDS, form)
    ((*arrays, names),) = shown
    assert [len(each) for each in arrays] == [annotations.SHOWN] * 4
    assert names == [each.kind for each in rows[: annotations.SHOWN]]
    assert Image.open(tmp_path / form / "gallery.png").format == "PNG"


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").touch()
    with pytest.raises(UsageError, match="is there already"):
        annotations.write_dataset(tmp_path / "mine", [painted()], [], [], KINDS, "coco")


def test_nothing_is_left_of_what_breaks_off(tmp_path):
    def breaks():
        yield painted()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotations.write_dataset(tmp_path / "coco", breaks(), [], [], KINDS, "coco")
    assert not list(tmp_path.iterdir())
