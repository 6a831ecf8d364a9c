"""Scores that are the largest value of their map are known by name."""

import pytest

from tfgad.methods import METHODS
from tfgad.scores.score import BY_PLACE, PEAKS


@pytest.mark.parametrize(
    "method", ["ganomaly", "ganomaly_unet", "draem", "feature_regions", "wgan_gp"]
)
def test_the_names_of_peaks_are_those_of_the_scores(method, build_small):
    model = build_small(method)
    model.build()
    reconstructing = ("cues", "density") if METHODS[method].model.reconstructs else ()
    for score in (*model.scores, *model.tile_scores, *reconstructing):
        if score not in BY_PLACE:  # a model has their statistics if it is built with one of them
            assert model.scored_by(score).is_peak == (score in PEAKS), score


def test_the_scores_by_place_are_peaks(build_small):
    model = build_small("ganomaly_unet", score="joint_places")
    model.build()
    assert set(BY_PLACE) <= set(PEAKS) & set(model.score_names)
    assert all(model.scored_by(score).is_peak for score in BY_PLACE)
