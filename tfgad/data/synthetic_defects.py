"""Synthetic defects added to good images, as TensorFlow operations on a batch.

A synthetic defect is a shape that is filled with something else than the image had there:

| shape | what it is like |
|---|---|
| `blob` | smooth noise above a threshold: stains, clouds |
| `ellipse` | knots, holes, spots |
| `streak` | a narrow band along the rows or the columns: a missing or thick yarn |
| `line` | a thin crooked line at any angle: scratches, hairs, cracks |

| filling | what it is like |
|---|---|
| `tone` | the image, lighter or darker |
| `turned` | the same image, turned and scaled |
| `warp` | the image, distorted |
| `blur` | the image, blurred or sharpened |
| `noise` | smooth noise of the image's own tone and contrast |

A shift of tone is the same in all channels. Lengths and widths are in pixels and log-uniform: a
small defect is as likely as a large one. The noise of blobs, distortions and grain has a fixed
number of cells per tile, so it is coarser on larger tiles. Shares, sizes and strengths are first
guesses; none was tuned.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfgad.data.random_numbers import Random, smooth
from tfgad.data.warping import affine, displaced, gaussian_blur
from tfgad.errors import UsageError, nearest

SHAPES = ("blob", "ellipse", "streak", "line")
FILLINGS = ("tone", "turned", "warp", "blur", "noise")

# Shares of the shapes and fillings.
SHAPE_SHARES = (0.3, 0.3, 0.2, 0.2)
FILLING_SHARES = (0.4, 0.15, 0.15, 0.15, 0.15)

BLUR_SIGMA = 1.5  # pixels, of the filling `blur`
LEAST_CHANGE = 0.02  # mean absolute change of a defect that is labelled: 2.5 of 255 grey levels

Pick = Callable[[tf.Tensor], tf.Tensor]  # picks the images that use a kind, N of the batch
Kind = Callable[[Pick], tf.Tensor]  # a shape or a filling, computed for these images


@dataclasses.dataclass(frozen=True)
class Mix:
    """How often each shape and each filling is drawn; the shares need not add up to 1."""

    shapes: tuple[float, ...] = SHAPE_SHARES
    fillings: tuple[float, ...] = FILLING_SHARES

    @classmethod
    def without(cls, *names: str) -> Mix:
        """Returns the default mix without some shapes or fillings.

        Raises:
            UsageError: an unknown name, or no shape or no filling is left.
        """
        for name in names:
            if name not in SHAPES + FILLINGS:
                hint = nearest(name, SHAPES + FILLINGS)
                raise UsageError("name", name, "is no shape and no filling", hint)
        for each in (SHAPES, FILLINGS):
            if set(each) <= set(names):
                raise UsageError("names", ", ".join(names), "leave nothing", f"keep one of {each}")
        shapes = [0.0 if s in names else p for s, p in zip(SHAPES, SHAPE_SHARES, strict=True)]
        fillings = [0.0 if f in names else p for f, p in zip(FILLINGS, FILLING_SHARES, strict=True)]
        return cls(tuple(shapes), tuple(fillings))


def with_defects(
    images: tf.Tensor,
    seed: tf.Tensor,
    share: float | tf.Tensor = 0.7,
    mix: Mix | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Lays a synthetic defect on some images of a batch.

    Args:
        images: float32 `[B, H, W, C]` in [-1, 1], of good parts or fabric.
        seed: two whole numbers, int64; the same numbers give the same defects.
        share: of the images that get a defect, each with this probability; one for all, or one for
            each, `[B, 1, 1, 1]`.
        mix: shares of the shapes and fillings.

    Returns:
        The images float32 `[B, H, W, C]` in [-1, 1], and the masks float32 `[B, H, W, 1]`, 1 on
        defects. A defect that changes the image by less than 2.5 grey levels on average is not
        labelled; the change stays.
    """
    mix = mix or Mix()
    random = Random(seed, tf.shape(images)[0])
    shape, covers = shapes(random, tf.shape(images)[1:3], mix.shapes)
    filling, filled_by = fillings(random, images, mix.fillings)
    is_defective = random.uniform(0.0, 1.0) < share
    cover = computed_by_kind(shape, covers, is_defective, otherwise=tf.zeros_like(images[..., :1]))
    filled = computed_by_kind(filling, filled_by, is_defective, otherwise=images)
    has_defect = tf.cast(is_defective, tf.float32)
    opacity = cover * has_defect * random.uniform(0.4, 1.0)
    changed = tf.clip_by_value(images + opacity * (filled - images), -1.0, 1.0)
    mask = tf.cast(cover > 0.5, tf.float32) * has_defect
    change = tf.reduce_mean(tf.abs(changed - images), axis=-1, keepdims=True) * mask
    mean = tf.reduce_sum(change, [1, 2], True) / (tf.reduce_sum(mask, [1, 2], True) + 1.0)
    return changed, mask * tf.cast(mean > LEAST_CHANGE, tf.float32)


def computed_by_kind(
    index: tf.Tensor, kinds: Sequence[Kind], is_used: tf.Tensor, otherwise: tf.Tensor
) -> tf.Tensor:
    """Computes for every image the kind that its index names, and no other.

    Args:
        index: int32 `[B]`.
        kinds: each is computed for the images that use it, of which there may be none.
        is_used: bool `[B, 1, 1, 1]`; the other images use no kind.
        otherwise: what these get, `[B, H, W, C]`.
    """
    index = tf.where(is_used[:, 0, 0, 0], index, len(kinds))
    *rows, others = tf.dynamic_partition(tf.range(tf.size(index)), index, len(kinds) + 1)
    parts = [_part(kind, of_kind, otherwise) for kind, of_kind in zip(kinds, rows, strict=True)]
    whole = tf.dynamic_stitch([*rows, others], [*parts, tf.gather(otherwise, others)])
    # Not `ensure_shape`, from which the optimizer of TensorFlow's graphs learns no shape.
    return tf.reshape(whole, tf.shape(otherwise))


def _part(kind: Kind, rows: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
    """Computes a kind for some images of the batch. A convolution fails on no images."""
    pick = functools.partial(tf.gather, indices=rows)
    return tf.cond(tf.size(rows) > 0, lambda: kind(pick), lambda: pick(otherwise))


def shapes(
    random: Random, size: tf.Tensor, shares: Sequence[float]
) -> tuple[tf.Tensor, list[Kind]]:
    """Draws a shape per image.

    Args:
        random: of the batch.
        size: `(H, W)`.
        shares: of `SHAPES`.

    Returns:
        The index of each image's shape, `[B]`, and the shapes. These compute a cover,
        `[N, H, W, 1]` from 0 to 1, soft at its edge.
    """
    height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
    row = tf.range(height)[None, :, None, None] - height * random.uniform(0.0, 1.0)
    column = tf.range(width)[None, None, :, None] - width * random.uniform(0.0, 1.0)
    softness = random.log_uniform(1.0, 6.0)
    hard = tf.minimum(softness, 1.5)  # narrow shapes have narrow edges

    def along(angle: tf.Tensor, pick: Pick) -> tuple[tf.Tensor, tf.Tensor]:
        x, y, cos, sin = pick(column), pick(row), pick(tf.cos(angle)), pick(tf.sin(angle))
        return cos * x + sin * y, cos * y - sin * x

    def covered(depth: tf.Tensor, softness: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(depth / softness + 0.5, 0.0, 1.0)

    angle = random.uniform(0.0, math.pi)
    a = random.log_uniform(2.0, 32.0)
    b = a * random.uniform(0.3, 1.0)

    def ellipse(pick: Pick) -> tf.Tensor:
        u, v = along(angle, pick)
        radius = tf.sqrt(tf.square(u / pick(a)) + tf.square(v / pick(b)))
        return covered(pick(b) * (1.0 - radius), pick(softness))

    coarse, middle, fine = (random.noise_grid(cells, size) for cells in (5, 11, 23))
    reach, below = random.log_uniform(8.0, 64.0), random.log_uniform(0.2, 2.0)

    def blob(pick: Pick) -> tf.Tensor:  # noise near one place, where it is largest
        noise = smooth(pick(middle), size, 0.7) + smooth(pick(fine), size, 0.4)
        noise += smooth(pick(coarse), size)
        noise -= 0.5 * (tf.square(pick(row)) + tf.square(pick(column))) / tf.square(pick(reach))
        largest = tf.reduce_max(noise, axis=[1, 2], keepdims=True)
        return covered(8.0 * (noise - largest + pick(below)), pick(softness))

    straight = tf.where(random.sign() > 0, 0.0, math.pi / 2) + random.uniform(-0.03, 0.03)
    streak_half, streak_length = random.log_uniform(0.7, 4.0), random.log_uniform(8.0, 160.0)

    def streak(pick: Pick) -> tf.Tensor:
        u, v = along(straight, pick)
        depth = tf.minimum(pick(streak_half) - tf.abs(v), pick(streak_length) - tf.abs(u))
        return covered(depth, pick(hard))

    waves = [
        (period, random.uniform(0.0, 2 * math.pi), random.uniform(0.0, 0.08))
        for period in (80.0, 37.0, 17.0)
    ]
    line_half, line_length = random.log_uniform(0.6, 2.0), random.log_uniform(8.0, 80.0)

    def line(pick: Pick) -> tf.Tensor:
        u, v = along(angle, pick)
        bend = 0.0
        for period, phase, swing in waves:
            # Subtracted, here and below: TensorFlow makes one sum of a chain of additions, in the
            # order of the operations' names, and a new operation elsewhere would change last bits.
            bend -= pick(swing) * period * tf.sin(2 * math.pi / period * u + pick(phase))
        v -= bend
        depth = tf.minimum(pick(line_half) - tf.abs(v), pick(line_length) - tf.abs(u))
        return covered(depth, pick(hard))

    return random.choice(shares), [blob, ellipse, streak, line]


def fillings(
    random: Random, images: tf.Tensor, shares: Sequence[float]
) -> tuple[tf.Tensor, list[Kind]]:
    """Draws what fills the shapes, one filling per image.

    Args:
        random: of the batch.
        images: float32 `[B, H, W, C]` in [-1, 1].
        shares: of `FILLINGS`.

    Returns:
        The index of each image's filling, `[B]`, and the fillings. These compute `[N, H, W, C]`.
    """
    size, channels = tf.shape(images)[1:3], images.shape[-1]
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    contrast = tf.math.reduce_std(images - mean, axis=[1, 2, 3], keepdims=True)
    contrast = tf.maximum(contrast, 0.04)  # five grey levels, of a surface without a texture

    shift = random.sign() * random.log_uniform(0.4, 4.0) * contrast

    def tone(pick: Pick) -> tf.Tensor:
        return pick(images) + pick(shift)

    angle, scale = random.uniform(0.3, 2 * math.pi - 0.3), random.log_uniform(0.5, 2.0)
    cos, sin = tf.cos(angle) / scale, tf.sin(angle) / scale

    def other(pick: Pick) -> tf.Tensor:
        x, y = pick(cos)[:, 0, 0, 0], pick(sin)[:, 0, 0, 0]
        return affine(pick(images), [[x, -y], [y, x]], (0.0, 0.0), "REFLECT")

    shifts, reach = random.noise_grid(13, size, 2), random.log_uniform(2.0, 8.0)

    def warp(pick: Pick) -> tf.Tensor:
        return displaced(pick(images), smooth(pick(shifts), size, pick(reach)))

    sharpness = tf.where(random.sign() > 0, -1.0, random.uniform(1.0, 2.5))

    def blur(pick: Pick) -> tf.Tensor:
        sharp = pick(images)
        return sharp + pick(sharpness) * (sharp - gaussian_blur(sharp, BLUR_SIGMA))

    is_coarse = random.sign() > 0
    coarse, fine = (random.noise_grid(cells, size, channels) for cells in (20, 50))
    level, gain = random.uniform(-1.0, 1.0), random.uniform(0.5, 1.5)

    def noise(pick: Pick) -> tf.Tensor:
        grain = tf.where(pick(is_coarse), smooth(pick(coarse), size), smooth(pick(fine), size))
        return pick(mean) + pick(contrast) * (pick(level) + pick(gain) * grain)

    return random.choice(shares), [tone, other, warp, blur, noise]


def with_random_light(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Changes contrast, brightness and evenness of each image, independently of each other.

    The limits are first guesses, as those of the defects.

    Args:
        images: float32 `[B, H, W, C]` in [-1, 1].
        seed: two whole numbers, int64.

    Returns:
        float32 `[B, H, W, C]` in [-1, 1].
    """
    random = Random(seed, tf.shape(images)[0])
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    gain = random.log_uniform(0.8, 1.25)
    uneven = random.uniform(0.0, 0.12) * random.noise(2, tf.shape(images)[1:3])
    lit = mean + random.uniform(-0.15, 0.15) + gain * (images - mean) + uneven
    return tf.clip_by_value(lit, -1.0, 1.0)
