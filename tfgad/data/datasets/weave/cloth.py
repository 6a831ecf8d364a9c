"""Cloth as yarns: what a fabric is made of, and how its yarns lie in one tile.

Trade terms: the warp runs down the cloth, one warp yarn is an *end*; the weft runs across, one
weft yarn is a *pick*. The *draft* says at each crossing whether the end lies over the pick.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math

import numpy as np

MARGIN = 5  # yarns laid outside each border, so that bow, rotation and defects find neighbours
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601: colour to grey


@dataclasses.dataclass(frozen=True)
class Yarn:
    """One kind of yarn: its colour (RGB, 0 to 1) and its thickness relative to the pitch."""

    colour: tuple[float, float, float]
    thickness: float = 1.0


@dataclasses.dataclass(frozen=True)
class Fabric:
    """What stays the same in every tile of a fabric.

    Attributes:
        draft: bool `[picks, ends]` of one repeat, true where the end lies over the pick.
        warp: the ends of one colour repeat, from left to right.
        weft: the picks of one colour repeat, from top to bottom.
        pitch: distance in pixels between ends, and between picks.
        cover: yarn width over pitch: warp, weft. Above 1 the yarns press against each other.
        twist: contrast of the diagonal striation that the spinning leaves.
        hairiness: contrast of the fibres on the surface, and how many stand off it.
        gloss: strength of the mirror-like highlight; silk has some, cotton has none.
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
    """A draft from point paper: `x` where the end is up."""
    return np.array([[point == "x" for point in row] for row in rows])


def _stepped(over: int, under: int, step: int = 1) -> np.ndarray:
    """The draft of a twill (step 1) or satin (larger step): each pick moves on by `step` ends."""
    n = over + under
    return np.stack([np.roll(np.arange(n) < over, -step * pick) for pick in range(n)])


def _herringbone(ends: int) -> np.ndarray:
    """A 2/2 twill whose diagonal turns round every `ends` ends."""
    twill = np.tile(_stepped(2, 2), (1, ends // 4))
    return np.hstack([twill, twill[:, ::-1]])


ECRU, STEEL = Yarn((0.72, 0.68, 0.58)), Yarn((0.46, 0.52, 0.58))
KHAKI, SAND = Yarn((0.60, 0.55, 0.44)), Yarn((0.70, 0.65, 0.54))
INDIGO, PALE = Yarn((0.18, 0.21, 0.30)), Yarn((0.60, 0.60, 0.57))
CHAMPAGNE = Yarn((0.70, 0.60, 0.47))
CHARCOAL, ASH = Yarn((0.30, 0.29, 0.29)), Yarn((0.62, 0.60, 0.57))
NAVY, WHITE = Yarn((0.22, 0.27, 0.40)), Yarn((0.80, 0.80, 0.78))
RIP_FINE, RIP_CORD = Yarn((0.40, 0.44, 0.36)), Yarn((0.43, 0.47, 0.39), thickness=1.6)

# A weave's place is part of its tiles' random numbers (`weave.render`): new ones go to the end.
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
    """The ends, or the picks, of one tile as curves; `L` is the length of the tile in pixels.

    Attributes:
        centre: float32 `[L, n]`, where each yarn runs, across the tile.
        radius: float32 `[L, n]`, half its width; 0 where the yarn is absent.
        lift: float32 `[L, n]`, height above where the interlacing would put it.
        albedo: float32 `[L, n, C]`, its colour, 0 to 1.
        pitch: nominal distance between neighbours.
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
    """One tile of fabric before it is photographed.

    Attributes:
        warp: the ends; they run down, so `L` is the height.
        weft: the picks; they run across, so `L` is the width.
        over: float32 `[picks, ends]`, 1 where the end lies over the pick.
        relief: float32 `[H, W]`, height of the cloth's own surface: a fold, not a yarn.
        fibres: loose fibres, drawn last.
    """

    warp: Yarns
    weft: Yarns
    over: np.ndarray
    relief: np.ndarray
    fibres: list[Fibres]

    def copy(self) -> Cloth:
        """A cloth that a defect may change without touching this one."""
        return copy.deepcopy(self)


def lay(fabric: Fabric, rng: np.random.Generator, size: int, channels: int, zoom: float) -> Cloth:
    """Lays the yarns of one tile: random phase, scale and rotation, uneven as spun yarn is.

    Args:
        fabric: what to weave.
        rng: the only source of chance.
        size: side of the tile in rendered pixels.
        channels: 1 for grey, 3 for colour.
        zoom: rendered pixels per camera pixel.
    """
    zoom = zoom * rng.uniform(0.985, 1.015)
    slope = math.tan(math.radians(rng.uniform(-1, 1)))
    first_end, first_pick = rng.integers(0, 10_000, 2)
    warp = _lay_yarns(fabric, 0, first_end, rng, size, channels, zoom, slope)
    weft = _lay_yarns(fabric, 1, first_pick, rng, size, channels, zoom, -slope)
    picks = (first_pick + np.arange(weft.centre.shape[1])) % fabric.draft.shape[0]
    ends = (first_end + np.arange(warp.centre.shape[1])) % fabric.draft.shape[1]
    over = fabric.draft[np.ix_(picks, ends)].astype(np.float32)
    hairs = _hairs(fabric, rng, size, warp)
    return Cloth(warp, weft, over, np.zeros((size, size), np.float32), [hairs])


def _lay_yarns(fabric, axis, first, rng, size, channels, zoom, slope) -> Yarns:
    kinds = (fabric.warp, fabric.weft)[axis]
    pitch = np.float32(fabric.pitch[axis] * zoom)
    n = int(np.ceil(size / pitch)) + 2 * MARGIN
    kinds = [kinds[(first + i) % len(kinds)] for i in range(n)]
    thickness = np.array([kind.thickness for kind in kinds], np.float32)
    colour = np.array([kind.colour for kind in kinds], np.float32)
    if channels == 1:
        colour = (colour @ LUMA)[:, None]

    # Jitter as fractions of pitch, thickness and colour: as uneven as AITEX fabric 03, whose
    # 16x16 patches need 19 principal components for 95 % of their variance; twill here needs 20.
    along = (np.arange(size, dtype=np.float32) - size / 2)[:, None]
    centre = (np.cumsum(thickness) - thickness / 2 - MARGIN + rng.uniform()) * pitch
    centre = centre + 0.015 * pitch * rng.standard_normal(n, np.float32)
    centre = centre + slope * along
    centre += 0.015 * pitch * drift(rng, size, n, 8 * pitch)  # each yarn wanders by itself
    centre += 0.12 * pitch * drift(rng, size, 1, 20 * pitch)  # and all of them bow together
    own = 1 + 0.015 * rng.standard_normal(n, np.float32)
    radius = 0.5 * fabric.cover[axis] * pitch * thickness * own
    radius = radius * (1 + 0.02 * drift(rng, size, n, 5 * pitch))
    shade = 1 + 0.012 * rng.standard_normal(n, np.float32) + 0.012 * drift(rng, size, n, 6 * pitch)
    albedo = shade[:, :, None] * colour
    return Yarns(centre, radius, np.zeros_like(radius), albedo, float(pitch))


def drift(rng: np.random.Generator, length: int, n: int, reach: float) -> np.ndarray:
    """`n` slowly varying random curves, float32 `[length, n]`, unit variance at the knots."""
    knots = int(length / reach) + 2
    return _hats(length, knots) @ rng.standard_normal((knots, n), np.float32)


@functools.lru_cache(maxsize=64)
def _hats(length: int, knots: int) -> np.ndarray:
    """Smooth interpolation from knots to pixels as a matrix `[length, knots]`."""
    position = np.linspace(0, knots - 1, length, dtype=np.float32)[:, None]
    distance = np.minimum(np.abs(position - np.arange(knots, dtype=np.float32)), 1)
    return 0.5 * (1 + np.cos(np.pi * distance))


def _hairs(fabric: Fabric, rng: np.random.Generator, size: int, warp: Yarns) -> Fibres:
    """The fibre ends that stand off every spun yarn."""
    count = int(fabric.hairiness * (size / warp.pitch) ** 2 * 0.5)
    start = rng.uniform(0, size, (count, 2))
    points = curl(rng, start, 1.5 * warp.pitch * rng.uniform(0.5, 1.5, count))
    return Fibres(points, np.minimum(warp.albedo.max((0, 1)) * 1.1, 1), 0.30)


def curl(rng: np.random.Generator, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Curved fibres: points `[n, m, 2]` from `start` `[n, 2]`, each `length` `[n]` pixels long."""
    n = len(start)
    steps = int(np.ceil(length.max(initial=1) * 1.2))
    t = np.linspace(0, 1, steps)
    turn = rng.uniform(0, 2 * np.pi, (n, 1)) + rng.normal(0, 1.2, (n, 1)) * t
    step = (length / steps)[:, None]
    path = np.cumsum(np.stack([np.sin(turn), np.cos(turn)], -1) * step[..., None], axis=1)
    return (start[:, None] + path).astype(np.float32)
