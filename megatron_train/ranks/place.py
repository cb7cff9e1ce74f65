"""Where the training thread of this rank stands, told by the loop and read by the watchdog's thread.

In: `at`, called at each phase of a step. Out: `current`. A module of its own, so that whoever waits for other ranks can
say so without knowing the watchdog.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

PHASES = ("start", "data", "forward and backward", "update", "log", "validation", "export", "checkpoint", "end")
"""Phases of a step, in the order in which a rank goes through them."""


class RankPlace(NamedTuple):
    """Where a rank stands; a later place is greater."""

    step: int = 0
    phase: int = 0
    """Index into PHASES."""
    calls: int = 0
    """Calls of `at` since the phase began, e.g. micro-batches."""
    waits: bool = False
    """It has done its part and waits at a barrier."""

    def __str__(self) -> str:
        return f"step {self.step}, {PHASES[self.phase]}"


START = RankPlace()
_place = START


def current() -> RankPlace:
    return _place


def reset() -> None:
    """A new run begins in this process."""
    global _place
    _place = START


def at(step: int, phase: str) -> None:
    """The training thread begins `phase` of `step`, or is alive in it; costs a microsecond or two."""
    global _place
    number = PHASES.index(phase)
    _place = RankPlace(step, number, _place.calls + 1 if _place[:2] == (step, number) else 0)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """While this lasts, the rank only waits for others."""
    global _place
    _place = _place._replace(waits=True)
    try:
        yield
    finally:
        _place = _place._replace(waits=False)
