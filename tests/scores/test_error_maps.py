"""Error maps of reconstructions."""

import numpy as np
import tensorflow as tf

from tfgad.scores.error_maps import feature_errors, mean_of_map, over_window


def test_feature_errors_are_enlarged_to_any_window():
    rng = np.random.default_rng(0)
    f_x, f_y = (tf.constant(rng.normal(size=(2, 8, 9, 4)), tf.float32) for _ in range(2))
    error = feature_errors([f_x], [f_y], (30, 33, 1))["features_0"].numpy()
    expected = np.square(f_x - f_y).mean(axis=-1)
    assert error.shape == (2, 30, 33)
    for row, column in ((0, 0), (13, 20), (29, 32)):
        place = expected[:, row * 8 // 30, column * 9 // 33]
        np.testing.assert_allclose(error[:, row, column], place, rtol=1e-6)


def test_mean_of_a_value_spread_over_the_window_is_the_value():
    values = tf.constant([1.0, -2.0])
    np.testing.assert_allclose(mean_of_map(over_window(values, (3, 5, 1))), values)
