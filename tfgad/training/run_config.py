"""The configuration of a run: what it is made of, and how two of them are compared."""

from __future__ import annotations

import dataclasses
import logging
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.data.defect_sources import NO_PAINTER
from tfgad.data.ignored import as_config, of_config, share_of
from tfgad.data.pixels import FULL_DEPTH, STRETCH
from tfgad.data.spec import Spec
from tfgad.errors import UsageError
from tfgad.networks.pretrained import IMAGENET, RANDOM, keys_of, known_as, sha256_of
from tfgad.version import __version__

logger = logging.getLogger(__name__)

LAST_OF_PAINTER = "fusion.keras"  # the file of a painter's last stage: any training changes it


def new_config(
    method: str,
    spec: str,
    seed: int,
    settings: dict[str, Any],
    image_shape: tuple[int, ...],
    resized: bool,
    depth: int,
    fit: str = STRETCH,
    ignored: np.ndarray | None = None,
    products: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the part of a run's configuration that is known before it is trained.

    Args:
        method: name of the method.
        spec: of the data set.
        seed: of the run.
        settings: hyper-parameters, as JSON types.
        image_shape: `(H, W, C)` of the images.
        resized: whether whole images were resized; see `AnomalyData`.
        depth: bits of the grey levels; see `AnomalyData`.
        fit: how images are resized to another aspect ratio; see `AnomalyData`. It is kept only if
            they are not stretched.
        ignored: bool `[H, W]`, the pixels that are ignored on every image; None if there are none.
        products: names of the products; kept only if there are several.
    """
    config = {
        "method": method,
        "data": absolute_spec(spec),
        "seed": seed,
        "settings": settings,
        "image_shape": list(image_shape),
        "resized": resized,
        "depth": depth,
        **({"fit": fit} if fit != STRETCH else {}),
        **as_config(ignored),
        **({"products": list(products)} if products else {}),
    }
    if settings.get("painter", NO_PAINTER) == NO_PAINTER:
        return config
    # The same painter from any folder; and another one in its place is noticed.
    painter = Path(settings["painter"]).expanduser().resolve()
    config["settings"] = {**settings, "painter": str(painter)}
    return {**config, "painter_sha256": sha256_of(painter / LAST_OF_PAINTER)}


def absolute_spec(spec: str) -> str:
    """Returns a spec with an absolute path, if it has one: the same data from any folder."""
    parts = Spec.parse(spec)
    if parts.kind != "folder":
        return spec
    return str(dataclasses.replace(parts, name=str(Path(parts.name).expanduser().resolve())))


def learnt_from(config: Mapping[str, Any]) -> list[str]:
    """Returns the specs of the data sets whose test images a run was trained on.

    A segmenter learns from the defects among them, and so did a painter. A detector learns from
    none, unless a painter painted its synthetic defects. The run cannot be evaluated on these test
    images. Runs of before the key `learnt_from` have `sources` and `painter`.
    """
    if "learnt_from" in config:
        return list(config["learnt_from"])
    specs = [*(config.get("sources") or ()), *(config.get("painter") or ())]
    return list(dict.fromkeys(specs))


def upgraded(
    old: dict[str, Any], settings: Mapping[str, Any], *, depth: int | None = None
) -> dict[str, Any]:
    """Returns the configuration of an older run with the keys that were added since.

    Args:
        old: the configuration.
        settings: its settings, completed.
        depth: of the data now. Before runs had a depth, files of 16 bits were read with all 16.
    """
    added: dict[str, Any] = {"learnt_from": learnt_from(old)}
    if depth is not None:
        added["depth"] = 8 if depth == 8 else FULL_DEPTH
    return {**added, **old, "settings": dict(settings)}


def check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises UsageError where the configuration of a run to resume differs from that it has.

    The message names one difference, and its hint all settings that differ: they may be defaults of
    an earlier tfgad, which nobody has given.

    Args:
        path: of the run's folder.
        old: the configuration that the run was started with.
        new: the configuration to resume it with. Keys that it lacks are not compared, but for the
            region that is ignored.
    """
    ours, theirs = of_config(old), of_config(new)  # the text may be compressed otherwise elsewhere
    same = ours is theirs if ours is None or theirs is None else np.array_equal(ours, theirs)
    if not same:
        before, now = share_of(old), share_of(new)
        other = f", not with {now}" if now != before else ", by another mask"
        problem = f"was started with {before} of each image ignored{other}"
        raise UsageError("out", path, problem, "resume it with the same --mask")
    settings = old["settings"]
    old, new = ({**each, **each["settings"], "settings": None} for each in (old, new))
    different = [key for key, value in new.items() if old.get(key) != value]
    if different:
        key = different[0]
        problem = f"was started with {key} {old.get(key)!r}, not {new[key]!r}"
        given = " ".join(f"--set {each}={old[each]}" for each in different if each in settings)
        hint = "resume it with " + (given if key in settings else "the same arguments")
        raise UsageError("out", path, problem, hint)


def check_same_weights(path: Path, old: Mapping[str, Any], new: Mapping[str, str | None]) -> None:
    """Raises UsageError where a run is resumed with other pretrained weights than it started with.

    A file may have another name now: its digest counts.

    Args:
        path: of the run's folder.
        old: the configuration that the run was started with.
        new: the entries of the configuration for the weights that are here now.
    """
    for key, digest in new.items():
        if key.endswith("_sha256") and old.get(key) != digest:
            problem = f"was started with other weights ({old.get(key)}) than are here ({digest})"
            raise UsageError("out", path, problem, "give the same file of weights")


def weights_to_resume(
    path: Path, config: Mapping[str, Any], name: str, requested: str | None
) -> str | None:
    """Returns the pretrained weights to resume a run with: those that it was started with.

    Without a request they are these, whatever `tfgad.networks.pretrained` would find today.

    Args:
        path: of the run's folder.
        config: that the run was started with.
        name: the key of the weights there.
        requested: a file, `imagenet`, `random` or None.

    Raises:
        UsageError: others are requested, also others in a file of the same name; or they were a
            file's and no file is given.
    """
    source = config.get(name)
    weights = source if requested is None and source in (IMAGENET, RANDOM) else requested
    old, new = {name: source}, {name: known_as(weights)}
    _, _, digest = keys_of(name)
    if config.get(digest):  # not known of a run of before
        old[digest], new[digest] = config[digest], sha256_of(weights)
    check_same(path, old | {"settings": {}}, new | {"settings": {}})
    return weights


def asked_of(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the false-positive rate that a run's threshold was set for, and its `per`.

    Both are missing before a run is finished for the first time. A threshold that other data have
    set is set by the run's own again, with a warning.
    """
    calibration = config.get("calibration", {})
    if calibration.get("data", config["data"]) != config["data"]:
        logger.warning(
            "%s: its threshold came from %s, and is set by %s now",
            *(path, calibration["data"], config["data"]),
        )
    return {key: calibration[key] for key in ("false_positive_rate", "per") if key in calibration}


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on."""
    return {
        "tfgad": __version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
