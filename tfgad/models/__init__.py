"""One method a file: a keras.Model with `train_step` and `errors`."""
