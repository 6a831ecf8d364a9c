"""What every trained model has: networks by name, an optimizer for each role, a step, a seed."""

from typing import ClassVar

import keras
import tensorflow as tf


class Trained(keras.Model):
    """Networks that are trained by `fit`, some of them against each other.

    A model derives from it and states

    - `roles`: its optimizers, each with the names of the networks it trains;
    - `fixed`: the names of networks that it only uses;
    - `stages`: the names of its trainings, one after another;
    - `train_step(batch)`: one step, which adds 1 to `step`.

    Args:
        seed: of all randomness in training, so that a run can be repeated.
        **networks: the networks that `roles` and `fixed` name.
    """

    roles: ClassVar[dict[str, tuple[str, ...]]]
    fixed: ClassVar[tuple[str, ...]] = ()
    stages: ClassVar[tuple[str, ...]] = ("train",)

    def __init__(self, *, seed=0, name=None, **networks: keras.Model):
        super().__init__(name=name)
        trained = [network for names in self.roles.values() for network in names]
        self._network_names = [*trained, *self.fixed]
        for network in self._network_names:
            setattr(self, network, networks.pop(network))
        if networks:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(networks)}")
        self.seed, self.stage = seed, self.stages[0]
        self.step = self.add_weight((), "zeros", dtype="int64", trainable=False, name="step")

    def get_config(self):
        """Returns the constructor's arguments; a model adds its own."""
        networks = {network: getattr(self, network) for network in self._network_names}
        return {"name": self.name, **networks, "seed": self.seed}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the model that `get_config` described."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def compile(self, **optimizers: keras.Optimizer) -> None:
        """Takes one optimizer for each of `roles`, by name.

        XLA makes convolutional training slower on a CPU, so it is left to accelerators.
        """
        first, *_ = self.roles
        on_accelerator = bool(tf.config.list_physical_devices("GPU"))
        # The first is Keras's own `optimizer`: without one Keras would make another that idles.
        super().compile(optimizer=optimizers[first], jit_compile=on_accelerator)
        self.optimizers = {role: optimizers[role] for role in self.roles}
        for role, optimizer in self.optimizers.items():
            setattr(self, f"{role}_optimizer", optimizer)  # tracked, so that it is saved
            optimizer.build(self.weights_of(role))

    def get_compile_config(self):
        """Returns the optimizers, so that a loaded model goes on as the saved one would."""
        return {
            role: keras.saving.serialize_keras_object(optimizer)
            for role, optimizer in self.optimizers.items()
        }

    def compile_from_config(self, config):
        """Compiles with the optimizers that `get_compile_config` returned."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    @property
    def steps_done(self) -> int:
        """The step, as a number: `int(step)` fails where the variable has a copy a replica."""
        return int(self.step.numpy())

    def weights_of(self, role: str) -> list[keras.Variable]:
        """Returns the trainable weights that the optimizer of a role moves."""
        networks = [getattr(self, network) for network in self.roles[role]]
        return [weight for network in networks for weight in network.trainable_weights]

    def minimize(self, role: str, tape: tf.GradientTape, loss) -> None:
        """Moves the weights of a role down the gradient of a loss that the tape has seen.

        The loss is a mean over this replica's part of the batch. `apply` sums over replicas.
        """
        weights = self.weights_of(role)
        gradients = tape.gradient(loss, weights)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            gradients = [tf.math.scalar_mul(1 / replicas, gradient) for gradient in gradients]
        self.optimizers[role].apply(gradients, weights)

    def noise(self, shape, use: int, uniform: bool = False):
        """Random numbers that depend on the seed, the step and the use alone.

        So a resumed run draws what an uninterrupted one would have drawn, and replicas draw for
        the whole batch and take their part. Standard normal, or uniform in [0, 1).
        """
        draw = tf.random.stateless_uniform if uniform else tf.random.stateless_normal
        own = tf.constant(self.seed * 1000 + use, tf.int64)
        seed = tf.stack([own, tf.cast(self.step, tf.int64)])
        replica = tf.distribute.get_replica_context()
        if replica.num_replicas_in_sync == 1:
            return draw(shape, seed=seed)
        size = shape[0]
        whole = tf.concat([[replica.num_replicas_in_sync * size], shape[1:]], axis=0)
        begin = replica.replica_id_in_sync_group * size
        return draw(whole, seed=seed)[begin : begin + size]

    def begin(self, stage: str) -> None:
        """Turns to one of `stages`: the next `fit` trains what belongs to it."""
        self.stage = stage
        self.make_train_function(force=True)
