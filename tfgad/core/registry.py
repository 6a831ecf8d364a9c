"""The methods by name: what `@register` knows of each, and how a model is made from settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad import processor
from tfgad.core import settings
from tfgad.core.detector import Detector
from tfgad.core.settings import Common
from tfgad.errors import UsageError, nearest
from tfgad.networks.convolutional import check_image
from tfgad.networks.precision import AUTO, POLICIES
from tfgad.scores.cue_weights import SETTING


@dataclasses.dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: in commands.
        help: one line.
        model: its class.
        configs: its configurations by name: `default`, `paper` if it has one, and others.
    """

    name: str
    help: str
    model: type[Detector]
    configs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings(Mapping[str, Any]):
    """All settings of a model by name: those of its method, and those that every method has.

    Attributes:
        method: its name.
        config: the method's own settings, a `Config` of its module.
        common: those of every method; where the method has one of them, its own counts.
    """

    method: str
    config: Any
    common: Common

    def __getitem__(self, name: str) -> Any:
        """Returns a setting."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self._values)

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._values)

    @property
    def _values(self) -> dict[str, Any]:
        return {**vars(self.common), **vars(self.config)}

    def as_dict(self) -> dict[str, Any]:
        """Returns all by name, as JSON types."""
        return {**settings.as_dict(self.common), **settings.as_dict(self.config)}


METHODS: dict[str, Method] = {}


def register(
    name: str, help: str, config: type, paper: Any = None, **others: Any
) -> Callable[[type[Detector]], type[Detector]]:
    """Registers a method: `@register("lsgan", "GAN with a least-squares critic", Config, PAPER)`.

    Its model can then be built by name, trained, saved and exported. `NAME/paper` is the method
    with the configuration `paper`.

    Args:
        name: of the method.
        help: one line, printed by `tfgad list`.
        config: the dataclass of its settings; its defaults are those of the method.
        paper: the published configuration; None of a method that no paper describes.
        **others: further configurations, by name.

    Raises:
        UsageError: another class has the name.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UsageError("method", name, "is no name", "use a to z, 0 to 9 and _")
    fields = getattr(config, "__pydantic_fields__", {})
    for needed in ("batch_size", "steps"):
        if needed not in fields:
            hint = "use pydantic.dataclasses.dataclass, with batch_size and steps"
            raise UsageError("method", name, f"has no setting {needed}", hint)

    def registered(model: type[Detector]) -> type[Detector]:
        other = METHODS.get(name)
        if other and (other.model.__module__, other.model.__name__) != (
            model.__module__,
            model.__name__,
        ):
            problem = f"is a method of {other.model.__module__}"
            raise UsageError("method", name, problem, "give another name")
        for each in METHODS.values():
            if each.name != name and each.model.__name__ == model.__name__:
                problem = f"is the class of {each.name}, by which its files are loaded"
                raise UsageError("class", model.__name__, problem, "give another name")
        model.Config = config
        others_too = others if paper is None else {"paper": paper, **others}
        configs = {"default": config(), **others_too}
        METHODS[name] = Method(name, help, model, configs)
        return keras.saving.register_keras_serializable("tfgad")(model)

    return registered


def names() -> list[str]:
    """Returns all that a model can be built by: `ganomaly`, `ganomaly/paper`, ..."""
    return [
        method.name if config == "default" else f"{method.name}/{config}"
        for method in METHODS.values()
        for config in method.configs
    ]


def method_of(name: str) -> tuple[Method, Any]:
    """Returns a method and one of its configurations: of `ganomaly/paper` the published one.

    Raises:
        UsageError: there is no such method or configuration.
    """
    if name not in names():
        raise UsageError("method", name, "is not known", nearest(name, names()))
    base, _, config = name.partition("/")
    return METHODS[base], METHODS[base].configs[config or "default"]


def settings_of(name: str, given: Mapping[str, Any] | None = None) -> Settings:
    """Returns the settings of a method, some of them given.

    Args:
        name: of the method, such as `ganomaly` or `ganomaly/paper`.
        given: settings by name; strings are converted.

    Raises:
        UsageError: an unknown method or setting, or a value of another type or out of its range.
    """
    _, config = method_of(name)
    own = {field.name for field in dataclasses.fields(config)}
    common = {field.name for field in dataclasses.fields(Common)} - own
    given = dict(given or {})
    for each in given:
        if each not in own | common:
            hint = nearest(each, own | common)
            raise UsageError("setting", each, f"is not one of {name}", hint)
    of_method = {each: value for each, value in given.items() if each in own}
    of_common = {each: value for each, value in given.items() if each in common}
    return Settings(
        name,
        settings.parse(type(config), of_method, name, config),
        settings.parse(Common, of_common, name),
    )


def build(
    method: str,
    image_shape: tuple[int, int, int],
    seed: int = 0,
    *,
    ignored: np.ndarray | None = None,
    products: Sequence[str] = (),
    **given: Any,
) -> Detector:
    """Makes a compiled model for images of a shape: `tfgad.build("fanogan", (32, 32, 1))`.

    The networks' first weights follow the seed, as `keras.utils.set_random_seed` sets it.

    Args:
        method: its name, such as `ganomaly` or `ganomaly/paper`.
        image_shape: `(height, width, channels)` of the images to score.
        seed: of weights and training.
        ignored: bool `[height, width]`, the pixels that are ignored on every image; see `Detector`.
        products: names of the products, if it is one model for several.
        **given: settings other than the method's defaults. `steps`, `batch_size` and `jitter` are
            those of a run, and have no effect here.

    Raises:
        UsageError: an unknown method or setting, images that the networks do not take, or products
            that are not two or more names. Or
            bfloat16 where oneDNN is kept from it (`tfgad.processor.check_bfloat16`).
    """
    parsed = settings_of(method, given)
    check_image(image_shape)
    height, width, channels = image_shape
    side = parsed["window"] or max(height, width)
    window = (min(side, height), min(side, width), channels)
    registered, default = method_of(method)
    stride = parsed["stride"]
    asked_for = stride != getattr(default, "stride", Common().stride)
    if asked_for and any(side % stride for side in window[:2]):
        hint = f"give a divisor of {window[0]} and {window[1]}"
        raise UsageError("stride", stride, "does not divide the window", hint)
    keras.utils.set_random_seed(seed)
    policy = _policy(parsed["precision"])
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = registered.model(
            parsed.config,
            window,
            name=method.replace("/", "_"),
            seed=seed,
            score=parsed["score"],
            stride=stride,
            tile=(height, width),
            ignored=ignored,
            products=products,
            cue_weights=parsed[SETTING],
        )
        model.term_weights()  # a wrong name is found before anything is trained
        model.compile()
    finally:
        keras.config.set_dtype_policy(before)
    return model


def native_precision() -> str:
    """Returns what `precision=auto` stands for here: bfloat16 where the processor has it.

    On GPUs, where nothing has been measured, it is float32.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return "bfloat16" if not on_gpu and processor.has_bfloat16() else "float32"


def _policy(precision: str) -> str:
    """Returns the name of the networks' policy; logs where the processor is slow at it."""
    if precision == AUTO:
        precision = native_precision()
    if precision == "bfloat16" and not tf.config.list_physical_devices("GPU"):
        processor.check_bfloat16()
    return POLICIES[precision]
