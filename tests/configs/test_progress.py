"""Progress: lines with speed and time to go where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import re
import sys

import pytest

from configs.progress import Progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("configs.progress.time.monotonic", lambda: self.now)


def test_lines_tell_speed_and_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    time, lines = Clock(monkeypatch), list[str]()
    with Progress(100_000_000, print_line=lines.append) as progress:
        for _ in range(20):
            time.now += 1.0
            progress.advance(2_000_000, "tokenizing web")
    assert lines == [
        f"tokenizing web: {2 * n} of about 100 MB, 2.0 MB/s, ETA 0:{(100 - 2 * n) // 2}" for n in (5, 10, 15, 20)
    ]


def test_nothing_is_promised_where_the_whole_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    time, lines = Clock(monkeypatch), list[str]()
    progress = Progress(None, print_line=lines.append)
    time.now = 10.0
    progress.advance(25_000_000)
    assert lines == ["25 MB, 2.5 MB/s"]
    progress.expect(50_000_000)
    time.now = 20.0
    progress.advance(35_000_000)  # more than was expected
    assert lines[1:] == ["60 of about 60 MB, 3.0 MB/s, ETA 0:00"]


def test_a_terminal_gets_a_bar_and_lines_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(100) as progress:
        progress.advance(50, "tokenizing web")
        progress.line("a line")
    assert "a line\n" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "tokenizing web" in terminal.getvalue()
