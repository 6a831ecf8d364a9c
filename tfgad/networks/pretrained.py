"""Networks of `keras.applications` without their tops, and whose weights they have.

ImageNet's are downloaded by Keras. Where that cannot be done and nobody has asked for them by name,
random ones take their place, and a line of the log says so.
"""

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
    """Returns a network, and the name of the weights it has: `imagenet`, `random` or a file's.

    Args:
        make: of `keras.applications`, such as `VGG19`.
        weights: a file of the network's weights without its top, as Keras publishes it; or
            `imagenet`; or `random`. By default ImageNet's if they can be had, else random ones.

    Raises:
        UsageError: the weights cannot be had, or are another network's.
    """
    if weights in (None, IMAGENET):
        try:
            return make(include_top=False, weights=IMAGENET), IMAGENET
        except Exception as error:  # Keras raises no narrower one where a download fails
            if weights == IMAGENET:
                hint = "give a file of them, or leave it out for random weights"
                argument = f"{make.__name__} weights"
                raise UsageError(argument, weights, "cannot be downloaded", hint) from error
            problem = "ImageNet weights cannot be had: random ones are used instead"
            log.warning("%s's %s", make.__name__, problem)
            weights = RANDOM
    network = make(include_top=False, weights=None)
    if weights != RANDOM:
        _load(network, make.__name__, Path(weights))
    return network, known_as(weights)


def known_as(weights: str | Path | None) -> str | None:
    """Returns the name under which `pretrained` tells the weights asked for."""
    return weights if weights in (None, IMAGENET, RANDOM) else Path(weights).name


def _load(network: keras.Model, name: str, path: Path) -> None:
    hint = f"give {name.lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5 of keras.applications"
    argument = f"{name} weights"
    if not path.is_file():
        raise UsageError(argument, path, "is not there", hint)
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(argument, path, f"does not hold {name}'s weights", hint) from error
