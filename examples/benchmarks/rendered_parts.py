"""Rendered parts that do not lie alike: what `registration.py` measures beside photographs.

A flange of 256x256 pixels with bores, a groove, print, grain and light that differ from part to
part. Each is shifted and turned at random, up to a limit.
"""

import numpy as np
from scipy import ndimage

SIDE = 256  # pixels
HOLES = np.deg2rad([45, 135, 225, 315])
HOLE_RADIUS = 9
PRINT = (
    "###.###.###.#.#",
    ".#..#...#...#.#",
    ".#..##..#.#..#.",
    ".#..#...#.#.#.#",
    ".#..#...###.#.#",
)
PRINT_AT = 66, -22  # pixels from the middle
DEFECTS = ("scratch", "missing hole", "dent", "stain")
PARTS = {"train": (64, ("",)), "good": (60, ("",)), "defective": (120, DEFECTS)}


def rendered_parts(shift, turn, share=1.0):
    """Returns training images and the test of rendered parts that do not lie alike.

    The parts are the same for each shift and turn.
    """
    train, good, defective = (
        [
            part(np.random.default_rng([kind, i]), shift, turn, defects[i % len(defects)])
            for i in range(int(np.ceil(share * count)))
        ]
        for kind, (count, defects) in enumerate(PARTS.values())
    )
    test = zip(*good, *defective, strict=True)
    image, mask, pose = (np.stack(each) for each in test)
    label = np.repeat([0, 1], [len(good), len(defective)])
    train = np.stack([image for image, *_ in train])
    return train, {"test": {"image": image, "mask": mask, "label": label, "pose": pose}}


def part(rng, shift, turn, defect):
    """Renders one part: the image `[SIDE, SIDE, 1]`, the mask of its defect, and how it lies."""
    pose = np.array([*rng.uniform(-1, 1, 2) * shift, rng.uniform(-1, 1) * turn])
    grid = np.mgrid[:SIDE, :SIDE].reshape(2, -1) - (SIDE - 1) / 2
    seen = grid - pose[:2, None]
    y, x = (turning(-pose[2]) @ seen).reshape(2, SIDE, SIDE)
    radius, angle = np.hypot(y, x), np.arctan2(*seen).reshape(SIDE, SIDE)  # of the light
    light_from = np.deg2rad(rng.normal(225, 8))

    def inside(distance, softness=0.7):  # antialiased
        return np.clip(0.5 - distance / (2 * softness), 0, 1)

    def bevel(distance, width):  # an edge that faces the light or not
        return np.exp(-((distance / width) ** 2)) * np.cos(angle - light_from)

    # Grain is turned into the metal: rings that are a little ragged.
    rings = ndimage.gaussian_filter1d(rng.normal(size=400), 1.0)
    ragged = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 2.0)
    grain = np.interp(2 * radius + 4 * ragged, np.arange(400), rings)
    metal = 0.15 + 0.05 * grain + 0.12 * np.cos(2 * (angle - light_from))
    metal += 0.35 * bevel(radius - 102, 3) - 0.3 * bevel(radius - 44, 2)
    metal -= 0.25 * np.exp(-(((radius - 62) / 1.5) ** 2))  # a groove
    ink = printed(y - rng.normal(0, 0.7), x - rng.normal(0, 0.7))
    metal = metal * (1 - ink) - 0.5 * ink
    marks, metal = damaged(rng, defect, y, x, metal, light_from)
    ground = -0.65 + 0.02 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3.0) * 10
    keyway = inside(np.maximum(np.abs(x) - 6, np.abs(y + 38) - 14))
    holes = keyway + inside(radius - 34 - rng.normal(0, 0.2))
    missing = HOLES[rng.integers(4)] if defect == "missing hole" else None
    for hole in HOLES:
        distance = np.hypot(y - 82 * np.sin(hole), x - 82 * np.cos(hole))
        distance -= HOLE_RADIUS + rng.normal(0, 0.2)
        if hole == missing:
            marks = distance < 0
        else:
            holes = holes + inside(distance)
    solid = inside(radius - 105) * (1 - np.clip(holes * (radius < 105), 0, 1))
    image = ground + solid * (metal - ground)
    image += 0.08 * rng.normal() * (grid[0].reshape(SIDE, SIDE) / SIDE) + 0.04 * rng.normal()
    image = (image + 1) * np.exp(0.05 * rng.normal()) - 1 + 0.015 * rng.normal(size=image.shape)
    image = np.round((np.clip(image, -1, 1) + 1) * 127.5) / 127.5 - 1  # eight bits
    return image[..., None].astype("float32"), np.uint8(marks & (solid > 0.5))[..., None], pose


def printed(y, x):
    """Returns how much ink is at each place."""
    ink = np.pad(np.array([[each == "#" for each in row] for row in PRINT], float), 1)
    down, across = (y - PRINT_AT[0]) / 3 + 1, (x - PRINT_AT[1]) / 3 + 1
    return ndimage.map_coordinates(ink, [down, across], order=1)


def damaged(rng, defect, y, x, metal, light_from):
    """Returns where a part has a scratch, a dent or a stain, and its metal."""
    while True:  # not on a hole
        place = rng.uniform(50, 98) * np.exp(1j * rng.uniform(0, 2 * np.pi))
        if min(abs(place - 82 * np.exp(1j * HOLES))) > 2 * HOLE_RADIUS:
            break
    v, u = y - place.imag, x - place.real
    angle, size, strength = rng.uniform(0, np.pi), rng.uniform(0, 1), rng.uniform(0.5, 1)
    outline = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 5.0)
    nothing = np.zeros((SIDE, SIDE), bool)
    if defect == "scratch":
        along, beside = np.cos(angle) * u + np.sin(angle) * v, np.cos(angle) * v - np.sin(angle) * u
        cover = np.clip(1.5 - np.abs(beside), 0, 1) * (np.abs(along) < 8 + 16 * size)
        return cover > 0, metal + 0.25 * strength * cover
    if defect == "dent":
        radius = 5 + 5 * size
        slope = (u * np.cos(light_from) + v * np.sin(light_from)) / radius
        distance = np.hypot(u, v) / radius
        return distance < 1, metal - 0.4 * strength * slope * np.exp(-2 * distance**2)
    if defect == "stain":
        cover = np.clip((8 + 8 * size - np.hypot(u, v) + 60 * outline) / 4, 0, 1)
        return cover > 0.5, metal - 0.16 * strength * cover
    return nothing, metal


def turning(degrees):
    """Returns R, of rows and columns."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin], [sin, cos]])
