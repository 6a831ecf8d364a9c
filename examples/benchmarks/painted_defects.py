"""How varied painted defects are, and whether a classifier can tell them from real ones.

    python examples/benchmarks/painted_defects.py --painter multistage_weave/painter \
        --out examples/benchmarks/results/painted_defects.json

Patches of 64x64 around defects of the target weave, on which the painter was not trained: `real`
ones; `cut`, known defects of other weaves, pasted; `pasted`, stage 1 only; `fused`, both stages.

Diversity is the mean difference of two patches of one kind: of their greys, in [0, 2], and of their
masks, the share of pixels in which they differ. A painter that repeats one defect has far less of
it than the real ones. Images on which it draws no defect are left out; the JSON has the number of
patches of each sort.

Realism is a classifier two-sample test (Lopez-Paz and Oquab 2017): a logistic regression on the
mean and deviation of VGG19's channels is trained to separate half of the patches from half of the
real ones, and is tested on the other halves. 0.5 is chance. The first row, real against other real
ones, shows how far from 0.5 chance alone may lead.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from multistage import OTHER_BOLT
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfgad
from tfgad import files
from tfgad.data.spec import Spec
from tfgad.multistage import sources
from tfgad.multistage.painter import PASTED, load_painter
from tfgad.multistage.patches import PATCH, around, crop
from tfgad.multistage.transplants import transplanted
from tfgad.networks.vgg import feature_extractor, grey_or_colour
from tfgad.training import run_config

LAYER = "block3_conv1"  # sees 24 pixels: a defect and what is around it
PAIRS = 300  # of patches of one kind
BATCH = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--painter", type=Path, required=True)
    parser.add_argument("--target", default="twill", help="a weave that the painter has not seen")
    parser.add_argument("--count", type=int, default=400, help="patches of each sort")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()

    painter = load_painter(arguments.painter)
    if arguments.target in {Spec.parse(spec).name for spec in painter.config["data"]}:
        parser.error(f"--target: the painter has learnt from {arguments.target}")
    features, vgg = feature_extractor(LAYER, None)
    features = grey_or_colour(features, painter.channels)
    patches = all_patches(painter, arguments.target, arguments.count, arguments.seed)
    result = {"versions": run_config.versions(), "vgg_weights": vgg, "target": arguments.target}
    vectors = {sort: described(features, images) for sort, (images, _, _) in patches.items()}
    for sort, (images, masks, kinds) in patches.items():
        greys, of_masks = diversity(images, masks, kinds, arguments.seed)
        accuracy = two_sample(vectors["real"], vectors[sort]) if sort != "real" else None
        result[sort] = {"patches": len(images), "greys": greys, "masks": of_masks}
        result[sort]["told_apart"] = accuracy
        print(f"{sort:12} greys {greys:.3f}, masks {of_masks:.3f}, told apart {accuracy}")
    files.write_json(arguments.out, result)


def all_patches(painter, target, count, seed):
    """Returns of each sort: patches `[N, 64, 64, C]`, masks of the same form, kinds."""
    images = tfgad.load(f"weave:{target}", seed=seed)
    good = sources.good_images(images.train, images.train_size)
    fabrics = sources.read_sources(painter.config["data"], seed=seed)
    bolts = [
        sources.read_source(tfgad.load(f"weave:{target}?test={2 * count}", seed=seed + other))
        for other in (OTHER_BOLT, 2 * OTHER_BOLT)
    ]
    defects = {
        "real": (bolts[0].images, bolts[0].masks, bolts[0].kinds),
        "other real": (bolts[1].images, bolts[1].masks, bolts[1].kinds),
        "cut": transplanted(fabrics, good, count, seed),
    }
    for sort, how in (("pasted", {"how": PASTED}), ("fused", {})):
        painted = list(painter.paint(good, count, seed=seed, **how))
        columns = [
            np.stack([getattr(each, name) for each in painted]) for name in ("image", "mask")
        ]
        defects[sort] = (*columns, [each.kind for each in painted])
    rng = np.random.default_rng(seed)
    return {sort: cut_out(*of_sort, rng) for sort, of_sort in defects.items()}


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


def described(features, images):
    """Returns mean and deviation of each channel: `[N, 2 K]`."""
    seen = [features(images[i : i + BATCH]).numpy() for i in range(0, len(images), BATCH)]
    seen = np.concatenate(seen)
    return np.concatenate([seen.mean(axis=(1, 2)), seen.std(axis=(1, 2))], axis=1)


def two_sample(real, other):
    """Returns the share of held-out patches that a classifier names rightly, of two folds."""
    count = min(len(real), len(other))
    vectors = np.concatenate([real[:count], other[:count]])
    labels = np.repeat([0, 1], count)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(cross_val_score(classifier, vectors, labels, cv=2).mean())


if __name__ == "__main__":
    main()
