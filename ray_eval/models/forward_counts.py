"""What scoring took: a few numbers that units report and that add up to those of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class ForwardCounts:
    """What was computed; adds up over units."""

    tokens: int = 0
    """Fed to the model, those of near-ties included, padding excluded."""
    padding: int = 0
    heads: int = 0
    """Places that went through the output layer."""
    near_ties: int = 0
    """Examples scored a second time."""

    def __add__(self, other: ForwardCounts) -> ForwardCounts:
        return ForwardCounts(*map(sum, zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


NOTHING = ForwardCounts()
