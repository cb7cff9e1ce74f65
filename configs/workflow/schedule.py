"""When which unit would run on how many GPUs: time, critical path, money.

In: units and how long each takes. Out: a `Schedule`: the simulation of a greedy dispatcher that, whenever GPUs are
free, starts the unit with the longest way to the end of the study that fits. The runner dispatches in the same order.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from configs.errors import ConfigError
from configs.workflow.units import Unit


@dataclass(frozen=True)
class Schedule:
    start_s: Mapping[str, float]
    end_s: Mapping[str, float]
    critical: tuple[str, ...]
    """The chain of units that takes longest however many GPUs there are."""
    critical_s: float

    @property
    def total_s(self) -> float:
        return max(self.end_s.values(), default=0.0)


def machines_for(gpus: int, most: int) -> int:
    """The fewest machines over which these GPUs spread evenly, at most `most` on each.

    Raises ConfigError where machines have no GPU.
    """
    if gpus and most < 1:
        raise ConfigError(
            f"{gpus} GPUs are asked for, {most} are on each machine",
            valid="at least 1 on each, or scales.<scale>.gpus=0: none is needed",
        )
    return next((n for n in range(1, gpus + 1) if gpus % n == 0 and gpus // n <= most), 1)


def remaining_s(units: Sequence[Unit], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of each unit to the end of the study, if nothing waits; units: each behind its inputs."""
    after: dict[str, float] = {unit.name: 0.0 for unit in units}
    whole = {}
    for unit in reversed(units):
        whole[unit.name] = seconds[unit.name] + after[unit.name]
        for name in unit.inputs:
            after[name] = max(after[name], whole[unit.name])
    return whole


def schedule(units: Sequence[Unit], seconds: Mapping[str, float], gpus: int) -> Schedule:
    """Raises ConfigError where a unit needs more GPUs than there are. Units that need none run at once, beside."""
    _check_gpus(units, gpus)
    whole = remaining_s(units, seconds)
    by_name = {unit.name: unit for unit in units}
    order = TopologicalSorter({unit.name: unit.inputs for unit in units})
    order.prepare()
    ready: list[Unit] = []
    running: list[tuple[float, int, Unit]] = []
    start: dict[str, float] = {}
    end: dict[str, float] = {}
    now, free = 0.0, gpus
    while order.is_active():
        ready += [by_name[name] for name in order.get_ready()]
        # The longest way to the end goes first, so that the critical path waits for nothing that is off it.
        for unit in sorted(ready, key=lambda unit: -whole[unit.name]):
            if unit.gpus <= free:
                free -= unit.gpus
                ready.remove(unit)
                start[unit.name], end[unit.name] = now, now + seconds[unit.name]
                heapq.heappush(running, (end[unit.name], len(start), unit))
        now, _, finished = heapq.heappop(running)
        free += finished.gpus
        order.done(finished.name)
    return Schedule(start, end, *_critical(units, whole))


def _check_gpus(units: Sequence[Unit], gpus: int) -> None:
    most = max(units, key=lambda unit: unit.gpus, default=None)
    if most is not None and most.gpus > gpus:
        raise ConfigError(
            f"{most.name} works on {most.gpus} GPUs, {gpus} are given",
            valid=f"--gpus {most.gpus} or more, or fewer in the study: scales.<scale>.gpus",
        )


def _critical(units: Sequence[Unit], whole: Mapping[str, float]) -> tuple[tuple[str, ...], float]:
    chain: list[str] = []
    following = [unit for unit in units if not unit.inputs]
    while following:
        longest = max(following, key=lambda unit: whole[unit.name])
        chain.append(longest.name)
        following = [unit for unit in units if longest.name in unit.inputs]
    return tuple(chain), whole[chain[0]] if chain else 0.0
