"""Examples of unequal length as full rows: which example goes into which row, and where each begins in it.

In: the lengths of the examples of an optimizer step. Out: the examples of each row, and for a row its `Segments`, by
which attention and positions treat every example as if it stood alone. Why: conversations are mostly short, and in a
batch padded to the longest most of the work is done on padding.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """A row cut into stretches, in order and without gaps; a token sees those before it in its own stretch only."""

    boundaries: Tensor
    """int32 [segments + 1]: segment i is tokens boundaries[i] to boundaries[i + 1]."""
    slots: Tensor
    """int64 [tokens]: the place of each token among segments x longest, where each segment is padded to the longest."""
    longest: int
    """Tokens of the longest segment."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Segments:
        """Segments of these lengths, in tokens, each at least 1."""
        longest = max(lengths)
        ends = np.cumsum(lengths)
        # Each segment moves to the right by the padding of those before it.
        shifts = longest * np.arange(len(lengths)) - (ends - lengths)
        slots = np.arange(ends[-1]) + np.repeat(shifts, lengths)
        boundaries = np.concatenate([[0], ends]).astype(np.int32)
        return cls(torch.from_numpy(boundaries), torch.from_numpy(slots), longest)

    @property
    def count(self) -> int:
        return len(self.boundaries) - 1

    @property
    def positions(self) -> Tensor:
        """int64 [tokens]: 0, 1, ... from the beginning of each segment."""
        return self.slots % self.longest


def pack(lengths: Sequence[int], row_tokens: int, multiple: int) -> list[list[int]]:
    """The examples of each row, by their number: whole ones, at most `row_tokens` tokens in a row.

    As few rows as a multiple of `multiple` allows, about equally full: the longest example first, into the row with
    least in it (Graham's longest processing time rule, SIAM J. Appl. Math. 17, 1969). A row may stay empty.
    """
    assert max(lengths) <= row_tokens, "no example is longer than a row"
    count = _round_up(-(-sum(lengths) // row_tokens), multiple)
    while (rows := _spread(lengths, row_tokens, count)) is None:
        count += multiple
    return rows


def _spread(lengths: Sequence[int], row_tokens: int, count: int) -> list[list[int]] | None:
    """The examples over `count` rows; None where one does not fit."""
    rows: list[list[int]] = [[] for _ in range(count)]
    by_tokens = [(0, number) for number in range(count)]
    for example in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        tokens, number = by_tokens[0]
        if tokens + lengths[example] > row_tokens:
            return None
        heapq.heapreplace(by_tokens, (tokens + lengths[example], number))
        rows[number].append(example)
    return rows


def padding(tokens: int, multiple: int, row_tokens: int) -> int:
    """Tokens that fill a row up to a multiple, or to `row_tokens` where that is less; an empty row gets some too."""
    return min(_round_up(max(tokens, 1), multiple), row_tokens) - tokens


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
