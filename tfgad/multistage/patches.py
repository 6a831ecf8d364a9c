"""Patches of defects, each with a patch of good fabric that shows the style.

There are only some hundred defects, and fewer fabrics. Each patch is therefore augmented: turned,
mirrored, zoomed, and changed in contrast and brightness. Its patch of good fabric is augmented in
the same way, so that it still shows the style, and there are more styles than fabrics.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfgad.multistage.sources import Source

PATCH = 64  # side in pixels: some ten yarns
ZOOM = (0.8, 1.25)  # range of the zoom, which makes the fabric finer or coarser
GAIN = (0.8, 1.2)  # range of the factor of contrast
SHADE = 0.15  # largest change of brightness; white is 1, black -1


@dataclasses.dataclass(frozen=True)
class Patches:
    """N patches of defects.

    Attributes:
        defects: float32 `[N, h, w, C + 1]` in [-1, 1], image and mask.
        fabrics: float32 `[N, h, w, C]`, good patches of the same fabrics, in the same light.
        kinds: int32 `[N]`, the kind of each defect.
    """

    defects: np.ndarray
    fabrics: np.ndarray
    kinds: np.ndarray


def cut_patches(
    sources: Sequence[Source], kinds: Sequence[str], count: int, side: int = PATCH, seed: int = 0
) -> Patches:
    """Cuts patches around defects, as many of each kind as of the others if there are enough.

    Args:
        sources: where they are cut from.
        kinds: the names of the kinds.
        count: N.
        side: of the patches, in pixels.
        seed: of all random numbers.
    """
    rng = np.random.default_rng(seed)
    places = [(s, i) for s, source in enumerate(sources) for i in range(len(source.kinds))]
    of_kind = [[(s, i) for s, i in places if sources[s].kinds[i] == kind] for kind in kinds]
    defects, fabrics, labels = [], [], []
    for n in range(count):
        label = n % len(kinds)
        s, i = of_kind[label][rng.integers(len(of_kind[label]))]
        source = sources[s]
        good = source.good[rng.integers(len(source.good))]
        masked = np.concatenate([source.images[i], source.masks[i] * 2.0 - 1.0], axis=-1)
        cut = min(round(side / rng.uniform(*ZOOM)), *masked.shape[:2])
        anywhere = tuple(int(rng.integers(0, length - cut + 1)) for length in good.shape[:2])
        augment = Augmentation(rng)
        defects.append(augment(resized(crop(masked, around(source.masks[i], cut, rng), cut), side)))
        fabrics.append(augment(resized(crop(good, anywhere, cut), side), has_mask=False))
        labels.append(label)
    return Patches(np.stack(defects), np.stack(fabrics), np.array(labels, np.int32))


class Augmentation:
    """Turn, mirroring, contrast and brightness, drawn once and applied to several patches."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.quarter_turns, self.mirror = int(rng.integers(4)), int(rng.integers(2))
        self.gain, self.shade = rng.uniform(*GAIN), rng.uniform(-SHADE, SHADE)

    def __call__(self, patch: np.ndarray, has_mask: bool = True) -> np.ndarray:
        """Augments a patch `[h, w, C]`, or `[h, w, C + 1]` whose last channel is a mask."""
        turned = np.rot90(patch, self.quarter_turns)
        turned = turned[:, ::-1] if self.mirror else turned
        image, mask = (
            (turned[..., :-1], turned[..., -1:]) if has_mask else (turned, turned[..., :0])
        )
        toned = np.clip(image * self.gain + self.shade, -1.0, 1.0)
        return np.concatenate([toned, mask], axis=-1).astype("float32")


def around(mask: np.ndarray, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draws the upper left corner of a square with a pixel of the mask in its middle half.

    Near the edge of the image the square is moved inwards.
    """
    rows, columns = np.nonzero(mask[..., 0])
    pixel = rng.integers(len(rows))
    corner: list[int] = []
    for at, length in ((rows[pixel], mask.shape[0]), (columns[pixel], mask.shape[1])):
        before = rng.integers(side // 4, side - side // 4)
        corner.append(int(np.clip(at - before, 0, length - side)))
    return corner[0], corner[1]


def crop(image: np.ndarray, corner: tuple[int, ...], side: int) -> np.ndarray:
    """Cuts a square out of `[H, W, C]`."""
    y, x = corner
    return image[y : y + side, x : x + side]


def resized(patch: np.ndarray, side: int) -> np.ndarray:
    """Resizes `[h, w, C]` to a square by cubic interpolation, antialiased; it stays in [-1, 1]."""
    if patch.shape[0] == side:
        return patch
    larger = tf.image.resize(patch, (side, side), "bicubic", antialias=True).numpy()
    return np.clip(larger, -1.0, 1.0)
