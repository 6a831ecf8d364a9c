"""Models saved before methods had a `Config`: their networks and a few numbers, side by side."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tfgad.core import settings

ARGUMENTS = ("name", "seed", "score", "stride", "tile")  # of the constructor, then as now
SEARCH = {"steps": "search_steps", "learning_rate": "search_rate"}  # options under other names


def with_config(saved: dict[str, Any], config: type) -> dict[str, Any]:
    """Returns what a file of today would hold, from what an earlier one holds.

    Settings that the file does not name, such as the learning rates, get their defaults: optimizers
    are saved apart, and the networks are kept as they are.

    Args:
        saved: the file's configuration, its networks deserialized.
        config: the dataclass of the method's settings.
    """
    networks = {name: each for name, each in saved.items() if isinstance(each, keras.Model)}
    shapes = [network.input_shape for network in networks.values()]
    image_shape = next(shape[1:] for shape in shapes if len(shape) == 4)
    if config.__module__.endswith(".gan"):  # DCGAN was the same class; its critic returned features
        critic = networks["critic"]
        networks["critic"] = keras.Model(critic.input, critic.output["logit"], name="critic")
    known = {field.name for field in dataclasses.fields(config)}
    search = {SEARCH.get(name, name): value for name, value in saved.get("search", {}).items()}
    given = {name: value for name, value in {**saved, **search}.items() if name in known}
    generator = networks.get("generator") or networks.get("decoder")
    if generator is not None and "latent_dim" in known:
        given["latent_dim"] = generator.inputs[0].shape[-1]
    if "start" in known:
        given["start"] = "encoder" if "encoder" in networks else "pool"
    if "classes" in known:
        given["classes"] = networks["critic"].output["logits"].shape[-1]
    for name in ("score", "stride"):  # the constructor's arguments go before them
        given.pop(name, None)
    parsed: Any = settings.parse(config, given, config.__module__)
    arguments = {name: saved[name] for name in ARGUMENTS if name in saved}
    return {
        **arguments,
        "config": settings.as_dict(parsed),
        "image_shape": image_shape,
        "networks": networks,
    }
