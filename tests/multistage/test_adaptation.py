"""Fine-tuning a segmenter on painted and transplanted defects, with replay of the known ones."""

import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras.src.applications import resnet

import tfgad
from tfgad import evaluation
from tfgad.core.settings import parse
from tfgad.errors import UsageError
from tfgad.multistage import adaptation, segmenter_training
from tfgad.multistage.segmenter_config import AdaptationConfig
from tfgad.multistage.sources import read_source
from tfgad.training import load_run
from tfgad.training.run_folder import CHECKPOINT, CONFIG

pytestmark = pytest.mark.slow  # for the models that it trains


@pytest.fixture(scope="module")
def settings(run):
    """Those of the run, but four steps."""
    return replace(adaptation.adaptation_of_run(run), adapt_steps=4)


@pytest.fixture(scope="module")
def adapted(run, painter, twill, fabrics, settings, tmp_path_factory):
    """The run, adapted to twill; nobody may change it."""
    folder = tmp_path_factory.mktemp("adaptation") / "twill"
    return adaptation.adapt_segmenter(run, painter, twill, fabrics, folder, settings=settings)


@pytest.fixture
def without_training(monkeypatch):
    """Leaves out the steps of a training."""
    monkeypatch.setattr(segmenter_training, "fit_stages", lambda *_: None)


def statistics_of(model):
    """The averages of batch normalisation."""
    return [w.numpy() for w in model.network.weights if w.name.startswith("moving_")]


def test_an_interrupted_adaptation_ends_with_the_same_segmenter(
    run, painter, twill, fabrics, settings, adapted, tmp_path
):
    """Dropout, the order of images and the rate continue, the first two by the seed."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save_weights(tmp_path / "resumed" / CHECKPOINT)
                raise KeyboardInterrupt

    def again(**arguments):
        return adaptation.adapt_segmenter(
            run, painter, twill, fabrics, tmp_path / "resumed", settings=settings, **arguments
        )

    keras.utils.set_random_seed(99)  # whatever was drawn before must not matter
    with pytest.raises(KeyboardInterrupt):
        again(callbacks=lambda *_: [Stop()])
    keras.utils.set_random_seed(98)
    resumed = again(resume=True)
    for a, b in zip(adapted.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_rate_falls_to_zero(run):
    model = adaptation.copy_to_fine_tune(run.model, 0.1, 10)
    optimizer = model.optimizer_by_role["network"]
    rates = []
    for step in (0, 5, 10):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.1, 0.1 * 0.5**0.9, 0.0], rtol=1e-6)


def test_a_copy_is_trained_on_painted_defects(run, painter, twill, adapted, tmp_path):
    before = load_run(run.folder).model.get_weights()
    for old, now in zip(before, run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    assert statistics_of(run.model)
    for old, now in zip(statistics_of(run.model), statistics_of(adapted.model), strict=True):
        np.testing.assert_array_equal(old, now)
    learnt = zip(run.model.get_weights(), adapted.model.get_weights(), strict=True)
    assert any((old != now).any() for old, now in learnt)
    assert adapted.config["data"] == twill.spec
    assert adapted.config["painter"] == painter.config["data"]
    assert adapted.config["images"]["defective"] == 8 + 4 + 8
    figures = evaluation.evaluate(adapted, twill, tmp_path)
    assert 0 <= figures["iou"] <= figures["f_measure"] <= 1
    assert (tmp_path / "report.html").is_file()


def test_painted_defects_alone_are_enough(run, painter, twill, fabrics, without_training, tmp_path):
    """As in the paper."""
    settings = AdaptationConfig(batch_size=4, painted=4, transplanted=0, rehearsed=0, adapt_steps=1)
    adapted = adaptation.adapt_segmenter(
        run, painter, twill, fabrics, tmp_path / "twill", settings=settings
    )
    assert adapted.config["images"]["defective"] == 4


def test_without_a_painter_all_are_transplanted(run, twill, fabrics, without_training, tmp_path):
    settings = replace(adaptation.adaptation_of_run(run), rehearsed=0, adapt_steps=1)
    adapted, again = (
        adaptation.adapt_segmenter(
            run, None, twill, fabrics, tmp_path / "twill", settings=settings, resume=resume
        )
        for resume in (False, True)
    )
    assert adapted.config["images"]["defective"] == settings.painted + settings.transplanted
    assert adapted.config["painter"] is None
    assert again.config == adapted.config


@pytest.mark.parametrize("count", [0, 5, 40])
def test_known_defects_are_replayed_beside_painted_ones(fabrics, count):
    """Each is one of the known with its own mask; none twice while there are enough."""
    painted = {"defective": np.full((3, 64, 64, 1), 2.0), "masks": np.ones((3, 64, 64, 1))}
    both = adaptation.with_replay(painted, fabrics, count, seed=1)
    np.testing.assert_array_equal(both["defective"][:3], painted["defective"])
    assert len(both["defective"]) == len(both["masks"]) == 3 + count
    known = {
        (image.tobytes(), mask.tobytes())
        for fabric in fabrics
        for image, mask in zip(fabric.images, fabric.masks, strict=True)
    }
    replayed = zip(both["defective"][3:].astype("float32"), both["masks"][3:], strict=True)
    found = {(image.tobytes(), mask.astype("uint8").tobytes()) for image, mask in replayed}
    assert found <= known
    assert len(found) == count or count > len(known)


def test_images_of_another_form_are_refused(run, painter, fabrics, tmp_path):
    colour = tfgad.load("weave:twill?size=64&channels=3&train=2&calibration=2&test=2")
    with pytest.raises(UsageError, match="channels=1"):
        adaptation.adapt_segmenter(run, painter, colour, fabrics, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"width": 8}, "setting 'width': is not one of adaptation"),
        ({"steps": "3"}, "adapt_steps"),
        ({"adapt_steps": "2x"}, r"give a number in \[1, 1000000000\]"),
        ({"batch_size": 1}, "at least 2"),
    ],
)
def test_settings_that_adaptation_does_not_have_are_refused(run, changed, fault):
    base = adaptation.adaptation_of_run(run)
    assert (base.batch_size, base.painted, base.adapt_steps) == (4, 8, 2)
    with pytest.raises(UsageError, match=fault):
        parse(AdaptationConfig, changed, of="adaptation", base=base)


def test_a_run_is_not_adapted_in_its_own_place(run, fabrics, twill):
    with pytest.raises(UsageError, match="another folder"):
        adaptation.adapt_segmenter(run, None, twill, fabrics, run.folder, overwrite=True)
    assert load_run(run.folder).config == run.config


def test_an_adaptation_is_resumed_with_the_same_run_and_painter_alone(
    run, painter, twill, fabrics, settings, adapted
):
    arguments = {"images": twill, "known": fabrics, "out": adapted.folder, "settings": settings}
    same = adaptation.adapt_segmenter(run, painter, **arguments, resume=True)
    assert same.config == adapted.config
    other = replace(painter, config=painter.config | {"seed": 7})
    with pytest.raises(UsageError, match="was started with painter_seed 0, not 7"):
        adaptation.adapt_segmenter(run, other, **arguments, resume=True)
    other = replace(run, config=run.config | {"seed": 7})
    with pytest.raises(UsageError, match="was started with base_seed 0, not 7"):
        adaptation.adapt_segmenter(other, painter, **arguments, resume=True)


def test_an_adaptation_of_an_older_version_is_resumed(
    run, painter, twill, fabrics, settings, adapted, tmp_path
):
    """Its settings, and those of its segmenter and painter, are strings."""
    folder = shutil.copytree(adapted.folder, tmp_path / "old")
    config = json.loads((folder / CONFIG).read_text())
    learnt = config.pop("learnt_from")
    config["settings"] |= {"steps": "2", "adapt_steps": "4"}
    config["base_settings"] |= {"steps": "2", "adapt_steps": "2"}
    (folder / CONFIG).write_text(json.dumps(config))
    arguments = {"settings": settings, "resume": True}
    same = adaptation.adapt_segmenter(run, painter, twill, fabrics, folder, **arguments)
    assert same.config["learnt_from"] == learnt


def test_a_segmenter_is_not_evaluated_on_what_its_painter_was_trained_on(run, painter, adapted):
    known = painter.config["data"]
    assert adapted.config["learnt_from"] == list(dict.fromkeys([*run.config["sources"], *known]))
    of_painter = replace(adapted, config=adapted.config | {"sources": [], "learnt_from": known})
    own = tfgad.load("weave:plain?size=64&train=6&calibration=4&test=2")
    with pytest.raises(UsageError, match="has test images that the model was trained on"):
        evaluation.evaluate(of_painter, own)


@pytest.fixture
def few_blocks(monkeypatch):
    """Makes each stack of ResNet-50 one block, an eighth as wide."""
    stack = resnet.stack_residual_blocks_v1

    def one_block(x, filters, blocks, **rest):
        return stack(x, filters // 8, 1, **rest)

    monkeypatch.setattr(resnet, "stack_residual_blocks_v1", one_block)


@pytest.mark.slow
def test_resnet50_is_trained_saved_and_adapted(tiny_segmenter, few_blocks, tmp_path):
    twill = tfgad.load("weave:twill?size=32&train=2&calibration=2&test=2")
    fabrics = [read_source(tfgad.load("weave:plain?size=32&train=2&calibration=2&test=12"))]
    settings = replace(tiny_segmenter, backbone="resnet50", steps=1, adapt_steps=1, batch_size=2)
    arguments = {"out": tmp_path / "base", "settings": settings, "backbone_weights": "random"}
    run = segmenter_training.train_segmenter(fabrics, **arguments)
    assert run.config["backbone_weights"] == "random"
    with pytest.raises(UsageError, match="was started with backbone_weights 'random'"):
        segmenter_training.train_segmenter(
            fabrics, **{**arguments, "backbone_weights": "imagenet"}, resume=True
        )
    adapted = adaptation.adapt_segmenter(run, None, twill, fabrics, tmp_path / "adapted")
    assert statistics_of(run.model)
    for old, now in zip(statistics_of(run.model), statistics_of(adapted.model), strict=True):
        np.testing.assert_array_equal(old, now)
    learnt = zip(run.model.get_weights(), adapted.model.get_weights(), strict=True)
    assert any((old != now).any() for old, now in learnt)
    assert np.isfinite(adapted.model.anomaly(fabrics[0].good[:1])["score"]).all()


@pytest.mark.slow
def test_lite0_is_trained_saved_and_adapted(tiny_segmenter, tmp_path):
    twill = tfgad.load("weave:twill?size=32&train=2&calibration=2&test=2")
    fabrics = [read_source(tfgad.load("weave:plain?size=32&train=2&calibration=2&test=12"))]
    settings = replace(tiny_segmenter, backbone="lite0", steps=1, adapt_steps=1, batch_size=2)
    run = segmenter_training.train_segmenter(
        fabrics, tmp_path / "base", settings=settings, backbone_weights="random"
    )
    assert run.config["backbone_weights_network"] == "EfficientNet-Lite0"
    adapted = adaptation.adapt_segmenter(run, None, twill, fabrics, tmp_path / "adapted")
    assert adapted.config["backbone_weights"] == "random"
    loaded = segmenter_training.load_segmenter(tmp_path / "adapted").model
    images = fabrics[0].good[:1]
    scores = [each.anomaly(images)["score"] for each in (adapted.model, loaded)]
    np.testing.assert_allclose(*scores, rtol=1e-4)
    old, new = (each.model.network.get_layer("stem_conv").kernel for each in (run, adapted))
    assert np.any(old != new)
