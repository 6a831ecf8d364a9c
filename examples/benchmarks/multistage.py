"""The Multistage GAN on a fabric nobody has defects of: IoU and F-measure of what was learnt how.

    python examples/benchmarks/multistage.py --out examples/benchmarks/results/multistage.json
    python examples/benchmarks/multistage.py --targets aitex:03 --seeds 1 \
        --out examples/benchmarks/results/multistage_aitex.json
    python examples/benchmarks/multistage.py --quick --targets weave:twill --seeds 1 --out q.json

Painter and segmenter learn from fabrics that are no target: from five weaves for the three others,
from AITEX fabrics 00 and 01 for 03. For each target in turn the segmenter judges its test tiles,

- `source`: as it is;
- `known`: after further training on good tiles of the target, with no new defects at all;
- `cut`: with good tiles onto which defects of the other fabrics were pasted as they are, cut out
  along their masks;
- `pasted`: with patches of stage 1 instead, pasted unfused;
- `fused`: with stages 1 and 2;
- `adapted`: half with these, half with those of `cut`, as `tfgad segment adapt` does;
- `true`: with the target's own defects: the upper bound. Of a weave they are from other tiles; of
  AITEX from every second defective strip, so there all six are judged by the other strips.

The six trainings are of equal length from the same weights, and half of their defects, all of
`known`, are those of the other fabrics where they were, as in `tfgad segment adapt`. A pixel is
marked above the threshold that one in a hundred held-out good tiles of the target exceeds; the JSON
also has the IoU at even odds. Nothing is chosen on the test tiles. What the JSON holds already is
not computed again. With `--work` the painters and segmenters are kept, and a training that was
broken off goes on where it was.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfgad
from tfgad import evaluation, files, metrics, runs
from tfgad.multistage import adaptation, painter_training, segmenter_training, sources
from tfgad.multistage.painter import FUSED, PASTED
from tfgad.multistage.transplants import transplanted

TARGETS = ("weave:twill", "weave:satin", "weave:check")  # a diagonal, a smooth one, two colours
OF_AITEX = ("aitex:00", "aitex:01")  # what is learnt from for another of its fabrics
WAYS = ("source", "known", "cut", "pasted", "fused", "adapted", "true")
OWN_TILES = 1000  # half of them defective: as many as are made in the other ways
OTHER_BOLT = 1000  # added to the seed of the target's tiles whose defects are learnt from


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file; it is added to")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a trial: minutes, and no use")
    parser.add_argument("--work", type=Path, help="folder that keeps what is trained")
    parser.add_argument("--set-painter", nargs="*", default=[], help="settings, name=value")
    arguments = parser.parse_args()
    given = dict(setting.split("=", 1) for setting in arguments.set_painter)
    specs = learnt_from(arguments.targets)
    asked = {"learnt from": specs, "quick": arguments.quick, "painter": given}
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"asked": asked}
    if results.get("asked") != asked:
        parser.error(f"{arguments.out} holds results of {results.get('asked')}, not of {asked}")
    results["versions"] = runs.versions()
    for seed in range(arguments.seeds):
        of_seed = [results.setdefault(target, {}) for target in arguments.targets]
        if all(str(seed) in each for each in of_seed):
            continue
        with place(arguments.work, seed) as folder:
            fabrics = sources.read_sources(specs, seed=seed)
            painter, segmenter, trainings = trained(fabrics, folder, seed, arguments.quick, given)
            results.setdefault("trainings", {}).setdefault(str(seed), trainings)
            for target, of_target in zip(arguments.targets, of_seed, strict=True):
                if str(seed) not in of_target:
                    of_target[str(seed)] = judge(target, painter, segmenter, fabrics, seed)
                    files.write_json(arguments.out, results)
                    print(target, seed, of_target[str(seed)], flush=True)
    print(table(results))


def learnt_from(targets):
    """The specs of the fabrics with known defects: none of them is a target."""
    if targets[0].startswith("weave:"):
        return sources.expand(["weave:*"], [target.split(":")[1] for target in targets])
    return [spec for spec in OF_AITEX if spec not in targets]


def trained(fabrics, folder, seed, quick, given):
    """Trains painter and segmenter; returns them, and the seconds of each stage."""
    processor = time.process_time()
    of_painter = {**(painter_training.QUICK if quick else {}), **given}
    painter = painter_training.train_painter(
        fabrics, folder / "painter", settings=of_painter, seed=seed, resume=True
    )
    run = segmenter_training.train_segmenter(
        fabrics,
        folder / "segmenter",
        settings=segmenter_training.QUICK if quick else {},
        seed=seed,
        resume=True,
    )
    seconds = {**painter.config["seconds"], "segmenter": run.config["training_seconds"]}
    seconds["processor time, all of it"] = round(time.process_time() - processor, 1)
    return painter, run, {"seconds": seconds, "vgg_weights": painter.config["vgg_weights"]}


def judge(target, painter, run, fabrics, seed):
    """Adapts the segmenter to a target in each way; returns the figures, and seconds."""
    images = tfgad.load(target, seed=seed)
    settings = run.config["settings"]
    count = settings["painted"] + settings["transplanted"]
    true, left_out = own_defects(images, target, seed, count)
    begun, processor = time.monotonic(), time.process_time()
    rows = {"known": [each[:0] for each in true]}
    good = sources.good_images(images.train, images.train_size)
    rows |= examples(fabrics, painter, good, seed, count) | {"true": true}
    seconds = {"painting": round(time.monotonic() - begun, 1)}
    held_out = sources.good_images(images.calibration, images.calibration_size)
    figures = {"source": figures_of(run.model, images, held_out, left_out)}
    for way, (defective, masks) in rows.items():
        begun = time.monotonic()
        of_way = {"defective": defective, "masks": masks, "good": good}
        adapted = adaptation.further(run, of_way, fabrics, seed)
        seconds[f"adapting, {way}"] = round(time.monotonic() - begun, 1)
        figures[way] = figures_of(adapted, images, held_out, left_out)
    seconds["processor time, all of it"] = round(time.process_time() - processor, 1)
    return {"figures": figures, "seconds": seconds}


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


def examples(fabrics, painter, good, seed, count):
    """Returns defective images and masks of each way that needs none of the target's defects."""
    rows = {"cut": transplanted(fabrics, good, count, seed)[:2]}
    for way, how in (("pasted", PASTED), ("fused", FUSED)):
        of_way = list(painter.paint(good, count, seed=seed, how=how))
        rows[way] = [np.stack([getattr(p, name) for p in of_way]) for name in ("image", "mask")]
    halves = zip(rows["fused"], rows["cut"], strict=True)
    half = count // 2
    return rows | {"adapted": [np.concatenate([a[:half], b[:half]]) for a, b in halves]}


def figures_of(model, images, held_out, left_out):
    """Judges the test tiles, but for those of some pictures, at a threshold from held-out ones."""
    held_out = tf.data.Dataset.from_tensor_slices(held_out)
    threshold = model.calibrate(held_out, runs.FALSE_POSITIVE_RATE).value
    judged = evaluation.judge_test_set(model, images)
    kept = np.array([picture(name) not in left_out for name in judged.names])
    masks, maps = judged.masks[kept], judged.maps[kept]
    auroc = metrics.image_metrics(judged.labels[kept], judged.scores[kept])["image_auroc"]
    return {
        **metrics.segmentation(masks, maps > threshold),
        "iou_at_even_odds": metrics.segmentation(masks, maps > 0.0)["iou"],
        "image_auroc": auroc,
        "threshold": threshold,
    }


def table(results):
    """Returns the results as a Markdown table: IoU and F-measure, mean and deviation over seeds."""
    targets = [name for name in results if ":" in name]
    lines = [
        "| | " + " | ".join(f"{t}, IoU / F" for t in targets) + " |",
        "|---" * (len(targets) + 1) + "|",
    ]
    for way in WAYS:
        cells = []
        for target in targets:
            of_seeds = [each["figures"][way] for each in results[target].values()]
            cells.append(" / ".join(cell(of_seeds, name) for name in ("iou", "f_measure")))
        lines.append(f"| `{way}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(of_seeds, name):
    """Mean and standard deviation of one figure."""
    values = [each[name] for each in of_seeds]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    main()
