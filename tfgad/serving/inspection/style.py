"""The colours of the inspection page, and its style sheet."""

from __future__ import annotations

from tfgad.plots import ANOMALOUS, NORMAL
from tfgad.serving.inspection import assets, viewer

OPACITY = 50  # initial opacity of the heat map in percent, so that the image below it is visible


def style_element() -> str:
    """Returns the style sheet as an HTML element.

    It is part of the page's content, since gradio takes style sheets only where a page is mounted.
    """
    return viewer.style(assets.read("page.css"), NORMAL, ANOMALOUS, OPACITY / 100)
