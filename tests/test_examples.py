"""The examples run, on little data and for few steps; what they reach is not tested here."""

import contextlib
import dataclasses
import io
import json
import os
import runpy
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfgad
from tfgad.data import tiling
from tfgad.data.datasets import mnist
from tfgad.errors import UsageError

EXAMPLES = Path(__file__).parents[1] / "examples"
FEW_TILES = "weave:twill?size=64&train=16&calibration=8&test=8"


def on_mnist(test):
    """Marks a test that reads MNIST."""
    absent = not os.environ.get("TFGAD_DATA_DIR")
    for mark in (
        pytest.mark.slow,
        pytest.mark.real_data,
        pytest.mark.skipif(absent, reason="TFGAD_DATA_DIR is not set"),
    ):
        test = mark(test)
    return test


def run(script, *arguments):
    """Runs an example in this process, which has TensorFlow, and returns what it prints.

    Of the embedded digits it tests 90, nine of each class.
    """
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.setattr(mnist, "EMBEDDED_TEST_PART", 0.05)
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return out.getvalue()


@pytest.mark.parametrize("script", ["ganomaly_mnist.py", "benchmarks/one_class.py"])
def test_a_wrong_argument_is_one_line(script, tmp_path, capsys):
    out = ["--out", tmp_path / "out.json"]
    with pytest.raises(SystemExit) as stopped:
        run(script, "--data", "weave:tartan", *(out if "benchmarks" in script else []))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "tartan" in line] == lines


def test_every_example_ends_so():
    scripts = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("benchmarks/*.py")]
    # Of `peers.py`, `runtimes.py` and `registration.py`.
    for module in ("torch_gans", "runtime_files", "runtime_process", "rendered_parts"):
        scripts.remove(EXAMPLES / "benchmarks" / f"{module}.py")
    assert len(scripts) > 30
    for script in scripts:
        assert script.read_text().endswith("    with exit_on_usage_error():\n        main()\n"), (
            script
        )


@pytest.mark.slow
def test_fabric_inspection(tmp_path):
    few = ["--data", FEW_TILES, "--steps", "2+2", "--out", tmp_path]
    command = [sys.executable, EXAMPLES / "fabric_inspection.py", *few]
    done = subprocess.run(command, capture_output=True, text=True)  # as a user does
    assert done.returncode == 0, done.stderr[-2000:]
    out = done.stdout
    assert "image_auroc" in out
    assert "threshold" in out
    assert (tmp_path / "heat_maps.png").stat().st_size > 10_000
    assert (tmp_path / "saved_model" / "1" / "saved_model.pb").is_file()


@pytest.mark.slow
def test_folder_as_tfds(tmp_path, monkeypatch):
    few = ["--data", "weave:twill?size=32&train=6&calibration=2&test=6", "--name", "cloth"]
    out = run("folder_as_tfds.py", *few, "--out", tmp_path)
    assert "cloth/1.0.0: 8 good images to train on, 6 to test" in out
    with pytest.raises(SystemExit):
        run("folder_as_tfds.py", *few, "--out", tmp_path)  # nothing is replaced
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    own = tfgad.load("weave:twill?size=32&train=6&calibration=2&test=6")
    data = tfgad.load("tfds:cloth?normal=good")
    assert data.kinds == ("defective",)
    known, stored = ({row["image"].tobytes(): row["label"] for row in each.test.as_numpy_iterator()}
                     for each in (own, data))  # fmt: skip
    assert stored == known


@pytest.mark.slow
def test_fanogan_mnist(tmp_path):
    out = run("fanogan_mnist.py", "--data", "digits:8", "--steps", "2+2", "--out", tmp_path)
    assert out.count("AUROC") == 4
    assert (tmp_path / "samples.png").is_file()
    assert (tmp_path / "reconstructions.png").is_file()


@pytest.mark.slow
def test_vae_mnist(tmp_path):
    out = run("vae_mnist.py", "--data", "digits:8", "--steps", "2", "--out", tmp_path)
    assert out.count("AUROC") == 4
    assert (tmp_path / "samples.png").is_file()
    assert (tmp_path / "reconstructions.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "steps"), [("vae", "2"), ("fanogan", "2+2")])
def test_latent_space(tmp_path, method, steps):
    arguments = ["--method", method, "--data", "digits", "--steps", steps]
    out = run("latent_space.py", *arguments, "--out", tmp_path)
    assert out.count("ARI") == 3
    for name in ("pca", "tsne", "interpolation", "generated"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_cgan_mnist(tmp_path):
    out = run("cgan_mnist.py", "--data", "digits:!2", "--steps", "2", "--out", tmp_path)
    assert "AUROC of 2" in out
    digits = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert digits == list("013456789")
    assert (tmp_path / "classes.png").stat().st_size > 10_000


@on_mnist
def test_rare_class(tmp_path):
    few = ["--seeds", "1", "--steps", "2", "--updates", "2"]
    out = run("rare_class.py", *few, "--out", tmp_path / "rare_class.json")
    table = out.splitlines()[-5:]
    assert [line.split()[0] for line in table[1:]] == ["nothing", "repeated", "moved", "generated"]
    assert (tmp_path / "rare_class.json").is_file()
    assert (tmp_path / "rare_class_0.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gan", ["--d-steps", "2", "--g-steps", "3"]),
        ("wgan", ["--steps", "10"]),
        ("wgan_gp", []),
    ],
)
def test_gans_of_mnist(tmp_path, method, options):
    few = ["--data", "digits:!2", "--steps", "2", *options]
    out = run(f"{method}_mnist.py", *few, "--out", tmp_path)
    assert out.count("AUROC") == 1
    assert (tmp_path / "samples.png").stat().st_size > 10_000


@pytest.mark.slow
def test_dcgan_mnist(tmp_path):
    options = ["--smoothing", "0.1", "--r1", "0.5", "--epochs", "3", "--every", "2"]
    out = run("dcgan_mnist.py", "--data", "digits:!2?size=28", *options, "--out", tmp_path)
    assert out.count("AUROC") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["02.keras", "samples-02.png"]
    model = tfgad.load_model(tmp_path / "02.keras")
    assert int(model.optimizer_by_role["critic"].iterations) == int(model.step) > 0
    assert (model.config.smoothing, model.config.r1) == (0.1, 0.5)


@pytest.mark.slow
def test_ganomaly_mnist(tmp_path):
    out = run("ganomaly_mnist.py", "--data", "digits:8", "--steps", "2", "--out", tmp_path)
    assert out.count("AUROC") == 2
    assert (tmp_path / "reconstructions.png").stat().st_size > 10_000


def write_digits(path, labels, level=255):
    """Writes the walk-through's CSV: a label and 784 grey levels a line, below a header."""
    rows = np.random.default_rng(0).integers(0, level + 1, (len(labels), 784))
    table = np.concatenate([np.reshape(labels, (-1, 1)), rows], axis=1)
    np.savetxt(path, table, "%d", ",", header="label,greys", comments="")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("start", "steps"), [("pool", "1"), ("encoder", "1+1")])
def test_anogan_mnist(tmp_path, start, steps):
    train = write_digits(tmp_path / "train.csv", [7, 8, 1] * 201)
    test = write_digits(tmp_path / "test.csv", [2, 7, 8, 3])
    few = ["--start", start, "--steps", steps, "--search-steps", "2", "--tolerance", "0.01"]
    few += ["--width", "8"]
    out = run("anogan_mnist.py", "--csv", train, test, *few, "--out", tmp_path)
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("digit")] == [
        "digit 2", "digit 7", "digit 8",
    ]  # fmt: skip
    assert out.count("AUROC") == 3
    assert "threshold" in out
    assert tfgad.load_model(tmp_path / "model.keras").stages[0] == "gan"
    for name in ("samples", "reconstructions", "losses"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_anogan_mnist_reads_csv_files(tmp_path):
    walk = runpy.run_path(str(EXAMPLES / "anogan_mnist.py"))
    path = write_digits(tmp_path / "digits.csv", [7, 2])
    images, labels = walk["read_csv"](path)
    assert (images.shape, images.dtype, list(labels)) == ((2, 28, 28), np.uint8, [7, 2])
    assert int(path.read_text().splitlines()[1].split(",")[29]) == images[0, 1, 0]
    large = walk["enlarged"](np.stack([np.zeros((28, 28)), np.full((28, 28), 255)]).astype("uint8"))
    np.testing.assert_array_equal(large[:, 7, 9, 0], [-1, 1])
    with pytest.raises(UsageError, match="out of range"):
        walk["read_csv"](write_digits(tmp_path / "deep.csv", [7], level=65535))
    (tmp_path / "short.csv").write_text("7,0,255\n")
    with pytest.raises(UsageError, match="3 columns"):
        walk["read_csv"](tmp_path / "short.csv")


def test_anogan_mnist_takes_the_first_images_of_each_part(tmp_path):
    walk = runpy.run_path(str(EXAMPLES / "anogan_mnist.py"))
    paths = [tmp_path / "train.csv", tmp_path / "test.csv"]
    write_digits(paths[0], [1, 7, 8] * 301)
    write_digits(paths[1], [2, 3, 7, 8])
    normal, held_out, test, digits = walk["walk_through"](paths)
    assert [len(part) for part in (normal, held_out, test)] == [400, 200, 3]
    assert list(digits) == [2, 7, 8]
    rows = walk["read_csv"](paths[0])[0]
    np.testing.assert_array_equal(normal[0], walk["enlarged"](rows[1:2])[0])
    np.testing.assert_array_equal(held_out[0], walk["enlarged"](rows[601:602])[0])
    with pytest.raises(UsageError, match="too few"):
        walk["walk_through"]([paths[1], paths[1]])


@pytest.mark.slow
def test_multistage_weave(tmp_path, monkeypatch, capsys, quicker):
    example = runpy.run_path(str(EXAMPLES / "multistage_weave.py"))
    monkeypatch.setitem(
        example["main"].__globals__, "QUICK", "?size=64&train=16&calibration=8&test=24"
    )
    few = ["--quick", "--weaves", "plain", "satin", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["multistage_weave.py", *few])
    example["main"]()
    assert capsys.readouterr().out.count("IoU") == 2
    for name in ("kinds", "codes"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_multistage_benchmark_by_hand():
    """What an earlier call left out is passed over; ways are compared row by row."""
    benchmark = runpy.run_path(str(EXAMPLES / "benchmarks" / "multistage.py"))
    assert benchmark["learnt_from"](["aitex:03"]) == ["aitex:00", "aitex:01"]
    of_weaves = benchmark["learnt_from"](["weave:twill", "weave:check"])
    assert len(of_weaves) == 6
    assert not {"weave:twill", "weave:check"} & set(of_weaves)

    def row(**ious):
        names = ("iou", "iou_at_even_odds")
        return {"figures": {way: dict.fromkeys(names, iou) for way, iou in ious.items()}}

    seeds = {"0": row(cut=0.5, fused=0.6), "1": row(cut=0.7, fused=0.9), "2": row(cut=0.6)}
    lines = benchmark["table"]({"asked": {}, "weave:twill": seeds}).splitlines()
    assert "| `cut` | 0.600 ± 0.100 / 0.747 ± 0.078 / 0.600 ± 0.100 |" in lines
    assert "| `true` | – / – / – |" in lines
    (told,) = (line for line in lines if "against" in line)
    assert "IoU +0.150 ± 0.050, higher in 2 of 2" in told


def test_multistage_benchmark_lays_textures_by_perlin_noise():
    benchmark = runpy.run_path(str(EXAMPLES / "benchmarks" / "multistage.py"))
    good = np.linspace(-0.5, 0.5, 3, dtype="float32")[:, None, None, None] + np.zeros((64, 64, 1))
    images, masks = benchmark["perlin_defects"](good.astype("float32"), 40, seed=2)
    assert images.shape == masks.shape == (40, 64, 64, 1)
    assert masks.dtype == np.uint8
    assert masks.sum(axis=(1, 2, 3)).min() >= 12
    kept = [set(np.unique(image[mask == 0])) for image, mask in zip(images, masks, strict=True)]
    assert set().union(*kept) == {-0.5, 0.0, 0.5}
    assert np.mean(images[masks > 0] != np.round(2 * images[masks > 0]) / 2) > 0.9
    again, _ = benchmark["perlin_defects"](good.astype("float32"), 40, seed=2)
    np.testing.assert_array_equal(images, again)
    examples = benchmark["examples"](["perlin"], [], None, good.astype("float32"), 2, 40)
    np.testing.assert_array_equal(examples["perlin"][0], images)


def test_painted_defects_benchmark_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    benchmark = runpy.run_path(str(EXAMPLES / "benchmarks" / "painted_defects.py"))
    images = np.stack([np.full((4, 4, 1), grey) for grey in (0.0, 1.0, 5.0)])
    masks = np.zeros((3, 4, 4, 1), np.uint8)
    masks[0, :2] = 1  # half of the pixels
    kinds = np.array(["hole", "hole", "slub"])
    assert benchmark["diversity"](images, masks, kinds, seed=0) == (1.0, 0.5)
    rng = np.random.default_rng(0)
    real, same, other = (rng.standard_normal((80, 6)) + mean for mean in (0, 0, 3))
    assert benchmark["two_sample"](real, other) > 0.95
    assert benchmark["two_sample"](real, same) < 0.65
    patches = {
        name: (np.zeros((80, 4, 4, 1)), np.zeros((80, 4, 4, 1)), np.zeros(80)) for name in "rst"
    }
    patches["real"] = patches["r"]
    vectors = {"real": real, "s": same, "t": 2 * other}
    near, far = (benchmark["compared"](sort, patches, vectors, vectors, 0) for sort in "st")
    assert abs(near["kid"]) < 4 * near["kid_error"] < far["kid"]
    assert near["diversity"] == pytest.approx(1.0, abs=0.1)
    assert far["diversity"] == pytest.approx(2.0, abs=0.2)
    assert benchmark["compared"]("real", patches, vectors, vectors, 0)["kid"] is None


@pytest.fixture
def runtimes(monkeypatch):
    """The names of `benchmarks/runtimes.py`."""
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    return runpy.run_path(str(EXAMPLES / "benchmarks" / "runtimes.py"))


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ([1.0, 3.5], None),
        ([1.0, 5.0], "scores differ by 2 standard deviations"),
        ([], "0 scores of 2 tiles"),
        ([1.0, float("nan")], "scores are not finite"),
    ],
)
def test_wrong_scores_of_a_runtime_are_told(runtimes, scores, problem):
    assert runtimes["what_is_wrong"](scores, np.array([1.0, 3.0])) == problem


def test_a_runtime_is_compared_round_by_round(runtimes):
    def entry(*rates, **others):
        figures = {"time": 9.0, "processor_time": 2.0}
        of_batches = [{"1": figures | {"processor_time": r}, "32": figures} for r in rates]
        rounds = [{"start": figures, "rates": each} for each in of_batches]
        return {"wrong": None, "bytes": 2e6, "difference": 0.0, "rounds": rounds} | others

    found = {"saved_model": entry(10.0, 20.0, 5.0), "litert": entry(20.0, 20.0, 20.0)}
    found["openvino"] = entry(wrong="0 scores of 2 tiles")
    assert runtimes["ratios"](found, "litert", 1) == [2.0, 1.0, 4.0]
    *_, litert, openvino = runtimes["table"](found).splitlines()
    assert litert.startswith("| litert | 20.0 | 2.00 (1.00 to 4.00) | 2.0 | 1.00 (1.00 to 1.00) |")
    assert openvino.startswith("| openvino | wrong: 0 scores of 2 tiles |")


def test_the_graph_for_one_size_has_no_loops(runtimes):
    """Loops over blocks, as `tfgad.data.tiling.blocks` makes them, become their only round."""
    made = runtimes["runtime_files"]

    def signature(images):
        pixels = tf.cast(
            tf.compat.v1.placeholder_with_default(images, [None] * 3 + [1]), tf.float32
        )
        margins = tiling.two_stage_margin(32, 16), tiling.two_stage_margin(32, 16)
        maps = tiling.by_block(pixels, margins, 1, lambda block, trim: trim(2 * block))[..., 0]
        return {"score": tf.reduce_max(maps, axis=[1, 2]), "map": maps}

    graph = made.for_size(made.frozen(signature, [2, 32, 32, 1], lower_control_flow=False))
    operations = {node.op for node in graph.node}
    assert not {op for op in operations if "While" in op or "TensorList" in op or "Call" in op}
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    predictions = made.as_function(graph)(images=tf.constant(images))
    np.testing.assert_array_equal(predictions["map"], 2.0 * images[..., 0])
    np.testing.assert_array_equal(predictions["score"], 2.0 * images.max(axis=(1, 2, 3)))


def test_latent_search_benchmark_compares_the_same_networks():
    pytest.importorskip("torch")
    benchmark = runpy.run_path(str(EXAMPLES / "benchmarks" / "latent_search.py"))
    model = tfgad.build("anogan", (64, 64, 1), window=64, width=4, latent_dim=3, start="encoder")
    rng = np.random.default_rng(0)
    for network in (model.generator, model.critic):  # batch statistics other than 0 and 1
        weights = [w + 0.05 * np.abs(rng.standard_normal(w.shape)) for w in network.get_weights()]
        network.set_weights(weights)
    images = rng.uniform(-1, 1, (4, 64, 64, 1)).astype("float32")
    codes = rng.standard_normal((4, 3), "float32")
    ours, theirs = benchmark["Ours"](model), benchmark["Torch"](model)
    differences = benchmark["networks_differ_by"](ours, theirs, images, codes)
    assert max(differences.values()) < 1e-5
    found = ours.search(images, dataclasses.replace(benchmark["EQUAL"], steps=0), codes)
    np.testing.assert_allclose(theirs.search(images, 0, codes), found["loss"], rtol=1e-5)


@pytest.fixture
def registration(monkeypatch):
    """The names of `benchmarks/registration.py`."""
    monkeypatch.syspath_prepend(EXAMPLES / "benchmarks")
    return runpy.run_path(str(EXAMPLES / "benchmarks" / "registration.py"))


def test_rendered_parts_are_registered(registration):
    train, tests = registration["rendered_parts"](6, 3, 0.1)
    test = tests["test"]
    found = registration["Registration"](registration["TURNS"]["shift and turn"]).fit(train)
    poses, is_clear = found.poses(test["image"])
    assert is_clear.all()
    off = registration["pose_errors"](poses, test["pose"])
    assert off["median"] < 0.8 < 3 < off["median_before"]


def test_what_is_like_no_part_stays_where_it_is(registration):
    train, _ = registration["rendered_parts"](2, 0, 0.1)
    found = registration["Registration"]((0.0,)).fit(train)
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 256, 256, 1)).astype("float32")
    poses, is_clear = found.poses(noise)
    assert not is_clear.any()
    assert not poses.any()
    np.testing.assert_array_equal(registration["moved"](noise, poses), noise)


def test_maps_of_registered_parts_lie_where_their_photographs_do(registration):
    maps = np.zeros((1, 256, 256), "float32")
    maps[0, 60:70, 180:186] = 1.0
    pose = [[5.0, -3.0, 2.5]]
    in_place = registration["moved"](maps[..., None], pose)[..., 0]
    assert (maps * in_place).sum() < 0.6 * maps.sum()
    home = registration["moved_back"](in_place, np.array(pose))
    assert (maps * home).sum() > 0.9 * maps.sum()


@pytest.mark.slow
def test_ablation_goes_on_where_it_stopped(tmp_path, capsys):
    few = ["--data", FEW_TILES, "--steps", "2", "--unet-steps", "2"]
    few += ["--runs", tmp_path, "--out", tmp_path / "found.json"]
    run("benchmarks/ablation.py", *few, "--only", "all")
    first = json.loads((tmp_path / "found.json").read_text())[FEW_TILES]
    assert set(first) == {"cues", "all"}
    assert first["all"]["joined"]["sum"] == first["all"]["joint"]
    out = run("benchmarks/ablation.py", *few, "--only", "all", "without blob")
    found = json.loads((tmp_path / "found.json").read_text())[FEW_TILES]
    assert found["all"] == first["all"]
    assert found["without blob"]["marks"] != found["all"]["marks"]
    assert sum(line.startswith("| ") for line in out.splitlines()) == 1 + 1 + 4 + 6
    with pytest.raises(SystemExit):
        run("benchmarks/ablation.py", *few, "--seed", "1")
    assert "has results of" in capsys.readouterr().err


def test_ablation_refuses_a_painter_that_knows_a_tested_fabric(monkeypatch):
    check = runpy.run_path(str(EXAMPLES / "benchmarks" / "ablation.py"))["check_painter"]
    config = {"data": ["weave:denim?seed=0"], "seed": 0, "settings": {}}
    painter = types.SimpleNamespace(config=config)
    monkeypatch.setitem(check.__globals__, "load_painter", lambda folder: painter)
    with pytest.raises(UsageError, match="was trained on defects of weave:denim"):
        check("folder", ["weave:twill", "weave:denim?size=64"], {})
    results = {}
    check("folder", ["weave:twill"], results)
    assert results == {"painter": config}
    with pytest.raises(UsageError, match="is not that of the results"):
        check("folder", ["weave:twill"], {"painter": config | {"seed": 1}})


def test_ablation_leaves_out_one_part_at_a_time():
    variants = runpy.run_path(str(EXAMPLES / "benchmarks" / "ablation.py"))["variants_of"]
    found = variants()
    assert len(found) == 5 + 4 + 5
    assert found["without blob"][1].shapes[0] == 0
    assert found["without noise"][1].fillings[-1] == 0
    (painted, _) = variants("folder")["mix with painter"]
    assert painted == {"defect_source": "mix", "painter": "folder"}
    with pytest.raises(UsageError, match="is no variant"):
        variants(only=["without holes"])


@pytest.mark.slow
def test_a_model_card_has_the_form_of_the_hub(tmp_path):
    yaml = pytest.importorskip("yaml")
    make = runpy.run_path(str(EXAMPLES / "make_saved_models.py"))["make"]
    settings = {"steps": "2", "width": "4", "latent_dim": "4"}
    make("few", "ganomaly", FEW_TILES, settings, tmp_path / "run", tmp_path / "few")
    card = (tmp_path / "few" / "README.md").read_text()
    figures = json.loads((tmp_path / "run" / "metrics.json").read_text())

    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["library_name"]) == ("apache-2.0", "keras")
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"] == {"name": FEW_TILES, "type": "weave"}
    auroc, ap = (each["value"] for each in result["metrics"])
    assert auroc == round(figures["image_auroc"], 3)
    assert ap == round(figures["image_ap"], 3)
    assert f"- {1 - figures['recall']:.1%} of the unseen anomalies are called good" in card
    for kind, of_kind in figures["by_kind"].items():
        assert kind.replace("_", " ") in card
        assert f"{of_kind['image_recall']:.2f}" in card
