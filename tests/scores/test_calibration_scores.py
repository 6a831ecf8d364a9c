"""The quantiles of the calibration scores that a model's file stores."""

import keras
import numpy as np
import pytest

from tfgad.data.origins import Origins
from tfgad.scores import calibration
from tfgad.scores.drift import LEVELS

EARLIER = (4, 5)  # weights of the layer in files of earlier versions


def saved_layer(path, groups=None):
    inputs = keras.Input((), dtype="float32")
    model = keras.Model(inputs, calibration.Calibration()(inputs))
    origins = None if groups is None else Origins(np.arange(201) % groups)
    model.layers[-1].fit(np.arange(201.0), 0.05, origins)
    model.save(path)
    return keras.saving.load_model(path).layers[-1]


@pytest.mark.parametrize("groups", [None, 12])
def test_a_file_keeps_quantiles_and_numbers(tmp_path, groups):
    seen = saved_layer(tmp_path / "model.keras", groups).seen
    np.testing.assert_allclose(seen.quantiles, 200 * LEVELS, rtol=1e-6)
    assert (seen.images, seen.groups) == (201, groups)
    assert seen.independent == (groups or 201)


@pytest.mark.parametrize("stored", EARLIER)
def test_a_file_of_earlier_versions_loads_without_quantiles(tmp_path, monkeypatch, stored):
    def save_first_weights(layer, store):
        for index, weight in enumerate(layer.weights[:stored]):
            store[str(index)] = weight

    monkeypatch.setattr(calibration.Calibration, "save_own_variables", save_first_weights)
    layer = saved_layer(tmp_path / "model.keras")
    assert layer.is_calibrated
    assert float(layer.threshold) == 191.0  # rank ceil(202 * 0.95) = 192
    assert bool(layer.known_thresholds) == (stored == 5)
    assert layer.seen is None
    layer.fit(np.arange(10.0), 0.2)
    assert layer.seen.images == 10
