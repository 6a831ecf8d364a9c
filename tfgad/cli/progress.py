"""Progress of long work: a bar on a terminal, elsewhere a plain line every tenth of the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from tfgad.cli.console import PLAIN, STANDARD_ERROR

TENTHS = 10


class Progress:
    """Shows on standard error how far the work is, phase by phase.

        with Progress() as progress:
            progress.phase("reading the data")
            progress.phase("training", 1500)
            progress.advance("loss 0.31")

    A phase ends when the next begins.
    """

    def __init__(self):
        on_terminal = STANDARD_ERROR.is_terminal
        self._lines = None if on_terminal else Lines()
        self._bars = RichProgress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            Count(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            # A narrow terminal cuts the losses short, not the rest.
            TextColumn(
                "{task.fields[note]}", style="dim", table_column=Column(ratio=1, no_wrap=True)
            ),
            console=STANDARD_ERROR,
            expand=True,
            redirect_stdout=False,  # results may go to a file meanwhile
            disable=not on_terminal,
        )
        self._task = None

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_) -> None:
        self._end_phase()
        self._bars.stop()

    def phase(self, name: str, steps: int | None = None) -> None:
        """Begins a phase of so many steps, or of unknown length."""
        self._end_phase()
        self._task = self._bars.add_task(name, total=steps, note="")
        if self._lines:
            self._lines.phase(name, steps)

    def advance(self, note: str = "") -> None:
        """Tells that one more step is done, and what there is to say of it."""
        self._bars.update(self._task, advance=1, note=note)
        if self._lines:
            self._lines.advance(note)

    def _end_phase(self) -> None:
        """Leaves a bar that was counted standing; one of unknown length has nothing to tell."""
        if self._task is not None and self._bars.tasks and self._bars.tasks[-1].total is None:
            self._bars.remove_task(self._task)
        self._task = None


class Count(MofNCompleteColumn):
    """Steps done of those there are; nothing where that is not known."""

    def render(self, task: Task) -> Text:
        """Returns the column's text."""
        return Text() if task.total is None else super().render(task)


class Lines:
    """The same as plain lines, for logs: of counted phases only."""

    def phase(self, name: str, steps: int | None) -> None:
        """Notes the phase and the time."""
        self.name, self.steps, self.done, self.begun = name, steps, 0, time.monotonic()

    def advance(self, note: str) -> None:
        """Writes a line if another tenth is done."""
        self.done += 1
        if self.done * TENTHS // self.steps == (self.done - 1) * TENTHS // self.steps:
            return
        left = (time.monotonic() - self.begun) * (self.steps / self.done - 1)
        line = f"{self.name}: {self.done} of {self.steps}, {left:.0f} s left"
        if note:
            line = f"{line}, {note}"
        STANDARD_ERROR.print(line, **PLAIN)


def training_callbacks(
    progress: Progress, afterwards: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str, int], Sequence]:
    """Returns the `callbacks` of `tfgad.training.runs.train`: one bar per stage, with its losses.

    Args:
        progress: is told of every step.
        afterwards: what is done once a stage has ended; the threshold is set, where not said.
    """
    import keras

    def of_stage(stage: str, steps: int) -> Sequence[keras.callbacks.Callback]:
        progress.phase("training" if stage == "train" else f"training the {stage}", steps)
        return [
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda step, logs: progress.advance(_losses(logs)),
                on_train_end=lambda logs: progress.phase(
                    afterwards.get(stage, "setting the threshold")
                ),
            )
        ]

    return of_stage


def _losses(logs: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in logs.items())
