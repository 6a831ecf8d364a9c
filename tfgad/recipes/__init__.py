"""Method name to model: networks, optimizers and hyper-parameters, each with its source.

`<method>` is the recipe that served best on woven fabric and digits within minutes on two CPU
cores; `<method>/paper` is the published one. A module holds the recipes of kindred methods.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from tfgad.errors import UsageError, nearest
from tfgad.models.detector import CUES, DENSITY, Detector
from tfgad.recipes import anogan, cgan, gan, ganomaly, vae, wgan
from tfgad.recipes.recipe import Recipe

__all__ = ["METHODS", "RECIPES", "Recipe", "build", "settings_of"]

RECIPES = {
    **gan.RECIPES,
    **cgan.RECIPES,
    **anogan.RECIPES,
    **wgan.RECIPES,
    **ganomaly.RECIPES,
    **vae.RECIPES,
}
COMMON = {"precision": "float32", "jitter": 0.0}
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # of the networks' arithmetic
METHODS = tuple(name for name in RECIPES if "/" not in name)


def settings_of(method: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns a recipe's settings with some of them given, each in the recipe's own type.

    Beside its own, every recipe has those of `COMMON`: `precision`, `float32` or `bfloat16` for
    what the networks compute (weights, losses, codes and scores stay float32), and `jitter`, the
    strength of the random movements that training images are given (`tfgad/data/jitter.py`).

    Raises:
        UsageError: unknown method or setting, or a value of another type or below its least.
    """
    if method not in RECIPES:
        raise UsageError("method", method, "is not known", nearest(method, RECIPES))
    settings = {**COMMON, **RECIPES[method].settings}
    for name, value in (given or {}).items():
        if name not in settings:
            raise UsageError("setting", name, f"is not one of {method}", nearest(name, settings))
        kind = type(settings[name])
        try:
            settings[name] = kind(value)
        except ValueError:
            mend = f"give a value like {settings[name]!r}"
            raise UsageError(name, value, f"is not of type {kind.__name__}", mend) from None
        # Counts start at 1; a window of 0 is the whole image, 0 classes are as many as the data
        # name. NaN is not above the least either.
        least = 1 if kind is int and name not in ("window", "classes") else 0
        if kind is not str and not settings[name] >= least:
            raise UsageError(name, value, "is too small", f"give at least {least}")
    return settings


def build(
    method: str, image_shape: tuple[int, int, int], seed: int = 0, **settings: Any
) -> Detector:
    """Makes a compiled model for images of a shape: `tfgad.build("fanogan", (32, 32, 1))`.

    The networks' first weights follow the seed, as `keras.utils.set_random_seed` sets it.

    Args:
        method: one of `RECIPES`.
        image_shape: `(height, width, channels)` of the images to be judged.
        seed: of weights and training.
        **settings: hyper-parameters other than the recipe's.

    Raises:
        UsageError: unknown method or setting, or images that the networks do not take.
    """
    chosen = settings_of(method, settings)
    height, width, channels = image_shape
    side = chosen["window"] or max(height, width)
    window = (min(side, height), min(side, width), channels)
    if "stride" not in settings:
        chosen["stride"] = math.gcd(chosen["stride"], *window[:2])
    if chosen["score"] == "auto":
        chosen["score"] = _score(method, by_window=window[:2] != (height, width))
    chosen["tile"] = (height, width)
    keras.utils.set_random_seed(seed)
    if chosen["precision"] not in PRECISIONS:
        mend = nearest(chosen["precision"], PRECISIONS)
        raise UsageError("precision", chosen["precision"], "is not known", mend)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[chosen["precision"]])
    try:
        return RECIPES[method].make(chosen, window, seed)
    finally:
        keras.config.set_dtype_policy(before)


def _score(method: str, by_window: bool) -> str:
    """Returns what `auto` stands for: density for whole images, cues for larger ones.

    A method that judges by its critic alone has neither.
    """
    paper = RECIPES[f"{method.partition('/')[0]}/paper"].settings["score"]
    if paper == "critic":
        return paper
    return CUES if by_window else DENSITY
