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

from tfgad import files, runs
from tfgad.errors import UsageError, nearest
from tfgad.multistage.defect_generator import DefectGenerator
from tfgad.multistage.fusion import DefectFusion, paste
from tfgad.multistage.pasting import draw_window
from tfgad.multistage.patches import PATCH, crop, resized
from tfgad.networks.defects import FUSER_STEP

log = logging.getLogger(__name__)

CONFIG = "painter.json"
MODELS = STYLE, GENERATOR, FUSION = "style.keras", "generator.keras", "fusion.keras"
BATCH = 16
LEAST_MASK = 12  # pixels of a defect worth the name, as `tfgad.data.weave` has it
TRIES = 8  # drawings of a defect until its mask is large enough
FUSED, PASTED = "fused", "pasted"  # what becomes of a patch: stages 1 and 2, or stage 1 alone


@dataclasses.dataclass(frozen=True)
class Painted:
    """An image of good fabric with a painted defect.

    Attributes:
        image: float32 `[H, W, C]` in [-1, 1].
        mask: uint8 `[H, W, 1]`, 1 on the defect.
        kind: of the defect.
        good: the image before.
        patch: the generated defect, `[h, w, C + 1]`.
        window: `(row, column, side)` of where it went.
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
        return self.generator.generator.output_shape[-1] - 1

    def codes(self, fabrics: np.ndarray) -> np.ndarray:
        """The styles `[N, d]` of patches of good fabric `[N, h, w, C]`."""
        return np.concatenate(
            [self._style(fabrics[i : i + BATCH]) for i in range(0, len(fabrics), BATCH)]
        )

    def patches(self, fabrics: np.ndarray, kinds: Sequence[str], seed: int = 0) -> np.ndarray:
        """Generates a defect of each kind, in the style of each patch of good fabric.

        Args:
            fabrics: `[N, h, w, C]`; defects are drawn on them, if the generator draws on fabric.
            kinds: N names.
            seed: the same gives the same.

        Returns:
            `[N, h, w, C + 1]`, images and masks in [-1, 1].
        """
        labels = np.array([self._label(kind) for kind in kinds], np.int32)
        asked = self.codes(fabrics), labels, fabrics
        return np.concatenate(
            [
                self.generator.generate(*(each[i : i + BATCH] for each in asked), seed + i).numpy()
                for i in range(0, len(labels), BATCH)
            ]
        )

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

        Where the painter draws no defect of `LEAST_MASK` pixels in `TRIES` drawings, the image is
        left out; how many were is logged at the end.

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
        fabrics = [
            resized(crop(image, corner, side), PATCH)
            for image, (*corner, side) in zip(good, windows, strict=True)
        ]
        sides = [side for *_, side in windows]
        patches, in_windows = self._with_defects(np.stack(fabrics), kinds, sides, rng)
        pasted = np.stack(
            [
                paste(image, patch, corner, side)
                for image, patch, (*corner, side) in zip(good, in_windows, windows, strict=True)
            ]
        )
        images = pasted[..., : self.channels]
        if how == FUSED:
            images = self.fusion.fused(tf.constant(good), tf.constant(pasted)).numpy()
        masks = (pasted[..., -1:] > 0).astype(np.uint8)
        rows = zip(images, masks, kinds, good, patches, windows, strict=True)
        return [painted for painted in (Painted(*row) for row in rows) if _is_large(painted.mask)]

    def _with_defects(self, fabrics, kinds, sides, rng):
        """Generates patches; those whose defects are too small are drawn again, while tries last.

        What counts is the mask in the image, once the patch has the size of its window.

        Returns:
            The patches, and a list of them at the sizes of their windows.
        """
        patches = self.patches(fabrics, kinds, int(rng.integers(2**31)))
        in_windows = [resized(patch, side) for patch, side in zip(patches, sides, strict=True)]
        for _ in range(TRIES - 1):
            small = [i for i, patch in enumerate(in_windows) if not _is_large(patch[..., -1] > 0)]
            if not small:
                break
            seed = int(rng.integers(2**31))
            patches[small] = self.patches(fabrics[small], [kinds[i] for i in small], seed)
            for i in small:
                in_windows[i] = resized(patches[i], sides[i])
        return patches, in_windows

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
            mend = f"load the data with channels={self.channels}"
            raise UsageError("data", f"{channels} channels", f"not {self.channels}", mend)
        if min(height, width) < PATCH or height % FUSER_STEP or width % FUSER_STEP:
            mend = f"give sides of at least {PATCH} that are multiples of {FUSER_STEP}"
            raise UsageError("data", f"{height}x{width}", "is no size to paint on", mend)

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


def _is_large(mask: np.ndarray) -> bool:
    return int(np.count_nonzero(mask)) >= LEAST_MASK


def load_painter(folder: str | Path) -> Painter:
    """Loads what `tfgad synthesize train` wrote.

    Raises:
        UsageError: the folder is not there, is none, or its training has not ended.
    """
    folder = Path(folder)
    mend = "give a folder that `tfgad synthesize train` wrote"
    if not folder.is_dir():
        raise UsageError("painter", folder, "is not there", mend)
    if not (folder / CONFIG).is_file():
        raise UsageError("painter", folder, "is no trained painter", mend)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        is_finished = "seconds" in config
        models = [keras.saving.load_model(folder / name) for name in MODELS] if is_finished else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("painter", folder, "cannot be read", mend) from error
    if not is_finished:
        mend = "go on with `tfgad synthesize train ... --resume`"
        raise UsageError("painter", folder, "has not been trained to the end", mend)
    return Painter(*models, config)
