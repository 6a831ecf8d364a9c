"""A painter as a SavedModel that TensorFlow Serving loads and that needs no tfgad.

    FOLDER/
      1/                            the version; the next export writes 2
        saved_model.pb, variables/
        assets.extra/painter.json   kinds of defect, the data that it learnt from, sizes, versions
        assets.extra/NOTICE         of the style network's weights, unless they are random

Its one signature is `paint`; see `tfgad.multistage.painting_in_graph.Painting.paint`:

    paint   images uint8 [B, H, W, C], of good fabric; kind string [B]; seed int64 [B]
            -> images uint8 [B, H, W, C]; masks uint8 [B, H, W, 1] of 0 and 1; area int32 [B],
               0 where no defect came about

The style network up to its code, the generator and the fusion network are part of it; critics and
optimizers are not.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tfgad import files
from tfgad.export import warmup
from tfgad.export.saved_model import NOTICE
from tfgad.export.versions import save_signatures, write_version
from tfgad.multistage.painter import LEAST_MASK, TRIES, Painter
from tfgad.multistage.painting_in_graph import Painting
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import FUSER_STEP
from tfgad.networks.pretrained import keys_of

METADATA = "assets.extra/painter.json"  # TensorFlow leaves the folder assets.extra to others
PAINT = "paint"  # the signature
OF_STYLE = """\
The style network of this painter has convolutions of {network} ({name}). Their weights are those
of the Visual Geometry Group of the University of Oxford, trained on ImageNet (Simonyan, Zisserman,
"Very deep convolutional networks for large-scale image recognition", ICLR 2015), or were trained on
from those. The group released them under the Creative Commons Attribution License.
"""


def export_painter(painter: Painter, folder: str | os.PathLike) -> Path:
    """Writes the next version of a painter, whole or not at all.

    Args:
        painter: trained.
        folder: of all versions; it is made if it is not there.

    Returns:
        The folder of the version, `folder/<number>`.

    Raises:
        UsageError: the folder cannot be written.
    """
    painting = Painting(painter)
    example = {"kind": np.array(painter.kinds[:1]), "seed": np.zeros(1, np.int64)}

    def write(version: Path) -> None:
        save_signatures({PAINT: (painting.paint, painting.inputs)}, version)
        files.write_json(version / METADATA, metadata_of(painter))
        if notice := notice_of(painter):
            files.write_text(version / NOTICE, notice)
        warmup.write(version, (PATCH, PATCH, painter.channels), example)

    return write_version(folder, write, argument="folder")


def notice_of(painter: Painter) -> str:
    """Returns the notice that the licence of the style network's weights asks for."""
    name, network, _ = (painter.config.get(key) for key in keys_of("vgg_weights"))
    return "" if name == "random" else OF_STYLE.format(network=network or "VGG19", name=name)


def metadata_of(painter: Painter) -> dict[str, Any]:
    """Returns what the file `METADATA` has of a painter."""
    known = ("seed", "versions", *keys_of("vgg_weights"))
    return {
        "signature": PAINT,
        "kinds": list(painter.kinds),
        "data": list(painter.learnt_from),
        "channels": painter.channels,
        "patch": PATCH,
        "smallest_side": PATCH,
        "side_multiple_of": FUSER_STEP,
        "tries": TRIES,
        "smallest_area": LEAST_MASK,
        "settings": painter.config["settings"],
        **{key: painter.config[key] for key in known if key in painter.config},
    }
