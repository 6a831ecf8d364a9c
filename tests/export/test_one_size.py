"""Models as LiteRT and ONNX: the plain runtime gives Python's scores, or nothing is written."""

import json
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tfgad import methods
from tfgad.cli import exporting, main
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError
from tfgad.evaluation import metrics
from tfgad.export import litert, one_size, onnx
from tfgad.multistage import segmenter
from tfgad.multistage.segmenter_config import SegmenterConfig
from tfgad.scores.image_quality import REASONS
from tfgad.training import Run

pytest.importorskip("ai_edge_litert", reason="needs tfgad[litert]")
pytest.importorskip("tf2onnx", reason="needs tfgad[onnx]")
pytest.importorskip("onnxruntime", reason="needs tfgad[onnx]")

# Neither has a latent search.
METHODS = [method for method in methods.METHODS if method != "anogan"]
FORMATS = {
    "litert": (litert, litert.export_litert, ["model.tflite", "model_dynamic_range.tflite"]),
    "onnx": (onnx, onnx.export_onnx, ["model.onnx"]),
}
each_format = pytest.mark.parametrize("form", FORMATS)


def pixels_of(images):
    return np.rint((images + 1) * 127.5).astype("uint8")


def data_of(images, anomalies=0):
    """A data set of normal images, the last of them called anomalous."""
    count = len(images) if anomalies else 0
    labels = (np.arange(len(images)) >= len(images) - anomalies).astype("int32")
    names = [str(number) for number in range(len(images))]
    rows = {"image": images, "label": labels, "name": names}
    normals = tf.data.Dataset.from_tensor_slices(images)
    return AnomalyData(
        spec="made:up",
        image_shape=images.shape[1:],
        train=normals,
        calibration=normals,
        test=tf.data.Dataset.from_tensor_slices(rows).take(count),
        train_size=len(images),
        calibration_size=len(images),
        test_size=count,
        has_masks=False,
    )


def run_of(model, tmp_path, side=32):
    config = {
        "method": model.name,
        "data": "made:up",
        "images": {},
        "versions": {},
        "image_shape": [side, side, 1],
        "resized": False,
    }
    return Run(tmp_path / "run", config, model)


def predictions_of(form, content, pixels):
    """Returns the predictions of the format's own runtime, without tfgad."""
    runner = {"litert": litert_runner, "onnx": onnx_runner}[form](content)
    answers = [runner(images=image[None]) for image in pixels]
    return {name: np.concatenate([each[name] for each in answers]) for name in answers[0]}


def litert_runner(content):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=content).get_signature_runner("serving_default")


def onnx_runner(content):
    from onnxruntime import InferenceSession

    session = InferenceSession(content)
    names = [each.name for each in session.get_outputs()]
    return lambda **images: dict(zip(names, session.run(names, images), strict=True))


def assert_python_agrees(form, model, images):
    module, _, names = FORMATS[form]
    converted = module.convert(model, images.shape[1:])
    pixels = pixels_of(images)
    expected = model.anomaly(pixels.astype("float32") / 127.5 - 1)
    answer = predictions_of(form, converted[names[0]], pixels)
    scale = float(model.calibration.scale)
    np.testing.assert_allclose(answer["score"], expected["score"], atol=1e-3 * scale, rtol=1e-5)
    np.testing.assert_allclose(answer["map"], expected["map"], atol=1e-3, rtol=1e-3)
    verdict = model.prediction(tf.constant(pixels / np.float32(127.5) - 1), expected["score"])
    # Scores of a network that was hardly trained may differ by less than they are rounded to.
    rounding = 1e-6 * np.abs(expected["score"]).max() / scale
    probability = verdict["probability"]
    np.testing.assert_allclose(answer["probability"], probability, atol=1e-3 + rounding)
    reasons = [REASONS[place].encode() for place in answer["reason"]]
    assert reasons == verdict["reason"].numpy().tolist()
    np.testing.assert_array_equal(answer["is_anomalous"], answer["probability"] > 0.5)


@pytest.mark.slow
@each_format
@pytest.mark.parametrize("method", METHODS)
def test_the_runtime_gives_the_scores_of_python(fitted, images, method, form):
    assert_python_agrees(form, fitted(method, 32), images[:4, :32, :32])


@pytest.mark.slow
@each_format
@pytest.mark.parametrize(("method", "score"), [("ganomaly", "cues"), ("ganomaly_unet", "joint")])
def test_larger_images_are_scored_window_by_window(fitted, images, method, score, form):
    model = fitted(method)
    assert model.score == score
    assert_python_agrees(form, model, images[:4])


@pytest.mark.slow
@each_format
@pytest.mark.parametrize("score", ["joint", "joint_places"])
def test_a_unet_that_sees_the_reconstruction(build_small, know_normal_images, images, score, form):
    model = build_small("ganomaly_unet", unet_input="image+reconstruction", score=score)
    know_normal_images(model, images)
    assert model.score == score
    assert_python_agrees(form, model, images[:4])


@pytest.mark.slow
@each_format
def test_a_segmenter(images, know_normal_images, form):
    model, _ = segmenter.build(SegmenterConfig(width=4), (48, 48, 1))
    know_normal_images(model, images)
    assert_python_agrees(form, model, images[:4])


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, fitted, images, tmp_path_factory):
    """A format, the folder of a small model in it, what its export returned, and its data set."""
    form = request.param
    folder = tmp_path_factory.mktemp(form)
    data = data_of(images[:, :32, :32], anomalies=5)
    export = FORMATS[form][1]
    return (
        form,
        folder / "to",
        export(run_of(fitted("wgan_gp", 32), folder), data, folder / "to"),
        data,
    )


def test_figures_are_those_of_the_files(fitted, exported):
    form, folder, variants, data = exported
    rows = list(data.test.as_numpy_iterator())
    pixels = pixels_of(np.stack([row["image"] for row in rows]))
    labels = np.array([row["label"] for row in rows])
    own = fitted("wgan_gp", 32).anomaly(pixels.astype("float32") / 127.5 - 1)["score"].numpy()
    own_auroc = metrics.image_metrics(labels, own)["image_auroc"]
    assert [each.name for each in variants] == FORMATS[form][2]
    for each in variants:
        content = (folder / each.name).read_bytes()
        scores = predictions_of(form, content, pixels)["score"]
        auroc = metrics.image_metrics(labels, scores)["image_auroc"]
        assert each.size == len(content)
        assert each.milliseconds > 0
        assert each.image_auroc == pytest.approx(auroc)
        assert each.auroc_loss == pytest.approx(own_auroc - auroc)
        assert each.largest_difference == pytest.approx(np.abs(scores - own).max(), abs=1e-6)
    if form == "litert":
        assert variants[1].size < variants[0].size
        assert variants[1].largest_difference > variants[0].largest_difference


def test_metadata_lie_beside_the_files(fitted, exported):
    form, folder, variants, _ = exported
    model = fitted("wgan_gp", 32)
    metadata = json.loads((folder / "tfgad.json").read_text())
    assert metadata["format"] == {"litert": "LiteRT", "onnx": "ONNX"}[form]
    assert metadata["image_shape"] == [32, 32, 1]
    assert metadata["threshold"] == float(model.calibration.threshold)
    assert metadata["compared_images"] == 16
    assert metadata["tolerance"] == pytest.approx(0.01 * float(model.calibration.scale))
    assert [each["auroc_loss"] for each in metadata["variants"]] == [v.auroc_loss for v in variants]
    assert {path.name for path in folder.iterdir()} == {*FORMATS[form][2], "tfgad.json"}


@pytest.mark.parametrize("exported", ["onnx"], indirect=True)
def test_other_readers_of_onnx_find_no_loop(exported):
    import onnx as format_of_onnx

    graph = format_of_onnx.load(exported[1] / onnx.FLOAT).graph
    assert {"Loop", "If"}.isdisjoint(node.op_type for node in graph.node)  # OpenVINO fails


def test_what_is_there_is_not_replaced(fitted, exported, images):
    form, folder, _, data = exported
    _, export, names = FORMATS[form]
    with pytest.raises(UsageError, match=f"holds a {re.escape(names[0])} already"):
        export(run_of(fitted("wgan_gp", 32), folder), data, folder)


@pytest.fixture(scope="module")
def content(fitted):
    """What one small model is converted to."""
    return litert.convert(fitted("wgan_gp", 32), (32, 32, 1))


@pytest.fixture
def converted(content, monkeypatch):
    """Makes the conversion of every model return that one."""
    monkeypatch.setattr(litert, "convert", lambda *_: content)


def test_other_scores_than_the_models_are_an_error_and_nothing_is_left(
    fitted, images, tmp_path, converted
):
    with pytest.raises(UsageError, match="its scores as LiteRT differ by up to"):
        litert.export_litert(
            run_of(fitted("gan", 32), tmp_path), data_of(images[:, :32, :32]), tmp_path / "lite"
        )
    assert not list(tmp_path.iterdir())


def test_held_out_normal_images_do_where_there_is_no_test_set(fitted, images, tmp_path, converted):
    variants = litert.export_litert(
        run_of(fitted("wgan_gp", 32), tmp_path), data_of(images[:, :32, :32]), tmp_path / "lite"
    )
    assert [each.image_auroc for each in variants] == [None, None]
    assert json.loads((tmp_path / "lite/tfgad.json").read_text())["compared_images"] == 16


def test_a_latent_search_needs_operations_that_litert_does_not_have(build_small):
    with pytest.raises(UsageError, match=r"AnoGAN.*needs operations.*LeakyReluGrad"):
        litert.convert(build_small("anogan", side=32), (32, 32, 1))


@pytest.mark.slow
def test_a_latent_search_cannot_be_written_as_onnx(build_small):
    with pytest.raises(UsageError, match=r"AnoGAN.*cannot be written as ONNX.*no latent search"):
        onnx.convert(build_small("anogan", side=32), (32, 32, 1))


def test_an_operation_that_onnx_does_not_have_is_named(build_small, monkeypatch):
    def function_of(model, image_shape):
        form = tf.TensorSpec([1, *image_shape], tf.uint8, name="images")
        return tf.function(lambda x: {"score": tf.math.lgamma(tf.cast(x, tf.float32))}, [form])

    monkeypatch.setattr(one_size, "score_function", function_of)
    with pytest.raises(UsageError, match=r"does not have \(Lgamma\)"):
        onnx.convert(build_small("gan", side=32), (32, 32, 1))


def test_the_command_says_size_time_and_loss(fitted, images, tmp_path, monkeypatch, converted):
    run, data = run_of(fitted("wgan_gp", 32), tmp_path), data_of(images[:, :32, :32], anomalies=5)
    monkeypatch.setattr(exporting, "load_run_and_data", lambda *_: (run, data))
    given = ["export", "run", str(tmp_path / "lite"), "--format", "litert"]
    result = CliRunner().invoke(main.app, given)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    metadata = json.loads((tmp_path / "lite/tfgad.json").read_text())
    for line, each in zip(lines, metadata["variants"], strict=True):
        assert line.startswith(f"{tmp_path / 'lite' / each['name']}: ")
        assert f"{each['milliseconds']:.1f} ms per image" in line
        assert f"differ by {each['largest_difference']:.2g} at most" in line
        auroc, loss = each["image_auroc"], each["auroc_loss"]
        assert line.endswith(f"image AUROC {auroc:.3f} (loss {loss:.4f})")


def test_a_full_disk_leaves_nothing(fitted, images, tmp_path, monkeypatch, converted):
    def full(path, *_):
        raise UsageError("output", path, "cannot be written (no space left)", "make some")

    monkeypatch.setattr(one_size.files, "write_json", full)
    data = data_of(images[:, :32, :32])
    with pytest.raises(UsageError, match="no space left"):
        litert.export_litert(run_of(fitted("wgan_gp", 32), tmp_path), data, tmp_path / "lite")
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_and_a_users_notice_are_refused(
    fitted, images, tmp_path, monkeypatch
):
    run, data = run_of(fitted("wgan_gp", 32), tmp_path), data_of(images[:, :32, :32])
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError, match="file is a file; name a folder"):
            onnx.export_onnx(run, data, place)
    (tmp_path / "NOTICE").write_text("mine")
    monkeypatch.setattr(type(run.model), "notice", "of others")
    with pytest.raises(UsageError, match="holds a NOTICE already"):
        onnx.export_onnx(run, data, tmp_path)
    assert (tmp_path / "NOTICE").read_text() == "mine"


def test_images_of_another_size_are_refused(fitted, images, tmp_path):
    with pytest.raises(UsageError, match="but the run has"):
        litert.export_litert(run_of(fitted("wgan_gp", 32), tmp_path), data_of(images), tmp_path)


@pytest.mark.parametrize(
    ("form", "module"),
    [
        ("litert", "ai_edge_litert.interpreter"),
        ("onnx", "onnxruntime"),
        ("onnx", "tf2onnx"),
    ],
)
def test_a_missing_package_names_the_extra(fitted, images, tmp_path, monkeypatch, form, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"pip install 'tfgad\[{form}\]'"):
        FORMATS[form][1](run_of(fitted("wgan_gp", 32), tmp_path), data_of(images), tmp_path)
