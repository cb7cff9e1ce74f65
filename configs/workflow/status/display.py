"""One progress display of a study: a line that is rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.clock import clock
from configs.workflow.status.progress import overall_share, words_of
from configs.workflow.units import KINDS, Unit
from configs.workflow.workers.dispatch import Event, in_words

REDRAW_S = 1.0
LINE_EVERY_S = 20.0
"""Where the output is not a terminal."""


class Display:
    def __init__(self, folder: Path, units: Sequence[Unit], done: set[str], weight: Mapping[str, float]) -> None:
        """folder: <runs>/<study>; units: of the whole study; done: names of those that need nothing."""
        self._folder = folder
        self._units, self._done, self._weight = units, set(done), weight
        self._running: dict[str, Unit] = {}
        self._began = self._said = time.monotonic()
        self._at_start = overall_share(units, weight, self._done, [])
        self._terminal = sys.stdout.isatty()

    def tell(self, event: Event) -> None:
        unit = event.unit
        if unit is not None:
            self._running.pop(unit.name, None)
            if event.kind == "started":
                self._running[unit.name] = unit
            elif event.kind == "done":
                self._done.add(unit.name)
            else:
                assert event.error is not None
                self.line(f"{unit.name} {event.kind}: {in_words(event.error).splitlines()[0]}")
        now = time.monotonic()
        if now - self._said > (REDRAW_S if self._terminal else LINE_EVERY_S):
            self._said = now
            self._progress()

    def line(self, text: str) -> None:
        if self._terminal:
            sys.stdout.write("\r\x1b[K")
        print(text, flush=True)

    def _progress(self) -> None:
        text = self.words()
        if self._terminal:
            sys.stdout.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stdout.flush()
        else:
            print(text, flush=True)

    def words(self) -> str:
        """E.g. `41 % ETA 3:20  pretrain 12/22 finetune 9/22 score 30/66  240m/V1P0/seed0/pt step 12 loss 4.5`."""
        share = overall_share(self._units, self._weight, self._done, list(self._running.values()))
        gained, passed = share - self._at_start, time.monotonic() - self._began
        eta = clock(passed * (1 - share) / gained) if gained > 1e-6 else "-:--"
        done, total = (Counter(name.partition("/")[0] for name in names) for names in (self._done, self._weight))
        counts = " ".join(f"{kind} {done[kind]}/{total[kind]}" for kind in KINDS if total[kind] > done[kind])
        now = ", ".join(words_of(unit, self._folder) for unit in self._running.values())
        return f"{share:.0%} ETA {eta}  {counts}  {now}"
