"""The progress display of a study: its share that is done, the time to go, and what is at work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.progress import ProgressDisplay, eta
from configs.workflow.status.progress import describe_work, overall_share
from configs.workflow.units import KINDS, Unit
from configs.workflow.workers.dispatch import Event, format_error

LINE_EVERY_S = 20.0


class StudyDisplay(ProgressDisplay):
    """Shows the events of a driver."""

    def __init__(self, folder: Path, units: Sequence[Unit], done: set[str], weight: Mapping[str, float]) -> None:
        """folder: <runs>/<study>; units: of the whole study; done: names of those that need nothing."""
        super().__init__(LINE_EVERY_S)
        self._folder = folder
        self._units, self._done, self._weight = units, set(done), weight
        self._running: dict[str, Unit] = {}
        self._began = time.monotonic()
        self._at_start = overall_share(units, weight, self._done, [])

    def handle(self, event: Event) -> None:
        unit = event.unit
        if unit is not None:
            self._running.pop(unit.name, None)
            if event.kind == "started":
                self._running[unit.name] = unit
            elif event.kind == "done":
                self._done.add(unit.name)
            else:
                assert event.error is not None
                self.line(f"{unit.name} {event.kind}: {format_error(event.error).splitlines()[0]}")
        if self.is_due:
            share = overall_share(self._units, self._weight, self._done, list(self._running.values()))
            self.show(self._text(share), share, 1.0)

    def _text(self, share: float) -> str:
        """E.g. `41 % ETA 3:20  pretrain 12/22 finetune 9/22 score 30/66  240m/V1P0/seed0/pt step 12 loss 4.5`."""
        left = eta(share - self._at_start, 1 - self._at_start, time.monotonic() - self._began)
        done, total = (Counter(name.partition("/")[0] for name in names) for names in (self._done, self._weight))
        counts = " ".join(f"{kind} {done[kind]}/{total[kind]}" for kind in KINDS if total[kind] > done[kind])
        work = ", ".join(describe_work(unit, self._folder) for unit in self._running.values())
        return f"{share:.0%} ETA {left}  {counts}  {work}"
