"""Training examples of the fusion: images of fabric with a patch pasted into them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfgad.multistage.fusion import paste
from tfgad.multistage.patches import GAIN, SHADE, around, crop, resized
from tfgad.multistage.sources import Source

VIEW = 96  # side of the images in pixels: a window and its surroundings
WINDOW_SIDES = (52, 80)  # in pixels: a patch of 64 by `tfgad.multistage.patches.ZOOM`
SHIFT = 6  # largest displacement of a defect in pixels, about a yarn
OWN_ZOOM = (0.9, 1.1)

Window = tuple[int, int, int]  # row and column of the upper left corner, and side


@dataclasses.dataclass(frozen=True)
class Pasted:
    """N images, each with a window.

    Attributes:
        images: y, float32 `[N, H, W, C]` in [-1, 1], before anything was pasted.
        aims: a, the targets of the fusion, in the same form.
        pasted: x, its window and the pasted mask, `[N, H, W, C + 2]`; see `fusion.paste`.
        real: real images with a defect, and its mask, `[N, H, W, C + 1]`.
    """

    images: np.ndarray
    aims: np.ndarray
    pasted: np.ndarray
    real: np.ndarray


def paste_examples(
    sources: Sequence[Source],
    draw: Callable[[np.ndarray, list[str], list[Window]], np.ndarray],
    count: int,
    own_share: float,
    seed: int = 0,
) -> Pasted:
    """Makes examples for the fusion: views of fabric with a defect in a window.

    In some, a defect generated in the style of the fabric is put on a good view, as when painting;
    the target keeps it. In the others, a view with a real defect gets a displaced copy of that
    defect, of another size and tone; the target is the view before.

    Args:
        sources: fabrics with known defects.
        draw: good views `[N, H, W, C]`, N kinds and N windows -> x `[N, H, W, C + 2]`.
        count: N.
        own_share: share of examples of the second sort, in [0, 1].
        seed: of all random numbers except those of `draw`.
    """
    rng = np.random.default_rng(seed)
    drawn = [sources[int(rng.integers(len(sources)))] for _ in range(count)]
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
            x = paste(y, _displaced(view, corner, side, rng), (*corner, side))
        else:
            y, aim = good, np.where(x[..., -1:] > 0, x[..., :-2], good)
        images.append(y)
        aims.append(aim)
        pasted.append(x)
    return Pasted(*(np.stack(each) for each in (images, aims, pasted, real)))


def draw_window(image_shape: Sequence[int], rng: np.random.Generator) -> Window:
    """Draws `(row, column, side)` of a window inside an image `(H, W, C)`."""
    side = min(int(rng.integers(WINDOW_SIDES[0], WINDOW_SIDES[1] + 1)), *image_shape[:2])
    return (*_corner(image_shape, side, rng), side)


def _corner(image_shape: Sequence[int], side: int, rng: np.random.Generator) -> tuple[int, int]:
    row, column = (int(rng.integers(length - side + 1)) for length in image_shape[:2])
    return row, column


def _good_view(source: Source, rng: np.random.Generator) -> np.ndarray:
    """Cuts a view of good fabric, as large as `_view`'s: `[H, W, C]`."""
    good = source.good[rng.integers(len(source.good))]
    side = min(VIEW, *good.shape[:2])
    return crop(good, _corner(good.shape, side, rng), side)


def _view(source: Source, i: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts a view with a defect or a part of it: image and mask, `[H, W, C + 1]`."""
    side = min(VIEW, *source.masks.shape[1:3])
    corner = around(source.masks[i], side, rng)
    mask = crop(source.masks[i], corner, side) * 2.0 - 1.0
    return np.concatenate([crop(source.images[i], corner, side), mask], axis=-1).astype("float32")


def _displaced(
    view: np.ndarray, corner: tuple[int, int], side: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns the window of a view, displaced, of another size and tone, with its own mask."""
    cut = min(round(side / rng.uniform(*OWN_ZOOM)), *view.shape[:2])
    row, column = (
        int(np.clip(start + (side - cut) // 2 + rng.integers(-SHIFT, SHIFT + 1), 0, length - cut))
        for start, length in zip(corner, view.shape[:2], strict=True)
    )
    patch = resized(crop(view[..., :-1], (row, column), cut), side)
    toned = np.clip(patch * rng.uniform(*GAIN) + rng.uniform(-SHADE, SHADE), -1.0, 1.0)
    return np.concatenate([toned, crop(view[..., -1:], corner, side)], axis=-1)
