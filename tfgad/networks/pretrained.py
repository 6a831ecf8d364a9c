"""Networks of `keras.applications` without their top, with pretrained or random weights.

Keras downloads the ImageNet weights. If the download fails and they were not asked for by name,
random weights are used, and a warning is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import keras

from tfgad.errors import UsageError

log = logging.getLogger(__name__)

IMAGENET, RANDOM = "imagenet", "random"


def pretrained(
    make: Callable[..., keras.Model], weights: str | Path | None
) -> tuple[keras.Model, str]:
    """Returns a network and the name of its weights: `imagenet`, `random` or that of a file.

    Args:
        make: constructor of `keras.applications`, such as `VGG19`.
        weights: a file with the network's weights without the top, as Keras publishes it; or
            `imagenet`; or `random`. None is `imagenet` if available, else `random`.

    Raises:
        UsageError: the weights are not available, or belong to another network.
    """
    if weights in (None, IMAGENET):
        try:
            return make(include_top=False, weights=IMAGENET), IMAGENET
        except Exception as error:  # Keras raises plain exceptions if a download fails
            if weights == IMAGENET:
                hint = "give a file of weights, or omit them for random weights"
                argument = f"{make.__name__} weights"
                raise UsageError(argument, weights, "cannot be downloaded", hint) from error
            problem = "ImageNet weights are not available: random ones are used instead"
            log.warning("%s's %s", make.__name__, problem)
            weights = RANDOM
    network = make(include_top=False, weights=None)
    if weights == RANDOM:
        return network, RANDOM
    path = Path(weights)
    _load(network, make.__name__, path)
    return network, path.name


def known_as(weights: str | Path | None) -> str | None:
    """Returns the name that `pretrained` gives to weights; None if they were not asked for."""
    return None if weights is None else Path(weights).name


def _load(network: keras.Model, name: str, path: Path) -> None:
    hint = f"give {name.lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5 of keras.applications"
    argument = f"{name} weights"
    if not path.is_file():
        raise UsageError(argument, path, "is not there", hint)
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(argument, path, f"does not hold {name}'s weights", hint) from error
