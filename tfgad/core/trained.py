"""Networks that are trained by `fit`: an optimizer per role, seeded noise, a step that is saved."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfgad.core.optimizers import one_per_role
from tfgad.data.replicas import own_part
from tfgad.errors import UsageError

Logs = dict[str, tf.Tensor]


class Trained(keras.Model):
    """A model whose networks are trained together, or against each other.

    A subclass makes its networks in the constructor, as attributes, and states

    - `optimizers()`: one optimizer per role, by name. A role trains the network of its own name;
      where it trains others or several, `networks_of` says which;
    - `train_step(images)`: one step, which updates each role by `minimize`;
    - `stages`: the names of its trainings, one after another; `stage` is the present one;
    - `takes_xla`: False if XLA has no kernel for something in `train_step`.

    `train_step` gets what `checked_batch` returns, and a step is counted when it returns; a nested
    model, such as the GAN of f-AnoGAN, counts its own. Random numbers depend on the seed and the
    step, and both are saved, so that a resumed training draws what an uninterrupted one would have
    drawn.

    Args:
        seed: of all randomness in training.
        name: of the model.
    """

    stages: tuple[str, ...] = ("train",)
    takes_xla: ClassVar[bool] = True
    roles: tuple[str, ...] = ()  # those that have an optimizer: none before `compile`

    def __init__(self, *, seed: int = 0, name: str | None = None):
        super().__init__(name=name, dtype="float32")
        self.seed, self.stage = seed, self.stages[0]
        self.step = self.add_weight((), "zeros", dtype="int64", trainable=False, name="step")

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "train_step" in vars(cls):
            cls.train_step = _counted(cls.train_step)

    def optimizers(self) -> dict[str, keras.Optimizer]:
        """Returns a new optimizer for each role."""
        raise NotImplementedError

    def networks_of(self, role: str) -> list[keras.Model]:
        """Returns the networks that the optimizer of a role trains."""
        return [getattr(self, role)]

    def compile(
        self, optimizers: Mapping[str, keras.Optimizer | str] | None = None, **kwargs: Any
    ) -> None:
        """Gives each role its optimizer.

        XLA makes convolutional training 2 to 7 times slower on a CPU: it is left to accelerators.

        Args:
            optimizers: by role, or their names in Keras; those of `optimizers()` if not given.
            **kwargs: what `keras.Model.compile` takes, such as `steps_per_execution`.

        Raises:
            UsageError: not exactly one optimizer for each role, or one for several roles.
        """
        self.build()
        own = self.optimizers()
        given = kwargs.get("optimizer", own if optimizers is None else optimizers)
        if not isinstance(given, Mapping) or "optimizer" in kwargs:
            hint = f"give one per role: {', '.join(own)}"
            raise UsageError("optimizers", given, "is no dict of optimizers", hint)
        optimizers = one_per_role(given, tuple(own))
        first = next(iter(optimizers.values()))  # without one Keras would make another that idles
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        kwargs.setdefault("jit_compile", has_gpu and self.takes_xla)
        super().compile(optimizer=first, **kwargs)
        self.assign_optimizers(optimizers)

    def assign_optimizers(self, optimizers: dict[str, keras.Optimizer]) -> None:
        """Takes the optimizers by role, as `compile` does, without the rest of it."""
        self.roles = tuple(optimizers)
        for role, optimizer in optimizers.items():
            setattr(self, f"{role}_optimizer", optimizer)  # the name that files of a run have
            optimizer.build(self.weights_of(role))

    def checked_batch(self, data: Any) -> Any:
        """Returns what `train_step` takes of what `fit` hands on."""
        return data

    def test_step(self, data: Any) -> Logs:
        """Refuses: training losses of images that were held out say nothing of the scores."""
        hint = "use `predict`, and `tfgad.evaluation`"
        raise UsageError("validation data", self.name, "has no loss on held-out images", hint)

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the constructor has made the networks."""
        self.built = True

    @property
    def optimizer_by_role(self) -> dict[str, keras.Optimizer]:
        """The optimizers of the compiled model; none before `compile`."""
        return {role: getattr(self, f"{role}_optimizer") for role in self.roles}

    def get_compile_config(self) -> dict[str, Any] | None:
        """Returns optimizers and stage, so that a loaded model goes on as the saved one would.

        None before `compile`: such a model is not compiled when it is loaded, either.
        """
        if not self.roles:
            return None
        optimizers = {
            role: keras.saving.serialize_keras_object(optimizer)
            for role, optimizer in self.optimizer_by_role.items()
        }
        return {"optimizers": optimizers, "stage": self.stage}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with the optimizers, and in the stage, that `get_compile_config` returned."""
        optimizers = config.get("optimizers", config)  # older files hold them alone
        self.compile(keras.saving.deserialize_keras_object(optimizers))
        self.stage = config.get("stage", self.stage)

    @property
    def steps_done(self) -> int:
        """The step, as a number: `int(step)` fails where the variable has a copy per replica."""
        return int(self.step.numpy())

    def weights_of(self, role: str) -> list[keras.Variable]:
        """Returns the trainable weights that the optimizer of a role updates."""
        return [weight for each in self.networks_of(role) for weight in each.trainable_weights]

    def minimize(self, role: str, loss: tf.Tensor, tape: tf.GradientTape) -> None:
        """Updates the weights of a role down the gradient of a loss that the tape has recorded.

        The loss is a mean over this replica's part of the batch. `apply` sums over replicas.
        """
        weights = self.weights_of(role)
        gradients = tape.gradient(loss, weights)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            gradients = [tf.math.scalar_mul(1 / replicas, gradient) for gradient in gradients]
        getattr(self, f"{role}_optimizer").apply(gradients, weights)

    def random_normal(self, shape: Any, purpose: str) -> tf.Tensor:
        """Returns standard normal numbers `shape`, others for each purpose, step and seed."""
        return own_part(tf.random.stateless_normal, shape, self.seed_of(purpose))

    def random_uniform(self, shape: Any, purpose: str) -> tf.Tensor:
        """Returns uniform numbers in [0, 1), others for each purpose, step and seed."""
        return own_part(tf.random.stateless_uniform, shape, self.seed_of(purpose))

    def seed_of(self, purpose: str) -> tf.Tensor:
        """Returns the seed of random numbers, int64 `[2]`, another for each purpose and step."""
        own = tf.constant(((self.seed % 2**31) << 32) + zlib.crc32(purpose.encode()), tf.int64)
        return tf.stack([own, tf.cast(self.step, tf.int64)])

    def prepare(self) -> None:
        """Loads what training needs apart from images; called at the start of each `fit`.

        Neither scoring nor loading calls it. It may be called several times, and raises UsageError
        if something is missing or unsuitable. By default there is nothing to load.
        """

    def make_train_function(self, force: bool = False) -> Any:
        """Calls `prepare`, and makes the function that `fit` calls for each batch."""
        self.prepare()
        return super().make_train_function(force)

    def begin(self, stage: str) -> None:
        """Starts one of `stages`: the next `fit` trains it."""
        self.stage = stage
        self.make_train_function(force=True)

    # Saving: a file holds the networks as they were, and not only what they are made from, so that
    # it still loads when the code that makes networks has changed.

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the model as Keras does, to a `.keras` file.

        Raises:
            UsageError: an HDF5 file: Keras finds no class of another package when it loads one.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            problem = "an HDF5 file could not be loaded again"
            raise UsageError("file", filepath, problem, "give a name such as model.keras")
        super().save(filepath, *args, **kwargs)

    def networks(self) -> dict[str, keras.Model]:
        """Returns the networks by the names of their attributes."""
        return {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, keras.Model) and not isinstance(value, Trained)
        }

    def get_config(self) -> dict[str, Any]:
        """Returns seed and name; a subclass adds its own constructor's arguments.

        Under `networks` it may add networks that the constructor makes, by their names: they are
        taken from there when a file is loaded.
        """
        return {"seed": self.seed, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Trained:
        """Makes the model that `get_config` described, with networks of first weights."""
        if "networks" in config:  # objects, as `get_config` gives them, would be shared
            networks = {
                name: keras.saving.serialize_keras_object(network)
                if isinstance(network, keras.Model)
                else network
                for name, network in config["networks"].items()
            }
            config = {**config, "networks": networks}
        config = keras.saving.deserialize_keras_object(config, custom_objects)
        config = cls.arguments(config)
        with _networks_of_file(config.pop("networks", {})):
            return cls(**config)

    @classmethod
    def arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the constructor's arguments and `networks` from what a file holds."""
        return config

    def __setattr__(self, name: str, value: Any) -> None:
        """Takes a network of the file that is being loaded in place of a new one of its name."""
        if isinstance(value, keras.Model) and not isinstance(value, Trained):
            value = _loading.get().get(name, value)
        super().__setattr__(name, value)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads the step. Older files hold none of a nested model."""
        if len(store.keys()):
            super().load_own_variables(store)


_loading: contextvars.ContextVar[Mapping[str, keras.Model]] = contextvars.ContextVar(
    "networks of the file that is being loaded", default=types.MappingProxyType({})
)


@contextlib.contextmanager
def _networks_of_file(networks: dict[str, keras.Model]) -> Iterator[None]:
    token = _loading.set(networks)
    try:
        yield
    finally:
        _loading.reset(token)


def _counted(train_step: Callable[[Any, Any], Logs]) -> Callable[[Any, Any], Logs]:
    """Wraps a `train_step`: the batch is checked before it, and counted as a step after it."""

    @functools.wraps(train_step)
    def counted(self: Trained, data: Any) -> Logs:
        if type(self).train_step is not counted:  # called as `super().train_step`
            return train_step(self, data)
        logs = train_step(self, self.checked_batch(data))
        # Else an iterator that has no further batch would count one.
        with tf.control_dependencies([tf.convert_to_tensor(value) for value in logs.values()]):
            self.step.assign_add(1)
        return logs

    return counted
