"""Brings a study to its end: does what is missing, leaves alone what is done, and asks about what is stale.

In: the units of a study and the workers that can do them. Out: a record of each unit that is done. One driver at a time
works on a study.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from configs.errors import MagicError, ResourceError
from configs.workflow.records.leases import last_lease, write_failure
from configs.workflow.records.records import (
    State,
    keep_record,
    products_read,
    read_record,
    record_file,
    states,
    units_dir,
    write_record,
)
from configs.workflow.status.display import StudyDisplay
from configs.workflow.units import Unit
from configs.workflow.workers.dispatch import Event, Workers, dispatch, format_error

CHECKED = ("tokenize", "analyse")
"""Kinds that compare what is there by its content, and keep what is still right; doing them again loses nothing."""
SHOWN = 10
"""Stale units that a message names."""
UNWEIGHED = 0.002
"""Share of the computation that tokenizing and the report count for in the display."""

Stale = Literal["refuse", "redo", "keep"]


class UnitsFailed(MagicError):
    """Some units of a study ended with an error; the rest is done."""


def find_missing_products(
    folder: Path, units: Sequence[Unit], intact: Callable[[Unit, str, Sequence[Unit]], bool]
) -> list[Unit]:
    """Units that were done and whose files have gone, and those without a record of which something done was made.

    intact: of a unit, the product in its record, and the units not done that need it. What it raises for damaged files
    is raised. What was made of a lost unit can be judged once that is there again.
    """
    found = states(folder, units)
    used = {name for unit in units if found[unit.name].kind != "missing" for name in unit.inputs}
    waiting: dict[str, list[Unit]] = {unit.name: [] for unit in units}
    for unit in units:
        for name in unit.inputs if found[unit.name].kind != "done" else ():
            waiting[name].append(unit)
    gone: dict[str, Unit] = {}
    for unit in units:
        record = read_record(folder, unit.name)
        if record is None:
            if unit.name in used:
                gone[unit.name] = unit
            continue
        # A unit whose inputs have gone is judged in the next round: only then it is known how they came out.
        judged = found[unit.name].kind == "done" and gone.keys().isdisjoint(unit.inputs)
        if judged and not intact(unit, record.product, waiting[unit.name]):
            gone[unit.name] = unit
    return list(gone.values())


def resolve_stale(folder: Path, units: Sequence[Unit], stale: Stale) -> tuple[dict[str, State], list[Unit]]:
    """(states, units; stale ones are marked `again` or kept). Raises ResourceError for stale ones to be refused."""
    found = states(folder, units)
    old = [unit for unit in units if found[unit.name].kind == "stale" and unit.kind not in CHECKED]
    if not old or stale == "redo":
        names = {unit.name for unit in old}
        return found, [replace(unit, again=unit.name in names) for unit in units]
    if stale == "keep":
        for unit in old:
            keep_record(folder, unit, found[unit.name].reasons)
        return states(folder, units), list(units)
    shown = [f"{unit.name}: {'; '.join(found[unit.name].reasons)}" for unit in old[:SHOWN]]
    more = [f"and {len(old) - SHOWN} more"] if len(old) > SHOWN else []
    raise ResourceError(
        "\n  ".join([f"{len(old)} finished units no longer match what they were made from", *shown, *more]),
        where=folder,
        hint="--stale redo makes them again, --stale keep takes them as they are and says so in their records",
    )


def check_stale(folder: Path, units: Sequence[Unit], stale: Stale) -> bool:
    """Tell, before anything is done, whether it is certain that `resolve_stale` will refuse nothing.

    Raises ResourceError where it is certain that it will refuse.

    What follows from tokenizing again, or from files that have gone, shows once they are there.
    """
    names = {unit.name for unit in units if unit.kind not in CHECKED and record_file(folder, unit.name).is_file()}
    if stale == "refuse":
        made = [unit for unit in units if unit.name in names]
        resolve_stale(
            folder, [replace(u, inputs=tuple(name for name in u.inputs if name in names)) for u in made], stale
        )
    return stale != "refuse" or not names


def record_done(folder: Path, unit: Unit, product: str, seconds: float) -> None:
    """Record a unit that is done now, and took so long."""
    started = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
    lease = last_lease(folder, unit.name)
    write_record(
        folder,
        unit,
        products_read(folder, unit),
        product,
        started=started,
        seconds=round(seconds, 3),
        host=lease.host if lease else socket.gethostname(),
        hardware=lease.hardware if lease else None,
        git_commit=lease.git_commit if lease else None,
    )


class _Anew:
    """Workers that are given a unit to be made again as if it had never been: once, so that what is stopped goes on."""

    def __init__(self, workers: Workers, folder: Path, remove: Callable[[Unit], None]) -> None:
        self._workers, self._folder, self._remove = workers, folder, remove
        self.room, self.patience_s = workers.room, workers.patience_s
        self._removed: set[str] = set()

    def start(self, unit: Unit) -> Future[str]:
        if unit.again and unit.name not in self._removed:
            try:
                self._remove(unit)
            except MagicError as error:  # somebody works in its folder by hand; the other units go on
                refused: Future[str] = Future()
                refused.set_exception(error)
                return refused
            record_file(self._folder, unit.name).unlink(missing_ok=True)
            self._removed.add(unit.name)
        return self._workers.start(unit)


def drive(
    folder: Path,
    units: Sequence[Unit],
    found: Mapping[str, State],
    workers: Workers,
    remove: Callable[[Unit], None],
    tick: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Do all units that are not done; returns the seconds each took. Raises UnitsFailed once the others are done.

    remove: whatever a unit left, before it is made again. tick: is called about once a second.
    """
    todo = [unit for unit in units if found[unit.name].kind != "done"]
    most = max((unit.flops for unit in units), default=0.0) or 1.0
    weight = {unit.name: unit.flops or UNWEIGHED * most for unit in units}
    done = {unit.name for unit in units} - {unit.name for unit in todo}
    seconds: dict[str, float] = {}

    def handle(event: Event) -> None:
        if event.kind == "done" and event.unit is not None:
            seconds[event.unit.name] = event.seconds
            record_done(folder, event.unit, event.product, event.seconds)
        if event.kind == "failed" and event.unit is not None and event.error is not None:
            write_failure(folder, event.unit.name, format_error(event.error), final=True)
        display.handle(event)
        tick()

    anew = _Anew(workers, folder, remove)
    with StudyDisplay(folder, units, done, weight) as display:
        failed = dispatch(todo, anew, {unit.name: weight[unit.name] for unit in todo}, handle)
    if failed:
        raise _failed(folder, failed, len(todo) - len(seconds) - len(failed))
    return seconds


def _failed(folder: Path, failed: Mapping[str, BaseException], left: int) -> UnitsFailed:
    name, first = next(iter(failed.items()))
    others = f"; also {', '.join(list(failed)[1:SHOWN])}" if len(failed) > 1 else ""
    waits = f"; units not begun, which need it: {left}" if left else ""
    return UnitsFailed(
        f"{name} failed{others}{waits}\n{format_error(first)}",
        where=units_dir(folder) / f"{name}.log",
        hint="mend what it says and run the same command again: what is done stays done",
    )
