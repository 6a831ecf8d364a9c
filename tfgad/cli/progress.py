"""Progress of long work: a bar on a terminal, elsewhere one line per tenth of the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from tfgad.cli.console import PLAIN, STANDARD_ERROR

TENTHS = 10


class Progress:
    """Reports on standard error the progress of work that has several phases.

        with Progress() as progress:
            progress.phase("reading the data")
            progress.phase("training", 1500)
            progress.advance("loss 0.31")

    A phase ends when the next one starts.
    """

    def __init__(self) -> None:
        on_terminal = STANDARD_ERROR.is_terminal
        self._lines = None if on_terminal else Lines()
        self._bars = RichProgress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            Count(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            # On a narrow terminal only the losses are cut.
            TextColumn(
                "{task.fields[note]}", style="dim", table_column=Column(ratio=1, no_wrap=True)
            ),
            console=STANDARD_ERROR,
            expand=True,
            redirect_stdout=False,  # standard output may be redirected to a file
            disable=not on_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._done = "", 0

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_phase()
        self._bars.stop()

    def phase(self, name: str, steps: int | None = None) -> None:
        """Starts a phase.

        Args:
            name: shown beside the bar.
            steps: how often `advance` will be called; None if that is not known.
        """
        self._end_phase()
        self._name, self._done = name, 0
        self._task = self._bars.add_task(name, total=steps, note="")
        if self._lines:
            self._lines.phase(name, steps)

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Counts further steps of the phase.

        Args:
            note: shown behind the bar, such as the losses.
            steps: how many.
        """
        self._done += steps
        if self._task is not None:
            self._bars.update(self._task, advance=steps, note=note)
        if self._lines:
            self._lines.advance(note, steps)

    def at(self, name: str, done: int, total: int) -> None:
        """Shows how much of a phase is done, and starts it where it is another one.

        Args:
            name: of the phase.
            done: steps of it.
            total: its steps; 0 if that is not known.
        """
        if name != self._name:
            self.phase(name, total or None)
        if done > self._done:
            self.advance(steps=done - self._done)

    def _end_phase(self) -> None:
        """Ends the current phase; its bar stays on the terminal if it counted steps."""
        if self._task is not None and self._bars.tasks and self._bars.tasks[-1].total is None:
            self._bars.remove_task(self._task)
        self._task = None


class Count(MofNCompleteColumn):
    """Column with the number of steps done; empty for a phase of unknown length."""

    def render(self, task: Task) -> Text:
        """Returns the column's text."""
        return Text() if task.total is None else super().render(task)


class Lines:
    """Progress as plain lines, for log files.

    A phase of unknown length prints its name, if a counted phase came before. Otherwise the log
    would seem to stop.
    """

    def __init__(self) -> None:
        self.has_counted = False

    def phase(self, name: str, steps: int | None) -> None:
        """Starts a phase; see `Progress.phase`."""
        self.name, self.steps, self.done, self.started = name, steps, 0, time.monotonic()
        if steps is None and self.has_counted:
            STANDARD_ERROR.print(name, **PLAIN)
        self.has_counted = self.has_counted or steps is not None

    def advance(self, note: str, steps: int) -> None:
        """Counts further steps, and writes a line when another tenth of all is done."""
        before, self.done = self.done, self.done + steps
        if self.steps is None:
            return
        if self.done * TENTHS // self.steps == before * TENTHS // self.steps:
            return
        left = (time.monotonic() - self.started) * (self.steps / self.done - 1)
        line = f"{self.name}: {self.done} of {self.steps}, {left:.0f} s left"
        if note:
            line = f"{line}, {note}"
        STANDARD_ERROR.print(line, **PLAIN)


def training_callbacks(
    progress: Progress, afterwards: Mapping[str, str] = MappingProxyType({})
) -> Callable[[str, int], Sequence]:
    """Returns the argument `callbacks` of `tfgad.training.train`: a bar for each stage.

    Args:
        progress: shows the steps and losses.
        afterwards: stage -> name of the phase that follows it, if not "setting the threshold".
    """
    import keras

    def of_stage(stage: str, steps: int) -> Sequence[keras.callbacks.Callback]:
        progress.phase("training" if stage == "train" else f"training the {stage}", steps)
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: progress.advance(_losses(logs))
        )

        def end(logs: object) -> None:
            stages = getattr(callback.model, "stages", (stage,))
            if stage in afterwards or stage == stages[-1]:  # else the next stage follows
                progress.phase(afterwards.get(stage, "setting the threshold"))

        callback.on_train_end = end
        return [callback]

    return of_stage


def _losses(logs: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in logs.items())
