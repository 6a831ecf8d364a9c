"""What the fusion learns from: images of fabric with a patch pasted into them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfgad.multistage.fusion import paste
from tfgad.multistage.patches import GAIN, SHADE, around, crop, resized
from tfgad.multistage.sources import Source

VIEW = 96  # side of the images: a window and what lies around it
WINDOW = (36, 68)  # sides of windows, in pixels; patches are 64
SHIFT = 6  # pixels that a defect is out of place, about a yarn
OWN_ZOOM = (0.9, 1.1)


@dataclasses.dataclass(frozen=True)
class Pasted:
    """N images, each with a window.

    Attributes:
        images: y, float32 `[N, H, W, C]` in [-1, 1], before anything was pasted.
        masks: of the defect in y, float32 `[N, H, W, 1]`, -1 or 1.
        pasted: x, its window and the pasted mask, `[N, H, W, C + 2]`; see `fusion.paste`.
    """

    images: np.ndarray
    masks: np.ndarray
    pasted: np.ndarray


def paste_examples(
    sources: Sequence[Source], generate, count: int, own_share: float, seed: int = 0
) -> Pasted:
    """Makes examples for the fusion from images with a defect, the window lying about it.

    In most the window is filled with a generated defect of the same kind and style, as the paper
    has it; y shows another defect then, and tells T no more than what the fabric looks like. In a
    share of them it is filled with the very defect of y, moved, enlarged and toned a little: there
    y also tells what T should make of it.

    Args:
        sources: fabrics with known defects.
        generate: images `[B, H, W, C]` and kinds, B names, to patches `[B, h, w, C + 1]`.
        count: N.
        own_share: of the examples that get their own defect back, in [0, 1].
        seed: of all that is left to chance.
    """
    rng = np.random.default_rng(seed)
    drawn = [sources[rng.integers(len(sources))] for _ in range(count)]
    of_defects = [int(rng.integers(len(source.kinds))) for source in drawn]
    goods = [source.good[rng.integers(len(source.good))] for source in drawn]
    kinds = [source.kinds[i] for source, i in zip(drawn, of_defects, strict=True)]
    made = generate(np.stack(goods), kinds)
    images, masks, pasted = [], [], []
    for patch, source, i in zip(made, drawn, of_defects, strict=True):
        image, mask = _view(source, i, rng)
        side = min(int(rng.integers(WINDOW[0], WINDOW[1] + 1)), *image.shape[:2])
        corner = around(mask, side, rng)
        signed = mask * 2.0 - 1.0
        if rng.uniform() < own_share:
            patch = _disturbed(np.concatenate([image, signed], axis=-1), corner, side, rng)
        images.append(image)
        masks.append(signed.astype("float32"))
        pasted.append(paste(image, resized(patch, side), corner, side))
    return Pasted(np.stack(images), np.stack(masks), np.stack(pasted))


def _view(source, i: int, rng):
    """Cuts a view with a defect in it, or with part of it: image and mask."""
    side = min(VIEW, *source.masks.shape[1:3])
    corner = around(source.masks[i], side, rng)
    return crop(source.images[i], corner, side), crop(source.masks[i], corner, side)


def _disturbed(masked, corner, side: int, rng):
    """Returns what an image shows in a window, out of place, of another size and tone."""
    cut = min(round(side / rng.uniform(*OWN_ZOOM)), *masked.shape[:2])
    shifted = [
        int(np.clip(start + (side - cut) // 2 + rng.integers(-SHIFT, SHIFT + 1), 0, length - cut))
        for start, length in zip(corner, masked.shape[:2], strict=True)
    ]
    patch = resized(crop(masked, shifted, cut), side)
    toned = patch[..., :-1] * rng.uniform(*GAIN) + rng.uniform(-SHADE, SHADE)
    return np.concatenate([np.clip(toned, -1.0, 1.0), patch[..., -1:]], axis=-1)
