"""A trained painter: it puts defects on images of good fabric, and says where they are."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgad import files
from tfgad.errors import UsageError, nearest
from tfgad.multistage import changes, style  # noqa: F401  a painter's folder holds its layers
from tfgad.multistage.defect_generator import DefectGenerator
from tfgad.multistage.fusion import DefectFusion, inside, paste, with_window
from tfgad.multistage.pasting import draw_window
from tfgad.multistage.patches import PATCH, resized
from tfgad.networks.defects import FUSER_STEP, on_fabric
from tfgad.training import runs

log = logging.getLogger(__name__)

CONFIG = "painter.json"
MODELS = STYLE, GENERATOR, FUSION = "style.keras", "generator.keras", "fusion.keras"
BATCH = 16
LEAST_MASK = 12  # pixels of a defect worth the name, as `tfgad.data.datasets.weave.weave` has it
TRIES = 8  # drawings of a defect until it is large enough and not cut off
SMALL, CUT_OFF, WHOLE = range(3)  # merits of a drawing
FUSED, PASTED = "fused", "pasted"  # what becomes of a patch: stages 1 and 2, or stage 1 alone


@dataclasses.dataclass(frozen=True)
class Painted:
    """An image of good fabric with a painted defect.

    Attributes:
        image: float32 `[H, W, C]` in [-1, 1].
        mask: uint8 `[H, W, 1]`, 1 on the defect.
        kind: of the defect.
        good: the image before.
        patch: the generated defect before its fusion, as its window shows it: `[h, h, C + 1]`.
        window: `(row, column, side)`. A defect may go on outside.
    """

    image: np.ndarray
    mask: np.ndarray
    kind: str
    good: np.ndarray
    patch: np.ndarray
    window: tuple[int, int, int]


@dataclasses.dataclass(eq=False)
class Painter:
    """The fixed style network, the two trained models, and what is known of them.

    Attributes:
        style: images to `gram` and `code` (`tfgad.multistage.style`).
        generator: stage 1.
        fusion: stage 2.
        config: kinds of defect, data sets, settings, weights of VGG19, seconds, versions.
    """

    style: keras.Model
    generator: DefectGenerator
    fusion: DefectFusion
    config: dict[str, Any]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the kinds of defect."""
        return tuple(self.config["kinds"])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.fusion.fuser.output_shape[-1]

    def codes(self, fabrics: np.ndarray) -> np.ndarray:
        """The styles `[N, d]` of patches of good fabric `[N, h, w, C]`."""
        return np.concatenate(
            [self._style(fabrics[i : i + BATCH]) for i in range(0, len(fabrics), BATCH)]
        )

    def draw(self, images: np.ndarray, kinds: Sequence[str], windows, seed: int = 0) -> np.ndarray:
        """Draws a defect on each image, as stage 1 leaves it.

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

    def _drawn(self, images, labels, windows, seed):
        """Draws a batch. G sees the fabric turned, for it lays long defects one way alone."""
        turns = np.random.default_rng(seed).integers(4, size=len(images))
        fabrics = np.stack(
            [
                np.rot90(resized(image[inside(window)], PATCH), turn)
                for image, window, turn in zip(images, windows, turns, strict=True)
            ]
        )
        made = self.generator.generate(self.codes(fabrics), labels, fabrics, seed).numpy()
        lay = _laid if self.generator.on_fabric else _pasted
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
        """Paints defects, of all kinds in turn, each on one of the images drawn by chance.

        A defect that its window cuts off is drawn again, `TRIES` times at most; see
        `tfgad.multistage.changes.is_cut_off`. Where none of the drawings has `LEAST_MASK` pixels
        the image is left out; how many were is logged at the end.

        Args:
            images: of good fabric, `[N, H, W, C]` in [-1, 1].
            count: how many to paint; fewer are left if some are left out.
            kinds: names of those wanted; all by default.
            seed: the same gives the same.
            how: `fused`, or `pasted` to leave the patch as stage 1 made it.

        Raises:
            UsageError: no images, images of other channels or too small, an unknown kind, or all
                of them were left out.
        """
        self._check(images)
        kinds = tuple(kinds or self.kinds)
        rng, left_out = np.random.default_rng(seed), Counter()
        for start in range(0, count, BATCH):
            names = [kinds[n % len(kinds)] for n in range(start, min(start + BATCH, count))]
            good = images[rng.integers(len(images), size=len(names))]
            painted = self._painted(good, names, rng, how)
            left_out += Counter(names) - Counter(each.kind for each in painted)
            yield from painted
        self._tell(left_out, count)

    def _painted(self, good, kinds, rng, how):
        """Paints one defect on each image; returns those on which there is one."""
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

    def _with_defects(self, good, kinds, windows, rng):
        """Draws defects; while tries last, again where one is too small or cut off."""
        pasted = self.draw(good, kinds, windows, int(rng.integers(2**31)))
        merits = [self._merit(*each) for each in zip(pasted, windows, strict=True)]
        for _ in range(TRIES - 1):
            poor = [i for i, merit in enumerate(merits) if merit < WHOLE]
            if not poor:
                break
            again = ([each[i] for i in poor] for each in (kinds, windows))
            drawn = self.draw(good[poor], *again, int(rng.integers(2**31)))
            for i, image in zip(poor, drawn, strict=True):
                if (merit := self._merit(image, windows[i])) > merits[i]:
                    pasted[i], merits[i] = image, merit
        return pasted

    def _merit(self, pasted, window) -> int:
        """What a drawing is worth: `SMALL`, `CUT_OFF` or `WHOLE`."""
        mask = pasted[..., -1] > 0
        if not _is_large(mask):
            return SMALL
        goes_on = self.generator.on_fabric
        return CUT_OFF if changes.is_cut_off(mask, window, goes_on) else WHOLE

    def _tell(self, left_out, count):
        """Logs how many images of each kind were left out; if all were, that is an error."""
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

    def _check(self, images):
        if not len(images):
            raise UsageError("data", "no images", "nothing to paint on", "give good images")
        height, width, channels = images.shape[1:]
        if channels != self.channels:
            hint = f"load the data with channels={self.channels}"
            raise UsageError("data", f"{channels} channels", f"not {self.channels}", hint)
        if min(height, width) < PATCH or height % FUSER_STEP or width % FUSER_STEP:
            hint = f"give sides of at least {PATCH} that are multiples of {FUSER_STEP}"
            raise UsageError("data", f"{height}x{width}", "is no size to paint on", hint)

    @tf.function(reduce_retracing=True, autograph=False)
    def _codes_of(self, images):
        return self.style(images, training=False)["code"]

    def _style(self, images):
        return self._codes_of(tf.constant(images)).numpy()

    def save(self, folder: Path) -> None:
        """Writes the three models and, last, what is known of them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, model in zip(MODELS, (self.style, self.generator, self.fusion), strict=True):
            runs.save_model(model, folder / name)
        files.write_json(folder / CONFIG, self.config)


def _laid(image, change, window, turn):
    """Makes a change, drawn for the window turned, of an image: x of the fusion."""
    change = changes.spread(changes.turned(change, -turn), window, image.shape[:2])
    return with_window(_made_of(change[None], image[None])[0].numpy(), window)


_made_of = tf.function(on_fabric, autograph=False)  # traced anew for each size of image


def _pasted(image, patch, window, turn):
    """Pastes a patch, drawn for the window turned, into an image: x of the fusion."""
    return paste(image, resized(np.rot90(patch, -turn), window[-1]), window)


def _is_large(mask: np.ndarray) -> bool:
    return int(np.count_nonzero(mask)) >= LEAST_MASK


def load_painter(folder: str | Path) -> Painter:
    """Loads what `tfgad synthesize train` wrote.

    Raises:
        UsageError: the folder is not there, is none, or its training has not ended.
    """
    folder = Path(folder)
    hint = "give a folder that `tfgad synthesize train` wrote"
    if not folder.is_dir():
        raise UsageError("painter", folder, "is not there", hint)
    if not (folder / CONFIG).is_file():
        raise UsageError("painter", folder, "is no trained painter", hint)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        is_finished = "seconds" in config
        models = [keras.saving.load_model(folder / name) for name in MODELS] if is_finished else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("painter", folder, "cannot be read", hint) from error
    if not is_finished:
        hint = "go on with `tfgad synthesize train ... --resume`"
        raise UsageError("painter", folder, "has not been trained to the end", hint)
    return Painter(*models, config)
