"""Where a study stands: of each unit whether it is done, who is at work on it, how far, how it failed, what is stale.

In: units, their records, leases, logs, and the lines that trainings write. Out: a `Survey`, which `status` shows in a
terminal and as a page. It only reads, so that it can be taken at any time, from any machine that sees the folder.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from configs.clock import clock
from configs.workflow.records.leases import Lease, current_lease, read_failure, was_begun
from configs.workflow.records.records import State, states
from configs.workflow.status.progress import last_step, log_lines
from configs.workflow.units import KINDS, TRAININGS, Unit

LOG_LINES = 8
"""Lines of its log that are shown of a failed unit."""

StateOf = Literal["done", "running", "failed", "stopped", "stale", "missing"]
STATES: tuple[StateOf, ...] = ("done", "running", "failed", "stopped", "stale", "missing")


@dataclass(frozen=True)
class Standing:
    """Where one unit stands."""

    unit: Unit
    state: StateOf
    """stopped: begun, and nobody is at work on it; missing: not begun."""
    step: int | None = None
    """The last step of a training that has begun."""
    steps: int | None = None
    loss: float | None = None
    lease: Lease | None = None
    passed_s: float | None = None
    """Since it was begun, or that it took."""
    left_s: float | None = None
    """Time to go of a running unit; None where nothing tells."""
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
    """Time to go with as many units at work as now; None where nobody is, or a speed is not known yet."""
    share: float
    """Share of the study's computation that is done."""

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
    # If the time of one unit is unknown, so is that of the study: a sum of the others would be too short.
    known = [seconds for seconds in left if seconds is not None]
    whole = sum(unit.flops for unit in units) or 1.0
    return Survey(
        study=folder.name,
        standings=standings,
        left_s=sum(known) / len(working) if working and len(known) == len(left) else None,
        share=sum(one.unit.flops * _share(one) for one in standings) / whole,
    )


def headline(found: Survey) -> str:
    """E.g. `mini: 41 % of its computation done, 2 units at work, about 3:20 left at this pace`."""
    working = len(found.having("running"))
    parts = [f"{found.study}: {found.share:.0%} of its computation done"]
    parts.append(f"{working} unit{'' if working == 1 else 's'} at work" if working else "nobody is at work on it")
    if found.left_s is not None:
        parts.append(f"about {clock(found.left_s)} left at this pace")
    return ", ".join(parts)


def format_progress(one: Standing) -> str:
    """E.g. `step 120/585, loss 4.512, 0:42 left, for 0:12, on node3`."""
    parts = [f"step {one.step}/{one.steps}"] if one.step is not None else []
    parts += [f"loss {one.loss:.3f}"] if one.loss is not None else []
    parts += [f"{clock(one.left_s)} left"] if one.left_s is not None else []
    if one.state in ("running", "done") and one.passed_s is not None:
        parts.append(f"{'for' if one.state == 'running' else 'took'} {clock(one.passed_s)}")
    parts += [f"on {one.lease.host}"] if one.lease else []
    return ", ".join(parts)


def _standing(folder: Path, unit: Unit, state: State, speed: _Speeds) -> Standing:
    if state.kind == "done":
        return Standing(unit, "done", passed_s=state.took_s)
    line = last_step(unit.folder) if unit.folder and unit.kind in TRAININGS else {}
    steps = unit.run.steps if unit.run and line else None
    found = Standing(unit, "missing", line.get("step"), steps, line.get("loss"))
    if lease := current_lease(folder, unit.name):
        passed_s = max(0.0, time.time() - lease.began)
        left_s = _left_at_work_s(found, line, speed, passed_s)
        return replace(found, state="running", lease=lease, passed_s=passed_s, left_s=left_s)
    if failed := read_failure(folder, unit.name):
        log = tuple(log_lines(folder, unit.name)[-LOG_LINES:])
        return replace(found, state="failed", reasons=(failed.message,), log=log)
    if state.kind == "stale":
        return replace(found, state="stale", reasons=state.reasons)
    return replace(found, state="stopped") if line or was_begun(folder, unit.name) else found


def _left_at_work_s(one: Standing, line: Mapping[str, Any], speed: _Speeds, passed_s: float) -> float | None:
    """Time to go by the speed of its last step, else by the speed of units of its kind."""
    if one.unit.run and one.steps is not None and line.get("tokens_per_s"):
        return float((one.steps - line["step"]) * one.unit.run.config.tokens_per_step / line["tokens_per_s"])
    whole_s = speed.seconds(one.unit)
    return None if whole_s is None else max(0.0, whole_s - passed_s)


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
