"""Sources of synthetic defects: procedural shapes, Perlin noise, a trained painter, or a mix.

| source | defects |
|---|---|
| `shapes` | shapes and fillings of `synthetic_defects.py` |
| `perlin` | textures of weaves where Perlin noise is above a threshold (`perlin.py`), as in DRAEM |
| `painter` | painted by a Multistage GAN that was trained on the known defects of other fabrics |
| `mix` | for each image one of these, each as likely; the painter where there is one |
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfgad.data.perlin import with_perlin_defects
from tfgad.data.random_numbers import Random
from tfgad.data.synthetic_defects import with_defects
from tfgad.errors import UsageError

SOURCES = SHAPES, PERLIN, PAINTER, MIX = ("shapes", "perlin", "painter", "mix")
NO_PAINTER = "none"

# `tfgad.multistage` imports this package. So the loader is imported by its name, when it is first
# needed, like the loaders of data sets.
PAINTER_LOADER = "tfgad.multistage.painter:load_painter"

# Images, seed, and share of the images that get a defect, as of `with_defects` -> images and masks.
Source = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, tf.Tensor]]


class Painter(Protocol):
    """Interface of a painter of defects, such as `tfgad.multistage.painter.Painter`.

    It is called by an operation of the training's graph (`tf.numpy_function`), and must not run
    graphs of its own: these may wait forever for the thread that the operation occupies.
    """

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """Specs of the data sets whose defects it knows."""

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UsageError unless it can paint on images `(H, W, C)`."""

    def paint_each(self, images: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Paints a defect on each image.

        Args:
            images: float32 `[N, H, W, C]` in [-1, 1].
            seeds: int32 `[N]`, not negative; an image's defect depends on its own seed only.

        Returns:
            Images float32 `[N, H, W, C]` in [-1, 1], and masks `[N, H, W, 1]`, 0 or 1.
        """


def painter_of(source: str, folder: str, image_shape: Sequence[int]) -> Painter | None:
    """Returns the painter of the settings `defect_source` and `painter`, None if they name none.

    Args:
        source: one of `SOURCES`.
        folder: of the painter, or `none`.
        image_shape: `(H, W, C)` of the images that it is to paint on.

    Raises:
        UsageError: a source without its painter, or a painter without a source that takes it; a
            folder that holds none, or one that cannot paint on such images.
    """
    if source not in (PAINTER, MIX) and folder != NO_PAINTER:
        hint = "give defect_source=painter or defect_source=mix, too"
        raise UsageError("painter", folder, f"is not used by defect_source={source}", hint)
    if source == PAINTER and folder == NO_PAINTER:
        hint = "give painter=FOLDER, which `tfgad synthesize train` writes"
        raise UsageError("defect_source", source, "needs a painter", hint)
    if folder == NO_PAINTER:
        return None
    painter: Painter = pkgutil.resolve_name(PAINTER_LOADER)(folder, compiled=False)
    painter.check_shape(image_shape)
    return painter


def sources_of(source: str, painter: Painter | None) -> list[Source]:
    """Returns the functions that add the defects of a source: one, or several for `mix`.

    Args:
        source: one of `SOURCES`.
        painter: that of `painter_of`; `mix` includes it unless it is None.

    Raises:
        UsageError: the source `painter` without a painter.
    """
    if source == SHAPES:
        return [with_defects]
    if source == PERLIN:
        return [with_perlin_defects]
    if source == PAINTER and painter is None:
        raise UsageError("defect_source", source, "has no painter yet", "call `prepare` first")
    painted = [] if painter is None else [painted_by(painter)]
    return painted if source == PAINTER else [with_defects, with_perlin_defects, *painted]


def with_defects_of(
    sources: Sequence[Source],
    images: tf.Tensor,
    seed: tf.Tensor,
    seed_of_source: tf.Tensor,
    share: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Lays a synthetic defect of one of several sources on some images of a batch.

    Args:
        sources: functions of `sources_of`, each as likely as the others. Each of them computes the
            whole batch.
        images: float32 `[B, H, W, C]` in [-1, 1], of good parts or fabric.
        seed: of the defects, two whole numbers, int64.
        seed_of_source: of the choice of each image's source, two other numbers.
        share: of the images that get a defect, each with this probability.

    Returns:
        The images float32 `[B, H, W, C]` in [-1, 1], and the masks float32 `[B, H, W, 1]`.
    """
    if len(sources) == 1:
        return sources[0](images, seed, share)
    chosen = Random(seed_of_source, tf.shape(images)[0]).choice([1.0] * len(sources))
    masks = tf.zeros_like(images[..., :1])
    for i, source in enumerate(sources):  # with a share of 0 an image is not changed
        own = tf.where(chosen[:, None, None, None] == i, share, 0.0)
        images, mask = source(images, seed, own)
        masks += mask
    return images, masks


def painted_by(painter: Painter) -> Source:
    """Returns a source whose defects a painter paints, outside of TensorFlow's graph."""

    def paint(
        images: np.ndarray, seeds: np.ndarray, has_defect: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        masks = np.zeros_like(images[..., :1])
        if has_defect.any():
            images = images.copy()  # TensorFlow's own memory
            images[has_defect], masks[has_defect] = painter.paint_each(
                images[has_defect], seeds[has_defect]
            )
        return images, masks

    def with_painted_defects(
        images: tf.Tensor, seed: tf.Tensor, share: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        random = Random(seed, tf.shape(images)[0])
        seeds, has_defect = random.whole_numbers(), random.uniform(0.0, 1.0) < share
        given = [images, seeds, has_defect[:, 0, 0, 0]]
        painted, masks = tf.numpy_function(paint, given, [tf.float32, tf.float32])
        shape = images.shape
        return tf.ensure_shape(painted, shape), tf.ensure_shape(masks, [*shape[:-1], 1])

    return with_painted_defects
