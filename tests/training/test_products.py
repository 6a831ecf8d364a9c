"""A run of two products, from training to scores, SavedModel and report."""

import csv
import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from tfgad import data, evaluation, training
from tfgad.cli import checking, console, main
from tfgad.cli.progress import Progress
from tfgad.core.detector import Detector
from tfgad.data.pixels import from_uint8, to_uint8
from tfgad.errors import UsageError
from tfgad.export.saved_model import METADATA, export_run
from tfgad.inference import predictor
from tfgad.inference.predictor import RunPredictor
from tfgad.inference.watch_table import Table
from tfgad.serving.inspection.batch import Batch
from tfgad.training import held_out
from tfgad.training.learning import learn
from tfgad.training.run import Run

SPEC = "weave:twill+herringbone?size=48&train=40&calibration=20&test=8"
SETTINGS = {"steps": 2, "width": 8, "latent_dim": 8, "stride": 32}


def tfgad(*arguments):
    """Runs the command in this process; returns exit code, standard output and error."""
    console.show_log()
    result = CliRunner().invoke(main.app, [str(each) for each in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of both weaves; nobody changes it."""
    return training.train(
        "ganomaly", SPEC, tmp_path_factory.mktemp("runs") / "weaves", settings=SETTINGS
    )


@pytest.fixture(scope="module")
def tiles(run):
    """The test tiles, in steps of 8 bits, and the product of each."""
    images = data.load(run.config["data"])
    rows = list(images.test.as_numpy_iterator())
    pixels = from_uint8(np.stack([to_uint8(row["image"]) for row in rows]))
    return pixels, [row["name"].decode().partition("/")[0] for row in rows]


@pytest.fixture(scope="module")
def saved_model(run, tmp_path_factory):
    """The run as a SavedModel."""
    return export_run(run, tmp_path_factory.mktemp("saved_models") / "weaves")


@pytest.fixture(scope="module")
def exported(saved_model):
    """The predictor of the SavedModel."""
    return predictor.load_predictor(saved_model)


def test_the_threshold_is_that_of_each_product(run):
    model, calibration = run.model, run.calibration
    assert (calibration["threshold"], float(model.calibration.scale)) == (0.0, 1.0)
    assert list(calibration["products"]) == ["twill", "herringbone"]
    held = data.load(run.config["data"])
    images = np.stack(list(held.calibration.as_numpy_iterator()))
    raw = model.traced_anomaly(model.score)(tf.constant(images))
    for number, each in enumerate(calibration["products"].values()):
        assert each["images"] == 20
        own = np.flatnonzero(held.calibration_products == number)
        name = model.product_names[number]
        found = model.anomaly(images[own], product=name)
        scale = model.products.scales.numpy()[number]
        for key, value in (("score", raw["score"]), ("map", raw["map"])):
            expected = (value.numpy()[own] - np.float32(each["threshold"])) / scale
            np.testing.assert_allclose(found[key], expected, rtol=1e-5, atol=1e-5)
        assert set(found["product"].numpy()) == {name.encode()}


def test_products_are_recognised_or_given(run, tiles):
    pixels, products = tiles
    found = run.model.anomaly(pixels)
    assert [each.decode() for each in found["product"].numpy()] == products
    given = run.model.anomaly(pixels, product=products)
    np.testing.assert_array_equal(found["score"], given["score"])
    called = run.model(pixels)
    assert called.keys() == {"score", "map"}
    np.testing.assert_allclose(called["score"], found["score"], rtol=1e-5, atol=1e-5)
    for wrong in ("../twill", "Twill"):
        with pytest.raises(UsageError, match="did you mean 'twill'"):
            run.model.anomaly(pixels, product=wrong)
    other = run.model.anomaly(pixels, "latent")  # raw: no threshold holds for it
    raw = run.model.traced_anomaly("latent")(tf.constant(pixels))
    np.testing.assert_array_equal(other["score"], raw["score"])


def test_a_loaded_run_scores_the_same(run, tiles):
    loaded = training.load_run(run.folder)
    ours, theirs = (each.model.anomaly(tiles[0]) for each in (run, loaded))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.slow
def test_a_saved_model_predicts_as_its_run(run, saved_model, tiles):
    pixels, products = tiles
    for product in (None, "herringbone"):
        ours = predictor.RunPredictor(run, product).predict_images(pixels)
        theirs = predictor.load_predictor(saved_model, product).predict_images(pixels)
        for own, other in zip(ours, theirs, strict=True):
            assert own.keys() == other.keys()
            for name in ("product", "reason", "is_anomalous"):
                assert own[name] == other[name]
            np.testing.assert_allclose(own["score"], other["score"], rtol=1e-4, atol=1e-4)
    assert [each["product"] for each in ours] == 16 * ["herringbone"]
    unlike = {product for each, product in zip(ours, products, strict=True) if each["reason"]}
    assert "twill" in unlike
    for model in (run.folder, saved_model):
        with pytest.raises(UsageError, match="product 'satin': is not one that the model knows"):
            predictor.load_predictor(model, "satin")


@pytest.mark.slow
def test_a_large_image_is_of_one_product_whatever_its_blocks_are(run, exported, tiles, monkeypatch):
    image = np.tile(tiles[0][0], (4, 4, 1))
    image[:48, :48] = tiles[0][-1]  # a tile of the other
    predictors = predictor.RunPredictor(run), exported
    whole = [each(image) for each in predictors]
    monkeypatch.setattr("tfgad.inference.saved_model.AT_ONCE", 96**2)
    parts = [each(image) for each in predictors]
    for one, other in zip(whole, parts, strict=True):
        assert one["product"] == other["product"] == "twill"
        np.testing.assert_allclose(one["map"], other["map"], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4, atol=1e-4)
    noise = np.random.default_rng(0).uniform(-1, 1, (96, 96, 1)).astype("float32")
    image[:96, :96] = from_uint8(to_uint8(noise))  # a block that is unlike both
    ours, theirs = (each(image) for each in predictors)
    assert ours["reason"] == theirs["reason"] != ""
    assert ours["product"] == theirs["product"] == "twill"
    # Each of several large images is of its own product, recognised or given.
    two = np.stack([np.tile(tiles[0][place], (4, 4, 1)) for place in (0, -1)])
    found = predictor.predict_any_size(run.model, two)
    assert found["product"].tolist() == [b"twill", b"herringbone"]
    alone = [predictor.predict_any_size(run.model, each[None]) for each in two]
    for name, values in found.items():
        np.testing.assert_array_equal(values, np.concatenate([each[name] for each in alone]))
    given = predictor.predict_any_size(run.model, two, ["herringbone", "herringbone"])
    assert given["product"].tolist() == 2 * [b"herringbone"]
    assert given["score"][0] != found["score"][0]
    assert given["score"][1] == found["score"][1]


@pytest.mark.slow
def test_signatures_name_the_products(run, saved_model, exported, tiles):
    signatures = exported._signatures
    numbers = {name: value.numpy() for name, value in signatures["calibration"]().items()}
    assert numbers["products"].tolist() == [b"twill", b"herringbone"]
    np.testing.assert_array_equal(numbers["product_scales"], run.model.products.scales)
    pixels = to_uint8(tiles[0][[0, -1]])
    found = signatures["regions"](images=pixels)
    assert found["product"].numpy().tolist() == [b"twill", b"herringbone"]
    named = signatures["score_product"](images=pixels, product=np.array([b"", b"twill"], object))
    assert named["product"].numpy().tolist() == [b"twill", b"twill"]
    assert named["reason"].numpy().tolist() == [b"", b"unlike its product"]
    with pytest.raises(Exception, match="the products of this model are twill, herringbone"):
        signatures["score_product"](images=pixels[:1], product=np.array([b"satin"], object))
    metadata = json.loads((saved_model / METADATA).read_text())
    assert metadata["products"] == ["twill", "herringbone"]


@pytest.mark.slow
def test_the_command_names_products(run, tiles, tmp_path):
    folder, table = tmp_path / "images", tmp_path / "table.csv"
    folder.mkdir()
    for number in (0, -1):
        Image.fromarray(to_uint8(tiles[0][number])[..., 0]).save(folder / f"{number}.png")
    (folder / "broken.png").touch()
    assert tfgad("score", run.folder, folder, "--csv", table).exit_code == 1
    rows = {row["image"].rpartition("/")[2]: row for row in csv.DictReader(table.open())}
    assert {name: row["product"] for name, row in rows.items()} == {
        "0.png": "twill",
        "-1.png": "herringbone",
        "broken.png": "",
    }
    result = tfgad("score", run.folder, folder / "-1.png", "--product", "twill")
    assert "defective  probability 1.000" in result.stdout
    assert result.stdout.splitlines()[0].endswith("(unlike its product)")
    result = tfgad("score", run.folder, folder, "--product", "../twill")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(
        "product '../twill': is not one that the model knows; did you mean 'twill'?"
    )


def write_tiles(folder, tiles):
    """Writes the first and the last tile, of both products, and a broken file."""
    folder.mkdir()
    for number in (0, -1):
        Image.fromarray(to_uint8(tiles[0][number])[..., 0]).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"")
    return {"0.png": "twill", "-1.png": "herringbone", "broken.png": ""}


def products_in(table):
    """The products that a table names, by the name of the file."""
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["image"].rpartition("/")[2]: row["product"] for row in rows}


@pytest.mark.slow
def test_a_watched_folder_names_products(run, tiles, tmp_path):
    expected = write_tiles(tmp_path / "images", tiles)
    for name, options in {"own": (), "given": ("--product", "twill")}.items():
        table = tmp_path / f"{name}.csv"
        result = tfgad(
            "watch", run.folder, tmp_path / "images", "--csv", table, "--once", "--settle", 0,
            *options,
        )  # fmt: skip
        assert result.exit_code == 1  # for the broken one
        found = products_in(table)
        assert found == (expected if not options else {**expected, "-1.png": "twill"})
        assert table.read_text().splitlines()[0].endswith(",modified_ns,product")
    assert "(unlike its product)" in result.stdout
    plain = tmp_path / "plain.csv"
    Table(plain).close()  # of a model of one product
    result = tfgad("watch", run.folder, tmp_path / "images", "--csv", plain, "--once")
    assert result.exit_code == 2
    assert "is no table of `tfgad watch` with the columns image, score" in result.stderr


@pytest.mark.slow
def test_the_table_of_the_page_has_the_products(exported, tiles, tmp_path):
    expected = write_tiles(tmp_path / "images", tiles)
    paths = sorted((tmp_path / "images").iterdir())
    batch = Batch("weaves", exported)
    for path in paths:
        batch.add(path)
    assert products_in(batch.write_csv()) == expected
    batch.close()


@pytest.mark.slow
def test_beam_names_products(run, saved_model, tiles, tmp_path):
    beam = pytest.importorskip("tfgad.inference.beam", reason="needs tfgad[scale]")
    expected = write_tiles(tmp_path / "images", tiles)
    expected.pop("broken.png")  # a dead letter
    for product in (None, "twill"):
        table = tmp_path / f"{product}.csv"
        beam.score(str(saved_model), [str(tmp_path / "images")], str(table), product=product)
        assert products_in(table) == {n: product or own for n, own in expected.items()}
    with open(table, newline="") as file:
        reasons = {row["image"][-6:]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["-1.png"] == "unlike its product"
    parquet = pytest.importorskip("pyarrow.parquet")
    table = tmp_path / "scores.parquet"
    beam.score(str(saved_model), [str(tmp_path / "images")], str(table))
    columns = parquet.read_table(table).to_pydict()
    assert list(columns)[-1] == "product"
    assert sorted(columns["product"]) == ["herringbone", "twill"]
    with pytest.raises(UsageError, match="product 'satin': is not one that the model knows"):
        beam.score(str(saved_model), [str(tmp_path / "images")], str(table), product="satin")


@pytest.mark.slow
def test_a_check_is_by_the_products_that_the_data_name(run, exported, monkeypatch):
    asked = []
    images = data.load(f"{SPEC}&seed=1")
    config = {**run.config, **run.calibration}
    for loaded in (RunPredictor(run), exported):
        predict = loaded.predict_images

        def predict_images(batch, products, predict=predict):
            asked.extend(products)
            found = predict(batch, products)
            assert [each["product"] for each in found] == products
            return found

        monkeypatch.setattr(loaded, "predict_images", predict_images)
        with Progress() as progress:
            found = checking.check_good_images(loaded, config, None, images, progress)
        assert found["images"] == 128  # 40 + 20 of each product, and 4 good ones of its test
        of_each = {name: asked.count(name) for name in ("twill", "herringbone")}
        assert of_each == {"twill": 64, "herringbone": 64}
        asked.clear()
    assert found["false_alarms"]["asked"] == 0.01


@pytest.mark.slow
def test_an_evaluation_tells_of_each_product(run, tmp_path):
    result = tfgad("evaluate", run.folder, "--out", tmp_path)
    assert result.exit_code == 0
    assert (
        "16 of 16 images: product recognised. The verdicts above are by the true product."
        in result.stdout
    )
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["products_recognised"] == {"right": 16, "of": 16}
    assert figures["by_product"].keys() == {"twill", "herringbone"}
    images = data.load(run.config["data"])
    predictions = evaluation.predict_test_set(run.model, images)
    for product, each in figures["by_product"].items():
        own = [name.startswith(product) for name in predictions.names]
        labels, scores = predictions.labels[own] == 1, predictions.scores[own]
        alarms = (scores > 0) | (np.array(predictions.reasons)[own] != "")
        assert (each["good"], each["defective"], each["recognised"]) == (4, 4, 1.0)
        pairs = scores[labels][:, None] > scores[~labels][None]
        assert each["image_auroc"] == pytest.approx(pairs.mean())
        assert each["recall"] == pytest.approx(alarms[labels].mean())
        assert each["false_alarm_rate"] == pytest.approx(alarms[~labels].mean())
    assert "By product" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_other_data_of_the_same_model(run, tmp_path, caplog):
    copy = training.load_run(shutil.copytree(run.folder, tmp_path / "copy"))
    twill = data.load("weave:twill?size=48&test=4")
    assert evaluation.predict_test_set(copy.model, twill).products == 4 * ["twill"]
    satin = data.load("weave:twill+satin?size=48&test=4&train=3&calibration=3")
    with pytest.raises(UsageError, match="'satin': is not one that the model knows"):
        evaluation.predict_test_set(copy.model, satin)
    with pytest.raises(UsageError, match="'satin': is not one that the model knows"):
        training.calibrate(copy, satin, 0.1)
    with caplog.at_level(logging.WARNING), pytest.raises(UsageError, match="product 'herringbone'"):
        training.calibrate(copy, data.load("weave:twill?size=48&seed=1"), 0.1)
    turned = data.load(f"{SPEC.replace('twill+herringbone', 'herringbone+twill')}&seed=1")
    training.calibrate(copy, turned, 0.2)
    found = {name: each["images"] for name, each in copy.calibration["products"].items()}
    assert found == {"twill": 60, "herringbone": 60}
    assert copy.calibration["false_positive_rate"] == 0.2


def test_a_product_of_the_data_is_no_new_data(run):
    own = data.load("weave:twill?size=48&train=40&calibration=20&test=8")
    assert held_out.for_calibration(run, own) is own
    other = data.load("weave:satin?size=48&train=4&calibration=3&test=1")
    assert held_out.for_calibration(run, other).calibration_size == 7
    aitex = Run(run.folder, {**run.config, "data": "aitex:00+01?tile=128&seed=1"}, run.model)
    spec = dataclasses.replace(own, spec="aitex:01?tile=128&seed=2")
    with pytest.raises(UsageError, match="holds images that the run was trained on"):
        held_out.for_calibration(aitex, spec)
    evaluated = Run(run.folder, {"learnt_from": ["aitex:01"]}, None)
    with pytest.raises(UsageError, match="has test images that the model was trained on"):
        evaluation.evaluate_run.check_untrained(evaluated, "aitex:00+01?tile=128")


def write_folder(root, products, count, seed=0, first_roll=0):
    """Writes good tiles of weaves as the images of products, in rolls of four."""
    for name, weave in products.items():
        spec = f"weave:{weave}?size=48&train={count}&calibration=1&test=1&seed={seed}"
        (root / name / "good").mkdir(parents=True)
        for number, image in enumerate(data.load(spec).train.as_numpy_iterator()):
            path = root / name / "good" / f"r{first_roll + number // 4:02}_{number:02}.png"
            Image.fromarray(to_uint8(image)[..., 0]).save(path)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A run of a folder of two products in rolls, and the folder; nobody changes them."""
    root = tmp_path_factory.mktemp("parts")
    write_folder(root / "data", {"bolt 5mm": "twill", "Mütter": "herringbone"}, 20)
    spec = f"folder:{root / 'data'}?products=all&tile=48&group=r(\\d+)_"
    settings = {**SETTINGS, "score": "residual"}
    return training.train("ganomaly", spec, root / "run", settings=settings), root


@pytest.mark.slow
def test_groups_of_products_are_apart(parts):
    run, _ = parts
    assert run.model.product_names == ("Mütter", "bolt 5mm")
    split = json.loads((run.folder / "split.json").read_text())
    rolls = {name.partition("/good/")[0] + name[-10:-7] for name in split["calibration"]}
    calibration = run.calibration
    assert calibration["groups"] == len(rolls)
    each = calibration["products"].values()
    assert sum(of["groups"] for of in each) == len(rolls)
    assert [of["images"] for of in each] == [4 * of["groups"] for of in each]
    fewest = min(float(of["effective_images"]) for of in each)
    largest = float(run.model.calibration.largest_probability)
    assert largest == pytest.approx((fewest + 1) / (fewest + 2), abs=0.01)
    result = tfgad("calibrate", run.folder, "--data", run.config["data"], "--per", "image")
    assert result.exit_code == 0
    assert "threshold 0 of each product, for a false-positive rate of" in result.stdout
    assert "product bolt 5mm: the 8 images come from 2 groups" in " ".join(result.stdout.split())


@pytest.mark.slow
def test_products_are_learned_from_by_their_names(parts, tmp_path, caplog, monkeypatch):
    run, _ = parts
    run = training.load_run(shutil.copytree(run.folder, tmp_path / "run"))
    write_folder(tmp_path / "more", {"bolt 5mm": "twill"}, 40, seed=3, first_roll=6)
    more = f"folder:{tmp_path / 'more'}?products=bolt 5mm&tile=48&group=r(\\d+)_"
    plain = f"folder:{tmp_path / 'more' / 'bolt 5mm'}?tile=48"
    for good, false_alarms in ((plain, None), (more, plain)):
        alarms = false_alarms and data.load(false_alarms)
        with pytest.raises(UsageError) as error:
            learn(run, data.load(good), tmp_path / "learned", false_alarms=alarms)
        assert "does not say of which products its images are" in str(error.value)
        assert "give folder:PATH?products=NAME, a folder for each of Mütter, bolt" in str(
            error.value
        )
    assert not (tmp_path / "learned").exists()

    seen = {}
    learns, calibrates = Detector.learn_products, Detector.calibrate

    def learn_products(model, normals, products):
        seen["learned"] = np.bincount(products).tolist()
        learns(model, normals, products)

    def calibrate(model, normals, rate, *, origins, products, **options):
        names = [
            (str(g).partition("/")[0], model.product_names[p])
            for g, p in zip(origins.groups, products, strict=True)
        ]
        assert all(group == product for group, product in names)
        seen["held out"] = np.bincount(products).tolist()
        return calibrates(model, normals, rate, origins=origins, products=products, **options)

    monkeypatch.setattr(Detector, "learn_products", learn_products)
    monkeypatch.setattr(Detector, "calibrate", calibrate)
    before = run.model.products.means.numpy()
    old = {
        part: np.bincount([name.startswith("bolt") for name in names])
        for part, names in json.loads((run.folder / "split.json").read_text()).items()
    }
    with caplog.at_level(logging.WARNING):
        learned, changes = learn(run, data.load(more), tmp_path / "learned")
    assert "recognised" not in caplog.text
    new = {each.of: each.count for each in changes}
    assert seen["learned"] == [old["train"][0], old["train"][1] + new["new, learned from"]]
    of_each = [
        old["calibration"][0],
        old["calibration"][1] + new["new, held out for the threshold"],
    ]
    assert seen["held out"] == of_each
    assert [each["images"] for each in learned.calibration["products"].values()] == of_each
    after = training.load_run(learned.folder).model.products.means.numpy()
    assert np.abs(after[1] - before[1]).max() > 1e-4  # of the bolts
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)

    again, _ = learn(learned, data.load(root_of(tmp_path, "nuts")), tmp_path / "again")
    assert seen["learned"][0] > old["train"][0]
    assert again.calibration["products"]["bolt 5mm"]["images"] == of_each[1]


def root_of(root, name):
    """Writes a folder of more images of the second weave; returns its spec."""
    write_folder(root / name, {"Mütter": "herringbone"}, 40, seed=4, first_roll=6)
    return f"folder:{root / name}?products=Mütter&tile=48&group=r(\\d+)_"


def test_one_product_of_a_folder_is_not_trained_on(tmp_path):
    write_folder(tmp_path, {"bolt": "twill"}, 8)
    spec = f"folder:{tmp_path}?products=bolt&tile=48"
    assert data.load(spec).products == ("bolt",)
    with pytest.raises(UsageError, match="'bolt': is one product; name two or more"):
        training.train("ganomaly", spec, tmp_path / "run", settings=SETTINGS)
    assert not (tmp_path / "run").exists()


def test_too_few_images_of_a_product_are_refused_before_training(tmp_path):
    write_folder(tmp_path, {"bolt": "twill"}, 10)
    write_folder(tmp_path, {"nut": "herringbone"}, 2)
    result = tfgad(
        "train", "ganomaly", "--data", f"folder:{tmp_path}?products=all&tile=48",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert "leaves too few good images (1) of nut to train on; add good images of nut" in last
    assert not (tmp_path / "run").exists()
