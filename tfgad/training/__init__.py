"""Training: the folder of a run, its configuration, the loop, `tf.distribute`."""

from tfgad.training.default_method import choose_method
from tfgad.training.loop import train
from tfgad.training.run import Run, calibrate, load_run
from tfgad.training.saving import load_model, save_model

__all__ = ["Run", "calibrate", "choose_method", "load_model", "load_run", "save_model", "train"]
