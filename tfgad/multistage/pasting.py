"""What the fusion learns from: images of fabric with a patch pasted into them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfgad.multistage.fusion import paste
from tfgad.multistage.patches import GAIN, SHADE, around, crop, resized
from tfgad.multistage.sources import Source

VIEW = 96  # side of the images: a window and what lies around it
WINDOW = (52, 80)  # sides of windows, in pixels: a patch of 64 by `tfgad.multistage.patches.ZOOM`
SHIFT = 6  # pixels that a defect is out of place, about a yarn
OWN_ZOOM = (0.9, 1.1)


@dataclasses.dataclass(frozen=True)
class Pasted:
    """N images, each with a window.

    Attributes:
        images: y, float32 `[N, H, W, C]` in [-1, 1], before anything was pasted.
        aims: a, what the fusion should make of them, the same form.
        pasted: x, its window and the pasted mask, `[N, H, W, C + 2]`; see `fusion.paste`.
        real: images with a defect as they are, and its mask, `[N, H, W, C + 1]`.
    """

    images: np.ndarray
    aims: np.ndarray
    pasted: np.ndarray
    real: np.ndarray


def paste_examples(
    sources: Sequence[Source], draw, count: int, own_share: float, seed: int = 0
) -> Pasted:
    """Makes examples for the fusion: views of fabric, and a defect in a window of each.

    In some the view is of good fabric, and the defect a generated one in its style, as it will be
    in use; it is to be kept. In the others the view has a defect, and gets that very defect back,
    out of place, of another size and tone, with its own mask; it is to be made what it was.

    Args:
        sources: fabrics with known defects.
        draw: good views `[N, H, W, C]`, kinds, N names, and N windows to `[N, H, W, C + 2]`, x.
        count: N.
        own_share: of the examples that get their own defect back, in [0, 1].
        seed: of all that is left to chance but what `draw` draws.
    """
    rng = np.random.default_rng(seed)
    drawn = [sources[rng.integers(len(sources))] for _ in range(count)]
    of_defects = [int(rng.integers(len(source.kinds))) for source in drawn]
    real = [_view(source, i, rng) for source, i in zip(drawn, of_defects, strict=True)]
    goods = [_good_view(source, rng) for source in drawn]
    windows = [draw_window(good.shape, rng) for good in goods]
    kinds = [source.kinds[i] for source, i in zip(drawn, of_defects, strict=True)]
    images, aims, pasted = [], [], []
    made = draw(np.stack(goods), kinds, windows)
    for view, good, x, (*_, side) in zip(real, goods, made, windows, strict=True):
        if rng.uniform() < own_share:
            y = aim = view[..., :-1]
            corner = around(view[..., -1:] > 0, side, rng)
            x = paste(y, _given_back(view, corner, side, rng), (*corner, side))
        else:
            y, aim = good, np.where(x[..., -1:] > 0, x[..., :-2], good)
        images.append(y)
        aims.append(aim)
        pasted.append(x)
    return Pasted(*(np.stack(each) for each in (images, aims, pasted, real)))


def draw_window(image_shape, rng) -> tuple[int, int, int]:
    """Draws `(row, column, side)` of a window inside an image `(H, W, C)`."""
    side = min(int(rng.integers(WINDOW[0], WINDOW[1] + 1)), *image_shape[:2])
    return (*_corner(image_shape, side, rng), side)


def _corner(image_shape, side: int, rng) -> tuple[int, int]:
    return tuple(int(rng.integers(length - side + 1)) for length in image_shape[:2])


def _good_view(source, rng) -> np.ndarray:
    """Cuts a view of good fabric, as large as `_view`'s: `[H, W, C]`."""
    good = source.good[rng.integers(len(source.good))]
    side = min(VIEW, *good.shape[:2])
    return crop(good, _corner(good.shape, side, rng), side)


def _view(source, i: int, rng) -> np.ndarray:
    """Cuts a view with a defect in it, or with part of it: image and mask, `[H, W, C + 1]`."""
    side = min(VIEW, *source.masks.shape[1:3])
    corner = around(source.masks[i], side, rng)
    mask = crop(source.masks[i], corner, side) * 2.0 - 1.0
    return np.concatenate([crop(source.images[i], corner, side), mask], axis=-1).astype("float32")


def _given_back(view, corner, side: int, rng) -> np.ndarray:
    """Returns what a view shows in a window, out of place, of another size and tone; its mask."""
    cut = min(round(side / rng.uniform(*OWN_ZOOM)), *view.shape[:2])
    shifted = [
        int(np.clip(start + (side - cut) // 2 + rng.integers(-SHIFT, SHIFT + 1), 0, length - cut))
        for start, length in zip(corner, view.shape[:2], strict=True)
    ]
    patch = resized(crop(view[..., :-1], shifted, cut), side)
    toned = np.clip(patch * rng.uniform(*GAIN) + rng.uniform(-SHADE, SHADE), -1.0, 1.0)
    return np.concatenate([toned, crop(view[..., -1:], corner, side)], axis=-1)
