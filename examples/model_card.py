"""Writes the card of an exported demo: what the model is, what it was tried on, how it did.

    tfgad demo && cp -r demo/saved_model saved_models/weave_twill
    python examples/model_card.py demo saved_models/weave_twill

Everything in the card is read from the demo's files.
"""

import argparse
import json
from pathlib import Path

from tfgad import baselines, metrics
from tfgad.files import write_text

CARD = """# {method} on {data}

A SavedModel for TF Serving, made by `tfgad demo`. It finds defects in grey images of twill woven as
`{data}`, and in nothing else: another fabric wants its own training.

- Images: uint8, {height}x{width} or larger, judged by overlapping tiles; preprocessing is inside.
- Trained on {train} good tiles. Threshold {threshold:.3f} from {calibration} more good tiles, for a
  false-positive rate of {rate:g} a tile.
- Score: `{score}`, in windows of {window} pixels.
- Made with {versions}.

| on {test} unseen tiles, half of them good | {names} |
|---|{rules}
{rows}

Intervals are 95 % bootstrap intervals over the test tiles, for this one model.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="folder that `tfgad demo` wrote")
    parser.add_argument("model", type=Path, help="folder of the exported model's versions")
    arguments = parser.parse_args()
    figures = json.loads((arguments.demo / "metrics.json").read_text())
    facts = json.loads(next(arguments.model.glob("*/assets.extra/tfgad.json")).read_text())
    height, width, _ = facts["image_shape"]
    card = CARD.format(
        method=facts["method"],
        data=facts["data"],
        height=height,
        width=width,
        window=facts["window"][0],
        score=facts["score"],
        threshold=facts["threshold"],
        rate=facts["false_positive_rate"],
        versions=", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
        names=" | ".join(metrics.NAMES.values()),
        rules="---|" * len(metrics.NAMES),
        rows="\n".join(rows(facts["method"], figures)),
        **{name: facts["images"][name] for name in ("train", "calibration", "test")},
    )
    write_text(arguments.model / "README.md", card)
    print(f"wrote {arguments.model / 'README.md'}")


def rows(method, figures):
    """Yields a row for the method and one for each trivial detector."""
    trivial = {baselines.NAMES[name]: each for name, each in figures["baselines"].items()}
    for name, each in {method: figures, **trivial}.items():
        cells = [cell(each[key], each[f"{key}_ci"]) for key in metrics.NAMES]
        yield f"| {name} | {' | '.join(cells)} |"


def cell(value, interval):
    """Returns a figure with its interval, or a dash where it is not defined."""
    if value is None:
        return "–"
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else f"{value:.3f}"


if __name__ == "__main__":
    main()
