"""Scores that are the largest value of their map are known by name."""

import pytest

from tfgad.methods import METHODS
from tfgad.scores.score import PEAKS


@pytest.mark.parametrize(
    "method", ["ganomaly", "ganomaly_unet", "draem", "feature_regions", "wgan_gp"]
)
def test_the_names_of_peaks_are_those_of_the_scores(method, build_small):
    model = build_small(method)
    model.build()
    reconstructing = ("cues", "density") if METHODS[method].model.reconstructs else ()
    for score in (*model.scores, *model.tile_scores, *reconstructing):
        assert model.scored_by(score).is_peak == (score in PEAKS), score
