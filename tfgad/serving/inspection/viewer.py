"""The parts of the inspection page that show models and results, as HTML."""

from __future__ import annotations

import functools
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_hex

from tfgad.data.image_files import ImageError
from tfgad.data.titles import product_name
from tfgad.inference import heat_maps, results
from tfgad.inference.scoring import Verdict, regions_of
from tfgad.plots import HEAT
from tfgad.scores.map_regions import MAX_REGIONS
from tfgad.scores.verdicts import DEFECTIVE, GOOD, NOT_SCORED
from tfgad.serving.inspection import assets
from tfgad.serving.inspection.pictures import heat_uri, image_uri, reduced, reduced_image, reduction

# The bar shows this many scales of the calibration on either side of the threshold, where the
# probability goes from 0.0025 to 0.9975.
BAR_SCALES = 6
# Images with sides up to this many pixels are enlarged in square pixels.
SMALL = 256
# An image with this ratio of width to height takes the whole width of the page.
STRIP = 2.5
LISTED = 8  # regions that are listed below a picture; its boxes are up to MAX_REGIONS
KINDS = {GOOD: "good", DEFECTIVE: "bad", NOT_SCORED: "none"}


@functools.cache
def _templates() -> Any:
    """Returns the macros of `assets/viewer.html`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(assets.read("viewer.html")).module


def _render(macro: str, *arguments: Any) -> str:
    """Returns the HTML of a macro; a plain string, so that adding text to it escapes nothing."""
    return str(getattr(_templates(), macro)(*arguments))


@functools.cache
def _enlarge() -> str:
    return assets.read("enlarge.js")


def style(css: str, good: str, bad: str, heat: float) -> str:
    """Returns a style sheet as an HTML element.

    Args:
        css: the style sheet.
        good: colour of good images.
        bad: colour of defective images.
        heat: initial opacity of the heat map, from 0 to 1.
    """
    return _render("style", Markup(css), good, bad, heat)


def title() -> str:
    """Returns the title of the page."""
    return _render("title")


def no_result(has_models: bool) -> str:
    """Returns the placeholder of the result before there is one."""
    return _render("no_result", has_models)


def progress(files: int) -> str:
    """Returns the placeholder of the result while the first of so many files is scored."""
    return _render("progress", files)


def headline(result: Verdict | ImageError, threshold: float, scale: float) -> str:
    """Returns the verdict on a file: badge, numbers, and the score relative to the threshold.

    Args:
        result: the verdict, or why there is none.
        threshold: scores above it are anomalous.
        scale: scale of the model's calibration.
    """
    row = results.row(result)
    verdict, kind = row["verdict"], KINDS[row["verdict"]]
    if isinstance(result, ImageError):
        return _render("error", verdict, kind, row["image"], _capital(result.reason))
    height, width, channels = result.image.shape
    product = f", {result.product}" if result.product else ""
    return _render(
        "headline",
        verdict,
        kind,
        row["image"],
        f"{width} × {height}, {_colour(channels)}{product}",
        {
            "score": f"{result.score:.4g}",
            "threshold": f"{threshold:.4g}",
            "probability": f"{result.probability:.3f}",
        },
        _capital(result.reason),
        _bar(result.score, threshold, scale),
    )


def pictures(verdict: Verdict) -> str:
    """Returns the image with heat map and boxes over it, the legend, and a list of the regions."""
    shape, shown = verdict.image.shape, reduced(verdict)
    regions = regions_of(verdict) or []
    return _render(
        "pictures",
        _shape(shape),
        image_uri(shown.image),
        heat_uri(shown),
        regions[:MAX_REGIONS],
        {"listed": LISTED, "count": len(regions)},
        _legend(shown),
        reduction(shape),
        _enlarge(),
    )


def reconstruction(image: np.ndarray) -> str:
    """Returns the picture of a reconstruction, float32 `[H, W, C]` in [-1, 1]."""
    picture = image_uri(reduced_image(image))
    return _render("reconstruction", _shape(image.shape), picture, _enlarge())


def model(metadata: dict[str, Any]) -> str:
    """Returns name or data set, method and input size of a model, in two lines."""
    resized = metadata["resized"]
    height, width, _ = metadata["image_shape" if resized else "window"]
    product = product_name(metadata)
    origin = " on ".join(filter(None, (str(metadata.get("method", "")), product)))
    colour = _colour(metadata["image_shape"][2])
    return _render("model", origin, f"{width} × {height}", colour, resized)


def note(text: str) -> str:
    """Returns a line in small print."""
    return _render("note", text)


def notice(text: str) -> str:
    """Returns a line that must not be missed; nothing for an empty text."""
    return _render("notice", _capital(text)) if text else ""


def rate(false_positive_rate: float, threshold: float, is_own: bool) -> str:
    """Returns the line below the slider of the false-positive rate.

    Args:
        false_positive_rate: from 0 to 1.
        threshold: the model's threshold at that rate.
        is_own: whether the model was exported with it.
    """
    return _render("rate", f"{100 * false_positive_rate:.3g}", f"{threshold:.4g}", is_own)


def no_rates(model: str) -> str:
    """Returns the line below the slider if a model has no thresholds for other rates."""
    return _render("no_rates", model)


def summary(rows: list[dict[str, str]], expected: int) -> str:
    """Returns the number of files with each verdict, and the progress.

    Args:
        rows: rows of the table.
        expected: number of all files.
    """
    counts = [(each, sum(row["verdict"] == each for row in rows)) for each in KINDS]
    number = len(rows) + 1 if expected > len(rows) else 0
    present = [(verdict, KINDS[verdict], count) for verdict, count in counts if count]
    return _render("summary", present, number, expected)


def mark(verdict: str) -> str:
    """Returns a verdict as a cell of the table."""
    return _render("mark", verdict, KINDS[verdict])


def _shape(shape: tuple[int, ...]) -> dict[str, Any]:
    height, width = shape[:2]
    return {
        "height": height,
        "width": width,
        "pixelated": max(height, width) <= SMALL,
        "strip": width > STRIP * height,
    }


def _bar(score: float, threshold: float, scale: float) -> dict[str, Any]:
    """Returns the position of a score on a bar with the threshold in its middle."""
    away = (score - threshold) / (2 * BAR_SCALES * scale)
    return {
        "percent": f"{float(np.clip(50 + 100 * away, 1, 99)):.1f}",
        "kind": "bad" if score > threshold else "good",
        "beyond": abs(away) > 0.5,
    }


def _legend(verdict: Verdict) -> dict[str, str]:
    """Returns the colours of the heat map above the threshold, and what they mean."""
    threshold, (_, low, high) = verdict.map_threshold, heat_maps.heat_scale(verdict)
    if threshold is None:
        text = "This score has no threshold for pixels: the colours span the map's own range."
        return {"colours": _colours(), "low": f"{low:.3g}", "high": f"{high:.3g}", "text": text}
    if verdict.map.max() > threshold:
        text = "The line is the threshold; below it the colours are faint."
        return {"colours": _colours(), "low": f"{low:.3g}", "high": f"{high:.3g}", "text": text}
    text = "Nothing is above the threshold: faint colours show what comes nearest."
    if verdict.reason:
        text = "Nothing is above the threshold: the image differs from the good images as a whole."
    return {"colours": "", "text": text}


def _colours() -> str:
    return ",".join(to_hex(HEAT(x)[:3]) for x in np.linspace(0.5, 1, 8))


def _colour(channels: int) -> str:
    return "grey" if channels == 1 else "colour"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
