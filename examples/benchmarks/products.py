"""One model for several products, beside one model for each.

    python examples/benchmarks/products.py --data "weave:twill+satin+herringbone?size=64" \
        "aitex:00+01+03?tile=128" --steps 400+250 --runs runs \
        --out examples/benchmarks/results/products.json

All models have the same method, settings, seed and number of steps: the one model sees as many
images of all products together as each of the others of its own product. The test images of a
product are the same for both. The JSON holds for each product the figures of both: AUROC, average
precision, and at the threshold the shares of defects found and of false alarms; and of the one
model the share of test images whose product it recognises. The verdicts of the one model are by the
true product; `recognised_verdicts` is the share that is the same by the recognised one.
`unlike_every_product` is the share of good test images that are, when the product is recognised;
`left_out` is that of the good test images of a product that is left out of what is recognised.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import evaluation, files, training

# isort: split

import numpy as np
import tensorflow as tf

from tfgad.data.products import SEPARATOR
from tfgad.data.sampling import batched
from tfgad.data.spec import Spec
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation.by_product import by_product
from tfgad.evaluation.metrics import image_metrics
from tfgad.evaluation.units import units_of
from tfgad.scores.products import Products
from tfgad.scores.tile_statistics import UNLIKE_ALL
from tfgad.training import run_config
from tfgad.training.run import FALSE_POSITIVE_RATE

SHOWN = ("image_auroc", "image_ap", "recall", "false_alarm_rate")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="specs of several products")
    parser.add_argument("--method", default="ganomaly_unet")
    parser.add_argument("--steps", default="400+250", help="of each model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, required=True, help="folder that keeps the runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    given = parser.parse_args()
    known = files.read_object(given.out) or {}
    results = {**known, "versions": run_config.versions()}
    for spec in given.data:
        key = f"{given.method}, {spec}"
        results[key] = {"steps": given.steps, "seed": given.seed, **compared(given, spec)}
        files.write_json(given.out, results)
        for product, each in results[key]["products"].items():
            for kind in ("together", "alone"):
                row = " | ".join(cell(each[kind][name]) for name in SHOWN)
                print(f"| {key}, {product} | {kind} | {row} |", flush=True)


def compared(given, spec):
    """Returns the figures of one model for all products of a spec, and of one model for each."""
    parsed = Spec.parse(spec)
    together, images = trained(given, spec)
    predictions = evaluation.predict_test_set(together.model, images)
    threshold = float(together.model.calibration.threshold)
    units = units_of(predictions, images)[images.counted_unit]
    products = {
        product: {"together": figures}
        for product, figures in by_product(images, predictions, units, threshold).items()
    }
    for product in parsed.name.split(SEPARATOR):
        run, own = trained(given, str(Spec(parsed.kind, product, parsed.options)))
        found = units_of(evaluation.predict_test_set(run.model, own), own)[own.counted_unit]
        alarms = found.alarms(float(run.model.calibration.threshold))
        metrics = image_metrics(found.labels, found.scores)
        figures = {name: metrics[name] for name in ("image_auroc", "image_ap")}
        figures["recall"] = float(alarms[found.labels].mean())
        figures["false_alarm_rate"] = float(alarms[~found.labels].mean())
        products[product]["alone"] = figures
    return {
        "products": products,
        "recognised": float(np.mean(recognised(images, predictions))),
        **by_recognised_product(together.model, images, predictions),
        "left_out": left_out(together.model.products, images),
        "seconds": together.config["training_seconds"],
    }


def trained(given, spec):
    """Returns the run of a spec and its data; one that is there is taken as it is."""
    name = f"{given.method}_{spec}_{given.steps}_{given.seed}"
    folder = given.runs / name.translate(str.maketrans(":?=&/+", "______"))
    settings = {"steps": given.steps}
    run = training.train(
        given.method, spec, folder, seed=given.seed, settings=settings, resume=True
    )
    return run, tfgad.load(run.config["data"])


def recognised(images, predictions):
    """Returns for which test images the model recognises the product."""
    truth = [images.product_of(name) for name in predictions.names]
    return np.array(truth) == np.array(predictions.products)


def by_recognised_product(model, images, predictions):
    """Returns the shares of same verdicts and of good test images unlike every product."""
    reasons = [
        reason.decode()
        for batch in batched(images.test).as_numpy_iterator()
        for reason in model.reasons(tf.constant(batch["image"])).numpy()
    ]
    truth, found = (
        np.array([model.product_names.index(name) for name in of])
        for of in (map(images.product_of, predictions.names), predictions.products)
    )
    thresholds, scales = (
        each.numpy() for each in (model.products.thresholds, model.products.scales)
    )
    raw = predictions.scores * scales[truth] + thresholds[truth]
    by_truth = (predictions.scores > 0) | (np.array(predictions.reasons) != "")
    by_found = (raw > thresholds[found]) | (np.array(reasons) != "")
    unlike = np.array(reasons)[predictions.labels == 0] == UNLIKE_ALL
    return {
        "recognised_verdicts": float(np.mean(by_truth == by_found)),
        "unlike_every_product": float(np.mean(unlike)),
    }


def left_out(layer, images):
    """Returns how many good test images are unlike every product where theirs is not known."""
    described = {
        part: np.concatenate([layer.describe(batch).numpy() for batch in batched(stream)])
        for part, stream in (("train", images.train), ("calibration", images.calibration))
    }
    rows = [
        (images.product_of(name.decode()), description)
        for batch in batched(images.test).as_numpy_iterator()
        for name, label, description in zip(
            batch["name"], batch["label"], layer.describe(batch["image"]).numpy(), strict=True
        )
        if not label
    ]
    shares = {}
    for number, product in enumerate(images.products):
        others = [name for name in images.products if name != product]
        without = Products(others, layer.tile, layer.channels)
        known = {
            part: (of != number, of[of != number] - (of[of != number] > number))
            for part, of in (
                ("train", images.train_products),
                ("calibration", images.calibration_products),
            )
        }
        kept, of = known["train"]
        without.adapt(described["train"][kept], of)
        kept, of = known["calibration"]
        distances = without.distances(described["calibration"][kept]).numpy()
        without.calibrate(distances, of, FALSE_POSITIVE_RATE)
        own = np.stack([description for name, description in rows if name == product])
        unlike = without.distances(own).numpy() > without.limits.numpy()
        shares[product] = float(unlike.all(axis=1).mean())
    return shares


def cell(value):
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
