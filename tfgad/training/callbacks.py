"""Keras callbacks of a run: checkpoints, logs with pictures, a stop when training diverges."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tfgad import files, plots
from tfgad.data.anomaly_data import AnomalyData
from tfgad.errors import UsageError

CHECKPOINT_STEPS = 100  # 5 to 20 s of training on two cores; writing one takes 0.1 s
SCALAR_STEPS = 20
PICTURE_STEPS = 500
PICTURES = 8

Logs = dict[str, float] | None


class StopIfDiverged(keras.callbacks.Callback):
    """Stops a training whose loss is NaN or infinite, before it is saved."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Raises UsageError if a loss is NaN or infinite."""
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                problem = f"became {value} at step {self.model.steps_done}"
                raise UsageError("loss", name, problem, "lower learning_rate (--set)")


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizers and step every `CHECKPOINT_STEPS` and at the end of a stage.

    Args:
        path: a file that ends in `.weights.h5`; it is replaced whole.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Saves every `CHECKPOINT_STEPS`."""
        if self.model.steps_done % CHECKPOINT_STEPS == 0:
            self._save()

    def on_train_end(self, logs: Logs = None) -> None:
        """Saves the last step of a stage."""
        self._save()

    def _save(self) -> None:
        write_checkpoint(self.model, self.path)


def write_checkpoint(model: keras.Model, path: Path) -> None:
    """Writes weights, optimizers and step to a file that ends in `.weights.h5`, whole or not."""
    content = _InMemory(path)
    model.save_weights(content, overwrite=True)
    files.write_bytes(path, content.getvalue())


class _InMemory(io.BytesIO):
    """Stands in for the file that Keras writes: on a full disk HDF5 would end the process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __str__(self) -> str:
        return str(self.path)  # Keras reads the format from the name


class Log(keras.callbacks.Callback):
    """Writes losses, samples and reconstructions for TensorBoard, and the pictures as PNG too.

    Args:
        folder: of the run.
        images: its data; held-out normal images are reconstructed.
    """

    def __init__(self, folder: Path, images: AnomalyData) -> None:
        super().__init__()
        self.folder = folder
        self.normals = np.stack(list(images.calibration.take(PICTURES).as_numpy_iterator()))
        self.writer = tf.summary.create_file_writer(str(folder / "logs"))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Writes losses every `SCALAR_STEPS` and pictures every `PICTURE_STEPS`."""
        step = self.model.steps_done
        if step % SCALAR_STEPS == 0:
            with self._written(), self.writer.as_default(step):
                for name, value in (logs or {}).items():
                    tf.summary.scalar(f"loss/{name}", value)
        if step % PICTURE_STEPS == 0:
            self._draw(step)

    def on_train_end(self, logs: Logs = None) -> None:
        """Writes the pictures of the last step of a stage."""
        self._draw(self.model.steps_done)
        with self._written():
            self.writer.flush()

    def _draw(self, step: int) -> None:
        for name, figure in self._figures().items():
            content = plots.png(figure)
            files.write_bytes(self.folder / "previews" / f"{name}-{step:06d}.png", content)
            with self._written(), self.writer.as_default(step):
                tf.summary.image(name, tf.image.decode_png(content, channels=3)[None])

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Turns TensorFlow's errors into a UsageError where the logs cannot be written."""
        try:
            yield
        except tf.errors.OpError as error:
            raise files.unwritable("output", self.folder / "logs", error) from error

    def _figures(self) -> dict[str, Figure]:
        figures = {}
        if hasattr(self.model, "sample"):
            figures["samples"] = plots.samples(self.model.sample(2 * PICTURES).numpy())
        if self.model.reconstructs and self.model.stage == self.model.stages[-1]:
            reconstructed = self.model.reconstruct(self.normals).numpy()
            residuals = np.abs(self.normals - reconstructed).mean(axis=-1)
            figures["reconstructions"] = plots.reconstructions(
                self.normals, reconstructed, residuals
            )
        return figures
