"""Method name to model: networks, optimizers and hyper-parameters, each with its source.

`<method>` is the recipe that served best on woven fabric and digits within minutes on two CPU
cores; `<method>/paper` is the published one. A module holds the recipes of kindred methods.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfgad import processor
from tfgad.core.detector import CUES, DENSITY, Detector
from tfgad.errors import UsageError, nearest
from tfgad.networks.convolutional import check_image
from tfgad.networks.precision import POLICIES
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
# `precision` is of the networks, `jitter` of the batches that a run trains on: `build` has no use
# for it, `tfgad.training_batches` takes it.
COMMON = {"precision": "float32", "jitter": 0.0}
METHODS = tuple(name for name in RECIPES if "/" not in name)

# What numbers may be. Counts start at 1, but a window of 0 is the whole image, and 0 classes are as
# many as the data name. All else starts at 0, rates above it.
LEAST = {"window": 0, "classes": 0, "transplanted": 0, "rehearsed": 0}
RATES = ("learning_rate", "search_rate")  # how their names end
BELOW = {"dropout": 1, "smoothing": 1, "beta_1": 1, "beta_2": 1, "tolerance": 1}
MOST = {"feature_weight": 1, "own_share": 1}


def settings_of(method: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns a recipe's settings with some of them given, each in the recipe's own type.

    Beside its own, every recipe has those of `COMMON`: `precision`, `float32` or `bfloat16` for
    what the networks compute while they are trained (weights, losses and codes are float32, and so
    is all scoring: `tfgad/networks/precision.py`), and `jitter`, the strength of the random
    movements that a run's training images are given (`data/augmentation.py`). `build` makes the
    same model whatever `jitter` is.

    Raises:
        UsageError: unknown method or setting, or a value of another type or out of its range.
    """
    if method not in RECIPES:
        raise UsageError("method", method, "is not known", nearest(method, RECIPES))
    return changed({**COMMON, **RECIPES[method].settings}, given or {}, method)


def changed(settings: dict[str, Any], given: dict[str, Any], of: str) -> dict[str, Any]:
    """Returns settings with some of them given, each in the type it has; `of` is whose they are.

    Raises:
        UsageError: an unknown setting, or a value of another type or out of its range.
    """
    settings = dict(settings)
    for name, value in given.items():
        if name not in settings:
            raise UsageError("setting", name, f"is not one of {of}", nearest(name, settings))
        settings[name] = _typed(name, value, settings[name])
    return settings


def _typed(name: str, value: Any, usual: Any) -> Any:
    """Returns the value of a setting in the type of the usual one; raises UsageError."""
    kind = type(usual)
    try:
        typed = kind(value)
        # int(2.7) is 2 and str(None) is 'None'.
        fits = value is not None and (kind is not int or isinstance(value, str) or typed == value)
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise UsageError(name, value, f"is not of type {kind.__name__}", f"give one like {usual!r}")
    if kind is not str:
        _check_range(name, typed)
    return typed


def _check_range(name: str, value: float) -> None:
    """Raises UsageError where a number is out of its setting's range."""
    least = LEAST.get(name, 1 if isinstance(value, int) else 0)
    below, most = BELOW.get(name, math.inf), MOST.get(name, math.inf)
    if not math.isfinite(value):
        raise UsageError(name, value, "is not finite", "give a finite number")
    if value < least:
        raise UsageError(name, value, "is too small", f"give at least {least}")
    if name.endswith(RATES) and value == 0:
        raise UsageError(name, value, "is too small", "give a number above 0")
    if value >= below:
        raise UsageError(name, value, "is too large", f"give less than {below}")
    if value > most:
        raise UsageError(name, value, "is too large", f"give at most {most}")


def build(
    method: str, image_shape: tuple[int, int, int], seed: int = 0, **settings: Any
) -> Detector:
    """Makes a compiled model for images of a shape: `tfgad.build("fanogan", (32, 32, 1))`.

    The networks' first weights follow the seed, as `keras.utils.set_random_seed` sets it.

    Args:
        method: one of `RECIPES`.
        image_shape: `(height, width, channels)` of the images to be judged.
        seed: of weights and training.
        **settings: hyper-parameters other than the recipe's. `steps`, `batch_size` and `jitter`
            are those of a run: taken, and of no use here.

    Raises:
        UsageError: unknown method or setting, or images that the networks do not take. Or bfloat16
            where oneDNN is kept from it (`tfgad.processor.check_bfloat16`).
    """
    chosen = settings_of(method, settings)
    check_image(image_shape)
    height, width, channels = image_shape
    side = chosen["window"] or max(height, width)
    window = (min(side, height), min(side, width), channels)
    if "stride" not in settings:
        chosen["stride"] = math.gcd(chosen["stride"], *window[:2])
    if chosen["score"] == "auto":
        chosen["score"] = _score(method, by_window=window[:2] != (height, width))
    chosen["tile"] = (height, width)
    keras.utils.set_random_seed(seed)
    policy = _policy(chosen["precision"])
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return RECIPES[method].make(chosen, window, seed)
    finally:
        keras.config.set_dtype_policy(before)


def _policy(precision: str) -> str:
    """Returns the name of the networks' policy; says so if the processor is slow at it."""
    if precision not in POLICIES:
        hint = nearest(precision, POLICIES)
        raise UsageError("precision", precision, "is not known", hint)
    if precision == "bfloat16" and not tf.config.list_physical_devices("GPU"):
        processor.check_bfloat16()
    return POLICIES[precision]


def _score(method: str, by_window: bool) -> str:
    """Returns what `auto` stands for: density for whole images, cues for larger ones.

    A method that judges by its critic alone has neither.
    """
    paper = RECIPES[f"{method.partition('/')[0]}/paper"].settings["score"]
    if paper == "critic":
        return paper
    return CUES if by_window else DENSITY
