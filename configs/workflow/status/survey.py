"""Where a study stands: of each unit whether it is done, who is at work on it, how far, how it failed, what is stale.

In: units, their records, claims, logs, and the lines that trainings write. Out: a `Survey`, which `status` shows in a
terminal and as a page. It only reads, so that it can be taken at any time, from any machine that sees the folder.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.workflow.records.leases import Lease, current_lease, read_failure, was_begun
from configs.workflow.records.records import State, states
from configs.workflow.status.progress import last_step, log_lines
from configs.workflow.units import KINDS, Unit

LOG_LINES = 8
"""Of a unit that failed."""

StateOf = Literal["done", "running", "failed", "stopped", "stale", "missing"]
STATES: tuple[StateOf, ...] = ("done", "running", "failed", "stopped", "stale", "missing")


@dataclass(frozen=True)
class Standing:
    """Of one unit."""

    unit: Unit
    state: StateOf
    """stopped: begun, and nobody is at work on it; missing: not begun."""
    step: int | None = None
    """Of a training that has begun."""
    steps: int | None = None
    loss: float | None = None
    claim: Lease | None = None
    passed_s: float | None = None
    """Since it was begun, or that it took."""
    left_s: float | None = None
    """Of one at work; None where nothing tells."""
    reasons: tuple[str, ...] = ()
    """What has changed since a stale one was made, or the message that a failed one ended with."""
    log: tuple[str, ...] = ()
    """The last lines of one that failed."""

    @property
    def follows(self) -> bool:
        """Whether it is stale only because what it reads is stale or missing."""
        return self.state == "stale" and all(reason.endswith((" is stale", " is missing")) for reason in self.reasons)


@dataclass(frozen=True)
class Survey:
    study: str
    standings: tuple[Standing, ...]
    left_s: float | None
    """Of the whole study with as many units at work as now; None where nobody is, or a speed is not known yet."""
    share: float
    """Of the study's computation that is done."""

    def counts(self) -> dict[str, Counter[StateOf]]:
        """Kind of unit -> how many are in each state."""
        found: dict[str, Counter[StateOf]] = {kind: Counter() for kind in KINDS}
        for one in self.standings:
            found[one.unit.kind][one.state] += 1
        return {kind: counted for kind, counted in found.items() if counted}

    def having(self, state: StateOf) -> list[Standing]:
        return [one for one in self.standings if one.state == state]

    def telling(self) -> list[tuple[StateOf, list[Standing], int]]:
        """(state, units that a person wants to see by name, further ones that follow from them) of each such state."""
        found = []
        for state in STATES:
            some = self.having(state) if state not in ("done", "missing") else []
            first = [one for one in some if not one.follows]
            found += [(state, first, len(some) - len(first))] if some else []
        return found


def survey(folder: Path, units: Sequence[Unit]) -> Survey:
    """folder: <runs>/<study>; units: each behind its inputs."""
    found = states(folder, units)
    speed = _Speeds(units, found)
    standings = tuple(_standing(folder, unit, found[unit.name], speed) for unit in units)
    working = [one for one in standings if one.state == "running"]
    left = [_left_s(one, speed) for one in standings if one.state != "done"]
    known = [seconds for seconds in left if seconds is not None]
    whole = sum(unit.flops for unit in units) or 1.0
    return Survey(
        study=folder.name,
        standings=standings,
        left_s=sum(known) / len(working) if working and len(known) == len(left) else None,
        share=sum(one.unit.flops * _share(one) for one in standings) / whole,
    )


def _standing(folder: Path, unit: Unit, state: State, speed: _Speeds) -> Standing:
    if state.kind == "done":
        return Standing(unit, "done", passed_s=state.took_s)
    trained = unit.kind in ("pretrain", "finetune") and unit.folder is not None and unit.run is not None
    line = last_step(unit.folder) if trained and unit.folder else {}
    steps = unit.run.steps if trained and unit.run and line else None
    step, loss = line.get("step"), line.get("loss")
    if claim := current_lease(folder, unit.name):
        passed = max(0.0, time.time() - claim.began)
        left = None
        if unit.run and line.get("tokens_per_s") and steps is not None:
            left = (steps - line["step"]) * unit.run.config.tokens_per_step / line["tokens_per_s"]
        elif (whole := speed.seconds(unit)) is not None:
            left = max(0.0, whole - passed)
        return Standing(unit, "running", step, steps, loss, claim, passed, left)
    if failed := read_failure(folder, unit.name):
        log = tuple(log_lines(folder, unit.name)[-LOG_LINES:])
        return Standing(unit, "failed", step, steps, loss, reasons=(failed.message,), log=log)
    if state.kind == "stale":
        return Standing(unit, "stale", step, steps, loss, reasons=state.reasons)
    begun = bool(line) or was_begun(folder, unit.name)
    return Standing(unit, "stopped" if begun else "missing", step, steps, loss)


class _Speeds:
    """Seconds that a unit would take, from those of its kind and scale that are done."""

    def __init__(self, units: Sequence[Unit], found: Mapping[str, State]) -> None:
        flops: dict[tuple[str, str], float] = defaultdict(float)
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        for unit in units:
            state = found[unit.name]
            if state.kind == "done" and state.took_s is not None:
                flops[self._like(unit)] += unit.flops
                seconds[self._like(unit)] += state.took_s
        self._rate = {like: seconds[like] / flops[like] for like in flops if flops[like]}

    def seconds(self, unit: Unit) -> float | None:
        """0 for what does not count (tokenizing, the report); None where none of its kind and scale is done."""
        if not unit.flops:
            return 0.0
        rate = self._rate.get(self._like(unit))
        return None if rate is None else rate * unit.flops

    @staticmethod
    def _like(unit: Unit) -> tuple[str, str]:
        return unit.kind, unit.folder.scale if unit.folder else ""


def _left_s(one: Standing, speed: _Speeds) -> float | None:
    whole = speed.seconds(one.unit)
    return one.left_s if one.state == "running" else whole and whole * (1 - _share(one))


def _share(one: Standing) -> float:
    if one.state == "done":
        return 1.0
    return 0.0 if one.state == "stale" or not (one.step and one.steps) else min(1.0, one.step / one.steps)
