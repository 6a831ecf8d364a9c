"""A sheet of the procedural fabrics with every kind of defect.

    python examples/weave_sheet.py --weave twill --out weave_sheet.png

Writes one PNG: a row of every weave in colour, a row of the same in grey, then four tiles of each
of the twelve kinds of defect on one weave, the mask outlined in red. Each tile is 128x128 pixels,
drawn at twice its size. It takes about 10 seconds on one CPU core.

With `--aitex DIR` (the AITEX Fabric Image Database as published) a row of crops of real fabric
follows below the weaves, at the same magnification.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from tfgad.data.datasets.weave.weave import DEFECTS, WEAVES, render
from tfgad.errors import exit_on_usage_error

SIZE = 128
COLUMNS = 8
EXAMPLES = 4  # tiles of each kind of defect


def show(axis, image, title="", mask=None):
    """Draws one tile, and the outline of its mask."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if mask is not None:
        axis.contour(mask[..., 0], levels=[0.5], colors="red", linewidths=0.7)
    axis.set_title(title, fontsize=9, loc="left", pad=3)


def weaves(seed, channels):
    """One good tile of every weave."""
    return [
        (render(name, seed=seed, index=0, size=SIZE, channels=channels)[0], name, None)
        for name in WEAVES
    ]


def defects(weave, seed):
    """A few tiles of every kind of defect."""
    tiles = []
    for kind in DEFECTS:
        for index in range(EXAMPLES):
            image, mask = render(
                weave, seed=seed, index=index, split="test", size=SIZE, defect=kind
            )
            tiles.append((image, kind if index == 0 else "", mask))
    return tiles


def real_fabric(folder):
    """Crops of as many good AITEX strips as fit in a row, spread over the fabrics."""
    strips = sorted(
        (folder / "NODefect_images").glob("*/*.png"), key=lambda path: path.stem.split("_")[-1]
    )
    selected = [strips[i] for i in np.linspace(0, len(strips) - 1, COLUMNS).astype(int)]
    tiles = []
    for path in selected:
        # The left 1300 pixels of a strip may show the backdrop.
        strip = np.asarray(Image.open(path).convert("L"))
        crop = strip[64 : 64 + SIZE, 1500 : 1500 + SIZE]
        tiles.append((crop[..., None], f"AITEX {path.stem.split('_')[-1]}", None))
    return tiles


def main():
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weave", default="twill", choices=WEAVES, help="the spoilt weave")
    parser.add_argument("--out", type=pathlib.Path, default="weave_sheet.png")
    parser.add_argument("--aitex", type=pathlib.Path, help="folder of the AITEX database")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    tiles = weaves(arguments.seed, channels=3) + weaves(arguments.seed, channels=1)
    if arguments.aitex:
        tiles += real_fabric(arguments.aitex)
    tiles += defects(arguments.weave, arguments.seed)

    rows = len(tiles) // COLUMNS
    inch = 2 * SIZE / 100  # two dots a pixel at 100 dpi
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(COLUMNS * inch * 1.02, rows * inch * 1.09), dpi=100
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (image, title, mask) in zip(axes.flat, tiles, strict=True):
        show(axis, image, title, mask)
    figure.subplots_adjust(0.005, 0.002, 0.995, 0.982, wspace=0.02, hspace=0.08)
    figure.savefig(arguments.out)


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
