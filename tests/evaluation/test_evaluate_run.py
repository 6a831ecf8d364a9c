"""Test images that a model was trained on are refused."""

import pytest

from tfgad import files, training
from tfgad.errors import UsageError
from tfgad.evaluation import evaluate_run
from tfgad.training import run_folder
from tfgad.training.run_folder import RunFolder


@pytest.mark.parametrize("spec", ["weave:twill", "weave:twill?test=4", "weave:twill?seed=0"])
def test_test_images_that_were_trained_on_are_refused(tmp_path, spec):
    run = training.Run(tmp_path, {"learnt_from": ["weave:plain", "weave:twill?test=8"]}, None)
    with pytest.raises(UsageError, match="has test images that the model was trained on"):
        evaluate_run.check_untrained(run, spec)


@pytest.mark.parametrize("spec", ["weave:twill?seed=1", "weave:satin", "digits:8"])
def test_others_are_not(tmp_path, spec):
    run = training.Run(tmp_path, {"learnt_from": ["weave:plain", "weave:twill"]}, None)
    evaluate_run.check_untrained(run, spec)
    evaluate_run.check_untrained(training.Run(tmp_path, {}, None), spec)


@pytest.mark.parametrize("painter", [["weave:satin"], None])
def test_earlier_runs_say_it_by_other_keys(tmp_path, painter):
    config = {"method": "segmenter", "data": "weave:twill", "seed": 0, "settings": {}}
    config |= {"image_shape": [64, 64, 1], "resized": False}
    with_sources = config | {"sources": ["weave:twill"], "painter": painter}
    files.write_json(tmp_path / run_folder.CONFIG, with_sources)
    found = RunFolder(tmp_path).read_config()
    assert found["learnt_from"] == ["weave:twill", *(painter or ())]
    files.write_json(tmp_path / run_folder.CONFIG, config)
    assert "learnt_from" not in RunFolder(tmp_path).read_config()
