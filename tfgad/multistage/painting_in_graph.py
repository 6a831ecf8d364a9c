"""The signature `paint` of an exported painter, as TensorFlow's own operations.

It paints as `tfgad.multistage.painter.Painter.paint_each` does, with the same range of windows, and
the same tries, grades and fusion. Two things differ: the caller names the kind, and the random
numbers are TensorFlow's, so that the same seed gives another defect than in Python.

Images are painted one by one: the result of an image depends on the image, its kind and its seed
only.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfgad.export import decoding
from tfgad.multistage import changes_in_graph as changes
from tfgad.multistage.painter import CUT_OFF, LEAST_MASK, SMALL, TRIES, WHOLE, Painter
from tfgad.multistage.pasting import WINDOW_SIDES
from tfgad.multistage.patches import PATCH
from tfgad.networks.defects import FUSER_STEP, MASK, on_fabric

MAX_SEED = 2**31 - 1  # of z
# What is drawn from the seed of an image; of the last two one number for each try.
SIDE, ROW, COLUMN, TURN, CODE = range(5)


class Painting:
    """The function of the signature `paint`, and its parts.

    Args:
        painter: whose networks it uses.
    """

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self.is_on_fabric = painter.generator.on_fabric
        # Of a candidate: a change to the image, or the image with a patch and its mask.
        self.depth = painter.channels + (4 if self.is_on_fabric else 1)
        self.mask_channel = MASK if self.is_on_fabric else -1

    @property
    def inputs(self) -> list[tf.TensorSpec]:
        """The inputs of `paint`. The number of channels is left open, and asserted."""
        return [
            tf.TensorSpec([None, None, None, None], tf.uint8, name="images"),
            tf.TensorSpec([None], tf.string, name="kind"),
            tf.TensorSpec([None], tf.int64, name="seed"),
        ]

    def paint(self, images: tf.Tensor, kind: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Paints a defect on each image.

        Args:
            images: of good fabric, uint8 `[B, H, W, C]`.
            kind: string `[B]`, names of kinds.
            seed: int64 `[B]`.

        Returns:
            `images` uint8 `[B, H, W, C]`, `masks` uint8 `[B, H, W, 1]` of 0 and 1, and `area` int32
            `[B]`, the number of pixels of each mask. If none of `TRIES` defects has `LEAST_MASK`
            pixels, the image is unchanged, and its area is 0.
        """
        with tf.control_dependencies(self._assertions(images, kind, seed)):
            images = tf.ensure_shape(tf.identity(images), [None, None, None, self.painter.channels])
        labels = tf.argmax(kind[:, None] == self.painter.kinds, axis=1, output_type=tf.int32)
        form = {
            "images": tf.TensorSpec([None, None, self.painter.channels], tf.uint8),
            "masks": tf.TensorSpec([None, None, 1], tf.uint8),
            "area": tf.TensorSpec([], tf.int32),
        }
        return tf.map_fn(
            lambda each: self._painted(*each), (images, labels, seed), fn_output_signature=form
        )

    def _assertions(self, images: tf.Tensor, kind: tf.Tensor, seed: tf.Tensor) -> list[Any]:
        """Returns operations that refuse what `Painter.check_shape` refuses, and unknown kinds."""
        batch, height, width, channels = tf.unstack(tf.shape(images))
        sides = tf.stack([height, width])
        is_known = tf.reduce_any(kind[:, None] == self.painter.kinds, axis=1)
        problems = {
            f"the number of channels must be {self.painter.channels}": (
                channels == self.painter.channels
            ),
            f"images must have sides of at least {PATCH} that are multiples of {FUSER_STEP}": (
                tf.reduce_all((sides >= PATCH) & (sides % FUSER_STEP == 0))
            ),
            "give one image or more, and as many kinds and seeds": (
                (batch > 0) & (tf.size(kind) == batch) & (tf.size(seed) == batch)
            ),
            f"the kinds of this painter are {', '.join(self.painter.kinds)}": (
                tf.reduce_all(is_known)
            ),
        }
        return [tf.debugging.Assert(is_met, [message]) for message, is_met in problems.items()]

    def _painted(
        self, levels: tf.Tensor, label: tf.Tensor, seed: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Paints a defect on one image, uint8 `[H, W, C]`."""
        image = decoding.from_levels(levels, 127.5)
        window = _draw_window(tf.shape(image)[:2], seed)
        pasted = self.pasted(image, self._best_candidate(image, label, window, seed), window)
        fused = self.painter.fusion.fused(image[None], pasted[None])[0]
        mask = pasted[..., -1:] > 0
        area = tf.math.count_nonzero(mask, dtype=tf.int32)
        is_large = area >= LEAST_MASK
        return {
            "images": tf.where(is_large, decoding.to_levels(fused), levels),
            "masks": tf.cast(mask & is_large, tf.uint8),
            "area": tf.where(is_large, area, 0),
        }

    def _best_candidate(
        self, image: tf.Tensor, label: tf.Tensor, window: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Returns the first candidate of the highest grade; draws no more after one is `WHOLE`."""

        def draw_again(n: tf.Tensor, grade: tf.Tensor, best: tf.Tensor) -> tuple[tf.Tensor, ...]:
            turn = _draw(seed, TURN + 2 * n, 0, 4)
            code_seed = tf.cast(_draw(seed, CODE + 2 * n, 0, MAX_SEED), tf.int64)
            made = self.candidate(image, label, window, turn, code_seed)
            new_grade = self._grade(made, window)
            best = tf.where(new_grade > grade, made, best)
            return n + 1, tf.maximum(grade, new_grade), best

        none = tf.zeros(tf.concat([tf.shape(image)[:2], [self.depth]], axis=0))
        *_, best = tf.while_loop(
            lambda n, grade, _: (n < TRIES) & (grade < WHOLE),
            draw_again,
            (tf.constant(0), tf.constant(SMALL - 1), none),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([]),
                tf.TensorShape([None, None, self.depth]),
            ),
        )
        return best

    def candidate(
        self,
        image: tf.Tensor,
        label: tf.Tensor,
        window: tf.Tensor,
        turn: tf.Tensor,
        code_seed: tf.Tensor,
    ) -> tf.Tensor:
        """Generates a defect for a window of an image; see `Painter.draw`.

        Args:
            image: float32 `[H, W, C]` in [-1, 1].
            label: int32 [], the index of the kind.
            window: int32 `[3]`, `(row, column, side)`.
            turn: int32 [], quarter turns of the fabric that G sees.
            code_seed: int64 [], of z.

        Returns:
            The change to the image, `[H, W, C + 4]`; with `ground=nothing` the image with a patch
            in its window, and the mask, `[H, W, C + 1]`.
        """
        row, column, side = tf.unstack(window)
        fabric = _resized(image[row : row + side, column : column + side], PATCH)
        fabric = changes.rot90(fabric, turn)[None]
        code = self.painter.style(fabric, training=False)["code"]
        generate = self.painter.generator.generate
        made = generate(code, label[None], fabric, code_seed, compiled=False)[0]
        if self.is_on_fabric:
            return changes.spread(changes.turned(made, -turn), window, tf.shape(image)[:2])
        patch = _resized(changes.rot90(made, -turn), side)
        filled = tf.concat([image, -tf.ones_like(image[..., :1])], axis=-1)
        return tf.where(_inside(window, image) > 0, _moved(patch, window, image), filled)

    def _grade(self, candidate: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        """Returns `SMALL`, `CUT_OFF` or `WHOLE`."""
        mask = candidate[..., self.mask_channel] > 0
        is_large = tf.math.count_nonzero(mask, dtype=tf.int32) >= LEAST_MASK
        is_cut_off = changes.is_cut_off(mask, window, self.is_on_fabric)
        return tf.where(is_large, tf.where(is_cut_off, CUT_OFF, WHOLE), SMALL)

    def pasted(self, image: tf.Tensor, candidate: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        """Returns x of `DefectFusion`, `[H, W, C + 2]`: a candidate on its image, with window."""
        if self.is_on_fabric:
            candidate = on_fabric(candidate[None], image[None])[0]
        parts = [candidate[..., :-1], _inside(window, image), candidate[..., -1:]]
        return tf.concat(parts, axis=-1)


def _draw(seed: tf.Tensor, purpose: Any, low: Any, high: Any) -> tf.Tensor:
    """Draws a whole number from low to high - 1, int32 [], from the seed of an image."""
    both = tf.stack([seed, tf.cast(purpose, tf.int64)])
    return tf.random.stateless_uniform([], both, low, high, tf.int32)


def _draw_window(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws a window, int32 `[3]`; see `tfgad.multistage.pasting.draw_window`."""
    low, high = WINDOW_SIDES
    side = tf.minimum(_draw(seed, SIDE, low, high + 1), tf.reduce_min(shape))
    row, column = (
        _draw(seed, each, 0, shape[i] - side + 1) for i, each in enumerate((ROW, COLUMN))
    )
    return tf.stack([row, column, side])


def _resized(patch: tf.Tensor, side: Any) -> tf.Tensor:
    """Resizes a patch to a square; see `tfgad.multistage.patches.resized`."""
    resized = tf.image.resize(patch, tf.stack([side, side]), "bicubic", antialias=True)
    return tf.clip_by_value(resized, -1.0, 1.0)


def _inside(window: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Returns 1 inside a window of an image and 0 outside, float32 `[H, W, 1]`."""
    return _moved(tf.ones(tf.stack([window[2], window[2], 1])), window, image)


def _moved(patch: tf.Tensor, window: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Returns a patch at its place in an image of zeros."""
    before = window[:2]
    after = tf.shape(image)[:2] - before - window[2]
    return tf.pad(patch, tf.concat([tf.stack([before, after], axis=1), [[0, 0]]], axis=0))
