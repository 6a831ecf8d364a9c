"""Batch normalisation and Adam by fused operations, and layers and optimizers that differ.

In Keras these two are chains of elementary operations, which cost more on a CPU than the
convolutions around them. The subclasses here compute the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfgad.data.replicas import own_part


@keras.saving.register_keras_serializable("tfgad")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation over the last axis of `[B, H, W, C]` or `[B, C]`, fused.

    In inference the statistics are constants and the layer is an affine map, as in Keras. As one
    operation, TensorFlow fuses it into the convolution before it: tiles of 128x128 pixels are
    scored by GANomaly and its U-Net in 0.95 of the time. A replica normalises by its own part of
    the batch; the moving averages are averaged over the replicas.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the normalised inputs; with `training=True` also updates the moving averages."""
        is_fused = mask is None and self.scale and self.center and len(inputs.shape) in (2, 4)
        if not is_fused:
            return super().call(inputs, training=training, mask=mask)
        if len(inputs.shape) == 2:
            return self.call(inputs[:, None, None], training=training)[:, 0, 0]
        weights = [tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta)]
        if not (training and self.trainable):
            weights += [tf.cast(w, tf.float32) for w in (self.moving_mean, self.moving_variance)]
            outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
                inputs, *weights, epsilon=self.epsilon, is_training=False
            )
            return outputs
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, *weights, epsilon=self.epsilon, is_training=True
        )
        # The operation returns the unbiased variance, Keras averages the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        biased = variance * (count - 1.0) / count
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            mean, biased = replica.all_reduce("mean", [mean, biased])
        self.moving_mean.assign(self._moved(self.moving_mean, mean))
        self.moving_variance.assign(self._moved(self.moving_variance, biased))
        return outputs

    def _moved(self, average: tf.Tensor, batch_statistic: tf.Tensor) -> tf.Tensor:
        return average * self.momentum + batch_statistic * (1.0 - self.momentum)


@keras.saving.register_keras_serializable("tfgad")
class Adam(keras.optimizers.Adam):
    """Keras's Adam (Kingma and Ba 2015, algorithm 1) with one fused operation per variable."""

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable by its gradient, in place."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


@keras.saving.register_keras_serializable("tfgad")
class RMSprop(keras.optimizers.RMSprop):
    """Keras's RMSprop, but the average of squared gradients starts at 1, as in TensorFlow 1.

    The first steps of `tf.train.RMSPropOptimizer` are therefore about `learning_rate` times the
    gradient. Keras's are `learning_rate / sqrt(1 - rho)`, however small the gradient.
    """

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the averages."""
        if not self.built:
            super().build(variables)
            for average in self._velocities:
                average.assign(keras.ops.ones_like(average))


@keras.saving.register_keras_serializable("tfgad")
class Dropout(keras.layers.Dropout):
    """Keras's dropout; the state of its random numbers is saved, so that runs resume exactly.

    Under `tf.distribute` the mask is drawn for the whole batch, and each replica takes its part.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the inputs; with `training=True` some are 0 and the others scaled."""
        if not training or self.rate == 0 or self.noise_shape is not None:
            return super().call(inputs, training=training)
        seed = tf.cast(self.seed_generator.next(), tf.int64)
        numbers = own_part(tf.random.stateless_uniform, tf.shape(inputs), seed)
        return tf.where(numbers < self.rate, tf.zeros_like(inputs), inputs / (1.0 - self.rate))

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Saves the state of the seed generator, which Keras does not."""
        if self.rate > 0:  # otherwise there is no seed generator
            store["seed_state"] = self.seed_generator.state

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the state of the seed generator."""
        if self.rate > 0:
            self.seed_generator.state.assign(store["seed_state"])


@keras.saving.register_keras_serializable("tfgad")
class Clip(keras.constraints.Constraint):
    """Constraint that clips weights to [-bound, bound]; critics in WGAN files of before have it.

    Args:
        bound: c of the algorithm, above 0.
    """

    def __init__(self, bound: float = 0.01):
        self.bound = bound

    def __call__(self, weight: tf.Tensor) -> tf.Tensor:
        """Returns the clipped weight."""
        return keras.ops.clip(weight, -self.bound, self.bound)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"bound": self.bound}
