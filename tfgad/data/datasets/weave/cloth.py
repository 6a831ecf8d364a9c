"""Fabrics, and the positions of their yarns in one tile.

Textile terms: the warp runs down the cloth, one warp yarn is an *end*; the weft runs across, one
weft yarn is a *pick*. The *draft* says at each crossing whether the end lies over the pick.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math

import numpy as np

MARGIN = 5  # yarns beyond each border, which bow, rotation and defects move into view
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601: colour to grey


@dataclasses.dataclass(frozen=True)
class Yarn:
    """A kind of yarn: colour (RGB, 0 to 1) and thickness relative to the pitch."""

    colour: tuple[float, float, float]
    thickness: float = 1.0


@dataclasses.dataclass(frozen=True)
class Fabric:
    """A fabric: the properties that all its tiles share.

    Attributes:
        draft: bool `[picks, ends]` of one repeat, true where the end lies over the pick.
        warp: the ends of one colour repeat, from left to right.
        weft: the picks of one colour repeat, from top to bottom.
        pitch: distance in pixels between ends, and between picks.
        cover: yarn width over pitch, of warp and weft. Above 1 the yarns press on each other.
        twist: contrast of the diagonal stripes that come from spinning.
        hairiness: contrast of the fibres on the surface, and amount of fibres that stand off it.
        gloss: strength of the specular highlight; silk has some, cotton has none.
    """

    draft: np.ndarray
    warp: tuple[Yarn, ...]
    weft: tuple[Yarn, ...]
    pitch: tuple[float, float]
    cover: tuple[float, float] = (0.98, 0.98)
    twist: float = 0.06
    hairiness: float = 0.05
    gloss: float = 0.0


def _points(*rows: str) -> np.ndarray:
    """Returns a draft drawn in text: `x` where the end lies over the pick."""
    return np.array([[point == "x" for point in row] for row in rows])


def _stepped(over: int, under: int, step: int = 1) -> np.ndarray:
    """Returns the draft of a twill (step 1) or satin: each pick is shifted by `step` ends."""
    n = over + under
    return np.stack([np.roll(np.arange(n) < over, -step * pick) for pick in range(n)])


def _herringbone(ends: int) -> np.ndarray:
    """Returns the draft of a 2/2 twill whose diagonal reverses every `ends` ends."""
    twill = np.tile(_stepped(2, 2), (1, ends // 4))
    return np.hstack([twill, twill[:, ::-1]])


ECRU, STEEL = Yarn((0.72, 0.68, 0.58)), Yarn((0.46, 0.52, 0.58))
KHAKI, SAND = Yarn((0.60, 0.55, 0.44)), Yarn((0.70, 0.65, 0.54))
INDIGO, PALE = Yarn((0.18, 0.21, 0.30)), Yarn((0.60, 0.60, 0.57))
CHAMPAGNE = Yarn((0.70, 0.60, 0.47))
CHARCOAL, ASH = Yarn((0.30, 0.29, 0.29)), Yarn((0.62, 0.60, 0.57))
NAVY, WHITE = Yarn((0.22, 0.27, 0.40)), Yarn((0.80, 0.80, 0.78))
RIP_FINE, RIP_CORD = Yarn((0.40, 0.44, 0.36)), Yarn((0.43, 0.47, 0.39), thickness=1.6)

# A fabric's index seeds its random numbers (`weave.render`): append new fabrics at the end.
FABRICS = {
    "twill": Fabric(_stepped(2, 1), (KHAKI,), (SAND,), (5.6, 6.0)),
    "plain": Fabric(_points("x.", ".x"), (ECRU,), (ECRU,), (6.2, 6.0), (0.92, 0.90)),
    "basket": Fabric(_points("xx..", "xx..", "..xx", "..xx"), (STEEL,), (STEEL,), (5.4, 5.4)),
    "denim": Fabric(_stepped(3, 1), (INDIGO,), (PALE,), (5.2, 6.0), (1.06, 0.84), hairiness=0.08),
    "satin": Fabric(
        _stepped(4, 1, step=2), (CHAMPAGNE,), (CHAMPAGNE,), (5.0, 5.6), (1.06, 0.9), 0.04, 0.04, 0.2
    ),
    "herringbone": Fabric(_herringbone(8), (CHARCOAL,), (ASH,), (5.6, 5.6)),
    "ripstop": Fabric(
        _points("x.", ".x"), 8 * (RIP_FINE,) + 2 * (RIP_CORD,), 8 * (RIP_FINE,) + 2 * (RIP_CORD,),
        (5.0, 5.0), twist=0.04, hairiness=0.05, gloss=0.1,
    ),
    "check": Fabric(
        _points("x.", ".x"), 8 * (NAVY,) + 8 * (WHITE,), 8 * (NAVY,) + 8 * (WHITE,), (5.6, 5.4)
    ),
}  # fmt: skip


@dataclasses.dataclass
class Yarns:
    """The ends or the picks of one tile as curves of `L` pixels, the length of the tile.

    Attributes:
        centre: float32 `[L, n]`, position of each yarn across the tile.
        radius: float32 `[L, n]`, half of its width; 0 where the yarn is missing.
        lift: float32 `[L, n]`, height above its position in the interlacing.
        albedo: float32 `[L, n, C]`, colour, 0 to 1.
        pitch: nominal distance between neighbours in pixels.
    """

    centre: np.ndarray
    radius: np.ndarray
    lift: np.ndarray
    albedo: np.ndarray
    pitch: float


@dataclasses.dataclass
class Fibres:
    """Loose fibres on the surface: points `[n, m, 2]` as (y, x), albedo `[C]`, opacity 0 to 1."""

    points: np.ndarray
    albedo: np.ndarray
    opacity: float


@dataclasses.dataclass
class Cloth:
    """The yarns of one tile of fabric, before rendering.

    Attributes:
        warp: the ends; they run down, so `L` is the height.
        weft: the picks; they run across, so `L` is the width.
        over: float32 `[picks, ends]`, 1 where the end lies over the pick.
        relief: float32 `[H, W]`, height of the cloth as a whole, such as that of a fold.
        fibres: loose fibres, drawn on top.
    """

    warp: Yarns
    weft: Yarns
    over: np.ndarray
    relief: np.ndarray
    fibres: list[Fibres]

    def copy(self) -> Cloth:
        """Returns a deep copy."""
        return copy.deepcopy(self)


def lay(fabric: Fabric, rng: np.random.Generator, size: int, channels: int, zoom: float) -> Cloth:
    """Lays the uneven yarns of one tile, with random phase, scale and rotation.

    Args:
        fabric: the fabric.
        rng: the source of all random numbers.
        size: side of the tile in rendered pixels.
        channels: 1 for grey, 3 for colour.
        zoom: rendered pixels per camera pixel.
    """
    zoom = zoom * rng.uniform(0.985, 1.015)
    slope = math.tan(math.radians(rng.uniform(-1, 1)))
    first_end, first_pick = rng.integers(0, 10_000, 2)
    warp = _lay_yarns(fabric, 0, int(first_end), rng, size, channels, zoom, slope)
    weft = _lay_yarns(fabric, 1, int(first_pick), rng, size, channels, zoom, -slope)
    picks = (first_pick + np.arange(weft.centre.shape[1])) % fabric.draft.shape[0]
    ends = (first_end + np.arange(warp.centre.shape[1])) % fabric.draft.shape[1]
    over = fabric.draft[np.ix_(picks, ends)].astype(np.float32)
    hairs = _hairs(fabric, rng, size, warp)
    return Cloth(warp, weft, over, np.zeros((size, size), np.float32), [hairs])


def _lay_yarns(
    fabric: Fabric,
    axis: int,
    first: int,
    rng: np.random.Generator,
    size: int,
    channels: int,
    zoom: float,
    slope: float,
) -> Yarns:
    """Lays the ends (axis 0) or the picks (axis 1), from number `first` of the repeat on."""
    repeat = (fabric.warp, fabric.weft)[axis]
    pitch = np.float32(fabric.pitch[axis] * zoom)
    n = int(np.ceil(size / pitch)) + 2 * MARGIN
    kinds = [repeat[(first + i) % len(repeat)] for i in range(n)]
    thickness = np.array([kind.thickness for kind in kinds], np.float32)
    colour = np.array([kind.colour for kind in kinds], np.float32)
    if channels == 1:
        colour = (colour @ LUMA)[:, None]

    # The random deviations, as fractions of pitch, thickness and colour, match AITEX fabric 03:
    # its 16x16 patches need 19 principal components for 95 % of their variance, those of twill 20.
    along = (np.arange(size, dtype=np.float32) - size / 2)[:, None]
    centre = (np.cumsum(thickness) - thickness / 2 - MARGIN + rng.uniform()) * pitch
    centre = centre + 0.015 * pitch * rng.standard_normal(n, np.float32)
    centre = centre + slope * along
    centre += 0.015 * pitch * drift(rng, size, n, 8 * pitch)  # each yarn by itself
    centre += 0.12 * pitch * drift(rng, size, 1, 20 * pitch)  # all yarns together
    own = 1 + 0.015 * rng.standard_normal(n, np.float32)
    radius = 0.5 * fabric.cover[axis] * pitch * thickness * own
    radius = radius * (1 + 0.02 * drift(rng, size, n, 5 * pitch))
    shade = 1 + 0.012 * rng.standard_normal(n, np.float32) + 0.012 * drift(rng, size, n, 6 * pitch)
    albedo = shade[:, :, None] * colour
    return Yarns(centre, radius, np.zeros_like(radius), albedo, float(pitch))


def drift(rng: np.random.Generator, length: int, n: int, reach: float | np.floating) -> np.ndarray:
    """Returns `n` slowly varying random curves, float32 `[length, n]`, of unit variance at knots.

    The knots are `reach` pixels apart.
    """
    knots = int(length / reach) + 2
    return _hats(length, knots) @ rng.standard_normal((knots, n), np.float32)


@functools.lru_cache(maxsize=64)
def _hats(length: int, knots: int) -> np.ndarray:
    """Returns the matrix `[length, knots]` of a smooth interpolation from knots to pixels."""
    position = np.linspace(0, knots - 1, length, dtype=np.float32)[:, None]
    distance = np.minimum(np.abs(position - np.arange(knots, dtype=np.float32)), 1)
    return 0.5 * (1 + np.cos(np.pi * distance))


def _hairs(fabric: Fabric, rng: np.random.Generator, size: int, warp: Yarns) -> Fibres:
    """Returns the fibre ends that stand off spun yarns."""
    count = int(fabric.hairiness * (size / warp.pitch) ** 2 * 0.5)
    start = rng.uniform(0, size, (count, 2))
    points = curl(rng, start, 1.5 * warp.pitch * rng.uniform(0.5, 1.5, count))
    return Fibres(points, np.minimum(warp.albedo.max((0, 1)) * 1.1, 1), 0.30)


def curl(rng: np.random.Generator, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Returns curved fibres as points `[n, m, 2]`.

    Args:
        rng: the source of all random numbers.
        start: first points, `[n, 2]`.
        length: lengths in pixels, `[n]`.
    """
    n = len(start)
    steps = int(np.ceil(length.max(initial=1) * 1.2))
    t = np.linspace(0, 1, steps)
    turn = rng.uniform(0, 2 * np.pi, (n, 1)) + rng.normal(0, 1.2, (n, 1)) * t
    step = (length / steps)[:, None]
    path = np.cumsum(np.stack([np.sin(turn), np.cos(turn)], -1) * step[..., None], axis=1)
    return (start[:, None] + path).astype(np.float32)
