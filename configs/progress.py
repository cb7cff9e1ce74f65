"""How far a long job is: a bar on a terminal, elsewhere a line every few seconds, with speed and time to go.

In: how much there is to do, if known, and what is done as it is done. Out: something to look at; nothing is stored.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from configs.clock import clock

LINE_EVERY_S = 5.0


class ProgressDisplay:
    """The one place on the screen where progress is shown.

    print_line: takes plain lines instead of the bar; without it, a terminal shows the bar and a log gets lines.
    """

    def __init__(self, every_s: float = LINE_EVERY_S, print_line: Callable[[str], None] | None = None) -> None:
        self._every_s = every_s
        self._print_line = print_line or _print
        self._last_shown = time.monotonic()
        self._bar: Any = None
        if print_line is None and sys.stdout.isatty():
            self._bar, self._task = _start_bar()

    @property
    def is_due(self) -> bool:
        """Whether `show` would show something now."""
        return self._bar is not None or time.monotonic() - self._last_shown >= self._every_s

    def show(self, text: str, done: float, total: float | None, label: str = "", *, at_once: bool = False) -> None:
        """Show the text, if it is time for another line or must be `at_once`; done of total is the bar's length."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=label, text=text)
        elif at_once or self.is_due:
            self._last_shown = time.monotonic()
            self._print_line(f"{label}: {text}" if label else text)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            self._print_line(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Progress(ProgressDisplay):
    """Counts bytes of text; safe to call from several threads.

    total_bytes: everything there is to do; None where nobody knows, and then there is no time to go.
    """

    def __init__(self, total_bytes: int | None, *, print_line: Callable[[str], None] | None = None) -> None:
        super().__init__(print_line=print_line)
        self._total = total_bytes
        self._done = 0
        self._label = ""
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count the time from now on; else it counts from the start of this object."""
        self._began = self._last_shown = time.monotonic()

    def advance(self, bytes_: int, label: str | None = None) -> None:
        """`bytes_` more are done (fewer than none where an estimate is corrected); `label` names what is in work."""
        with self._lock:
            self._done += bytes_
            self._label = self._label if label is None else label
            # An estimate may prove too low, and a bar must not run beyond its end.
            total = None if self._total is None else max(self._total, self._done)
            self.show(self._numbers(total), self._done, total, self._label)

    def expect(self, total_bytes: int | None) -> None:
        """A better estimate of everything there is to do."""
        self._total = total_bytes

    def _numbers(self, total: int | None) -> str:
        passed_s = time.monotonic() - self._began
        of_total = "" if total is None else f" of about {total / 1e6:,.0f}"
        speed = self._done / 1e6 / max(passed_s, 1e-9)
        text = f"{self._done / 1e6:,.0f}{of_total} MB, {speed:,.1f} MB/s"
        return text if total is None or self._done <= 0 else f"{text}, ETA {eta(self._done, total, passed_s)}"


def eta(done: float, total: float, passed_s: float) -> str:
    """The time to go at the pace so far, e.g. `3:20`; `-:--` where nothing is done yet."""
    return clock(passed_s * (total - done) / done) if done > 1e-6 else "-:--"


def _print(text: str) -> None:
    print(text, flush=True)


def _start_bar() -> tuple[Any, Any]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    bar = Bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), transient=True)
    bar.start()
    bar.console.show_cursor(True)  # rich hides it, and a second Ctrl-C ends the process before it could come back
    return bar, bar.add_task("", total=None, text="")
