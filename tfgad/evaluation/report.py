"""The report of an evaluation: one HTML page that holds everything, figures included.

Its layout is in `templates/report.html.jinja` and `templates/report.css`.
"""

from __future__ import annotations

import base64
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from matplotlib.figure import Figure

from tfgad import files, plots
from tfgad.data.anomaly_data import IMAGE
from tfgad.evaluation.baselines import NAMES as BASELINES
from tfgad.evaluation.by_kind import KIND_FIGURES
from tfgad.evaluation.by_product import PRODUCT_FIGURES
from tfgad.evaluation.metrics import names_of

# Figure in the table -> its meaning.
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
# Figure at a glance -> its format.
CARDS = {
    "recall": ".1%",
    "false_positive_rate": ".1%",
    "image_auroc": ".3f",
    "pixel_auroc": ".3f",
    "pixel_aupro": ".3f",
}

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("tfgad.evaluation"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        figure: it is embedded as PNG, and carries its own title.
        caption: a sentence below the figure.
        alt: a description, for those who cannot see it.
    """

    figure: Figure
    caption: str
    alt: str


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    metrics: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    pictures: Iterable[Picture],
    data: Mapping[str, object],
    configuration: Mapping[str, Mapping[str, object]],
) -> None:
    """Writes the report: numbers at a glance, table, data, pictures, configuration.

    Args:
        path: the HTML file.
        title: method and data set, such as `"GANomaly on weave:twill"`.
        metrics: the figures of `metrics.evaluate`, and the `unit` counted, if not images; and what
            `findings.findings_of` adds, if known.
        baselines: name -> the same of a trivial detector: `baselines` of `evaluate_baselines`.
        pictures: in the order in which they appear.
        data: name -> value of the data set, such as `{"training images": 462}`.
        configuration: heading -> setting -> value, for the end of the page.

    Raises:
        UsageError: the path cannot be written.
    """
    columns = {"This detector": metrics}
    columns |= {_capital(BASELINES[name]): figures for name, figures in baselines.items()}
    unit = metrics.get("unit", IMAGE)
    page = TEMPLATES.get_template("report.html.jinja").render(
        title=title,
        unit=unit,
        alarms=_alarms(metrics),
        one_class=metrics.get("image_auroc") is None,
        findings=metrics.get("findings", ()),
        cards=_cards(metrics, unit),
        columns=list(columns),
        rows=_rows(list(columns.values()), unit),
        kinds=_kinds(metrics.get("by_kind", {}), KIND_FIGURES),
        products=_kinds(metrics.get("by_product", {}), PRODUCT_FIGURES),
        data=_entries(data),
        pictures=[_embedded(picture) for picture in pictures],
        configuration=[(heading, _entries(each)) for heading, each in configuration.items()],
    )
    files.write_text(path, page)


def _alarms(metrics: Mapping[str, Any]) -> dict[str, str] | None:
    """Returns the recall and the false-positive rate; None if one of them is not defined."""
    numbers = {name: metrics.get(name) for name in ("recall", "false_positive_rate")}
    if None in numbers.values():
        return None
    return {name: f"{value:.1%}" for name, value in numbers.items()}


def _cards(metrics: Mapping[str, Any], unit: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the name and the number of each figure at a glance."""
    names = names_of(unit)
    return [
        (_capital(names[key]), _number(metrics, key, form))
        for key, form in CARDS.items()
        if metrics.get(key) is not None
    ]


def _rows(columns: Sequence[Mapping[str, Any]], unit: str) -> list[dict[str, Any]]:
    """Returns the rows of the table: this detector, then the trivial ones."""
    meanings = dict(MEANINGS)
    if columns[0].get("iou") is not None:
        meanings |= SEGMENTATION_MEANINGS
    rows = []
    for key, meaning in meanings.items():
        known = [figures[key] for figures in columns if figures.get(key) is not None]
        numbers = [
            {
                **_number(figures, key, ".3f"),
                "is_best": bool(known) and figures.get(key) == max(known),
            }
            for figures in columns
        ]
        name = _capital(names_of(unit)[key])
        rows.append({"name": name, "meaning": meaning.format(unit=unit), "figures": numbers})
    return rows


def _kinds(
    kinds: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> dict[str, Any] | None:
    """Returns the `head` and the `rows` of the table of kinds, or of products; None without any."""
    if not kinds:
        return None
    keys = list(next(iter(kinds.values())))
    return {
        "head": [_capital(names[key]) for key in keys],
        "rows": [(kind, [_cell(figures[key]) for key in keys]) for kind, figures in kinds.items()],
    }


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _number(figures: Mapping[str, Any], key: str, form: str) -> dict[str, Any]:
    """Returns the `value` of a figure and its `interval` as text, None where not defined."""
    value, interval = figures.get(key), figures.get(f"{key}_ci")
    return {
        "value": None if value is None else f"{value:{form}}",
        "interval": interval and " – ".join(f"{end:{form}}" for end in interval),
    }


def _entries(metadata: Mapping[str, object]) -> list[tuple[str, str]]:
    """Returns names and values as text."""
    return [(str(name), _readable(value)) for name, value in metadata.items()]


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


def _embedded(picture: Picture) -> dict[str, Any]:
    """Returns a picture as wide on the page as the figure is in inches (96 pixels each)."""
    width, height = (round(96 * inches) for inches in picture.figure.get_size_inches())
    return {
        "png": base64.b64encode(plots.png(picture.figure)).decode(),
        "width": width,
        "max_width": round(1.3 * width),
        "height": height,
        "caption": picture.caption,
        "alt": picture.alt,
    }
