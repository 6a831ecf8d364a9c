"""The report of an evaluation: one HTML page that holds everything, figures included."""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Mapping, Sequence
from html import escape
from string import Template

from matplotlib.figure import Figure

from tfgad import files, plots
from tfgad.data.anomaly_data import IMAGE
from tfgad.evaluation.baselines import NAMES as BASELINES
from tfgad.evaluation.metrics import names_of

# Figure in the table -> what it means.
MEANINGS = {
    "image_auroc": "a random anomalous {unit} scores above a random normal one",
    "image_ap": "average precision: the mean precision over all recalls",
    "image_f1_max": "best threshold, chosen on the test set: an upper bound",
    "pixel_auroc": "the same for pixels of the map",
    "pixel_aupro": "overlap averaged over regions, small as large",
}
SEGMENTATION_MEANINGS = {
    "iou": "common over joint area of marked and defective pixels; at even odds a pixel is marked",
    "pixel_precision": "share of the marked pixels that are defective",
    "pixel_recall": "share of the defective pixels that are marked",
    "f_measure": "harmonic mean of the two",
    "iou_at_threshold": "if instead those above the threshold of images are marked",
}

MISSING = '<span title="not defined on this test set">–</span>'


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        figure: it is embedded as PNG, and carries its own title.
        caption: what to see in it, in a sentence.
        alt: what it shows, for those who cannot see it.
    """

    figure: Figure
    caption: str
    alt: str


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    metrics: Mapping[str, object],
    baselines: Mapping[str, Mapping[str, object]],
    pictures: Sequence[Picture],
    data: Mapping[str, object],
    configuration: Mapping[str, Mapping[str, object]],
) -> None:
    """Writes the report: numbers at a glance, table, data, pictures, configuration.

    Args:
        path: the HTML file.
        title: what was evaluated, such as `"GANomaly on weave:twill"`.
        metrics: what `metrics.evaluate` returns, and the `unit` counted, if not images.
        baselines: name -> the same of a trivial detector: `baselines` of `evaluate_baselines`.
        pictures: in the order in which they appear.
        data: fact -> value of the data set, such as `{"training images": 462}`.
        configuration: heading -> setting -> value, for the end of the page.

    Raises:
        UsageError: the path cannot be written.
    """
    page = PAGE.substitute(
        title=escape(title),
        unit=metrics.get("unit", IMAGE),
        verdict=_verdict(metrics, baselines),
        cards="\n".join(_cards(metrics)),
        table=_metrics_table(metrics, baselines),
        data=_facts(data),
        pictures="\n".join(_picture(picture) for picture in pictures),
        configuration="\n".join(
            f"<section><h3>{escape(heading)}</h3>{_facts(settings)}</section>"
            for heading, settings in configuration.items()
        ),
    )
    files.write_text(path, page)


def _verdict(metrics: Mapping, baselines: Mapping[str, Mapping]) -> str:
    """Returns in two sentences what the numbers say."""
    sentences, unit = [], metrics.get("unit", IMAGE)
    recall, alarms = metrics.get("recall"), metrics.get("false_positive_rate")
    if recall is not None and alarms is not None:
        sentences.append(
            f"At its threshold the detector finds <strong>{recall:.1%}</strong> of the anomalous "
            f"{unit}s and raises a false alarm on <strong>{alarms:.1%}</strong> of the normal ones."
        )
    rivals = {name: figures["image_auroc"] for name, figures in baselines.items()}
    own = metrics.get("image_auroc")
    if own is not None and rivals and None not in rivals.values():
        best = max(rivals, key=rivals.get)
        relation = "ahead of" if own > rivals[best] else "not ahead of"
        sentences.append(
            f"It orders the {unit}s with an AUROC of <strong>{own:.3f}</strong>, {relation} the "
            f"best trivial detector ({escape(BASELINES[best])}, {rivals[best]:.3f})."
        )
    return " ".join(sentences) or "The test set holds one class only: most figures are undefined."


def _cards(metrics: Mapping) -> list[str]:
    """Returns the numbers at a glance."""
    cards = (
        ("recall", ".1%"),
        ("false_positive_rate", ".1%"),
        ("image_auroc", ".3f"),
        ("pixel_auroc", ".3f"),
        ("pixel_aupro", ".3f"),
    )
    names = names_of(metrics.get("unit", IMAGE))
    return [
        f"<div><dt>{_capital(names[key])}</dt><dd>{_number(metrics, key, form)}</dd></div>"
        for key, form in cards
        if metrics.get(key) is not None
    ]


def _metrics_table(metrics: Mapping, baselines: Mapping[str, Mapping]) -> str:
    """Returns the table of the metrics, the method beside the trivial detectors."""
    columns = {"This detector": metrics}
    columns |= {_capital(BASELINES[name]): figures for name, figures in baselines.items()}
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    rows, unit = [], metrics.get("unit", IMAGE)
    marks = metrics.get("iou") is not None
    for key, meaning in {**MEANINGS, **(SEGMENTATION_MEANINGS if marks else {})}.items():
        name, meaning = _capital(names_of(unit)[key]), meaning.format(unit=unit)
        known = [figures[key] for figures in columns.values() if figures.get(key) is not None]
        cells = "".join(
            f"<td{_best(figures.get(key), known)}>{_number(figures, key, '.3f')}</td>"
            for figures in columns.values()
        )
        rows.append(f'<tr><th scope="row">{name}<small>{meaning}</small></th>{cells}</tr>')
    return (
        f'<table class="metrics"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _best(value: float | None, known: Sequence[float]) -> str:
    return ' class="best"' if known and value == max(known) else ""


def _number(figures: Mapping, key: str, form: str) -> str:
    """Returns a figure and its interval."""
    value, interval = figures.get(key), figures.get(f"{key}_ci")
    if value is None:
        return MISSING
    words = f"{value:{form}}"
    if interval is not None:
        low, high = (f"{end:{form}}" for end in interval)
        words += f"<small>{low} – {high}</small>"
    return words


def _facts(metadata: Mapping[str, object]) -> str:
    """Returns a table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(_readable(value))}</td></tr>'
        for name, value in metadata.items()
    )
    return f'<table class="metadata"><tbody>{rows}</tbody></table>'


def _readable(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "–"
    return "–" if value is None else str(value)


def _picture(picture: Picture) -> str:
    """Returns a figure element, as wide on the page as the figure is in inches (96 pixels each)."""
    image = base64.b64encode(plots.png(picture.figure)).decode()
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    return (
        f'<figure style="flex-basis:{width}px;max-width:{round(1.3 * width)}px">'
        f'<img src="data:image/png;base64,{image}" width="{width}" height="{height}" '
        f'alt="{escape(picture.alt)}"><figcaption>{escape(picture.caption)}</figcaption></figure>'
    )


PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root {
  --page: #f6f6f4; --card: #ffffff; --ink: #1c1c1a; --quiet: #62625d; --line: #dededa;
  --mark: #0072b2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --card: #232322; --ink: #ecece8; --quiet: #a3a39c; --line: #3a3a37;
    --mark: #56b4e9;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 70rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { margin: 0 0 .5rem; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 3rem 0 1rem; font-size: 1.25rem; }
h3 { margin: 0 0 .5rem; font-size: 1rem; }
header p { max-width: 46rem; margin: 0; font-size: 1.1rem; }
small { display: block; color: var(--quiet); font-size: .78rem; font-weight: 400; }
p.note { margin: .6rem 0 0; color: var(--quiet); font-size: .85rem; }
dl.cards {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem;
  margin: 1.75rem 0 0;
}
dl.cards div { padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
dl.cards dt { color: var(--quiet); font-size: .88rem; }
dl.cards dd { margin: .1rem 0 0; font-size: 1.9rem; font-weight: 650; line-height: 1.25; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
table.metrics { width: 100%; min-width: 44rem; }
table.metrics th, table.metrics td { padding: .55rem 1rem; text-align: right; vertical-align: top; }
table.metrics td { white-space: nowrap; }
table.metrics th[scope=row] { text-align: left; font-weight: 550; }
table.metrics thead th { font-size: .88rem; vertical-align: bottom; max-width: 9rem; }
table.metrics tbody tr { border-top: 1px solid var(--line); }
table.metrics td.best { font-weight: 700; color: var(--mark); }
table.metadata th { padding: .2rem 1.5rem .2rem 0; text-align: left; font-weight: 400;
  color: var(--quiet); vertical-align: top; }
table.metadata td { padding: .2rem 0; overflow-wrap: anywhere; vertical-align: top; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.25rem; }
figure { flex: 1 1 auto; min-width: 0; margin: 0; padding: .75rem; background: #fff; color: #1c1c1a;
  border: 1px solid var(--line); border-radius: .6rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { margin: .6rem .3rem 0; color: #55554f; font-size: .88rem; max-width: 46rem; }
.settings { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr));
  gap: 2rem; font-size: .9rem; }
@media print {
  body { max-width: none; padding: 0; background: #fff; font-size: 11px; }
  figure, tr, dl.cards div, .settings section { break-inside: avoid; }
  h2 { break-after: avoid; margin-top: 1.5rem; }
  .scroll { overflow: visible; }
  table.metrics { min-width: 0; }
}
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$verdict</p>
<dl class="cards">
$cards
</dl>
</header>
<main>
<h2>Beside the trivial detectors</h2>
<div class="scroll">$table</div>
<p class="note">Small figures: 95 % bootstrap interval over the test ${unit}s. Blue: the best of
its row. A method that does not beat these detectors has learnt nothing worth its training.</p>
<h2>Data</h2>
$data
<h2>Pictures</h2>
<div class="pictures">
$pictures
</div>
<h2>Configuration</h2>
<div class="settings">
$configuration
</div>
</main>
</body>
</html>
""")
