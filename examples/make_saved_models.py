"""Makes `saved_models/`: trains, evaluates and exports small models, and writes a card for each.

    python examples/make_saved_models.py saved_models --runs runs
    python examples/make_saved_models.py saved_models --runs runs --only weave_twill_ganomaly

On two CPU cores each takes a few minutes, the segmenter ten, the painter half an hour. The models
of digits need MNIST (TFGAD_DATA_DIR, or a network). The figures of a card come from the run's own
files; the training is that of the commands in the card. A run that exists already is not trained
again.
"""

import argparse
import dataclasses
import json
import shutil
import textwrap
from pathlib import Path

import tfgad  # before TensorFlow, which is to use oneDNN

# isort: split

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfgad import evaluation, training
from tfgad.data.pixels import to_uint8
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation import baselines, metrics
from tfgad.export.saved_model import export_run
from tfgad.files import write_text
from tfgad.multistage import adaptation, painter_training, segmenter_training, sources
from tfgad.multistage.painter_config import PainterConfig
from tfgad.multistage.painter_export import METADATA as PAINTER_METADATA
from tfgad.multistage.painter_export import export_painter

ZOO = {
    "weave_twill_ganomaly": ("ganomaly", "weave:twill", {}),
    "weave_twill_ganomaly_unet": ("ganomaly_unet", "weave:twill", {}),
    "weave_satin_ganomaly_unet": ("ganomaly_unet", "weave:satin", {}),
    "mnist_5_ganomaly": ("ganomaly", "mnist:5", {"width": "8"}),
    "mnist_5_vae": ("vae", "mnist:5", {"width": "8"}),
    "mnist_5_fanogan": ("fanogan", "mnist:5", {}),
    "mnist_5_anogan": ("anogan", "mnist:5", {"width": "8"}),
    # Not trained on good images alone: on the defects of the other weaves, moved to this one.
    "weave_twill_segmenter": ("segmenter", "weave:twill", {}),
    # Half as wide as the default's networks, so that all models together are small.
    "weaves_painter": ("painter", "weave:twill", {"width": "8", "fusion_width": "12"}),
}
PAINTED = 240  # good tiles of twill, which the painter has not seen
DETECTOR = """    tfgad train {method} --data {spec} --out {run}{given}
    tfgad evaluate {run}"""
SEGMENTER = """    tfgad segment train --data 'weave:*' --except twill --out runs/weaves
    tfgad segment adapt runs/weaves --data {spec} --out {run}
    tfgad segment evaluate {run}"""
SEEN = {
    "detector": "trained on good images alone. It says which images are not like them, and where.",
    "ganomaly_unet": "trained on good images alone, and on synthetic defects that were added to "
    "them. It says which images are not like them, and where.",
    "segmenter": "trained on the known defects of the other weaves, and fine-tuned on such "
    "defects moved to good images of this one. It marks the pixels of defects.",
}
LIMITS = {
    "weave": "It knows grey images of this one weave, as tfgad makes it. A real fabric, another "
    "weave or another scale needs its own training.",
    "mnist": "It knows grey digits 5, white on black and centred as in MNIST. For images other "
    "than such digits its scores mean nothing.",
}
# The form is that of model cards on the Hugging Face Hub.
CARD = """---
license: apache-2.0
library_name: keras
tags:
  - anomaly-detection
  - tf-serving
  - {method}
model-index:
  - name: {name}
    results:
      - task:
          type: anomaly-detection
        dataset:
          name: {data}
          type: {data_type}
        metrics:
{metrics}
---

# {name}

{about}

## Use

    pip install 'tfgad[serve]'
    tfgad serve saved_models

```python
from tfgad.serving.client import Client

with Client("http://127.0.0.1:8501", "{name}") as client:
    client.score(["image.png"])
```

Without tfgad, TensorFlow Serving and `tf.saved_model.load` take it
([Calling](../README.md#calling)).

- Images: uint8, {size}; preprocessing and threshold are inside.
- Signatures: {signatures}.

## Limits

{limits}

- {missed:.1%} of the unseen anomalies are called good.
- {alarms:.1%} of the unseen good images are called defective; the threshold is set for {rate:.0%}.

The share of each kind that is found:

{kinds}

## Training

{command}
    tfgad export runs/{name} saved_models/{name}

- Trained on {train:,} good images. Threshold {threshold:.4g} on the score `{score}`, from
  {calibration:,} other good images, for a false-positive rate of {rate:g}.
- Made with {versions}.

## Evaluation

| on {test:,} unseen images | {names} |
|---|{rules}
{rows}

Intervals are 95 % bootstrap intervals over the test images, of this one model. The other rows are
trivial detectors on the same images.

To cite it, see [`CITATION.cff`](../../CITATION.cff), and the paper of [the method]({link}).
"""
PAINTER_CARD = """---
license: apache-2.0
library_name: keras
tags:
  - image-generation
  - defect-synthesis
  - tf-serving
---

# {name}

The defect painter of the [Multistage GAN](../../docs/multistage.md), as a SavedModel for
TensorFlow Serving. It was trained on the defects of all procedural weaves but twill. It puts a
defect of a kind that you name on an image of good fabric, and returns it with the defect's mask.

## Use

```python
import numpy as np
import tensorflow as tf

paint = tf.saved_model.load("saved_models/{name}/1").signatures["paint"]
painted = paint(
    images=tf.constant(good),  # uint8 [B, H, W, 1]; sides of at least 64 that are multiples of 4
    kind=tf.constant(["hole"] * len(good)),
    seed=tf.range(len(good), dtype=tf.int64),
)
```

- `painted` has `images` uint8 `[B, H, W, 1]`, `masks` uint8 `[B, H, W, 1]` of 0 and 1, and `area`
  int32 `[B]`, the pixels of each mask: 0 where no defect came about.
- Kinds: {kinds}.
- With TensorFlow Serving the signature is named: `"signature_name": "paint"`.

## Limits

{limits}

- A stain as large as the 64x64 pixels that the generator paints is continued by its mirror image,
  and then looks like a pattern.
- Generated defects can be told from real ones:
  [results](../../docs/results.md#painted-against-real-defects) of a painter with wider networks.

## Training

{command}
    tfgad synthesize export runs/{name} saved_models/{name}

The networks of style have random weights. Made with {versions}.

## Evaluation

On {test} good tiles of `{data}`, which it has not seen:

| kind | {names} |
|---|{rules}
| a defect came about | {came} |
| pixels of the mask, the median | {areas} |
"""
PAINTER = """    tfgad synthesize train --data 'weave:*' --except twill --out {run} \\
        --vgg-weights random{given}"""
METRIC = """          - type: {kind}
            name: {name}
            value: {value:.3f}"""
# Figures of a card's head -> their names on the Hub.
METRICS = {"image_auroc": "roc_auc", "image_ap": "average_precision"}
MODEL = """  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
  }}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the models")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="+", default=list(ZOO), choices=ZOO, metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.only:
        make(name, *ZOO[name], arguments.runs / name, arguments.out / name)
        print(f"wrote {arguments.out / name}", flush=True)
    models = "".join(MODEL.format(name=name) for name in ZOO)
    write_text(arguments.out / "models.config", f"model_config_list {{\n{models}}}\n")


def make(name, method, spec, settings, folder, out):
    """Trains, evaluates and exports a model, replaces an old one, and writes its card."""
    if method == "painter":
        make_painter(name, spec, settings, folder, out)
        return
    if method == "segmenter":
        run = adapted_segmenter(spec, folder)
    else:
        run = training.train(method, spec, folder, settings=settings, resume=True)
    figures = evaluation.evaluate(run, tfgad.load(spec, seed=run.config["seed"]))
    shutil.rmtree(out, ignore_errors=True)
    version = export_run(run, out)
    write_text(out / "README.md", card(name, method, spec, settings, figures, version))


def card(name, method, spec, settings, figures, version):
    """Returns the card of an exported version, with the figures of its evaluation."""
    metadata = json.loads((version / "assets.extra" / "tfgad.json").read_text())
    height, width, _ = metadata["image_shape"]
    native = f"{height}x{width} or larger, scored by overlapping tiles"
    resized = f"of any size, resized to {height}x{width}"
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def
    signatures = sorted(each for each in signatures if not each.startswith("__"))
    names = metrics.names_of(figures["unit"])
    is_segmenter = method == "segmenter"
    link = f"../../docs/{'multistage.md' if is_segmenter else f'methods.md#{method}'}"
    about = f"[`{method}`]({link}) on `{spec}`, as a SavedModel for TensorFlow Serving."
    given = "".join(f" --set {key}={value}" for key, value in settings.items())
    command = SEGMENTER if is_segmenter else DETECTOR
    return CARD.format(
        name=name,
        method=method,
        link=link,
        about=textwrap.fill(f"{about} It was {SEEN.get(method, SEEN['detector'])}", 100),
        data=spec,
        data_type=spec.partition(":")[0],
        metrics="\n".join(
            METRIC.format(kind=kind, name=names[key], value=figures[key])
            for key, kind in METRICS.items()
        ),
        limits=textwrap.fill(LIMITS[spec.split(":")[0]], 100),
        missed=1 - figures["recall"],
        alarms=figures["false_positive_rate"],
        kinds=found_by_kind(figures["by_kind"]),
        command=command.format(method=method, spec=spec, run=f"runs/{name}", given=given),
        size=resized if metadata["resized"] else native,
        score=metadata["score"],
        threshold=metadata["threshold"],
        rate=metadata["false_positive_rate"],
        signatures=", ".join(f"`{each}`" for each in signatures),
        versions=", ".join(f"{name} {number}" for name, number in metadata["versions"].items()),
        names=" | ".join(names[key] for key in metrics.NAMES),
        rules="---|" * len(metrics.NAMES),
        rows="\n".join(rows(method, figures)),
        train=metadata["images"]["train"],
        calibration=metadata["images"]["calibration"],
        test=figures["false_alarms"]["image"]["normal"]
        + sum(each["images"] for each in figures["by_kind"].values()),
    )


def make_painter(name, spec, settings, folder, out):
    """Does what `make` does for a painter of the other weaves."""
    known = sources.read_sources(sources.expand(["weave:*"], [spec.partition(":")[2]]))
    config = dataclasses.replace(PainterConfig(), **{k: int(v) for k, v in settings.items()})
    trained = painter_training.train_painter(
        known, folder, settings=config, vgg_weights="random", resume=True
    )
    shutil.rmtree(out, ignore_errors=True)
    version = export_painter(trained, out)
    metadata = json.loads((version / PAINTER_METADATA).read_text())
    kinds = metadata["kinds"]
    areas = areas_of(version, kinds, tfgad.load(f"{spec}?seed=1&train={PAINTED}").train)
    came = {kind: float(np.mean(areas[kind] > 0)) for kind in kinds}
    given = "".join(f" --set {key}={value}" for key, value in settings.items())
    text = PAINTER_CARD.format(
        name=name,
        kinds=", ".join(f"`{kind}`" for kind in kinds),
        limits=textwrap.fill(
            "It paints grey images of cloth, with threads of about the width of those that it "
            "learnt from. What it paints on other images means nothing.",
            100,
        ),
        command=PAINTER.format(run=f"runs/{name}", given=given),
        versions=", ".join(f"{each} {number}" for each, number in metadata["versions"].items()),
        test=PAINTED,
        data=spec,
        names=" | ".join(kind.replace("_", " ") for kind in kinds),
        rules="---|" * len(kinds),
        came=" | ".join(f"{came[kind]:.2f}" for kind in kinds),
        areas=" | ".join(f"{np.median(areas[kind][areas[kind] > 0]):.0f}" for kind in kinds),
    )
    write_text(out / "README.md", text)


def areas_of(version, kinds, tiles):
    """Returns the pixels of the masks that an exported painter paints on good tiles, by kind."""
    paint = tf.saved_model.load(str(version)).signatures["paint"]
    images = np.stack([to_uint8(tile) for tile in tiles.as_numpy_iterator()])
    found = {}
    for number, kind in enumerate(kinds):
        own = images[number :: len(kinds)]
        seeds = tf.range(len(own), dtype=tf.int64)
        painted = paint(images=tf.constant(own), kind=tf.constant([kind] * len(own)), seed=seeds)
        found[kind] = painted["area"].numpy()
    return found


def adapted_segmenter(spec, folder):
    """Returns the run of a segmenter of the other weaves that is fine-tuned on this one."""
    name = spec.partition(":")[2]
    known = sources.read_sources(sources.expand(["weave:*"], [name]))
    of_known = segmenter_training.train_segmenter(known, folder.parent / "weaves", resume=True)
    images = tfgad.load(spec, channels=1)  # those of the known fabrics
    return adaptation.adapt_segmenter(of_known, None, images, known, folder, resume=True)


def found_by_kind(kinds):
    """Returns a table of the share of anomalies found of each kind, the lowest first."""
    found = {kind: each["image_recall"] for kind, each in kinds.items()}
    ordered = sorted(found, key=lambda kind: (found[kind], kind))
    head = " | ".join(kind.replace("_", " ") for kind in ordered)
    shares = " | ".join(f"{found[kind]:.2f}" for kind in ordered)
    return f"| {head} |\n{'|---' * len(ordered)}|\n| {shares} |"


def rows(method, figures):
    """Yields a row for the method and one for each trivial detector."""
    trivial = {baselines.NAMES[name]: each for name, each in figures["baselines"].items()}
    for name, each in {f"**{method}**": figures, **trivial}.items():
        cells = [cell(each.get(key), each.get(f"{key}_ci")) for key in metrics.NAMES]
        yield f"| {name} | {' | '.join(cells)} |"


def cell(value, interval):
    """Returns a figure with its interval, or a dash where it is not defined."""
    if value is None:
        return "–"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else f"{value:.3f}"


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
