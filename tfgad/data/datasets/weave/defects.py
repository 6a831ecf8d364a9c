"""Weaving defects, which change the yarns of a cloth and not its image.

A defect is a function `(cloth, rng, severity)` that changes the cloth in place; `severity` goes
from 0, hardly visible, to 1, clearly visible. Lengths are multiples of the pitch, so that the size
of a defect in yarns is the same on coarse and fine cloth. The names are those of ISO 8498 (woven
fabrics, description of defects). The amounts were set by eye, in comparison with real cloth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from tfgad.data.datasets.weave.cloth import LUMA, Cloth, Fibres, Yarns, curl, drift

FOREIGN = ((0.12, 0.11, 0.16), (0.62, 0.12, 0.12), (0.16, 0.24, 0.60), (0.93, 0.92, 0.88))


def broken_end(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """An end is missing over a length; its neighbours close in, and a loose tail is left."""
    warp = cloth.warp
    end = _yarn_in_view(warp, rng)
    start, stop = _stretch(warp, rng, 5 + 12 * severity)
    gone = _window(warp, start, stop, 0.3 * warp.pitch)
    warp.radius[:, end] *= 1 - gone
    _spread(warp, end, -(0.35 - 0.2 * severity) * warp.pitch * gone)
    y = int(np.clip(start, 0, len(warp.centre) - 1))
    _tails(cloth, rng, (y, warp.centre[y, end]), warp.albedo[y, end], warp.pitch)


def mispick(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """A pick is missing, or lies in the shed of the previous pick and close to it."""
    weft, over = cloth.weft, cloth.over
    pick = _yarn_in_view(weft, rng)
    if rng.uniform() < 0.5:
        weft.radius[:, pick] = 0
        closing = (0.4 - 0.2 * severity) * weft.pitch
        _spread(weft, pick, np.full(len(weft.centre), -closing))
        return
    before = next(k for k in range(1, len(over)) if (over[pick - k] != over[pick]).any())
    over[pick] = over[pick - before]
    weft.centre[:, pick] -= (0.1 + 0.2 * severity) * weft.pitch


def slub(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """A yarn swells to a spindle of loosely twisted fibre over a few pitches."""
    yarns = _either_system(cloth, rng)
    yarn = _yarn_in_view(yarns, rng)
    swelling = _bump(yarns, _place(yarns, rng), (1 + 2 * severity) * yarns.pitch)
    yarns.radius[:, yarn] *= 1 + (0.6 + 0.8 * severity) * swelling
    yarns.lift[:, yarn] += 0.15 * yarns.pitch * swelling
    _spread(yarns, yarn, (0.15 + 0.3 * severity) * yarns.pitch * swelling)


def knot(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """A knot in a yarn: a hard lump on the face of the cloth, with two cut tails."""
    yarns = _either_system(cloth, rng)
    yarn, place = _yarn_in_view(yarns, rng), _place(yarns, rng)
    lump = _bump(yarns, place, (0.45 + 0.25 * severity) * yarns.pitch)
    yarns.radius[:, yarn] *= 1 + (0.7 + 0.8 * severity) * lump
    yarns.lift[:, yarn] += (0.6 + 0.6 * severity) * yarns.pitch * lump
    _spread(yarns, yarn, (0.15 + 0.2 * severity) * yarns.pitch * lump)
    across = yarns.centre[place, yarn]
    point = (place, across) if yarns is cloth.warp else (across, place)
    for _ in range(2):
        _tails(cloth, rng, point, yarns.albedo[place, yarn], 0.8 * yarns.pitch)


def hole(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """Ends and picks are torn away; those around it draw back and fray."""
    centre = _point(cloth, rng)
    radii = rng.uniform(0.8, 1.25, 2) * (0.9 + 1.6 * severity) * cloth.warp.pitch
    for yarns in (cloth.warp, cloth.weft):
        distance, side = _distance(cloth, yarns, centre, radii, rng, ragged=0.25)
        yarns.radius *= np.clip((distance - 0.9) / 0.15, 0, 1)
        yarns.centre += 0.4 * yarns.pitch * side * np.exp(-(((distance - 1) / 0.6) ** 2))
    angle = rng.uniform(0, 2 * np.pi, int(6 + 8 * severity))
    rim = centre + radii * np.stack([np.sin(angle), np.cos(angle)], -1)
    frayed = curl(rng, rim, np.full(len(rim), 1.2 * cloth.warp.pitch))
    cloth.fibres.append(Fibres(frayed, cloth.warp.albedo.mean((0, 1)), 0.6))


def oil_stain(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """Oil darkens the yarns and spreads along each of them, so that the border is soft."""
    centre = _point(cloth, rng)
    radii = rng.uniform(0.7, 1.4, 2) * rng.uniform(1.5, 5) * cloth.warp.pitch
    depth = 0.26 + 0.3 * severity
    for yarns in (cloth.warp, cloth.weft):
        distance, _ = _distance(cloth, yarns, centre, radii, rng, ragged=0.25)
        wetted = expit((1 - distance) / 0.12)
        yarns.albedo *= 1 - depth * wetted[..., None]


def float_(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """Yarns miss several interlacings and lie slack on the face of the cloth."""
    yarns = _either_system(cloth, rng)
    is_warp = yarns is cloth.warp
    other, over = (cloth.weft, cloth.over.T) if is_warp else (cloth.warp, cloth.over)
    first, crossing = _yarn_in_view(yarns, rng), _yarn_in_view(other, rng)
    missed = rng.integers(5, 7) + int(5 * severity)
    loose = slice(first, first + 1 + int(3 * severity))
    crossings = slice(max(crossing - missed // 2, 0), crossing - missed // 2 + missed)
    over[loose, crossings] = float(is_warp)
    middle = len(yarns.centre) // 2
    inside = other.centre[middle, crossings]
    slack = _window(yarns, inside[0], inside[-1], yarns.pitch)[:, None]
    wander = 0.25 * drift(rng, len(yarns.centre), yarns.centre[:, loose].shape[1], 4 * yarns.pitch)
    yarns.centre[:, loose] += yarns.pitch * slack * wander
    yarns.lift[:, loose] += 0.2 * yarns.pitch * slack


def coarse_end(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """An end is too thick over the whole length of the cloth."""
    warp = cloth.warp
    end = _yarn_in_view(warp, rng)
    extra = 0.5 + 0.6 * severity
    warp.radius[:, end] *= 1 + extra
    warp.lift[:, end] += 0.15 * extra * warp.pitch
    _spread(warp, end, np.full(len(warp.centre), 0.4 * extra * warp.pitch))


def reed_mark(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """A bent reed wire leaves a gap between two ends, the whole length of the cloth."""
    warp = cloth.warp
    gap = 0.35 + 0.25 * severity
    uneven = 1 + 0.15 * drift(rng, len(warp.centre), 1, 6 * warp.pitch)[:, 0]
    _spread(warp, _yarn_in_view(warp, rng) + 0.5, gap * warp.pitch * uneven)


def crease(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """A fold is pressed into the cloth: a ridge that changes shading, bends yarns and is paler."""
    height, width = cloth.relief.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre, angle = _point(cloth, rng), rng.uniform(0, np.pi)
    along = np.cos(angle) * (x - centre[1]) + np.sin(angle) * (y - centre[0])
    across = -np.sin(angle) * (x - centre[1]) + np.cos(angle) * (y - centre[0])
    breadth = rng.uniform(0.8, 1.6) * cloth.warp.pitch
    across += 0.5 * breadth * np.sin(along / (6 * cloth.warp.pitch) + rng.uniform(0, 2 * np.pi))
    fold = np.exp(-((across / breadth) ** 2)).astype(np.float32)
    cloth.relief += (0.5 + 0.5 * severity) * breadth * fold
    for yarns, sideways in ((cloth.warp, -np.sin(angle)), (cloth.weft, np.cos(angle))):
        pressed = _sample(cloth, yarns, fold)
        yarns.centre += 0.4 * yarns.pitch * sideways * pressed
        yarns.albedo *= 1 + 0.12 * severity * pressed[..., None]


def soiled_yarn(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """A yarn is dirty, dark and mottled, over a length."""
    yarns = _either_system(cloth, rng)
    yarn = _yarn_in_view(yarns, rng)
    dirt = _window(yarns, *_stretch(yarns, rng, 5 + 10 * severity), 1.5 * yarns.pitch)
    mottle = 1 + 0.25 * drift(rng, len(dirt), 1, yarns.pitch)[:, 0]
    darkening = np.clip((0.38 + 0.3 * severity) * dirt * mottle, 0, 0.8)
    yarns.albedo[:, yarn] *= 1 - darkening[:, None]


def colour_fly(cloth: Cloth, rng: np.random.Generator, severity: float) -> None:
    """Foreign coloured fibre is spun into a yarn and woven in."""
    yarns = _either_system(cloth, rng)
    yarn, place = _yarn_in_view(yarns, rng), _place(yarns, rng)
    colour = _foreign_colour(yarns.albedo[place, yarn], rng)
    tuft = _bump(yarns, place, (1.2 + 1.5 * severity) * yarns.pitch)[:, None]
    blend = np.minimum((0.8 + 0.4 * severity) * tuft, 0.95)
    yarns.albedo[:, yarn] += blend * (colour - yarns.albedo[:, yarn])
    across = yarns.centre[place, yarn]
    point = np.array((place, across) if yarns is cloth.warp else (across, place))
    count = int(8 + 16 * severity)
    start = point + rng.normal(0, 0.6 * yarns.pitch, (count, 2))
    length = yarns.pitch * rng.uniform(0.8, 1.5 + 2 * severity, count)
    cloth.fibres.append(Fibres(curl(rng, start, length), colour, 0.75))


KINDS: dict[str, Callable[[Cloth, np.random.Generator, float], None]] = {
    "broken_end": broken_end,
    "mispick": mispick,
    "slub": slub,
    "knot": knot,
    "hole": hole,
    "oil_stain": oil_stain,
    "float": float_,
    "coarse_end": coarse_end,
    "reed_mark": reed_mark,
    "crease": crease,
    "soiled_yarn": soiled_yarn,
    "colour_fly": colour_fly,
}


def _either_system(cloth: Cloth, rng: np.random.Generator) -> Yarns:
    return cloth.warp if rng.uniform() < 0.5 else cloth.weft


def _yarn_in_view(yarns: Yarns, rng: np.random.Generator) -> int:
    """Returns the index of a random yarn well inside the tile."""
    size = len(yarns.centre)
    middle = yarns.centre[size // 2]
    return int(rng.choice(np.flatnonzero((middle > 0.1 * size) & (middle < 0.9 * size))))


def _place(yarns: Yarns, rng: np.random.Generator) -> int:
    """Returns a random pixel along the yarns, well inside the tile."""
    size = len(yarns.centre)
    return int(rng.uniform(0.1, 0.9) * size)


def _point(cloth: Cloth, rng: np.random.Generator) -> np.ndarray:
    """Returns a random point (y, x) well inside the tile."""
    return rng.uniform(0.1, 0.9, 2) * cloth.relief.shape


def _stretch(yarns: Yarns, rng: np.random.Generator, pitches: float) -> tuple[float, float]:
    """Returns start and stop of a length along a yarn, which may extend beyond the tile."""
    half = 0.5 * pitches * yarns.pitch * rng.uniform(0.8, 1.2)
    middle = _place(yarns, rng)
    return middle - half, middle + half


def _window(yarns: Yarns, start: float, stop: float, soft: float) -> np.ndarray:
    """Returns float32 `[L]`: 1 between start and stop, falling to 0 over `soft` pixels outside."""
    along = np.arange(len(yarns.centre), dtype=np.float32)
    ramp = np.minimum((along - start) / soft, (stop - along) / soft) + 1
    return np.clip(ramp, 0, 1).astype(np.float32)


def _bump(yarns: Yarns, place: int, sigma: float) -> np.ndarray:
    """Returns a Gaussian of height 1 at `place`, float32 `[L]`."""
    along = np.arange(len(yarns.centre), dtype=np.float32)
    return np.exp(-0.5 * ((along - place) / sigma) ** 2).astype(np.float32)


def _spread(yarns: Yarns, about: float, push: np.ndarray) -> None:
    """Moves the yarns on both sides of index `about` outwards, by `push` `[L]` and decreasing."""
    away = np.arange(yarns.centre.shape[1]) - about
    share = np.sign(away) * 0.5 ** np.maximum(np.abs(away) - 1, 0)
    yarns.centre += push[:, None] * share.astype(np.float32)


def _distance(
    cloth: Cloth,
    yarns: Yarns,
    centre: np.ndarray,
    radii: np.ndarray,
    rng: np.random.Generator,
    ragged: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance of every point of every yarn from a spot, and the side of the spot.

    The distance is in radii of the spot. The radius along a yarn is slightly different for each
    yarn and at both ends, which makes the outline ragged.
    """
    if yarns is cloth.weft:
        centre, radii = centre[::-1], radii[::-1]
    along = np.arange(len(yarns.centre), dtype=np.float32)[:, None] - np.float32(centre[0])
    own = 1 + ragged * rng.standard_normal((2, yarns.centre.shape[1]), np.float32)
    own = np.where(along < 0, own[0], own[1])
    sideways = yarns.centre - np.float32(centre[1])
    distance = np.hypot(along / (np.float32(radii[0]) * own), sideways / np.float32(radii[1]))
    return distance, np.sign(sideways)


def _sample(cloth: Cloth, yarns: Yarns, field: np.ndarray) -> np.ndarray:
    """Returns the values of a field `[H, W]` at every point of every yarn, `[L, n]`."""
    field = field if yarns is cloth.warp else field.T
    column = np.clip(np.rint(yarns.centre), 0, field.shape[1] - 1).astype(np.intp)
    return np.take_along_axis(field, column, axis=1)


def _tails(
    cloth: Cloth,
    rng: np.random.Generator,
    point: tuple[float, float],
    albedo: np.ndarray,
    length: float,
) -> None:
    """Adds a loose yarn end: a few parallel fibres from one point."""
    start = np.asarray(point) + rng.normal(0, 0.08 * length, (3, 2))
    points = curl(rng, np.repeat(start[:1], 3, 0), np.full(3, 1.6 * length))
    points = points[:1] + (start - start[0])[:, None]
    cloth.fibres.append(Fibres(points, np.minimum(albedo * 1.1, 1), 0.8))


def _foreign_colour(albedo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a colour whose brightness differs visibly from the yarn's."""
    colours = np.array(FOREIGN, np.float32)
    luma = albedo @ LUMA if len(albedo) == 3 else albedo[0]
    colour = rng.choice(colours[np.abs(colours @ LUMA - luma) > 0.2])
    return colour if len(albedo) == 3 else (colour @ LUMA)[None]
