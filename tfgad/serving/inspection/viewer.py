"""The parts of the inspection page that show one result, as HTML."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from tfgad.data.image_files import ImageError
from tfgad.inference import results
from tfgad.inference.predictor import Verdict
from tfgad.plots import HEAT
from tfgad.serving.inspection.pictures import heat_uri, image_uri, reduced, reduced_image, reduction

# Scales of the calibration on either side of the threshold that the bar shows: the probability
# goes from 0.0025 to 0.9975 there.
BAR_SCALES = 6
# Images with sides up to this are drawn in square pixels when they are enlarged.
SMALL = 256
# An image this much wider than high takes the whole width.
STRIP = 2.5
CLASSES = {results.GOOD: "good", results.DEFECTIVE: "bad", results.NOT_SCORED: "none"}

# A picture at full size in a dialog, until it is clicked or Escape is pressed; what was clicked is
# in the middle.
ENLARGE = (
    "const r=this.getBoundingClientRect(),p=this.cloneNode(true),"
    "d=document.createElement('dialog');d.className='tfgad tfgad-full';"
    "p.removeAttribute('onclick');d.append(p);d.onclick=d.onclose=()=>d.remove();"
    "this.closest('.gradio-container').append(d);d.showModal();"
    "d.scrollLeft=(event.clientX-r.left)/r.width*d.scrollWidth-d.clientWidth/2;"
    "d.scrollTop=(event.clientY-r.top)/r.height*d.scrollHeight-d.clientHeight/2"
)


def nothing_yet(models: bool) -> str:
    """Returns what stands in place of a result before there is one."""
    words = (
        "Drop images on the left, or click an example."
        if models
        else "No model is in service yet. The page shows it once there is one."
    )
    return f'<div class="tfgad"><p class="empty">{words}</p></div>'


def waiting(files: int) -> str:
    """Returns what stands there until the first file is judged."""
    return f'<div class="tfgad"><p class="empty judging">Judging 1 of {files} …</p></div>'


def headline(result: Verdict | ImageError, threshold: float, scale: float) -> str:
    """Returns the verdict on one file: badge, numbers, and the score against the threshold."""
    row = results.row(result)
    badge = f'<span class="badge {CLASSES[row["verdict"]]}">{row["verdict"]}</span>'
    name = f'<span class="name">{escape(row["image"])}</span>'
    if isinstance(result, ImageError):
        return _panel(f"<header>{badge}{name}</header><p>{escape(_capital(result.reason))}.</p>")
    height, width, channels = result.image.shape
    size = f"{width} × {height}, {'grey' if channels == 1 else 'colour'}"
    numbers = {
        "score": f"{result.score:.4g}",
        "threshold": f"{threshold:.4g}",
        "probability": f"{result.probability:.3f}",
    }
    cells = "".join(f"<div><dt>{key}</dt><dd>{each}</dd></div>" for key, each in numbers.items())
    reason = ""
    if result.reason:
        reason = f"<p><b>{_capital(result.reason)}</b>: unlike any good image.</p>"
    return _panel(
        f'<header>{badge}{name}<span class="size">{size}</span></header>'
        f"<dl>{cells}</dl>{reason}{_bar(result, threshold, scale)}"
    )


def pictures(verdict: Verdict) -> str:
    """Returns the image with the heat over it, and the meaning of the colours."""
    shape, shown = verdict.image.shape, reduced(verdict)
    stack = (
        f'<img src="{image_uri(shown.image)}" alt="the image">'
        f'<img class="heat" src="{heat_uri(shown)}" alt="the heat map over it">'
    )
    caption = _legend(shown) + _shown_at(shape)
    return _panel(_figure("Image and heat map", stack, shape, caption), shape)


def reconstruction(image: np.ndarray) -> str:
    """Returns what the model makes of the image: float32 `[H, W, C]` in [-1, 1]."""
    picture = f'<img src="{image_uri(reduced_image(image))}" alt="the reconstruction">'
    note = "<p>What the model makes of the image: it has learnt good ones alone.</p>"
    return _panel(_figure("Reconstruction", picture, image.shape, note), image.shape)


def model_facts(metadata: dict[str, Any]) -> str:
    """Returns what the model is, in two lines."""
    height, width, channels = metadata["image_shape"]
    colour = "grey" if channels == 1 else "colour"
    if metadata["resized"]:
        takes = f"Resizes images of any size to {width} × {height}, {colour}."
    else:
        window = f"{metadata['window'][1]} × {metadata['window'][0]}"
        takes = f"Judges images from {window} pixels upwards as they are, {colour}."
    origin = " on ".join(
        escape(str(metadata[key])) for key in ("method", "data") if key in metadata
    )
    return _panel(f'<p class="note"><b>{origin or "a model"}</b><br>{takes}</p>')


def note(text: str) -> str:
    """Returns a line in small print."""
    return _panel(f'<p class="note">{escape(text)}</p>')


def rate_line(rate: float, threshold: float, is_own: bool) -> str:
    """Returns what the slider of the false-positive rate stands at."""
    own = " (as exported)" if is_own else ""
    return _panel(
        f'<p class="rate"><b>{100 * rate:.3g} %</b> of good images may be called defective: '
        f"threshold {threshold:.4g}{own}</p>"
    )


def no_rates(model: str) -> str:
    """Returns why the slider of the false-positive rate cannot be moved."""
    return _panel(
        f'<p class="rate">{escape(model)} was exported without its thresholds at other rates: run '
        f"<code>tfgad calibrate</code> and <code>tfgad export</code> again to move this.</p>"
    )


def summary(rows: list[dict[str, str]], expected: int) -> str:
    """Returns how many files had which verdict, and how many are still to come."""
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in CLASSES}
    words = [f'<b class="{CLASSES[v]}">{n}</b> {v}' for v, n in counts.items() if n]
    if expected > len(rows):
        words.append(f'<span class="judging">judging {len(rows) + 1} of {expected} …</span>')
    return _panel(f'<p class="summary" role="status">{" · ".join(words)}</p>')


def mark(verdict: str) -> str:
    """Returns a verdict as a cell of the table."""
    return f'<span class="tfgad-mark {CLASSES[verdict]}">{verdict}</span>'


def _panel(content: str, shape: tuple[int, ...] = ()) -> str:
    strip = " strip" if shape and shape[1] > STRIP * shape[0] else ""
    return f'<div class="tfgad{strip}">{content}</div>'


def _bar(verdict: Verdict, threshold: float, scale: float) -> str:
    """Returns the score on a line with the threshold in its middle."""
    away = (verdict.score - threshold) / (2 * BAR_SCALES * scale)
    place = float(np.clip(50 + 100 * away, 1, 99))  # the mark stays within the line
    kind = "bad" if verdict.score > threshold else "good"
    beyond = " beyond" if abs(away) > 0.5 else ""
    label = f"score {verdict.score:.4g}, threshold {threshold:.4g}"
    return (
        f'<div class="bar" role="img" aria-label="{label}">'
        f'<i class="{kind}" style="width:{place:.1f}%"></i><b></b>'
        f'<em class="{kind}{beyond}" style="left:{place:.1f}%"></em></div>'
        '<div class="ends"><span>good</span><span>threshold</span><span>defective</span></div>'
    )


def _figure(title: str, content: str, shape: tuple[int, ...], caption: str) -> str:
    height, width = shape[:2]
    pixelated = " pixelated" if max(height, width) <= SMALL else ""
    return (
        f"<figure><h4>{title}</h4>"
        f'<div class="stack{pixelated}" style="--w:{width};--h:{height}" tabindex="0" '
        f'role="button" aria-label="{title}, at full size" title="click: full size" '
        f'onclick="{ENLARGE}" onkeydown="if(event.key===\'Enter\')this.click()">{content}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _legend(verdict: Verdict) -> str:
    if not verdict.is_anomalous:
        return "<p>Nothing to mark: the score is not above the threshold.</p>"
    threshold = verdict.map_threshold
    if verdict.reason and (threshold is None or verdict.map.max() <= threshold):
        return "<p>Nothing to mark: the image is unlike any good one as a whole.</p>"
    _, middle, upper = results.heat_scale(verdict)
    colours = ",".join(to_hex(HEAT(x)[:3]) for x in np.linspace(0.5, 1, 8))
    what = "Coloured where the map exceeds the threshold."
    if verdict.map_threshold is None:
        what = "Coloured in the upper half of the map's range: this score has no scale of pixels."
    return (
        f'<div class="legend"><span>{middle:.3g}</span>'
        f'<i style="background:linear-gradient(to right,{colours})"></i>'
        f"<span>{upper:.3g}</span></div><p>{what}</p>"
    )


def _shown_at(shape: tuple[int, ...]) -> str:
    factor = reduction(shape)
    return f"<p>Shown at 1/{factor} of its size, judged as it is.</p>" if factor > 1 else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
