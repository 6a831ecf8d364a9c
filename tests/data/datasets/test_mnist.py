"""MNIST and similar sets: every source and file format, and the one-class protocol."""

import gzip
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfgad.data import load
from tfgad.data.datasets import mnist_files, tfds_builders
from tfgad.data.datasets.mnist import normal_classes
from tfgad.errors import UsageError

TRAIN, TEST = 60, 30


@pytest.fixture
def arrays():
    """Images of ten classes in turn; the first pixel of each is its label."""
    rng = np.random.default_rng(0)
    labels = [np.arange(count, dtype=np.uint8) % 10 for count in (TRAIN, TEST)]
    images = [rng.integers(0, 256, (len(each), 28, 28), np.uint8) for each in labels]
    for image, label in zip(images, labels, strict=True):
        image[:, 0, 0] = label
    return images[0], labels[0], images[1], labels[1]


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """Provides a machine without data files, on which no host answers."""
    for variable in ("TFGAD_DATA_DIR", "KERAS_HOME", "TFDS_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(tfds_builders, "answers", lambda url: False)
    return tmp_path


def write_idx(folder, arrays, compress):
    folder.mkdir(parents=True)
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, arrays, strict=True):
        content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        content += array.tobytes()
        if compress:
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{name}-ubyte").write_bytes(content)


def write_npz(path, arrays):
    path.parent.mkdir(parents=True)
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))


def write_csv(folder, stem, arrays, header):
    folder.mkdir(parents=True)
    for part, images, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        rows = np.column_stack([labels, images.reshape(len(images), -1)])
        lines = [",".join(map(str, row)) for row in rows]
        if header:
            lines.insert(0, ",".join(["label", *(f"pixel{i}" for i in range(784))]))
        (folder / f"{stem}_{part}.csv").write_text("\n".join(lines) + "\n")


def assert_found(kind, arrays):
    found = mnist_files.read_published(kind)
    for value, expected in zip(vars(found).values(), arrays, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_files(empty_machine, arrays, kind, compress):
    write_idx(empty_machine / "TFGAD_DATA_DIR" / kind, arrays, compress)
    assert_found(kind, arrays)


def test_bare_idx_files_are_not_taken_for_fashion(empty_machine, arrays):
    write_idx(empty_machine / "TFGAD_DATA_DIR", arrays, True)
    assert_found("mnist", arrays)
    with pytest.raises(UsageError):
        mnist_files.read_published("fashion_mnist")


@pytest.mark.parametrize("place", ["TFGAD_DATA_DIR", "TFGAD_DATA_DIR/mnist", "KERAS_HOME/datasets"])
def test_npz(empty_machine, arrays, place):
    write_npz(empty_machine / place / "mnist.npz", arrays)
    assert_found("mnist", arrays)


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("stem", ["mnist", "fashion-mnist"])
def test_csv(empty_machine, arrays, stem, header):
    write_csv(empty_machine / "TFGAD_DATA_DIR", stem, arrays, header)
    assert_found(stem.replace("-", "_"), arrays)


def test_kerass_cache_of_fashion_mnist(empty_machine, arrays):
    write_idx(empty_machine / "KERAS_HOME" / "datasets" / "fashion-mnist", arrays, True)
    assert_found("fashion_mnist", arrays)


def test_a_set_prepared_by_tensorflow_datasets(empty_machine, arrays):
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    splits = {
        part: tf.data.Dataset.from_tensor_slices({"image": images[..., None], "label": labels})
        for part, images, labels in (("train", *arrays[:2]), ("test", *arrays[2:]))
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        data_dir=empty_machine / "TFDS_DATA_DIR",
    )
    found = mnist_files.read_published("mnist")
    assert sorted(found.test_labels) == sorted(arrays[3])
    np.testing.assert_array_equal(found.train[:, 0, 0], found.train_labels)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08\x03\0\0", gzip.compress(b"x")[:-4]],
    ids=["empty", "plain", "cut off"],
)
def test_broken_files_are_named(empty_machine, arrays, content):
    folder = empty_machine / "TFGAD_DATA_DIR" / "mnist"
    write_idx(folder, arrays, True)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(UsageError, match=r"t10k-labels-idx1-ubyte\.gz.*is broken"):
        load("mnist:8")


@pytest.mark.parametrize("name", ["mnist.npz", "mnist_test.csv"])
@pytest.mark.parametrize("content", [b"", b"not what it says", b"PK\x03\x04 cut off"])
def test_other_broken_files_are_named(empty_machine, arrays, name, content):
    folder = empty_machine / "TFGAD_DATA_DIR"
    write_csv(folder, "mnist", arrays, header=False)
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}.*is broken"):
        load("mnist:8")


@pytest.mark.parametrize("content", ["", "{}"])
def test_a_half_prepared_set_is_named(empty_machine, content):
    folder = empty_machine / "TFDS_DATA_DIR" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(content)
    with pytest.raises(UsageError, match=r"3\.0\.1.*is broken"):
        load("mnist:8")


def test_images_of_another_shape_are_refused(empty_machine, arrays):
    wrong = [array[:, :14] if array.ndim == 3 else array for array in arrays]
    write_npz(empty_machine / "TFGAD_DATA_DIR" / "mnist.npz", wrong)
    with pytest.raises(UsageError, match=r"mnist\.npz: x_train.*not images uint8"):
        load("mnist:8")


NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@pytest.mark.parametrize(
    ("order", "at_fault", "reason"),
    [
        ((0, 3, 2, 1), 1, "60 training images and 30 labels"),
        ((0, 1, 2, 1), 3, "30 test images and 60 labels"),
        ((2, 1, 2, 3), 0, "30 training images and 60 labels"),
        ((1, 1, 2, 3), 0, r"uint8 \(60,\), not images"),
        ((0, 0, 2, 3), 1, "not labels"),
    ],
)
def test_of_mixed_up_files_the_wrong_one_is_named(
    empty_machine, arrays, monkeypatch, order, at_fault, reason
):
    monkeypatch.setattr(mnist_files, "PUBLISHED", {"training": TRAIN, "test": TEST})
    write_idx(empty_machine / "TFGAD_DATA_DIR" / "mnist", [arrays[i] for i in order], True)
    with pytest.raises(UsageError, match=f"{NAMES[at_fault]}.*{reason}"):
        load("mnist:8")


def test_labels_beyond_9_and_foreign_headers_name_their_file(empty_machine, arrays):
    folder = empty_machine / "TFGAD_DATA_DIR" / "mnist"
    write_idx(folder, [*arrays[:3], arrays[3] + 10], False)
    with pytest.raises(UsageError, match=f"{NAMES[3]}.*holds the label 10, not only 0 to 9"):
        load("mnist:8")
    labels = folder / f"{NAMES[1]}-ubyte"
    labels.write_bytes(b"\0\0\x0d\x01" + labels.read_bytes()[4:])
    with pytest.raises(UsageError, match=f"{NAMES[1]}.*is broken.*00000d01"):
        load("mnist:8")


def test_fashion_files_are_not_taken_for_digits(empty_machine, arrays, monkeypatch):
    write_idx(empty_machine / "Fashion-MNIST", arrays, True)
    monkeypatch.setenv("TFGAD_DATA_DIR", str(empty_machine / "Fashion-MNIST"))
    with pytest.raises(UsageError, match="not on this machine"):
        mnist_files.read_published("mnist")
    assert_found("fashion_mnist", arrays)


def test_without_a_network_the_probe_ends_soon(monkeypatch):
    monkeypatch.undo()
    # An address of the block reserved for documentation (RFC 5737): nothing ever answers.
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    started = time.monotonic()
    assert not tfds_builders.answers("http://192.0.2.1/")
    assert time.monotonic() - started < 1.5 * tfds_builders.PROBE_SECONDS


def test_missing_data_give_a_hint():
    with pytest.raises(UsageError, match="set TFGAD_DATA_DIR") as caught:
        load("mnist:8")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("8", {8}),
        ("7+8", {7, 8}),
        ("!2", set(range(10)) - {2}),
        ("!0+1", set(range(2, 10))),
        ("all", set(range(10))),
    ],
)
def test_normal_classes(name, expected):
    assert normal_classes(name) == expected


@pytest.mark.parametrize("name", ["x", "10", "", "!", "7,8", "0+1+2+3+4+5+6+7+8+9"])
def test_invalid_classes_are_refused(name):
    with pytest.raises(UsageError):
        normal_classes(name)


def test_the_one_class_protocol(empty_machine, arrays):
    write_npz(empty_machine / "TFGAD_DATA_DIR" / "mnist.npz", arrays)
    data = load("mnist:7+8?size=28&calibration=0.25")
    assert (data.train_size, data.calibration_size, data.test_size) == (9, 3, TEST)
    assert data.kinds == ("0", "1", "2", "3", "4", "5", "6", "9")
    assert data.image_shape == (28, 28, 1)
    assert not data.has_masks

    # The pixel that holds the label shows that only 7 and 8 are trained on.
    normals = [*data.train.as_numpy_iterator(), *data.calibration.as_numpy_iterator()]
    pixels = [image[0, 0, 0] for image in normals]
    assert set(np.round((np.array(pixels) + 1) * 127.5)) == {7, 8}
    assert len({image.tobytes() for image in normals}) == 12

    test = list(data.test.as_numpy_iterator())
    assert [element["label"] for element in test] == [int(c not in (7, 8)) for c in arrays[3]]
    assert test[0]["name"] == b"0/00000"
    np.testing.assert_allclose(test[4]["image"][:, :, 0], arrays[2][4] / 127.5 - 1, atol=1e-6)
    assert not any(element["mask"].any() for element in test)


def test_all_classes_may_be_normal(empty_machine, arrays):
    write_npz(empty_machine / "TFGAD_DATA_DIR" / "mnist.npz", arrays)
    data = load("mnist:all?size=28&calibration=0.25")
    assert (data.train_size, data.calibration_size, data.test_size) == (45, 15, TEST)
    assert data.kinds == ()
    assert data.classes == tuple("0123456789")
    assert not any(element["label"] for element in data.test.as_numpy_iterator())


@pytest.mark.parametrize(
    ("name", "classes"), [("7+8", (7, 8)), ("!2", (0, 1, 3, 4, 5, 6, 7, 8, 9)), ("8", (8,))]
)
def test_training_images_have_the_indices_of_their_classes(empty_machine, arrays, name, classes):
    write_npz(empty_machine / "TFGAD_DATA_DIR" / "mnist.npz", arrays)
    data = load(f"mnist:{name}?size=28")
    assert data.classes == tuple(str(c) for c in classes)
    assert (data.train_labels.dtype, data.train_labels.shape) == (np.int32, (data.train_size,))
    # The first pixel holds the digit.
    digits = [round((image[0, 0, 0] + 1) * 127.5) for image in data.train.as_numpy_iterator()]
    np.testing.assert_array_equal(np.array(classes)[data.train_labels], digits)


def test_garments_have_their_names(empty_machine, arrays):
    write_npz(empty_machine / "TFGAD_DATA_DIR" / "fashion_mnist" / "fashion_mnist.npz", arrays)
    data = load("fashion_mnist:0+9")
    assert data.classes == ("T-shirt/top", "ankle boot")


def test_elements_have_the_shapes_and_types_of_the_contract():
    data = load("digits:8")
    assert data.train.element_spec.shape == (32, 32, 1)
    spec = {key: (tuple(s.shape), s.dtype.name) for key, s in data.test.element_spec.items()}
    assert spec == {
        "image": ((32, 32, 1), "float32"),
        "label": ((), "int32"),
        "mask": ((32, 32, 1), "uint8"),
        "name": ((), "string"),
    }


def test_the_embedded_digits():
    data = load("digits:8")
    assert data.train_size + data.calibration_size == 104  # 60 % of 174 eights
    assert data.test_size == 719
    images = np.stack(list(data.train.as_numpy_iterator()))
    assert len(images) == data.train_size
    assert images.min() == -1
    assert images.max() == 1


def test_the_seed_decides_what_is_held_out():
    def held(seed):
        return np.stack(list(load("digits:8", seed=seed).calibration.as_numpy_iterator()))

    np.testing.assert_array_equal(held(1), held(1))
    assert not np.array_equal(held(1), held(2))
