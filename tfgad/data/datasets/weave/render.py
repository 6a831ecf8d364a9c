"""Rendering of a cloth: visible yarns, shading, lens and sensor.

Everything is float32 and vectorised over the pixels. The cloth is a height field: one end and one
pick cover each pixel, and the higher one is visible.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from tfgad.data.datasets.weave.cloth import Cloth, Fabric, Fibres, Yarns, drift

SUPERSAMPLING = 2  # rendered pixels per camera pixel, each way
AMBIENT = 0.35  # share of the light that is ambient
GAP = 0.16  # brightness between the yarns, relative to cloth in full light


@dataclasses.dataclass(frozen=True)
class Camera:
    """The random conditions of one exposure: light and lens.

    Attributes:
        towards_light: unit vector (y, x, z).
        exposure: float32 `[H, W, 1]`, uneven illumination times exposure, at camera resolution.
        blur: lens blur, standard deviation in camera pixels.
    """

    towards_light: np.ndarray
    exposure: np.ndarray
    blur: float


def set_up_camera(rng: np.random.Generator, size: int) -> Camera:
    """Returns a random camera for tiles of `size` camera pixels."""
    azimuth = np.deg2rad(rng.normal(225, 3))  # from the upper left
    elevation = np.deg2rad(rng.normal(48, 1))
    flat = np.cos(elevation)
    light = np.array([flat * np.sin(azimuth), flat * np.cos(azimuth), np.sin(elevation)])
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slant = rng.normal(0, 0.03, 2)
    cloudy = drift(rng, size, 1, size / 2) * drift(rng, size, 1, size / 2).T
    uneven = 1 + slant[0] * y + slant[1] * x + 0.02 * cloudy
    exposure = (rng.normal(1, 0.02) * uneven)[..., None].astype(np.float32)
    return Camera(light.astype(np.float32), exposure, float(rng.uniform(0.82, 0.88)))


def photograph(
    cloth: Cloth, fabric: Fabric, camera: Camera, rng: np.random.Generator
) -> np.ndarray:
    """Renders a cloth without sensor noise.

    Args:
        cloth: the yarns.
        fabric: the fabric that the cloth is of.
        camera: light and lens.
        rng: draws the fibres on the surface; an equal generator draws the same ones.

    Returns:
        float32 `[H, W, C]`, 0 to 1, above 1 where over-exposed.
    """
    surface = _surface(cloth)
    shade = _shade(surface["height"] + cloth.relief, camera.towards_light, cloth, fabric.gloss)
    shade *= _yarn_texture(surface, fabric, cloth, rng)
    image = surface["albedo"] * shade[..., None]
    for fibres in cloth.fibres:
        _draw(fibres, image)
    return _lens(image, camera.blur) * camera.exposure


def sensor(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds read-out and photon noise and quantises to uint8."""
    # About 2 grey levels in the middle greys, as in flat areas of an 8-bit line-scan camera.
    sigma = np.sqrt(0.005**2 + 0.010**2 * np.maximum(image, 0))
    noisy = image + sigma * rng.standard_normal(image.shape, np.float32)
    return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)


def _surface(cloth: Cloth) -> dict[str, np.ndarray]:
    """Returns the properties of the visible yarn: arrays `[H, W]`, and `albedo` `[H, W, C]`."""
    warp, weft = cloth.warp, cloth.weft
    height, width = cloth.relief.shape
    end, pick = _nearest(warp, width), _nearest(weft, height)  # [H, W], [W, H]
    warp_path = _path(warp, pick, cloth.over.T)
    weft_path = _path(weft, end, 1 - cloth.over)
    warp_height, warp_offset, warp_at = _profile(warp, warp_path, end)
    weft_height, weft_offset, weft_at = (a.T for a in _profile(weft, weft_path, pick))
    is_warp = warp_height >= weft_height
    top = np.maximum(warp_height, weft_height)
    floor = np.float32(-0.75 * min(warp.pitch, weft.pitch))
    # One table of the colours of both systems, for a single look-up.
    colours = np.concatenate([_rows(warp.albedo), _rows(weft.albedo)])
    albedo = colours.take(np.where(is_warp, warp_at, weft_at + warp.radius.size), axis=0)
    # Beyond the edge of a yarn the profile falls: the gap is dark.
    depth = np.clip((top - floor) / (-0.5 * floor), 0, 1)
    albedo *= (GAP + (1 - GAP) * depth)[..., None]
    return {
        "height": np.maximum(top, floor),
        "is_warp": is_warp,
        "offset": np.where(is_warp, warp_offset, weft_offset),
        "yarn": np.where(is_warp, end, pick.T).astype(np.float32),
        "albedo": albedo,
    }


def _rows(table: np.ndarray) -> np.ndarray:
    return table.reshape(-1, table.shape[-1])


def _nearest(yarns: Yarns, across: int) -> np.ndarray:
    """Returns the index of the yarn that covers each pixel: int `[L, across]`.

    The border between two yarns is where the distance to both is the same number of radii. A
    missing yarn (radius 0) covers no pixels. Counting the borders gives the index without a search.
    """
    centre, radius = yarns.centre, np.maximum(yarns.radius, 1e-3)
    weight = radius[:, :-1] + radius[:, 1:]
    border = (centre[:, :-1] * radius[:, 1:] + centre[:, 1:] * radius[:, :-1]) / weight
    column = np.clip(np.ceil(border), 0, across).astype(np.intp)
    row = np.arange(len(centre))[:, None] * (across + 1)
    passed = np.bincount((row + column).ravel(), minlength=len(centre) * (across + 1))
    return np.cumsum(passed.reshape(len(centre), across + 1)[:, :-1], axis=1)


def _path(yarns: Yarns, crossing: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Returns the height of each yarn's axis along its length, float32 `[L, n]`.

    Args:
        yarns: the yarns.
        crossing: `[across, L]`, index of the yarn of the other system that covers each pixel.
        over: `[n, m]`, 1 where the yarn lies over that of the other system.
    """
    length, n = yarns.centre.shape
    column = np.clip(np.rint(yarns.centre), 0, len(crossing) - 1).astype(np.intp)
    other = crossing[column, np.arange(length)[:, None]]
    state = 2 * over[np.arange(n), other] - 1
    # A yarn is stiff: between crossings it bends over about a third of a pitch.
    bent = ndimage.gaussian_filter1d(state, 0.33 * yarns.pitch, axis=0, truncate=2.5)
    return 0.30 * yarns.pitch * bent + yarns.lift


def _profile(yarns: Yarns, path: np.ndarray, nearest: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns height, offset from the axis in radii, and table index of the yarn at each pixel."""
    length, n = yarns.centre.shape
    at = nearest + np.arange(length)[:, None] * n
    radius = np.maximum(yarns.radius, 1e-3)
    across = np.arange(nearest.shape[1], dtype=np.float32)
    offset = (across - yarns.centre.take(at)) * (1 / radius).take(at)
    offset = np.clip(offset, -3, 3)
    # A missing yarn must not be visible.
    axis = np.where(radius < 0.15 * yarns.pitch, path - yarns.pitch, path)
    # The cross-section is a parabola: the slope of a circle is infinite at its edge.
    bulge = 0.8 * radius
    return (axis + bulge).take(at) - bulge.take(at) * (offset * offset), offset, at


def _shade(height: np.ndarray, light: np.ndarray, cloth: Cloth, gloss: float) -> np.ndarray:
    """Returns Lambertian shading of the height field, with occlusion in valleys and a highlight."""
    slope_y = ndimage.correlate1d(height, [-0.5, 0, 0.5], axis=0, mode="nearest")
    slope_x = ndimage.correlate1d(height, [-0.5, 0, 0.5], axis=1, mode="nearest")
    norm = 1 / np.sqrt(1 + slope_y * slope_y + slope_x * slope_x)
    facing = np.maximum((light[2] - light[0] * slope_y - light[1] * slope_x) * norm, 0)
    shade = AMBIENT + (1 - AMBIENT) * facing / light[2]
    pitch = 0.5 * (cloth.warp.pitch + cloth.weft.pitch)
    around = ndimage.uniform_filter(height, int(1.2 * pitch))
    shade /= 1 + 4 / pitch * np.maximum(around - height, 0)
    if gloss:
        half = light + np.array([0, 0, 1], np.float32)
        half /= np.linalg.norm(half)
        mirror = np.maximum((half[2] - half[0] * slope_y - half[1] * slope_x) * norm, 0)
        shade += gloss * mirror**16
    return shade


def _yarn_texture(
    surface: dict[str, np.ndarray], fabric: Fabric, cloth: Cloth, rng: np.random.Generator
) -> np.ndarray:
    """Returns the effect of twist and fibres on brightness, a factor around 1, `[H, W]`."""
    height, width = cloth.relief.shape
    is_warp = surface["is_warp"]
    lay = 0.5 * (cloth.warp.pitch + cloth.weft.pitch)  # one turn of the ply takes about a pitch
    down = np.arange(height, dtype=np.float32)[:, None]
    along = np.where(is_warp, down, np.arange(width, dtype=np.float32))
    # 2.4 rad from yarn to yarn, the golden angle: neighbours are never in phase.
    turn = (2 * np.pi / lay) * along + 1.8 * surface["offset"] + 2.4 * surface["yarn"]
    fibre = ndimage.uniform_filter1d(rng.standard_normal((height, width), np.float32), 7, axis=0)
    fibre = np.where(is_warp, fibre, fibre.T)  # fibres are parallel to their yarn
    # The mean of 7 unit normals has a deviation of 0.38.
    return 1 + fabric.twist * np.sin(turn) + fabric.hairiness / 0.38 * fibre


def _draw(fibres: Fibres, image: np.ndarray) -> None:
    """Draws loose fibres on the image, in place."""
    height, width, _ = image.shape
    points = np.rint(fibres.points.reshape(-1, 2)).astype(np.intp)
    inside = ((points >= 0) & (points < (height, width))).all(axis=1)
    y, x = points[inside].T
    image[y, x] += fibres.opacity * (fibres.albedo - image[y, x])


def _lens(image: np.ndarray, blur: float) -> np.ndarray:
    """Applies lens blur and samples the camera's pixels."""
    s = SUPERSAMPLING
    image = ndimage.gaussian_filter(image, (blur * s, blur * s, 0), truncate=2.5)
    height, width, channels = image.shape
    return image.reshape(height // s, s, width // s, s, channels).mean((1, 3))
