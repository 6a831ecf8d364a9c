"""The components of the inspection page, and their layout."""

from __future__ import annotations

from typing import Literal

import gradio

from tfgad.serving.inspection import viewer
from tfgad.serving.inspection.style import OPACITY, style_element

HEADERS = ["No.", "Image", "Verdict", "Score", "Probability", "Reason"]
TYPES: list[Literal["number", "str", "html"]] = ["number", "str", "html", "number", "str", "str"]
WIDTHS: list[str | int] = ["6%", "29%", "15%", "12%", "17%", "21%"]


class Layout:
    """The components of the page: inputs on the left, results on the right.

    It must be created in a `gradio.Blocks` context. The style sheet hides components that have no
    use yet: opacity, stop button and table.
    """

    def __init__(self) -> None:
        self.batch = gradio.State(None)
        gradio.HTML(style_element(), elem_id="tfgad-style")
        gradio.HTML(viewer.title(), elem_id="tfgad-title", elem_classes="tfgad")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                self._add_inputs()
            with gradio.Column(scale=5, min_width=320):
                self._add_results()

    def _add_inputs(self) -> None:
        self.model = gradio.Dropdown([], label="Model", elem_id="tfgad-model")
        self.metadata = gradio.HTML()
        self.files = gradio.File(
            file_count="multiple", label="Images", height=170, elem_id="tfgad-files"
        )
        self.stop = gradio.Button("Stop", size="sm", variant="stop", elem_id="tfgad-stop")
        self.rate = gradio.Slider(
            0, 1, step=1, label="False-positive rate", elem_id="tfgad-rate", interactive=False
        )
        self.rate_line = gradio.HTML(elem_id="tfgad-rate-line")
        self.examples_note = gradio.HTML()
        self.gallery = gradio.Gallery(
            show_label=False,
            columns=4,
            height="auto",
            allow_preview=False,
            interactive=False,
            buttons=[],
            object_fit="contain",
            elem_id="tfgad-examples",
        )
        self.all_examples = gradio.Button("Score all examples", size="sm")

    def _add_results(self) -> None:
        self.headline = gradio.HTML(viewer.no_result(has_models=True), elem_id="tfgad-headline")
        with gradio.Row(equal_height=False, elem_id="tfgad-shown"):
            self.pictures = gradio.HTML(elem_id="tfgad-pictures", min_width=300)
            self.reconstruction = gradio.HTML(elem_id="tfgad-reconstruction", min_width=300)
        self.opacity = gradio.Slider(
            0,
            100,
            OPACITY,
            step=1,
            label="Opacity of the heat map, %",
            elem_id="tfgad-opacity",
        )
        with gradio.Column(elem_id="tfgad-batch"):
            with gradio.Row():
                self.summary = gradio.HTML(elem_id="tfgad-summary", min_width=200)
                self.csv = gradio.DownloadButton(
                    "Download CSV", size="sm", min_width=150, elem_id="tfgad-csv"
                )
            self.table = gradio.Dataframe(
                headers=HEADERS,
                datatype=TYPES,
                column_widths=WIDTHS,
                interactive=False,
                show_label=False,
                max_height=360,
                buttons=[],
                wrap=True,
                elem_id="tfgad-table",
            )
