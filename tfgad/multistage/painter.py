"""The defect painter: a trained defect generator with its fusion network.

A painter puts defects on images of good fabric, with their masks. It has the style network
(`style`), the defect generator (stage 1, `defect_generator`) and the fusion network (stage 2,
`fusion`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad.errors import UsageError, nearest
from tfgad.multistage import changes
from tfgad.multistage import style as _layers  # noqa: F401  of the style network
from tfgad.multistage.defect_generator import DefectGenerator
from tfgad.multistage.fusion import DefectFusion, inside, paste, with_window
from tfgad.multistage.painter_folder import MODELS, PainterFolder
from tfgad.multistage.pasting import Window, draw_window
from tfgad.multistage.patches import PATCH, resized
from tfgad.networks.defects import FUSER_STEP, on_fabric
from tfgad.training.saving import save_model

log = logging.getLogger(__name__)

BATCH = 16
LEAST_MASK = 12  # pixels of the smallest defect, as in `tfgad.data.datasets.weave.weave`
TRIES = 8  # to generate a defect that is large enough and not cut off
SMALL, CUT_OFF, WHOLE = range(3)  # grades of a generated defect
FUSED, PASTED = "fused", "pasted"  # stages 1 and 2, or stage 1 alone


@dataclasses.dataclass(frozen=True)
class Painted:
    """An image of good fabric with a painted defect.

    Attributes:
        image: float32 `[H, W, C]` in [-1, 1].
        mask: uint8 `[H, W, 1]`, 1 on the defect.
        kind: of the defect.
        good: the image before.
        patch: the window before fusion, image and mask: `[h, h, C + 1]`.
        window: `(row, column, side)`. A defect may extend beyond it.
    """

    image: np.ndarray
    mask: np.ndarray
    kind: str
    good: np.ndarray
    patch: np.ndarray
    window: tuple[int, int, int]


@dataclasses.dataclass(eq=False)
class Painter:
    """Paints defects on images of good fabric.

    Attributes:
        style: fixed network, images to `gram` and `code` (`tfgad.multistage.style`).
        generator: stage 1.
        fusion: stage 2.
        config: kinds of defect, data sets, settings, weights of φ, seconds, versions.
        compiled: whether the networks run as graphs. Give False if `tf.numpy_function` calls the
            painter: a graph inside of it may wait forever for the thread that it occupies.
    """

    style: keras.Model
    generator: DefectGenerator
    fusion: DefectFusion
    config: dict[str, Any]
    compiled: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds of defect."""
        return tuple(self.config["kinds"])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.fusion.fuser.output_shape[-1]

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """The specs of the data sets whose defects it was trained on."""
        return tuple(self.config["data"])

    def codes(self, fabrics: np.ndarray) -> np.ndarray:
        """Returns the style codes `[N, d]` of patches of good fabric `[N, h, w, C]`."""
        return np.concatenate(
            [self._style(fabrics[i : i + BATCH]) for i in range(0, len(fabrics), BATCH)]
        )

    def draw(
        self, images: np.ndarray, kinds: Sequence[str], windows: Sequence[Window], seed: int = 0
    ) -> np.ndarray:
        """Puts a generated defect on each image by stage 1 alone.

        Args:
            images: of good fabric, `[N, H, W, C]` in [-1, 1].
            kinds: N names.
            windows: N of `(row, column, side)`; see `tfgad.multistage.pasting.draw_window`.
            seed: the same gives the same.

        Returns:
            Images with their windows and masks, `[N, H, W, C + 2]`: x of `DefectFusion`.
        """
        labels = np.array([self._label(kind) for kind in kinds], np.int32)
        batches = [slice(start, start + BATCH) for start in range(0, len(labels), BATCH)]
        return np.concatenate(
            [self._drawn(images[i], labels[i], windows[i], seed + i.start) for i in batches]
        )

    def _drawn(
        self, images: np.ndarray, labels: np.ndarray, windows: Sequence[Window], seed: int
    ) -> np.ndarray:
        """Draws a batch. G sees the fabric turned: it draws long defects in one direction only."""
        turns = np.random.default_rng(seed).integers(4, size=len(images))
        fabrics = np.stack(
            [
                np.rot90(resized(image[inside(window)], PATCH), turn)
                for image, window, turn in zip(images, windows, turns, strict=True)
            ]
        )
        conditions = self.codes(fabrics), labels, fabrics
        made = self.generator.generate(*conditions, seed, compiled=self.compiled).numpy()
        lay = self._laid if self.generator.on_fabric else _pasted
        return np.stack([lay(*each) for each in zip(images, made, windows, turns, strict=True)])

    def paint(
        self,
        images: np.ndarray,
        count: int,
        *,
        kinds: Sequence[str] | None = None,
        seed: int = 0,
        how: str = FUSED,
    ) -> Iterator[Painted]:
        """Paints defects, of all kinds in turn, each on an image drawn at random.

        A defect that is too small or cut off by its window is drawn again, `TRIES` times in all;
        see `tfgad.multistage.changes.is_cut_off`. If none has `LEAST_MASK` pixels, the image is
        left out; the number of these is logged at the end.

        Args:
            images: of good fabric, `[N, H, W, C]` in [-1, 1].
            count: of images; fewer are painted if some are left out.
            kinds: names of the kinds to paint; all if None.
            seed: the same gives the same.
            how: `fused`, or `pasted` for stage 1 alone.

        Yields:
            The painted images.

        Raises:
            UsageError: no images, images of other channels or too small, an unknown kind, or all
                images were left out.
        """
        if not len(images):
            raise UsageError("data", "no images", "nothing to paint on", "give good images")
        self.check_shape(images.shape[1:])
        kinds = tuple(kinds or self.kinds)
        rng = np.random.default_rng(seed)
        left_out: Counter[str] = Counter()
        for start in range(0, count, BATCH):
            names = [kinds[n % len(kinds)] for n in range(start, min(start + BATCH, count))]
            good = images[rng.integers(len(images), size=len(names))]
            painted = self._painted(good, names, rng, how)
            left_out += Counter(names) - Counter(each.kind for each in painted)
            yield from painted
        self._log_left_out(left_out, count)

    def paint_each(self, images: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Paints a defect of a random kind on each image.

        An image's defect depends on the image and its own seed only. If none of `TRIES` defects has
        `LEAST_MASK` pixels, the image is returned unchanged, with a mask of zeros.

        Args:
            images: of good fabric, float32 `[N, H, W, C]` in [-1, 1].
            seeds: N whole numbers, not negative.

        Returns:
            The images float32 `[N, H, W, C]` in [-1, 1], and the masks uint8 `[N, H, W, 1]`.
        """
        painted, masks = images.copy(), np.zeros((*images.shape[:-1], 1), np.uint8)
        for i, seed in enumerate(seeds):
            rng = np.random.default_rng(int(seed))
            kind = self.kinds[rng.integers(len(self.kinds))]
            for each in self._painted(images[i : i + 1], [kind], rng, FUSED):
                painted[i], masks[i] = each.image, each.mask
        return painted, masks

    def _painted(
        self, good: np.ndarray, kinds: Sequence[str], rng: np.random.Generator, how: str
    ) -> list[Painted]:
        """Paints one defect on each image; returns the images whose defect is large enough."""
        windows = [draw_window(image.shape, rng) for image in good]
        pasted = self._with_defects(good, kinds, windows, rng)
        images = pasted[..., : self.channels]
        if how == FUSED:
            images = self.fusion.fused(tf.constant(good), tf.constant(pasted)).numpy()
        drawn = np.delete(pasted, -2, axis=-1)
        patches = [image[inside(window)] for image, window in zip(drawn, windows, strict=True)]
        masks = (pasted[..., -1:] > 0).astype(np.uint8)
        rows = zip(images, masks, kinds, good, patches, windows, strict=True)
        return [painted for painted in (Painted(*row) for row in rows) if _is_large(painted.mask)]

    def _with_defects(
        self,
        good: np.ndarray,
        kinds: Sequence[str],
        windows: Sequence[Window],
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Returns x of each image; where a defect is too small or cut off, the best of `TRIES`."""
        pasted = self.draw(good, kinds, windows, int(rng.integers(2**31)))
        grades = [self._grade(*each) for each in zip(pasted, windows, strict=True)]
        for _ in range(TRIES - 1):
            poor = [i for i, grade in enumerate(grades) if grade < WHOLE]
            if not poor:
                break
            kinds_again, windows_again = [kinds[i] for i in poor], [windows[i] for i in poor]
            drawn = self.draw(good[poor], kinds_again, windows_again, int(rng.integers(2**31)))
            for i, image in zip(poor, drawn, strict=True):
                if (grade := self._grade(image, windows[i])) > grades[i]:
                    pasted[i], grades[i] = image, grade
        return pasted

    def _grade(self, pasted: np.ndarray, window: Window) -> int:
        """Returns `SMALL`, `CUT_OFF` or `WHOLE`."""
        mask = pasted[..., -1] > 0
        if not _is_large(mask):
            return SMALL
        extends = self.generator.on_fabric
        return CUT_OFF if changes.is_cut_off(mask, window, extends) else WHOLE

    def _log_left_out(self, left_out: Counter[str], count: int) -> None:
        """Logs how many images of each kind were left out; raises UsageError if all were."""
        number = sum(left_out.values())
        if not number:
            return
        problem = f"draws no defect of {LEAST_MASK} pixels in {TRIES} tries"
        if number == count:
            given = f"of {self.config['settings']['steps']} steps"
            raise UsageError("painter", given, problem, "train it for more steps")
        kinds = ", ".join(f"{kind}: {n}" for kind, n in sorted(left_out.items()))
        log.warning("left out %d of %d images (%s): the painter %s", number, count, kinds, problem)

    def _label(self, kind: str) -> int:
        if kind not in self.kinds:
            raise UsageError("kind", kind, "is not known to the painter", nearest(kind, self.kinds))
        return self.kinds.index(kind)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UsageError unless the painter can paint on images of a shape, `(H, W, C)`."""
        height, width, channels = shape
        if channels != self.channels:
            hint = f"load the data with channels={self.channels}"
            raise UsageError("data", f"{channels} channels", f"not {self.channels}", hint)
        if min(height, width) < PATCH or height % FUSER_STEP or width % FUSER_STEP:
            hint = f"give sides of at least {PATCH} that are multiples of {FUSER_STEP}"
            raise UsageError("data", f"{height}x{width}", "is no size to paint on", hint)

    def _laid(self, image: np.ndarray, change: np.ndarray, window: Window, turn: int) -> np.ndarray:
        """Applies a change, generated for the turned window, to an image: x of the fusion."""
        change = changes.spread(changes.turned(change, -turn), window, image.shape[:2])
        lay = _on_fabric if self.compiled else on_fabric
        return with_window(lay(change[None], image[None])[0].numpy(), window)

    @tf.function(reduce_retracing=True, autograph=False)
    def _codes_in_graph(self, images: tf.Tensor) -> tf.Tensor:
        return self._codes_of(images)

    def _codes_of(self, images: tf.Tensor) -> tf.Tensor:
        return self.style(images, training=False)["code"]

    def _style(self, images: np.ndarray) -> np.ndarray:
        codes_of = self._codes_in_graph if self.compiled else self._codes_of
        return codes_of(tf.constant(images)).numpy()

    def save(self, folder: Path) -> None:
        """Writes the three models and, last, the configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in zip(MODELS, (self.style, self.generator, self.fusion), strict=True):
            save_model(model, folder / name)
        PainterFolder(folder).write_config(self.config)


_on_fabric = tf.function(on_fabric, autograph=False)  # traced once for each size of image


def _pasted(image: np.ndarray, patch: np.ndarray, window: Window, turn: int) -> np.ndarray:
    """Pastes a patch, generated for the turned window, into an image: x of the fusion."""
    return paste(image, resized(np.rot90(patch, -turn), window[-1]), window)


def _is_large(mask: np.ndarray) -> bool:
    return int(np.count_nonzero(mask)) >= LEAST_MASK


def load_painter(folder: str | Path, *, compiled: bool = True) -> Painter:
    """Loads what `tfgad synthesize train` wrote.

    Args:
        folder: of the painter.
        compiled: see `Painter`.

    Raises:
        UsageError: the folder does not exist, holds no painter, or its training is not finished.
    """
    place = PainterFolder(folder)
    hint = "give a folder that `tfgad synthesize train` wrote"
    if not place.path.is_dir():
        raise UsageError("painter", folder, "is not there", hint)
    config = place.read_config()
    if config is None:
        raise UsageError("painter", folder, "is no trained painter", hint)
    if not place.is_finished():
        resume = "continue it with `tfgad synthesize train ... --resume`"
        raise UsageError("painter", folder, "is not finished", resume)
    try:
        style, generator, fusion = (keras.saving.load_model(place.path / name) for name in MODELS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("painter", folder, "cannot be read", hint) from error
    if generator.kinds != len(config["kinds"]):
        problem = f"names {len(config['kinds'])} kinds of defect, but draws {generator.kinds}"
        raise UsageError("painter", folder, problem, hint)
    return Painter(style, generator, fusion, config, compiled)
