"""Loading a run together with the data set that a command uses it on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfgad.data.options import Size
from tfgad.data.pixels import depth_to_read
from tfgad.data.spec import Spec
from tfgad.errors import UsageError
from tfgad.quiet import import_tensorflow

if TYPE_CHECKING:
    from tfgad.data.anomaly_data import AnomalyData
    from tfgad.training import Run


def load_run_and_data(folder: Path, spec: str | None) -> tuple[Run, AnomalyData]:
    """Loads a run, and a data set: its own, or the one that `spec` names."""
    import_tensorflow()
    from tfgad import data, training

    run = training.load_run(folder)
    return run, data.load(spec or run.config["data"], **data_defaults(run.config, spec))


def data_defaults(config: dict[str, Any], spec: str | None) -> dict[str, Any]:
    """Returns the data options that a run implies for a data set.

    A data set of the same kind as the run's own gets the run's options. It is split by the same
    seed, so that no training image ends up among the held-out ones. A data set of another kind gets
    the size of the run's images, as resized images or as tiles. A spec with the option `size` asks
    for whole images, not for tiles.

    Args:
        config: the run's `config.json`.
        spec: the data set; None means the run's own.

    Returns:
        Options by name, for `tfgad.data.load`. Those in the spec take precedence there.
    """
    own, given = Spec.parse(config["data"]), Spec.parse(spec or config["data"])
    height, width, channels = config["image_shape"]
    depth = depth_to_read(config)
    if given.kind == own.kind:
        defaults = {"channels": channels, "depth": depth, **own.options}
        if spec is not None:
            defaults.pop("products", None)  # of another folder
    else:
        size = Size(height, width)
        defaults = {"channels": channels, "depth": depth, "size": size, "fit": config.get("fit")}
        if not config["resized"]:  # a weave has a size, a folder a tile, and not both
            defaults |= {"tile": height, "size": None if given.kind == "folder" else size}
    for name, others in (("size", ("tile",)), ("tile", ("size", "fit"))):
        if name in given.options:
            defaults |= dict.fromkeys(others)
    return defaults


def spec_of_good(option: str, text: str) -> str:
    """Returns the spec of good images: of a folder that is named by its path, or `text` itself.

    Args:
        option: of the command, that `text` was given for.
        text: path of a folder, or a spec.

    Raises:
        UsageError: it is neither.
    """
    if Path(text).is_dir():
        return f"folder:{text}"
    if ":" not in text:
        hint = "give a folder of good images, or a data set such as weave:twill"
        raise UsageError(option, text, "is no folder", hint)
    Spec.parse(text)
    return text


def load_good(config: dict[str, Any], option: str, text: str) -> AnomalyData:
    """Loads good images for a run: those of a folder, or a data set as `data_defaults` loads it.

    A folder that is named by its path need not have the sub-folders of the run's own data.

    Args:
        config: metadata of the run.
        option: of the command, that `text` was given for.
        text: path of a folder, or a spec.
    """
    from tfgad import data

    spec = spec_of_good(option, text)
    defaults = data_defaults(config, spec)
    if spec != text:
        defaults["good"] = None
        if defaults.get("group") == "folder":
            defaults["group"] = None
    return data.load(spec, **defaults)
