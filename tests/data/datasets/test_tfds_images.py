"""Image sets of tensorflow-datasets: classes, splits, shapes, and sets that cannot be read."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfgad.data import load
from tfgad.data.datasets import tfds_builders
from tfgad.errors import UsageError

CLASSES = ["bolt", "nut", "washer"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of prepared sets, on a machine without a network."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds_builders, "answers", lambda url: False)
    return tmp_path


def store(
    folder,
    splits,
    shape=(20, 24, 3),
    name="parts",
    version="1.0.0",
    unlabelled=None,
    **features,
):
    """Stores images whose first pixel is the label, the second the number, for some splits."""
    dtype = features.pop("dtype", np.uint8)
    known = {"image": tfds.features.Image(shape=shape, dtype=dtype)}
    known |= {"label": tfds.features.ClassLabel(names=CLASSES), **features}
    known = {key: feature for key, feature in known.items() if feature is not None}
    stored = {}
    for split, count in splits.items():
        images = np.zeros((count, *(side or 20 for side in shape)), dtype)
        labels = np.arange(count) % len(CLASSES)
        images[:, 0, 0], images[:, 0, 1] = labels[:, None], np.arange(count)[:, None]
        rows = {"image": images, "label": labels * 0 - 1 if split == unlabelled else labels}
        rows = {key: row for key, row in rows.items() if key in known}
        stored[split] = tf.data.Dataset.from_tensor_slices(rows)
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=tfds.features.FeaturesDict(known),
        split_datasets=stored,
        data_dir=folder,
    )


def pixels(images):
    """Labels and numbers that the images hold."""
    return [tuple(np.rint((image[0, :2, 0] + 1) * 127.5).astype(int)) for image in images]


def test_chosen_classes_are_normal(folder):
    store(folder, {"train": 30, "test": 9})
    data = load("tfds:parts?normal=nut+2&calibration=0.25&seed=1")
    assert data.image_shape == (20, 24, 3)
    assert (data.train_size, data.calibration_size, data.test_size) == (15, 5, 9)
    assert (data.classes, data.kinds) == (("nut", "washer"), ("bolt",))
    train, held = (pixels(part.as_numpy_iterator()) for part in (data.train, data.calibration))
    assert len(train) == 15
    assert sorted(train + held) == sorted((n % 3, n) for n in range(30) if n % 3)
    assert [label - 1 for label, _ in train] == data.train_labels.tolist()
    assert train == pixels(data.train.as_numpy_iterator())  # the same order again
    rows = list(data.test.as_numpy_iterator())
    tested = pixels(row["image"] for row in rows)
    assert sorted(tested) == sorted((n % 3, n) for n in range(9))
    assert [row["label"] for row in rows] == [int(label == 0) for label, _ in tested]
    names = [f"{CLASSES[label]}/{row:06d}".encode() for row, (label, _) in enumerate(tested)]
    assert [row["name"] for row in rows] == names
    assert not rows[3]["mask"].any()
    assert rows[3]["mask"].shape == (20, 24, 1)


def test_all_but_a_class_are_normal_and_one_split_is_divided(folder):
    store(folder, {"train": 30})
    data, other = (load(f"tfds:parts?normal=!bolt&test=0.4&seed={seed}") for seed in (0, 1))
    assert data.classes == ("nut", "washer")
    assert data.test_size == 12
    tested = pixels(row["image"] for row in data.test.as_numpy_iterator())
    assert tested == pixels(row["image"] for row in other.test.as_numpy_iterator())
    assert not {*tested} & {*pixels(data.train.as_numpy_iterator())}


@pytest.mark.parametrize("split", ["train", "test", "whole"])
def test_no_image_of_a_single_split_is_trained_and_tested_on(folder, split):
    store(folder, {split: 30})
    data = load("tfds:parts")
    trained = [*data.train.as_numpy_iterator(), *data.calibration.as_numpy_iterator()]
    tested = pixels(row["image"] for row in data.test.as_numpy_iterator())
    assert (len(trained), len(tested)) == (24, 6)
    assert not {*tested} & {*pixels(trained)}


def test_a_split_without_labels_is_not_tested_on(folder, caplog):
    store(folder, {"train": 9, "test": 6, "validation": 3}, unlabelled="test")
    assert load("tfds:parts?normal=nut").test_size == 3
    assert "tfds:parts: the split test has no labels and is not used" in caplog.text
    store(folder, {"train": 9, "test": 6}, name="blank", unlabelled="train")
    with pytest.raises(UsageError, match="without a label in the split train"):
        load("tfds:blank?normal=nut")


def test_the_one_configuration_that_is_prepared_is_read(folder):
    store(folder, {"train": 9, "test": 3})
    (folder / "parts").rename(folder / "small")
    (folder / "parts").mkdir()
    (folder / "small").rename(folder / "parts" / "small")
    for name in ("parts", "parts/small"):
        assert load(f"tfds:{name}?normal=nut").test_size == 3


def test_all_classes_are_normal_without_a_choice(folder):
    store(folder, {"train": 12, "test": 6})
    data = load("tfds:parts")
    assert (data.train_size + data.calibration_size, data.kinds) == (12, ())
    assert not any(row["label"] for row in data.test.as_numpy_iterator())


def test_a_set_without_labels_has_one_class(folder):
    store(folder, {"train": 12, "test": 6}, label=None)
    data = load("tfds:parts")
    assert (data.classes, data.train_labels, data.test_size) == ((), None, 6)
    assert [row["name"] for row in data.test.as_numpy_iterator()][2] == b"image/000002"
    with pytest.raises(UsageError, match=r"'parts': has no feature 'label'.*normal="):
        load("tfds:parts?normal=nut")


@pytest.mark.parametrize(
    ("stored", "options", "shape"),
    [
        ((20, 24, 1), "channels=3", (20, 24, 3)),
        ((20, 24, 3), "channels=1&size=10x12", (10, 12, 1)),
        ((None, None, 3), "", (128, 128, 3)),
    ],
)
def test_images_are_resized_and_converted(folder, stored, options, shape):
    store(folder, {"train": 9, "test": 3}, shape=stored)
    data = load(f"tfds:parts?normal=nut&{options}")
    images = [next(data.train.as_numpy_iterator()), next(data.test.as_numpy_iterator())["image"]]
    for image in images:
        assert (data.image_shape, image.shape, image.dtype) == (shape, shape, np.float32)
        assert -1 <= image.min() <= image.max() <= 1


def test_the_latest_version_is_read(folder):
    store(folder, {"train": 9, "test": 3}, version="9.0.0")
    store(folder, {"train": 9, "test": 6}, version="10.0.0")
    assert load("tfds:parts?normal=nut").test_size == 6
    assert load("tfds:parts:9.0.0?normal=nut").test_size == 3


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("parts", "normal=screw", "normal 'screw': is no class of parts"),
        ("parts", "normal=3", "normal '3': is no class of parts"),
        ("parts", f"normal={'9' * 5000}", "is no class of parts"),
        ("parts", "size=30000", "more than 268,435,456 pixels"),
        ("parts:2.0.0", "", "is not on this machine"),
        ("parts" * 60, "", "cannot be searched"),
        ("digits", "normal=0", "normal '0': is no class of digits"),
        ("parts", "normal=bolt%2Bnut+washer", "is no class"),
        ("parts", "normal=!bolt+nut+washer", "leaves no normal"),
        ("parts", "channels=2", "neither grey nor colour"),
        ("parts", "test=2", "test '2.0': is not between 0 and 1"),
        ("parts", "size=0", "is not the side of an image"),
        ("cars", "", "is not on this machine.*TFDS_DATA_DIR"),
        ("../parts", "", "is not on this machine"),
        ("deep", "normal=nut", "images of uint16 and 1 channels.*folder:PATH"),
        ("blind", "", "has no feature 'image'"),
        ("halves", "", r"no images in a split train \(splits with images: left, right\)"),
        ("several", "", "several configurations; give several/grey or several/rgb"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder, name, options, problem):
    if name == "parts":
        store(folder, {"train": 9} if "test" in options else {"train": 9, "test": 3})
    elif name == "deep":
        store(folder, {"train": 9}, (20, 24, 1), name, dtype=np.uint16)
    elif name == "blind":
        store(folder, {"train": 9}, name=name, image=None)
    elif name == "halves":
        store(folder, {"left": 9, "right": 9}, name=name)
    elif name == "digits":  # the class with the number 0 is called 1
        label = tfds.features.ClassLabel(names=["1", "2", "3"])
        store(folder, {"train": 9}, name=name, label=label)
    elif name == "several":
        for each in ("grey", "rgb"):
            (folder / name / each / "1.0.0").mkdir(parents=True)
            (folder / name / each / "1.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(UsageError, match=problem) as caught:
        load(f"tfds:{name}?{options}" if options else f"tfds:{name}")
    assert "\n" not in str(caught.value)


def shards(folder, split):
    return sorted(folder.glob(f"parts/1.0.0/*{split}*"))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_damaged_records_are_one_line(folder, split, damage):
    store(folder, {"train": 9, "test": 3})
    for shard in shards(folder, split):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 255
        shard.write_bytes(content[: len(content) // 3] if damage == "truncated" else content)
        if damage == "missing":
            shard.unlink()
    with pytest.raises(UsageError, match=f"'parts': is broken in the split {split}") as caught:
        load("tfds:parts?normal=nut")
    assert "\n" not in str(caught.value)


def test_a_label_beyond_the_classes_is_refused(folder):
    store(folder, {"train": 9}, label=tfds.features.ClassLabel(num_classes=3))
    for names in folder.glob("parts/1.0.0/*label*"):
        names.unlink()
    description = folder / "parts" / "1.0.0" / "features.json"
    text = description.read_text()
    assert '"numClasses": "3"' in text
    description.write_text(text.replace('"numClasses": "3"', '"numClasses": "2"'))
    with pytest.raises(UsageError, match=r"'parts': has the label 2 and 2 classes"):
        load("tfds:parts?normal=1")


def test_classes_with_a_slash_keep_their_names(folder):
    label = tfds.features.ClassLabel(names=["a/b", "../c", "d"])
    store(folder, {"train": 9, "test": 3}, label=label)
    data = load("tfds:parts?normal=d")
    assert data.kinds == ("a/b", "../c")
    names = sorted(row["name"].decode() for row in data.test.as_numpy_iterator())
    assert names == [".._c/" + names[0][-6:], "a_b/" + names[1][-6:], "d/" + names[2][-6:]]
    assert [data.test_kinds[name] for name in names] == ["../c", "a/b", "d"]


def test_a_folder_that_cannot_be_searched_is_named(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "~nobody-of-this-name/x")
    with pytest.raises(UsageError, match=r"TFDS_DATA_DIR '~nobody.*cannot be searched"):
        load("tfds:parts")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": "parts"}'])
def test_a_half_prepared_set_is_named(folder, content):
    store(folder, {"train": 9, "test": 3})
    (folder / "parts" / "1.0.0" / "dataset_info.json").write_text(content)
    with pytest.raises(UsageError, match=r"1\.0\.0.*is broken"):
        load("tfds:parts")


@pytest.mark.parametrize("error", [ValueError("no such\nset"), AssertionError("version"), KeyError])
def test_a_wrong_name_is_one_line_with_a_network_too(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr(tfds_builders, "answers", lambda url: True)
    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(UsageError, match=r"'a b': is no data set of tensorflow-datasets") as caught:
        load("tfds:a b")
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_one_line(monkeypatch):
    class Builder:
        def download_and_prepare(self):
            raise tfds.download.DownloadError("of a file\nof many")

    monkeypatch.setattr(tfds_builders, "answers", lambda url: True)
    monkeypatch.setattr(tfds, "builder", lambda name: Builder())
    with pytest.raises(UsageError, match=r"'cars': cannot be downloaded \(of a file"):
        load("tfds:cars")
