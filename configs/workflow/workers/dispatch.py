"""Runs units in an order that ends the study soonest: whenever there is room, the one with the longest way to its end.

In: the units to be done and `Workers`, which know how to do one somewhere (processes of this machine, Ray). Out: the
product of each, and events for a display. A worker that dies, or a file system that fails, costs a unit an attempt;
what a person must mend ends the units that need it, and no others.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from configs.errors import HangError, MagicError, Preempted, ResourceError
from configs.workflow.schedule import remaining_s
from configs.workflow.units import Unit

ATTEMPTS = 4
FIRST_PAUSE_S = 1.0
"""Before a unit is tried again; four times as long before the next."""
TICK_S = 1.0


class WorkerDied(Exception):
    """What ran a unit ended before the unit did: killed, out of memory, its machine gone. Another may fare better."""


class Workers(Protocol):
    patience_s: float
    """How long to wait for room where nothing is at work: machines of a cluster may come back."""

    def room(self, unit: Unit) -> bool:
        """Can the unit start now?"""
        ...

    def start(self, unit: Unit) -> Future[str]:
        """The fingerprint of its product, once it is there; the future raises WorkerDied or what the unit raised."""
        ...


@dataclass(frozen=True)
class Event:
    kind: Literal["started", "done", "retried", "failed", "tick"]
    unit: Unit | None = None
    product: str = ""
    seconds: float = 0.0
    error: BaseException | None = None


@dataclass
class _Board:
    """Where every unit stands."""

    waiting: dict[str, set[str]]
    """Unit -> inputs that are not there yet."""
    ready: list[Unit] = field(default_factory=list)
    running: dict[Future[str], tuple[Unit, float]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    """Unit -> time before which it is not tried again."""
    failed: dict[str, BaseException] = field(default_factory=dict)
    idle_since: float | None = None
    """Nothing is at work, though something could be if there were room for it."""


def dispatch(
    units: Sequence[Unit],
    workers: Workers,
    weight: Mapping[str, float],
    tell: Callable[[Event], None],
    pause_s: float = FIRST_PAUSE_S,
) -> dict[str, BaseException]:
    """Do all units; returns those that failed with their errors, which leave undone whatever needs them.

    units: each behind its inputs; an input that is not among them is there already. weight: how long each takes, on any
    scale. tell: is called in this thread, also about once a second while nothing happens. Raises ResourceError for a
    unit that there will never be room for.
    """
    names = {unit.name for unit in units}
    far = remaining_s([_within(unit, names) for unit in units], weight)
    board = _Board({unit.name: set(unit.inputs) & names for unit in units})
    board.ready = [unit for unit in units if not board.waiting[unit.name]]
    while board.ready or board.running:
        now = time.monotonic()
        _start(board, workers, far, tell, now)
        _check_room(board, workers.patience_s, now)
        if board.running:
            done, _ = wait(board.running, timeout=TICK_S, return_when=FIRST_COMPLETED)
        else:  # all that is ready pauses, or its worker is being replaced
            done = set()
            time.sleep(min(TICK_S, pause_s))
        for future in done:
            _finish(board, future, units, pause_s, tell)
        tell(Event("tick"))
    return board.failed


def _check_room(board: _Board, patience_s: float, now: float) -> None:
    """Raises ResourceError where nothing is at work, and there has been no room for what is ready for so long."""
    if not board.ready or board.running or any(until > now for until in board.paused.values()):
        board.idle_since = None
        return
    board.idle_since = board.idle_since or now
    if now - board.idle_since >= patience_s:
        unit = board.ready[0]
        waited = f"; waited {patience_s:.0f} s for more" if patience_s else ""
        raise ResourceError(
            f"{unit.name} needs {unit.gpus} GPUs at once, and there are fewer{waited}",
            hint="scales.<scale>.gpus=N: how many one training works on; 0: CPUs alone, for precision: fp32",
        )


def _within(unit: Unit, names: set[str]) -> Unit:
    return replace(unit, inputs=tuple(name for name in unit.inputs if name in names))


def _start(
    board: _Board, workers: Workers, far: Mapping[str, float], tell: Callable[[Event], None], now: float
) -> None:
    for unit in sorted(board.ready, key=lambda unit: -far[unit.name]):
        if board.paused.get(unit.name, 0.0) > now or not workers.room(unit):
            continue
        board.paused.pop(unit.name, None)
        board.ready.remove(unit)
        board.running[workers.start(unit)] = unit, now
        tell(Event("started", unit))


def _finish(
    board: _Board, future: Future[str], units: Sequence[Unit], pause_s: float, tell: Callable[[Event], None]
) -> None:
    unit, began = board.running.pop(future)
    error, seconds = future.exception(), time.monotonic() - began
    if error is None:
        tell(Event("done", unit, future.result(), seconds))
        for other in units:
            if unit.name in board.waiting[other.name]:
                board.waiting[other.name].discard(unit.name)
                if not board.waiting[other.name]:
                    board.ready.append(other)
        return
    tried = board.attempts[unit.name] = board.attempts.get(unit.name, 0) + 1
    if tried < ATTEMPTS and may_pass(error):
        # Longer each time: a file system or a machine that has gone may need a minute to come back.
        board.paused[unit.name] = time.monotonic() + pause_s * 4 ** (tried - 1)
        board.ready.append(unit)
        tell(Event("retried", unit, seconds=seconds, error=error))
        return
    board.failed[unit.name] = error
    tell(Event("failed", unit, seconds=seconds, error=error))


def format_error(error: BaseException) -> str:
    """The error as a line for people. Errors that are not addressed to a user are preceded by their type."""
    return (
        str(error) if isinstance(error, (MagicError, WorkerDied)) and str(error) else f"{type(error).__name__}: {error}"
    )


def may_pass(error: BaseException) -> bool:
    """Could the same unit end well elsewhere, or a little later?"""
    if isinstance(error, OSError):
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, (WorkerDied, Preempted, HangError))
