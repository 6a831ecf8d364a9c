"""Painted data sets on disk, by hand-made masks."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import tfgad
from tfgad.errors import UsageError
from tfgad.multistage import annotations, regions
from tfgad.multistage.painter import Painted

KINDS = ("hole", "slub")


def block():
    """A mask of 32x40 with a defect of 4x6 pixels at row 10, column 20, and a speck."""
    mask = np.zeros((32, 40, 1), np.uint8)
    mask[10:14, 20:26] = 1
    mask[0, 0] = 1
    return mask


def painted(kind="slub", mask=None):
    """An image of 32x40 with a defect, that of `block` by default."""
    image = np.zeros((32, 40, 1), "float32")
    mask = block() if mask is None else mask
    patch = np.concatenate([image, mask * 2.0 - 1.0], axis=-1)[:, :32]
    return Painted(image, mask, kind, image, patch, (0, 0, 32))


def test_coco_boxes_and_outlines_by_hand(tmp_path):
    count = annotations.write_dataset(tmp_path / "coco", [painted()], [], [], KINDS, "coco")
    assert count == 1
    content = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "000001.png", "width": 40, "height": 32}]
    speck, defect = content["annotations"]
    assert speck["bbox"] == [0, 0, 1, 1]
    assert speck["area"] == 1
    assert corners_of(speck) == {(0, 0), (1, 0), (1, 1), (0, 1)}
    assert defect["bbox"] == [20, 10, 6, 4]
    assert defect["area"] == 24
    assert defect["category_id"] == 2
    assert defect["image_id"] == 1
    assert corners_of(defect) == {(20, 10), (26, 10), (26, 14), (20, 14)}
    assert content["categories"][1] == {"id": 2, "name": "slub"}
    assert {"info", "licenses"} <= content.keys()  # pycocotools' loadRes fails without the first
    assert Image.open(tmp_path / "coco" / "images" / "000001.png").size == (40, 32)


def corners_of(annotation):
    (polygon,) = annotation["segmentation"]
    return set(zip(polygon[::2], polygon[1::2], strict=True))


def drawn(*places):
    """A mask of 32x40 with pixels set at places, each an index of rows and columns."""
    mask = np.zeros((32, 40, 1), np.uint8)
    for place in places:
        mask[place] = 1
    return mask


def ring():
    """A frame of three pixels around a hole, in which there is a speck."""
    mask = drawn(np.s_[5:25, 5:30], np.s_[0, 39])
    mask[8:22, 8:27] = 0
    mask[15, 15] = 1
    return mask


SHAPES = {
    "block": block(),
    "ring": ring(),
    "speck": drawn(np.s_[7, 9]),
    "diagonal": drawn(np.s_[7, 9], np.s_[8, 10], np.s_[9, 11]),
    "diamond": drawn(np.s_[7, 9], np.s_[8, 8], np.s_[8, 10], np.s_[9, 9]),
    "edges": drawn(np.s_[0, :], np.s_[:, 39], np.s_[30:, :3]),
    "full": drawn(np.s_[:]),
    "noise": np.random.default_rng(0).integers(0, 2, (32, 40, 1), np.uint8),
    "stripes": drawn(np.s_[::3]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_coco_masks_are_the_painted_pixels(tmp_path, shape):
    """Read by COCO's own library, a polygon covers whole pixels as run lengths do."""
    api = pytest.importorskip("pycocotools.coco")
    mask = SHAPES[shape]
    annotations.write_dataset(tmp_path / "coco", [painted(mask=mask)], [], [], KINDS, "coco")
    coco = api.COCO(str(tmp_path / "coco" / "annotations.json"))
    found = coco.loadAnns(coco.getAnnIds(imgIds=1, iscrowd=False))
    masks = [coco.annToMask(each) for each in found]
    np.testing.assert_array_equal(sum(masks), mask[..., 0])
    for each, own in zip(found, masks, strict=True):
        x, y, width, height = each["bbox"]
        assert each["area"] == own.sum() == own[y : y + height, x : x + width].sum()
        assert own[[y, y + height - 1]].any(axis=1).all()
        assert own[:, [x, x + width - 1]].any(axis=0).all()


def test_run_lengths_by_hand():
    region = regions.Region(1, 0, np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
    lengths = {"size": [4, 5], "counts": [4, 3, 1, 1, 1, 1, 1, 3, 5]}
    assert regions.run_lengths(region, (4, 5)) == lengths
    corner = regions.Region(0, 0, np.array([[True]]))
    assert regions.run_lengths(corner, (2, 1)) == {"size": [2, 1], "counts": [0, 1, 1]}


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_good_images_are_background(tmp_path, form):
    good = np.zeros((2, 24, 24, 1), "float32")
    rows = [painted(), painted("hole")]
    assert annotations.write_dataset(tmp_path / form, rows, good[:0], good, KINDS, form) == 2
    names = sorted(path.stem for path in (tmp_path / form / "images").iterdir())
    assert names == ["000001", "000002", "000003", "000004"]
    if form == "yolo":
        for folder in ("labels", "labels_segment"):
            files = sorted((tmp_path / form / folder).iterdir())
            assert [path.stem for path in files] == names
            assert [bool(path.read_text()) for path in files] == [True, True, False, False]
        return
    content = json.loads((tmp_path / form / "annotations.json").read_text())
    assert [each["id"] for each in content["images"]] == [1, 2, 3, 4]
    assert content["images"][3]["height"] == 24
    assert {each["image_id"] for each in content["annotations"]} == {1, 2}


@pytest.mark.parametrize("form", annotations.FORMATS)
def test_an_image_without_a_painted_pixel_is_no_defective_one(tmp_path, form, caplog):
    rows = [painted(), painted(mask=drawn())]
    assert annotations.write_dataset(tmp_path / form, rows, [], [], KINDS, form) == 1
    assert caplog.messages == ["left out 1 images: their masks are empty"]


def test_yolo_lines_by_hand(tmp_path, caplog):
    annotations.write_dataset(tmp_path / "yolo", [painted("hole")], [], [], KINDS, "yolo")
    boxes = (tmp_path / "yolo" / "labels" / "000001.txt").read_text().splitlines()
    assert boxes == [
        "0 0.012500 0.015625 0.025000 0.031250",
        "0 0.575000 0.375000 0.150000 0.125000",
    ]
    polygons = (tmp_path / "yolo" / "labels_segment" / "000001.txt").read_text().splitlines()
    assert [line.split()[0] for line in polygons] == ["0", "0"]
    numbers = np.array(polygons[1].split()[1:], float).reshape(-1, 2) * (40, 32)
    assert {tuple(each) for each in numbers} == {(20, 10), (26, 10), (26, 14), (20, 14)}
    assert not caplog.messages


def test_holes_that_yolo_cannot_say_are_counted(tmp_path, caplog):
    rows = [painted(mask=SHAPES[each]) for each in ("ring", "diamond", "diagonal")]
    annotations.write_dataset(tmp_path / "yolo", rows, [], [], KINDS, "yolo")
    (message,) = caplog.messages
    assert message.startswith("2 of 5 objects have holes")


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
