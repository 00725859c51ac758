"""Progress on stderr: bars with rates for downloads, a line with its time for every other step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

MAX_NAME = 36


class _Bar:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self, num_bytes: int, /) -> None:
        self._bars.update(self._task, advance=num_bytes)


class _OnlyForDownloads(ProgressColumn):
    """A column that stays empty for steps, which have no size."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> Text:
        shown = self._column.render(task) if task.fields.get("is_download") else ""
        return shown if isinstance(shown, Text) else Text(str(shown))


class RichProgress:
    """What `cluster.optimization` reports, drawn with rich. Use as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _OnlyForDownloads(DownloadColumn()),
            _OnlyForDownloads(TransferSpeedColumn()),
            console=self.console,
        )

    def __enter__(self) -> Self:
        # Drawn from the first report on: a fetch with nothing to do leaves no empty line.
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def download(self, file: str, total_bytes: int | None) -> _Bar:
        self._bars.start()
        # A wheel's tags would push the bar off the screen.
        short = file if len(file) <= MAX_NAME else file[: MAX_NAME - 1] + "…"
        return _Bar(self._bars, self._bars.add_task(short, total=total_bytes, is_download=True))

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self._bars.start()
        started_s = time.perf_counter()
        task = self._bars.add_task(what, total=None)
        try:
            yield
        finally:
            self._bars.remove_task(task)
        self.console.print(f"  {what}: {time.perf_counter() - started_s:.1f} s")
