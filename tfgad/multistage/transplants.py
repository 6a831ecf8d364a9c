"""Known defects, cut out along their masks and pasted on another fabric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfgad.multistage.sources import Source

SHIFT = 32  # largest shift in pixels, about half the side of a painted defect's window


def transplanted(
    sources: Sequence[Source], good: np.ndarray, count: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Lays known defects on good images of another fabric, turned and shifted at random.

    Pixels shifted over one edge come back at the opposite one. All fabrics are equally likely.

    Args:
        sources: fabrics with known defects, of square images as large as `good`.
        good: float32 `[M, H, W, C]` in [-1, 1].
        count: N.
        seed: the same gives the same.

    Returns:
        Images float32 `[N, H, W, C]`, masks uint8 `[N, H, W, 1]`, and the kind of each defect.
    """
    rng = np.random.default_rng(seed)
    made, masks = np.empty((count, *good.shape[1:]), "float32"), []
    kinds: list[str] = []
    for n in range(count):
        source = sources[int(rng.integers(len(sources)))]
        i, turns = int(rng.integers(len(source.images))), int(rng.integers(4))
        shift = rng.integers(-SHIFT, SHIFT + 1, size=2)
        turned = (np.rot90(each[i], turns) for each in (source.images, source.masks))
        defect, mask = (np.roll(each, shift, axis=(0, 1)) for each in turned)
        made[n] = np.where(mask > 0, defect, good[rng.integers(len(good))])
        masks.append(mask)
        kinds.append(source.kinds[i])
    return made, np.reshape(masks, (count, *good.shape[1:3], 1)).astype(np.uint8), kinds
