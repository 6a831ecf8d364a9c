"""The stages of a training one after another, each fitted from where its checkpoint is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tfgad.core.trained import Trained
from tfgad.errors import UsageError, first_line
from tfgad.training.callbacks import Checkpoint, StopIfDiverged, write_checkpoint
from tfgad.training.distribution import Cluster

logger = logging.getLogger(__name__)

# Name of a stage and its number of remaining steps -> Keras callbacks.
Callbacks = Callable[[str, int], Sequence[keras.callbacks.Callback]]


def no_callbacks(stage: str, steps: int) -> Sequence[keras.callbacks.Callback]:
    """Returns no Keras callbacks, for any stage."""
    return ()


def fit_stages(
    model: Trained,
    steps: Mapping[str, int],
    batches: Callable[[int], tf.data.Dataset],
    checkpoint: Path,
    callbacks: Callbacks,
    cluster: Cluster | None = None,
) -> None:
    """Fits a model stage by stage, from its checkpoint if there is one.

    Args:
        model: compiled.
        steps: number of steps of each of its stages, in their order.
        batches: number of the first batch -> endless batches, the same on each call.
        checkpoint: file of weights, optimizers and step during training.
        callbacks: name of a stage and its number of remaining steps -> Keras callbacks.
            Ctrl-C saves a checkpoint of the last step.
        cluster: the workers that train the model, which was made in the scope of their strategy; by
            default this process alone.
    """
    cluster = cluster or Cluster()
    if checkpoint.is_file():
        try:
            model.load_weights(checkpoint)
        except (ValueError, KeyError, OSError) as error:
            problem = f"does not fit the model ({first_line(error)})"
            hint = "continue with the version of tfgad that wrote it, or give --overwrite"
            raise UsageError("checkpoint", checkpoint, problem, hint) from error
        logger.info("continuing at step %d", model.steps_done)
    cluster.check_same_step(model.steps_done)
    model, first_step = cluster.prepared(model), 0
    for stage, count in steps.items():
        done = max(model.steps_done - first_step, 0)
        first_step += count
        if done >= count:
            continue
        model.begin(stage)
        remaining_steps = count - done
        saving = [Checkpoint(checkpoint)] if cluster.is_chief else []
        try:
            model.fit(
                batches(done),
                steps_per_epoch=remaining_steps,
                callbacks=[StopIfDiverged(), *saving, *callbacks(stage, remaining_steps)],
                shuffle=False,
                verbose=0,
            )
        except KeyboardInterrupt:  # it comes between two steps: a step is one call of a graph
            if cluster.is_chief:
                write_checkpoint(model, checkpoint)
                logger.info("saved at step %d", model.steps_done)
            raise


def stage_steps(steps: str | int, stages: Sequence[str]) -> dict[str, int]:
    """Returns the training steps of each stage: `"600+1500"` gives the GAN 600, the encoder 1500.

    Raises:
        UsageError: not one positive number per stage.
    """
    numbers = [int(part) if part.isdecimal() else 0 for part in str(steps).split("+")]
    if len(numbers) != len(stages) or min(numbers) < 1:
        hint = f"give a positive number for each stage ({', '.join(stages)}), with + between"
        raise UsageError("steps", steps, "does not fit the method", hint)
    return dict(zip(stages, numbers, strict=True))


def is_longer(steps: str | int, than: str | int) -> bool:
    """Returns whether steps by stage are those of another training, with more in the last stage."""
    *first, last = str(steps).split("+")
    *others, old = str(than).split("+")
    both_are_numbers = last.isdecimal() and old.isdecimal()
    return first == others and both_are_numbers and int(last) > int(old)
