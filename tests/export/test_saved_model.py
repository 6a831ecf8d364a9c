import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tfgad.data.images import read_image
from tfgad.data.pixels import resize
from tfgad.errors import UsageError
from tfgad.export import warmup
from tfgad.export.map_png import maps_as_png
from tfgad.export.saved_model import (
    CALIBRATION,
    MAP_PNG,
    METADATA,
    NOTICE,
    REGIONS,
    REGIONS_BYTES,
    export,
    metadata_of_model,
)
from tfgad.scores.calibration import Calibration
from tfgad.scores.map_regions import as_outputs, find_regions

# Run by a Python that finds neither tfgad nor, being isolated, PYTHONPATH and its own folder:
# calls signatures on inputs from one file, and writes what they answer into another.
PLAIN_TENSORFLOW = """
import sys
sys.modules["tfgad"] = sys.modules["keras"] = None  # importing them fails
import numpy as np
import tensorflow as tf
answers = {}
with np.load("calls.npz") as calls:
    for name, value in calls.items():
        model, signature, argument, call = name.split(":")
        loaded = tf.saved_model.load(model)
        endpoint = loaded.signatures[signature]
        for output, answer in endpoint(**{argument: tf.constant(value)}).items():
            strings = answer.dtype == tf.string  # as objects they would be pickled
            answers[f"{call}:{output}"] = answer.numpy().astype("S") if strings else answer
np.savez("answers.npz", **answers)
"""


@pytest.fixture(scope="module")
def model(fitted):
    return fitted("ganomaly")


@pytest.fixture(scope="module")
def pictures():
    """Three noisy images uint8 `[3, 56, 64, 1]`, larger than what the model was trained on."""
    rng = np.random.default_rng(0)
    return rng.normal(128, 40, (3, 56, 64, 1)).clip(0, 255).astype("uint8")


def export_small(model, directory, **changes):
    form = {"image_shape": (48, 48, 1), "resized": False, "metadata": {"method": "ganomaly"}}
    return export(model, directory, **{**form, **changes})


@pytest.fixture(scope="module")
def as_is(model, tmp_path_factory):
    """A version of the model that scores images at native resolution."""
    return export_small(model, tmp_path_factory.mktemp("as_is"))


@pytest.fixture(scope="module")
def resizing(model, tmp_path_factory):
    """A version of the model that resizes images to 48x48 first, for files of 12 bits."""
    return export_small(model, tmp_path_factory.mktemp("resizing"), resized=True, depth=12)


@pytest.fixture(scope="module")
def signatures(as_is, resizing):
    return [tf.saved_model.load(path).signatures for path in (as_is, resizing)]


def encoded(pixels, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(file, form, **options)
    return file.getvalue()


def in_range(pixels):
    return pixels.astype("float32") / 127.5 - 1


def assert_close(ours, theirs):
    """Asserts equal verdicts, and scores and maps equal to 1e-5 of their size."""
    assert ours.keys() >= {"score", "map"}
    for name in ours:
        if name in ("is_anomalous", "reason"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        else:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


def test_plain_tensorflow_gives_the_scores_of_python(model, as_is, resizing, pictures, tmp_path):
    files = np.array([encoded(each) for each in pictures], object)
    np.savez(
        tmp_path / "calls.npz",
        **{
            f"{as_is}:serving_default:images:pixels": pictures,
            f"{as_is}:score_bytes:image_bytes:files": files.astype("S"),
            f"{as_is}:reconstruct:images:reconstruction": pictures,
            f"{resizing}:serving_default:images:resized": pictures,
        },
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN_TENSORFLOW],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    answers = {"pixels": {}, "files": {}, "reconstruction": {}, "resized": {}}
    with np.load(tmp_path / "answers.npz") as arrays:
        for name, array in arrays.items():
            call, output = name.split(":")
            answers[call][output] = array

    expected = model.anomaly(in_range(pictures))
    assert_close(expected, answers["pixels"])
    for name, answer in answers["pixels"].items():
        np.testing.assert_array_equal(answers["files"][name], answer)
    resized = model.anomaly(np.stack([resize(each, (48, 48)) for each in in_range(pictures)]))
    np.testing.assert_allclose(answers["resized"]["score"], resized["score"], rtol=1e-5, atol=1e-5)
    difference = in_range(answers["reconstruction"]["reconstruction"]) - model.reconstruct(
        in_range(pictures)
    )
    assert np.abs(difference).max() <= 1 / 255 + 1e-5  # half a grey level


def test_types_and_shapes_of_the_answers(signatures, pictures):
    for each in signatures:
        answer = each["serving_default"](images=pictures)
        forms = {name: (value.dtype.name, tuple(value.shape)) for name, value in answer.items()}
        assert forms == {
            "score": ("float32", (3,)),
            "probability": ("float32", (3,)),
            "is_anomalous": ("bool", (3,)),
            "map": ("float32", (3, 56, 64)),
            "reason": ("string", (3,)),
            "brightness": ("float32", (3,)),
        }


def test_verdicts_follow_the_calibration(model, signatures, pictures):
    answer = signatures[0]["serving_default"](images=pictures)
    threshold = float(model.calibration.threshold)
    outside = answer["reason"].numpy() != b""
    above = answer["score"].numpy() > threshold
    np.testing.assert_array_equal(answer["is_anomalous"], above | outside)
    np.testing.assert_array_equal(answer["is_anomalous"], answer["probability"] > 0.5)


@pytest.mark.slow
def test_a_covered_lens_is_anomalous_with_the_reason(signatures):
    black = np.zeros((1, 48, 48, 1), "uint8")
    for each in signatures:
        for signature, inputs in (
            ("serving_default", {"images": tf.constant(black)}),
            ("score_bytes", {"image_bytes": tf.constant([encoded(black)])}),
        ):
            answer = each[signature](**inputs)
            assert answer["reason"].numpy().tolist() == [b"too dark"]
            assert answer["is_anomalous"].numpy().tolist() == [True]
            assert answer["probability"].numpy().tolist() == [1.0]


def test_an_image_alone_is_scored_as_among_others(signatures, pictures):
    for each in signatures:
        together = each["serving_default"](images=pictures)
        for i in range(3):
            alone = each["serving_default"](images=pictures[i : i + 1])
            assert_close(alone, {name: value[i : i + 1] for name, value in together.items()})


def test_files_agree_with_pixels(signatures, pictures):
    for each in signatures:
        files = tf.constant([encoded(picture) for picture in pictures])
        assert_close(
            each["serving_default"](images=pictures), each["score_bytes"](image_bytes=files)
        )


def colour_of(pictures):
    """Colour and alpha, `[56, 64, 4]`."""
    return np.concatenate([*pictures, pictures[0] // 2], axis=2)


@pytest.mark.parametrize(
    ("form", "convert"),
    [
        ("PNG", lambda x: x[0].astype(np.uint16) * 200 + 77),
        ("PNG", lambda x: colour_of(x)[..., :3]),
        ("PNG", colour_of),
        ("JPEG", lambda x: x[0]),
        ("JPEG", lambda x: colour_of(x)[..., :3]),
    ],
    ids=["16 bits", "colour", "alpha", "JPEG", "JPEG in colour"],
)
def test_files_are_decoded_as_they_are_for_training(
    model, signatures, pictures, tmp_path, form, convert
):
    path = tmp_path / "picture"
    path.write_bytes(encoded(convert(pictures), form))
    expected = model.anomaly(read_image(path, channels=1)[None])
    assert_close(expected, signatures[0]["score_bytes"](image_bytes=[path.read_bytes()]))


def test_a_photo_is_scored_upright(signatures, pictures):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    turned = encoded(np.rot90(pictures[0]), exif=exif)
    files = tf.constant([encoded(pictures[0]), turned])
    answer = {k: v.numpy() for k, v in signatures[0]["score_bytes"](image_bytes=files).items()}
    assert_close({name: value[:1] for name, value in answer.items()}, {
        name: value[1:] for name, value in answer.items()
    })  # fmt: skip


def test_files_of_12_bits_are_scored_as_those_of_8(resizing, signatures, pictures):
    assert json.loads((resizing / METADATA).read_text())["depth"] == 12
    score_bytes = signatures[1]["score_bytes"]
    deep = np.rint(pictures[0] * (4095 / 255)).astype(np.uint16)
    expected = score_bytes(image_bytes=[encoded(pictures[0])])
    answer = score_bytes(image_bytes=[encoded(deep)])
    np.testing.assert_allclose(answer["score"], expected["score"], rtol=1e-2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="above 4095, the maximum of 12 bits"):
        score_bytes(image_bytes=[encoded(deep * 2 + 4096)])


def test_files_of_a_batch_may_differ_in_size_where_they_are_resized(signatures, pictures):
    as_is, resizing = (each["score_bytes"] for each in signatures)
    files = tf.constant([encoded(pictures[0]), encoded(pictures[1, :20])])
    answer = resizing(image_bytes=files)
    assert answer["map"].shape == (2, 48, 48)
    for i in range(2):
        alone = resizing(image_bytes=files[i : i + 1])
        np.testing.assert_allclose(alone["score"], answer["score"][i : i + 1], rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError):
        as_is(image_bytes=files)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(np.zeros((40, 40), "u1"))[:50]])
def test_a_broken_file_is_an_error_to_the_caller(signatures, content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures[0]["score_bytes"](image_bytes=[content])


def test_an_image_smaller_than_the_window_is_an_error_to_the_caller(signatures, pictures):
    with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than 32x32"):
        signatures[0]["serving_default"](images=pictures[:, :31])


def test_the_calibration_is_a_signature(model, signatures):
    for each in signatures:
        numbers = {name: value.numpy() for name, value in each[CALIBRATION]().items()}
        assert numbers["threshold"] == float(model.calibration.threshold)
        assert numbers["scale"] == float(model.calibration.scale)
        assert numbers["false_positive_rate"] == np.float32(0.1)
        thresholds = dict(zip(numbers["rates"], numbers["thresholds"], strict=True))
        known = model.calibration.known_thresholds
        assert thresholds == {np.float32(rate): value for rate, value in known.items()}


def test_metadata_lie_beside_the_model(model, as_is):
    metadata = json.loads((as_is / METADATA).read_text())
    thresholds = {rate: threshold for rate, threshold in metadata.pop("thresholds")}
    assert thresholds == model.calibration.known_thresholds
    assert thresholds[0.1] == float(model.calibration.threshold)
    assert metadata == {
        "method": "ganomaly",
        "image_shape": [48, 48, 1],
        "resized": False,
        "window": [32, 32, 1],
        "stride": 16,
        "tile": [48, 48],
        "by_block": True,
        "score": model.score,
        "threshold": float(model.calibration.threshold),
        "false_positive_rate": 0.1,
        "per": "tile",
        "scale": float(model.calibration.scale),
        "largest_probability": pytest.approx(17 / 18, abs=1e-7),  # 16 images have set it
    }


def test_each_signature_has_a_warm_up_request_that_it_answers(as_is, resizing, signatures):
    """Read by the real messages, as TF Serving does; a request that fails keeps it from loading."""
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    for version, loaded in zip((as_is, resizing), signatures, strict=True):
        asked = []
        for record in tf.data.TFRecordDataset(str(version / warmup.FILE)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            assert log.WhichOneof("log_type") == "predict_log"
            request = log.predict_log.request
            asked.append(request.model_spec.signature_name)
            inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
            answer = loaded[asked[-1]](**{name: tf.constant(each) for name, each in inputs.items()})
            shapes = {"reconstruction": (1, 48, 48, 1), "regions": (1, 64, 9), "map": (1, 48, 48)}
            shapes["map_bytes"] = (1,)
            (name,) = shapes.keys() & answer.keys()
            assert answer[name].shape == shapes[name]
        assert asked == sorted(set(loaded) - {CALIBRATION})  # which has no inputs


def test_regions_of_files_are_in_pixels_of_each_file(resizing, pictures):
    """A batch of files of two sizes, which a resizing model takes, gives what each gives alone."""
    signatures = tf.saved_model.load(resizing).signatures
    threshold = signatures[CALIBRATION]()["threshold"].numpy()
    files = [encoded(pictures[0]), encoded(pictures[1].repeat(3, 0).repeat(2, 1))]
    together = signatures[REGIONS_BYTES](image_bytes=tf.constant(files))
    assert "map" not in together
    assert max(together["region_count"]) > 0
    for index, file in enumerate(files):
        alone = signatures["score_bytes"](image_bytes=tf.constant([file]))
        expected = as_outputs(find_regions(alone["map"][0].numpy(), threshold))
        assert together["region_count"][index] == expected["region_count"]
        close = {"rtol": 1e-3, "atol": 1e-3}
        np.testing.assert_allclose(together["regions"][index], expected["regions"], **close)
    as_array = signatures[REGIONS](images=tf.constant(pictures[:1]))
    np.testing.assert_allclose(as_array["regions"][0], together["regions"][0], rtol=1e-3, atol=1e-3)


def test_maps_come_as_png_of_the_size_of_each_file(signatures, pictures):
    files = [encoded(pictures[0]), encoded(pictures[1].repeat(3, 0).repeat(2, 1))]
    for loaded, together in zip(signatures, (files[:1], files), strict=True):
        answers = loaded[MAP_PNG](image_bytes=tf.constant(together))
        assert "map" not in answers
        for index, file in enumerate(together):
            exact = loaded["score_bytes"](image_bytes=tf.constant([file]))["map"][0].numpy()
            picture = Image.open(io.BytesIO(answers["map_bytes"][index].numpy()))
            low, high = (float(answers[name][index]) for name in ("map_low", "map_high"))
            assert (picture.mode, picture.size) == ("L", exact.shape[::-1])
            values = low + (high - low) * np.asarray(picture) / 255
            np.testing.assert_allclose(values, exact, atol=0.51 * (high - low) / 255 + 1e-4)


def test_the_png_of_a_map_below_the_threshold_is_not_white():
    maps = tf.constant([[[-1.0, 0.0], [1.0, 3.0]], [[2.0, 2.0], [2.0, 2.0]]])
    answers = maps_as_png(maps, tf.constant(7.0))
    levels = [tf.io.decode_png(file)[..., 0].numpy().tolist() for file in answers["map_bytes"]]
    assert levels == [[[0, 32], [64, 128]], [[0, 0], [0, 0]]]  # 7 is white
    assert answers["map_low"].numpy().tolist() == [-1, 2]
    assert answers["map_high"].numpy().tolist() == [7, 7]
    without = maps_as_png(maps, tf.constant(-np.inf))  # the threshold is none of pixels
    assert without["map_high"].numpy().tolist() == [3, 2]
    (flat,) = maps_as_png(maps[1:], tf.constant(2.0))["map_bytes"]  # black is white
    assert not tf.io.decode_png(flat).numpy().any()


def test_the_warm_up_file_is_the_same_each_time(as_is):
    before = (as_is / warmup.FILE).read_bytes()
    warmup.write(as_is, (48, 48, 1))
    assert (as_is / warmup.FILE).read_bytes() == before


def test_thresholds_that_a_model_does_not_know_are_left_out(model, monkeypatch):
    monkeypatch.setattr(Calibration, "known_thresholds", {})
    assert "thresholds" not in metadata_of_model(model, (48, 48, 1), resized=False)


def test_a_method_without_reconstruction_has_no_such_signature(fitted, tmp_path):
    path = export_small(fitted("wgan_gp"), tmp_path)
    expected = [CALIBRATION, MAP_PNG, REGIONS, REGIONS_BYTES, "score_bytes", "serving_default"]
    assert sorted(tf.saved_model.load(path).signatures) == expected


def save_empty(error=None):
    """Returns a function that writes an empty SavedModel in place of a model's, if it can."""

    def save(model, endpoints, folder):
        os.mkdir(folder)
        with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
            file.write(saved_model_pb2.SavedModel(meta_graphs=[{}]).SerializeToString())
        if error:
            raise error

    return save


def test_versions_are_numbered_and_nothing_else_is_left(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tfgad.export.saved_model._save", save_empty())
    (tmp_path / "9").mkdir()
    (tmp_path / "notes").mkdir()
    paths = [export_small(model, tmp_path) for _ in range(2)]
    assert [path.name for path in paths] == ["10", "11"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "11", "9", "notes"]


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left"), tf.errors.ResourceExhaustedError(None, None, "No space left")],
    ids=["of Python", "of TensorFlow"],
)
def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch, error):
    monkeypatch.setattr("tfgad.export.saved_model._save", save_empty(error))
    with pytest.raises(UsageError, match="No space left"):
        export_small(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        export_small(model, tmp_path / "file" / "models")


def test_an_uncalibrated_model_is_refused(build_small, tmp_path):
    with pytest.raises(UsageError, match="not calibrated"):
        export_small(build_small("ganomaly"), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_notice_of_others_weights_goes_with_them(model, as_is, tmp_path, monkeypatch):
    assert not (as_is / NOTICE).exists()
    monkeypatch.setattr(type(model), "notice", "under the Apache License")
    assert (export_small(model, tmp_path) / NOTICE).read_text() == "under the Apache License"
