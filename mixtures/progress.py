"""How far a long job is: a bar on a terminal, elsewhere a line every few seconds, with speed and time to go.

In: how much there is to do, if known, and what is done as it is done. Out: something to look at; nothing is stored.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from configs.clock import clock

LINE_EVERY_S = 5.0
SCALES = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Counts bytes of text, or whatever `unit` names; safe to call from several threads.

    total_bytes: everything there is to do; None where nobody knows, and then there is no time to go.
    say: takes plain lines instead of the bar; without it, a terminal shows the bar and a log gets lines.
    """

    def __init__(self, total_bytes: int | None, unit: str = "MB", *, say: Callable[[str], None] | None = None) -> None:
        self._total = total_bytes
        self._unit, self._scale = unit, SCALES.get(unit, 1.0)
        self._done = 0
        self._label = ""
        self._began = self._said = time.monotonic()
        self._lock = threading.Lock()
        self._say = say or _print
        self._bar: Any = None
        if say is None and sys.stdout.isatty():
            self._bar, self._task = _start_bar()

    def begin(self) -> None:
        """Count the time from now on; else it counts from the start of this object."""
        self._began = self._said = time.monotonic()

    def advance(self, bytes_: int, label: str | None = None) -> None:
        """`bytes_` more are done (fewer than none where an estimate is corrected); `label` names what is in work."""
        with self._lock:
            self._done += bytes_
            self._label = self._label if label is None else label
            if self._bar is not None:
                total = None if self._total is None else max(self._total, self._done)
                self._bar.update(
                    self._task, completed=self._done, total=total, description=self._label, text=self._numbers()
                )
            elif time.monotonic() - self._said >= LINE_EVERY_S:
                self._said = time.monotonic()
                self._say(f"{self._label}: {self._numbers()}" if self._label else self._numbers())

    def expect(self, total_bytes: int | None) -> None:
        """A better estimate of everything there is to do."""
        self._total = total_bytes

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            self._say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _numbers(self) -> str:
        speed = self._done / max(time.monotonic() - self._began, 1e-9)
        text = f"{self._done / self._scale:,.0f}"
        if self._total is not None:
            text += f" of about {max(self._total, self._done) / self._scale:,.0f}"
        text += f" {self._unit}, {speed / self._scale:,.1f} {self._unit}/s"
        if self._total is not None and speed > 0:
            text += f", ETA {clock(max(0, self._total - self._done) / speed)}"
        return text


def _print(text: str) -> None:
    print(text, flush=True)


def _start_bar() -> tuple[Any, Any]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), transient=True)
    bar.start()
    return bar, bar.add_task("", total=None, text="")
