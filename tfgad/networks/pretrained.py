"""Networks of `keras.applications` without their top, with pretrained or random weights.

Keras downloads the ImageNet weights. If the download fails and they were not asked for by name,
random weights are used, and a warning is logged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from tfgad.errors import UsageError

log = logging.getLogger(__name__)

IMAGENET, RANDOM = "imagenet", "random"
DIGITS = 12  # of a file's SHA-256: enough to tell files apart


@dataclasses.dataclass(frozen=True)
class Weights:
    """Description of the weights of a network, for configurations and messages.

    Attributes:
        name: `imagenet`, `random` or the name of a file.
        network: the name of the network that they belong to, such as `VGG19`.
        sha256: the first `DIGITS` hexadecimal digits of the file's SHA-256; None without a file.
    """

    name: str
    network: str
    sha256: str | None = None

    @classmethod
    def of_file(cls, path: str | Path, network: str) -> Weights:
        """Returns the description of a network's weights in a file."""
        return cls(Path(path).name, network, sha256_of(path))

    def as_config(self, key: str) -> dict[str, str | None]:
        """Returns the entries of a configuration for the weights; see `keys_of`."""
        return dict(zip(keys_of(key), dataclasses.astuple(self), strict=True))

    def __str__(self) -> str:
        """Returns one line for people."""
        digest = f" (SHA-256 {self.sha256}...)" if self.sha256 else ""
        return f"{self.network}'s weights: {self.name}{digest}"


def keys_of(key: str) -> tuple[str, str, str]:
    """Returns the keys of a configuration for weights: of their name, network and SHA-256."""
    return key, f"{key}_network", f"{key}_sha256"


def pretrained(
    makes: Sequence[Callable[..., keras.Model]], weights: str | Path | None
) -> tuple[keras.Model, Weights]:
    """Returns a network with its weights, and their description.

    Args:
        makes: constructors of `keras.applications`, such as `VGG19`. A file may hold the weights of
            any of their networks; without a file the first network is made.
        weights: a file with a network's weights without the top, as Keras publishes it; or
            `imagenet`; or `random`. None is `imagenet` if available, else `random`.

    Raises:
        UsageError: the weights are not available, or belong to another network.
    """
    make, name = makes[0], makes[0].__name__
    if weights is None or weights == IMAGENET:
        try:
            return make(include_top=False, weights=IMAGENET), Weights(IMAGENET, name)
        except Exception as error:  # Keras raises plain exceptions if a download fails
            if weights == IMAGENET:
                hint = "give a file of weights, or omit them for random weights"
                raise UsageError(
                    f"{name} weights", weights, "cannot be downloaded", hint
                ) from error
            problem = "ImageNet weights are not available: random ones are used instead"
            log.warning("%s's %s", name, problem)
            weights = RANDOM
    if weights == RANDOM:
        return make(include_top=False, weights=None), Weights(RANDOM, name)
    return _of_file(makes, Path(weights))


def known_as(weights: str | Path | None) -> str | None:
    """Returns the name that `pretrained` gives to weights; None if they were not asked for."""
    return None if weights is None else Path(weights).name


def sha256_of(weights: str | Path | None) -> str | None:
    """Returns the first digits of the SHA-256 of a file of weights; None if they are no file."""
    if weights is None or not Path(weights).is_file():
        return None
    with Path(weights).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:DIGITS]


def _of_file(
    makes: Sequence[Callable[..., keras.Model]], path: Path
) -> tuple[keras.Model, Weights]:
    """Returns the first of some networks that takes a file's weights."""
    names = [make.__name__ for make in makes]
    hint = (
        f"give {names[0].lower()}_weights_tf_dim_ordering_tf_kernels_notop.h5 of keras.applications"
    )
    argument = f"{names[0]} weights"
    if not path.is_file():
        raise UsageError(argument, path, "is not there", hint)
    for make, name in zip(makes, names, strict=True):
        network = make(include_top=False, weights=None)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # Keras only warns of missing layers
                network.load_weights(path)
        except Exception as error:  # h5py and Keras raise errors of many kinds
            last = error
            continue
        return network, Weights.of_file(path, name)
    owners = " or ".join(f"{name}'s" for name in names)
    raise UsageError(argument, path, f"does not hold {owners} weights", hint) from last
