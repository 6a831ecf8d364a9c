"""What each part of `ganomaly_unet` adds: synthetic defects, the U-Net's input, the joined map.

    python examples/benchmarks/ablation.py --data 'weave:denim' 'aitex:03?tile=128' --runs RUNS \
        --out examples/benchmarks/results/ablation.json

GANomaly is trained once for each data set. For each variant the U-Net is trained again, from the
same first weights, on the same tiles and with the same random numbers: without one shape or
filling of `data/synthetic_defects.py`, from another source of defects, with the reconstruction
beside the image, with a lower learning rate. `all` is the method as it is. The figures are those of
the U-Net's map alone (`marks`) and of the joined one (`joint`), and for `all` of every way to join
the two.

The JSON is written after each variant; variants that it has are not trained again. There is one
seed, so small differences may be chance. A variant takes as long as the second stage of a training.
With `--painter` there are two more variants. The painter must not know defects of the fabrics of
`--data`, which are tested on.
"""

import argparse
import dataclasses
import functools
import time
from pathlib import Path
from urllib.parse import quote

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfgad import evaluation, files
from tfgad.data.sampling import batched, spread
from tfgad.data.spec import Spec
from tfgad.data.synthetic_defects import FILLINGS, SHAPES, Mix, with_defects
from tfgad.errors import UsageError, exit_on_usage_error
from tfgad.multistage.painter import load_painter
from tfgad.scores.cues import ADAPT_IMAGES
from tfgad.training import run_config, stages

METHOD = "ganomaly_unet"
FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
SETTINGS = {
    "all": {},
    "perlin": {"defect_source": "perlin"},
    "mix": {"defect_source": "mix"},
    "image+reconstruction": {"unet_input": "image+reconstruction"},
    "learning rate 0.001": {"unet_learning_rate": 1e-3},
}
OF_PAINTER = ("painter", "mix with painter")
PIXELS = 4  # a joining is learnt on every fourth row and column: the maps are smooth


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="specs, such as weave:denim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500, help="of GANomaly")
    parser.add_argument("--unet-steps", type=int, default=1000, help="of each U-Net")
    parser.add_argument("--painter", default="", help="folder of `tfgad synthesize train`")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--runs", type=Path, required=True, help="folder that keeps GANomaly")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()

    asked = {"seed": arguments.seed, "steps": [arguments.steps, arguments.unet_steps]}
    results = earlier(arguments.out, asked) or {"versions": run_config.versions(), "asked": asked}
    variants = variants_of(arguments.painter, arguments.only)
    if arguments.painter:
        check_painter(arguments.painter, arguments.data, results)
    for spec in arguments.data:
        found = results.setdefault(spec, {})
        missing = {name: each for name, each in variants.items() if name not in found}
        if missing:
            images = tfgad.load(spec, seed=arguments.seed)
            start = trained_ganomaly(spec, images, arguments)
            cues = evaluation.predict_test_set(start, images, "cues")
            found["cues"] = rounded(evaluation.figures_of(cues, images))
        for name, (settings, mix) in missing.items():
            found[name] = measured(name, settings, mix, start, images, cues, arguments)
            print(spec, name, found[name], flush=True)
            files.write_json(arguments.out, results)
        print(f"\n{spec}\n\n{table(found)}\n", flush=True)


def earlier(path, asked):
    """Returns the results of an earlier call; refuses those of other steps or another seed."""
    results = files.read_results(path)
    if results and results.get("asked") != asked:
        problem = f"has results of {results.get('asked')}, not {asked}"
        raise UsageError("out", path, problem, "give another file")
    return results


def check_painter(folder, specs, results):
    """Refuses a painter that knows a fabric of the test, or that is not that of the results."""
    config = load_painter(folder).config
    known = {fabric_of(spec) for spec in config["data"]}
    for spec in specs:
        if fabric_of(spec) in known:
            hint = "give a painter that was trained without it"
            raise UsageError("painter", folder, f"was trained on defects of {spec}", hint)
    given = {key: config[key] for key in ("data", "seed", "settings")}
    if results.setdefault("painter", given) != given:
        raise UsageError("painter", folder, "is not that of the results", "give another --out")


def fabric_of(spec):
    """Returns kind and name of a spec, without its options."""
    parsed = Spec.parse(spec)
    return parsed.kind, parsed.name


def variants_of(painter="", only=None):
    """Returns settings and mix of the synthetic defects of each variant, by name."""
    variants = {name: (settings, Mix()) for name, settings in SETTINGS.items()}
    variants |= {f"without {name}": ({}, Mix.without(name)) for name in (*SHAPES, *FILLINGS)}
    if painter:
        for name, source in zip(OF_PAINTER, ("painter", "mix"), strict=True):
            variants[name] = ({"defect_source": source, "painter": painter}, Mix())
    unknown = set(only or ()) - set(variants)
    if unknown:
        raise UsageError("only", sorted(unknown)[0], "is no variant", f"give {', '.join(variants)}")
    return {name: each for name, each in variants.items() if not only or name in only}


def built(images, arguments, **settings):
    """Returns a new model, whose weights and optimizers are those of the seed."""
    steps = f"{arguments.steps}+{arguments.unet_steps}"
    return tfgad.build(METHOD, images.image_shape, arguments.seed, steps=steps, **settings)


def fit(model, images, steps, checkpoint):
    """Fits the remaining steps of the stages that `steps` names."""

    def batches(first):
        return tfgad.training_batches(
            images,
            model.training_window,
            batch_size=model.images_per_step,
            seed=model.seed,
            start=first,
        )

    stages.fit_stages(model, steps, batches, checkpoint, stages.no_callbacks)


def trained_ganomaly(spec, images, arguments):
    """Returns a model after its first stage, and adapted; `--runs` keeps its checkpoint."""
    model = built(images, arguments)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    fit(model, images, {"ganomaly": arguments.steps}, checkpoint_of(spec, arguments))
    model.adapt(images.train, images.train_size)
    return model


def checkpoint_of(spec, arguments, stage=""):
    """Returns the file of a stage's checkpoint, of its own for each data set."""
    name = quote(f"{spec}_{arguments.seed}_{arguments.steps}{stage}", safe="")
    return arguments.runs / f"{name}.weights.h5"


def measured(name, settings, mix, start, images, cues, arguments):
    """Trains the U-Net of a variant; returns the figures of its scores."""
    model = built(images, arguments, **settings)
    for network, weights in start.ganomaly.networks().items():
        getattr(model.ganomaly, network).set_weights(weights.get_weights())
    for statistics in ("cues", "image_quality"):
        getattr(model, statistics).set_weights(getattr(start, statistics).get_weights())
    if mix != Mix():
        lay = functools.partial(with_defects, share=model.config.defects, mix=mix)
        model.with_defects = lambda tiles: lay(tiles, model.seed_of("defects"))
    # The step counts GANomaly's, so that random numbers are those of a whole training.
    model.step.assign(arguments.steps)
    began = time.monotonic()
    unfinished = checkpoint_of(images.spec, arguments, "_unet")
    unfinished.unlink(missing_ok=True)
    steps = {"ganomaly": arguments.steps, "unet": arguments.unet_steps}
    fit(model, images, steps, unfinished)
    unfinished.unlink()
    seconds = round(time.monotonic() - began, 1)
    model.scored_by("joint").adapt(images.train, images.train_size)

    found = {"training_seconds": seconds}
    for score in ("marks", "joint"):
        predicted = evaluation.predict_test_set(model, images, score)
        found[score] = rounded(evaluation.figures_of(predicted, images))
    if name == "all":
        found["joined"] = joined(model, images, cues)
    return found


def rounded(figures):
    """Returns the figures of the table, rounded; None stays None."""
    return {name: figures[name] and round(figures[name], 4) for name in FIGURES}


# Ways to join the map of cues c and the logits z of the U-Net


def joined(model, images, cues):
    """Returns the figures of every way to join the two maps of the test set."""
    logits = np.concatenate(
        [model.logit_maps(batch["image"]).numpy() for batch in batched(images.test)]
    )
    found = {}
    for name, join in ways(model, images).items():
        maps = join(cues.maps, logits).astype("float32")
        predicted = dataclasses.replace(cues, maps=maps, scores=maps.max(axis=(1, 2)))
        found[name] = rounded(evaluation.figures_of(predicted, images))
    return found


def ways(model, images):
    """Returns functions of maps c and logits z, `[N, H, W]`, to the joined map, by name."""
    normal = spread(images.train, images.train_size, ADAPT_IMAGES)
    maps = [two_maps(model, batch) for batch in batched(normal)]
    c, z = (np.concatenate(each) for each in zip(*maps, strict=True))
    means, deviations = (c.mean(), z.mean()), (c.std(), z.std())
    learnt = learnt_joining(model, images)

    def marks(logits):
        return model.joint.marks(logits).numpy()

    return {
        "sum": lambda c, z: c + marks(z),
        "maximum": lambda c, z: np.maximum(c, marks(z)),
        "sum of standardised": lambda c, z: (
            (c - means[0]) / deviations[0] + (z - means[1]) / deviations[1]
        ),
        "sum with -log(1 - p)": lambda c, z: c + np.logaddexp(0, z),
        "product": lambda c, z: np.maximum(c, 0) * marks(z),
        "learnt": learnt,
    }


def two_maps(model, tiles):
    """Returns the map of cues and the logits of tiles, `[N, H, W]` each."""
    return model.anomaly(tiles, "cues")["map"].numpy(), model.logit_maps(tiles).numpy()


def learnt_joining(model, images):
    """Fits a logistic regression to held-out good tiles with synthetic defects, pixel by pixel."""
    rows, labels = [], []
    for number, batch in enumerate(batched(images.calibration)):
        tiles, masks = with_defects(batch, tf.constant([model.seed, number], tf.int64))
        some = (slice(None), slice(None, None, PIXELS), slice(None, None, PIXELS))
        rows.append(np.stack([each[some].ravel() for each in two_maps(model, tiles)], axis=1))
        labels.append(masks.numpy()[..., 0][some].ravel())
    regression = make_pipeline(StandardScaler(), LogisticRegression())
    regression.fit(np.concatenate(rows), np.concatenate(labels) > 0)

    def join(c, z):
        both = np.stack([c.ravel(), z.ravel()], axis=1)
        return regression.decision_function(both).reshape(c.shape)

    return join


def table(found):
    """Returns the results of a data set as a Markdown table."""

    def row(name, figures):
        cells = [f"{figures[each]:.3f}" if figures[each] is not None else "–" for each in FIGURES]
        return f"| {name} | {' | '.join(cells)} |"

    lines = ["| map | AUROC | AP | pixel AUROC | AUPRO |", "|---" * 5 + "|"]
    lines.append(row("GANomaly's cues", found["cues"]))
    for score in ("marks", "joint"):
        lines += [
            row(f"{name}, {score}", each[score]) for name, each in found.items() if name != "cues"
        ]
    joinings = found.get("all", {}).get("joined", {})
    return "\n".join([*lines, *(row(f"joined by {way}", each) for way, each in joinings.items())])


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
