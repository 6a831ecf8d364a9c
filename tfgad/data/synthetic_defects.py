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
import math
from collections.abc import Sequence

import tensorflow as tf

from tfgad.data.random_numbers import Random
from tfgad.data.warping import displaced, gaussian_blur, turned
from tfgad.errors import UsageError, nearest

SHAPES = ("blob", "ellipse", "streak", "line")
FILLINGS = ("tone", "turned", "warp", "blur", "noise")

# Shares of the shapes and fillings.
SHAPE_SHARES = (0.3, 0.3, 0.2, 0.2)
FILLING_SHARES = (0.4, 0.15, 0.15, 0.15, 0.15)

BLUR_SIGMA = 1.5  # pixels, of the filling `blur`
LEAST_CHANGE = 0.02  # mean absolute change of a defect that is labelled: 2.5 of 255 grey levels


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
    cover = shapes(random, tf.shape(images)[1:3], mix.shapes)
    filled = fillings(random, images, mix.fillings)
    has_defect = tf.cast(random.uniform(0.0, 1.0) < share, tf.float32)
    opacity = cover * has_defect * random.uniform(0.4, 1.0)
    changed = tf.clip_by_value(images + opacity * (filled - images), -1.0, 1.0)
    mask = tf.cast(cover > 0.5, tf.float32) * has_defect
    change = tf.reduce_mean(tf.abs(changed - images), axis=-1, keepdims=True) * mask
    mean = tf.reduce_sum(change, [1, 2], True) / (tf.reduce_sum(mask, [1, 2], True) + 1.0)
    return changed, mask * tf.cast(mean > LEAST_CHANGE, tf.float32)


def shapes(random: Random, size: tf.Tensor, shares: Sequence[float]) -> tf.Tensor:
    """Returns the cover of a random shape per image, `[B, H, W, 1]` from 0 to 1, soft at its edge.

    Args:
        random: of the batch.
        size: `(H, W)`.
        shares: of `SHAPES`.
    """
    height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
    row = tf.range(height)[None, :, None, None] - height * random.uniform(0.0, 1.0)
    column = tf.range(width)[None, None, :, None] - width * random.uniform(0.0, 1.0)
    softness = random.log_uniform(1.0, 6.0)

    def along(angle: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        cos, sin = tf.cos(angle), tf.sin(angle)
        return cos * column + sin * row, cos * row - sin * column

    angle = random.uniform(0.0, math.pi)
    u, v = along(angle)
    a = random.log_uniform(2.0, 32.0)
    b = a * random.uniform(0.3, 1.0)
    ellipse = b * (1.0 - tf.sqrt(tf.square(u / a) + tf.square(v / b)))

    # Blobs are noise near one place, where it is largest.
    noise = random.noise(5, size) + 0.7 * random.noise(11, size) + 0.4 * random.noise(23, size)
    reach = random.log_uniform(8.0, 64.0)
    distance = (tf.square(row) + tf.square(column)) / tf.square(reach)
    noise -= 0.5 * distance
    largest = tf.reduce_max(noise, axis=[1, 2], keepdims=True)
    blob = 8.0 * (noise - largest + random.log_uniform(0.2, 2.0))

    straight = tf.where(random.sign() > 0, 0.0, math.pi / 2) + random.uniform(-0.03, 0.03)
    u, v = along(straight)
    half = random.log_uniform(0.7, 4.0)
    streak = tf.minimum(half - tf.abs(v), random.log_uniform(8.0, 160.0) - tf.abs(u))

    u, v = along(angle)
    for period in (80.0, 37.0, 17.0):
        phase, swing = random.uniform(0.0, 2 * math.pi), random.uniform(0.0, 0.08)
        v += swing * period * tf.sin(2 * math.pi / period * u + phase)
    half = random.log_uniform(0.6, 2.0)
    line = tf.minimum(half - tf.abs(v), random.log_uniform(8.0, 80.0) - tf.abs(u))

    hard = tf.minimum(softness, 1.5)  # narrow shapes have narrow edges
    covers = [blob / softness, ellipse / softness, streak / hard, line / hard]
    cover = select(random.choice(shares), covers)
    return tf.clip_by_value(cover + 0.5, 0.0, 1.0)


def fillings(random: Random, images: tf.Tensor, shares: Sequence[float]) -> tf.Tensor:
    """Returns what fills the shapes, one random filling per image, `[B, H, W, C]`.

    Args:
        random: of the batch.
        images: float32 `[B, H, W, C]` in [-1, 1].
        shares: of `FILLINGS`.
    """
    size, channels = tf.shape(images)[1:3], images.shape[-1]
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    contrast = tf.math.reduce_std(images - mean, axis=[1, 2, 3], keepdims=True)
    contrast = tf.maximum(contrast, 0.04)  # five grey levels, of a surface without a texture

    tone = images + random.sign() * random.log_uniform(0.4, 4.0) * contrast
    other = turned(images, random.uniform(0.3, 2 * math.pi - 0.3), random.log_uniform(0.5, 2.0))
    shifts = random.noise(13, size, 2) * random.log_uniform(2.0, 8.0)
    warp = displaced(images, shifts)
    sharpness = tf.where(random.sign() > 0, -1.0, random.uniform(1.0, 2.5))
    blur = images + sharpness * (images - gaussian_blur(images, BLUR_SIGMA))
    grain = tf.where(
        random.sign() > 0, random.noise(20, size, channels), random.noise(50, size, channels)
    )
    noise = mean + contrast * (random.uniform(-1.0, 1.0) + random.uniform(0.5, 1.5) * grain)
    return select(random.choice(shares), [tone, other, warp, blur, noise])


def select(index: tf.Tensor, each: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns for every image the one of several tensors that its index names."""
    stacked = tf.stack(each, axis=1)
    return tf.gather(stacked, index, axis=1, batch_dims=1)


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
