"""The Multistage GAN end to end: paint defects on twill, and train a segmenter on them.

    python examples/multistage_weave.py
    python examples/multistage_weave.py --quick

Painter and segmenter are trained on seven weaves whose defects are known; of twill only good tiles
are used (Liu et al. 2020; `tfgad/multistage/`). Prints IoU and F-measure on twill's defects before
and after fine-tuning on painted ones, and draws painted defects: one of each kind, and one kind
from eight codes z. The fabric is procedural. Nothing is downloaded but VGG19's weights, and random
ones are used where these cannot be had.
"""

import argparse
from pathlib import Path

import tfgad
from tfgad import evaluation, plots
from tfgad.data.datasets.weave.cloth import FABRICS
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
from tfgad.multistage.annotations import gallery
from tfgad.multistage.segmenter import EVEN_ODDS

QUICK = "?train=40&calibration=20&test=48"  # fewer tiles of each fabric


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="twill", help="the weave without known defects")
    parser.add_argument("--weaves", nargs="+", help="those with known defects; all others")
    parser.add_argument("--quick", action="store_true", help="minutes, and too short to be of use")
    parser.add_argument("--out", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    out = arguments.out or Path("multistage_weave_quick" if arguments.quick else "multistage_weave")
    few = QUICK if arguments.quick else ""
    of_painter = painter_config.QUICK if arguments.quick else None
    of_segmenter = segmenter_config.QUICK if arguments.quick else None

    weaves = arguments.weaves or [weave for weave in FABRICS if weave != arguments.target]
    if arguments.target in weaves:
        parser.error(f"--weaves: {arguments.target} is the target, whose defects are not known")
    fabrics = sources.read_sources([f"weave:{weave}{few}" for weave in weaves])
    images = tfgad.load(f"weave:{arguments.target}{few}")
    painter = painter_training.train_painter(
        fabrics, out / "painter", settings=of_painter, resume=True
    )
    print("painter:", painter.config["seconds"], "VGG19:", painter.config["vgg_weights"])
    good = sources.good_images(images.train, images.train_size)
    galleries = {
        "kinds": list(painter.paint(good, len(painter.kinds))),
        "codes": list(painter.paint(good[:1], 8, kinds=["hole"], seed=1)),
    }
    for name, painted in galleries.items():
        plots.save(gallery(painted), out / f"{name}.png")

    folder = out / "segmenter"
    run = segmenter_training.train_segmenter(fabrics, folder, settings=of_segmenter, resume=True)
    report("trained on other weaves", run, images)
    folder = out / f"segmenter_{arguments.target}"
    run = adaptation.adapt_segmenter(run, painter, images, fabrics, folder, resume=True)
    report("adapted to painted defects", run, images)
    print(f"wrote {out}")


def report(name, run, images):
    """Prints IoU and F-measure of a segmenter on the defects of the test tiles."""
    predicted = evaluation.predict_test_set(run.model, images)
    figures = metrics.segmentation(predicted.masks, predicted.maps > EVEN_ODDS)
    print(f"{name}: IoU {figures['iou']:.3f}, F-measure {figures['f_measure']:.3f}")


if __name__ == "__main__":
    with exit_on_usage_error():
        main()
