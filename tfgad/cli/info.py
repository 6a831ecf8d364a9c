"""`tfgad info`: metadata of a run or of an exported model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tfgad.cli import console
from tfgad.cli.arguments import Model
from tfgad.quiet import import_tensorflow


def info(model: Model) -> None:
    """Show a model's method, data, image size, threshold and versions."""
    console.show(console.two_columns(_metadata(model)))


def _metadata(model: Path) -> Iterator[tuple[str, str]]:
    """Yields name and value of each line; a model exported by hand may lack some."""
    import_tensorflow()
    from tfgad.data.ignored import share_of
    from tfgad.inference import predictor
    from tfgad.scores.cue_weights import SETTING

    metadata = predictor.metadata_of(model)
    height, width, channels = metadata["image_shape"]
    colour = "grey" if channels == 1 else "colour"
    how = "images are resized" if metadata["resized"] else "images keep their native resolution"
    for name in ("method", "data"):
        if name in metadata:
            yield name, metadata[name]
    if "train" in metadata.get("images", {}):
        yield "training images", f"{metadata['images']['train']:,}"
    yield "image size", f"{height} x {width}, {colour}; {how}"
    if "depth" in metadata:
        yield "depth", f"{metadata['depth']} bits"
    if "ignored" in metadata:
        yield "ignored", f"{share_of(metadata)} of each image, whose content changes no score"
    yield "window", f"{metadata['window'][0]} x {metadata['window'][1]}"
    yield "score", metadata["score"]
    if SETTING in metadata:
        yield "weights of its terms", metadata[SETTING]
    yield "threshold", f"{metadata['threshold']:.4g}"
    yield "false-positive rate", console.false_positive_rate(metadata)
    for line in console.rates_on_new_groups(metadata.get("calibration", {})):
        yield "calibration", line
    if "versions" in metadata:
        versions = (f"{name} {number}" for name, number in metadata["versions"].items())
        yield "versions", ", ".join(versions)
