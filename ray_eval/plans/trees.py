"""Token sequences to rows that feed every shared beginning once.

A row is one forward pass over a tree of sequences, laid out depth first: where two sequences begin alike, their common
tokens stand there once, followed by what either goes on with. `ends[k]` is the place behind the last token that
descends from the token at place k, so the token at place q sees the one at place k exactly if k <= q < ends[k]. A
token's position is its depth. A sequence's last token is only predicted, never fed, so alternatives of one token add
nothing to a row.

Sequences are taken in lexicographic order, in which those that share most are neighbours: the candidates of an
example, and examples about one passage.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_eval.plans.encoding import Scored

ROW_TOKENS = 512
"""Longest row with branches, or twice what they have in common, if that is more: masks are quadratic in it."""
BALANCE_TOKENS = 512
"""Row length at which attention is taken to cost as much as the rest of a layer. At hidden 64 on a CPU it is half of
this, for large models far more."""

Ints = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class TokenRows:
    """R rows as flat arrays; `x_offsets[r]:x_offsets[r + 1]` are the entries of row r."""

    token_offsets: Offsets
    """[R + 1] over tokens, positions, ends."""
    tokens: Ints
    positions: Ints
    ends: Ints
    """Place in the row behind the token's last descendant."""
    head_offsets: Offsets
    """[R + 1] over heads."""
    heads: Ints
    """Places in the row whose next-token distribution is needed, each once, ascending."""
    target_offsets: Offsets
    """[R + 1] over the three columns of targets."""
    target_token: Ints
    target_head: Ints
    """Which of the row's heads predicts it."""
    target_sequence: Ints
    """Sequence to whose log-probability it adds; of each sequence the tokens come in order, in one row."""

    @property
    def lengths(self) -> Offsets:
        """Tokens of each row, [R]."""
        return np.diff(self.token_offsets)

    @functools.cached_property
    def branched(self) -> NDArray[np.bool_]:
        """[R]: a token is seen by less than all that follow it; plain causal attention does not do."""
        short = self.ends < np.repeat(self.lengths, self.lengths)
        return np.logical_or.reduceat(short, self.token_offsets[:-1])

    def sequences(self, wanted: NDArray[np.integer[Any]]) -> list[Scored]:
        """Some sequences as they were laid out, each whole."""
        found = []
        by_sequence = np.argsort(self.target_sequence, kind="stable")
        numbers = self.target_sequence[by_sequence]
        starts, stops = np.searchsorted(numbers, wanted, "left"), np.searchsorted(numbers, wanted, "right")
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            targets = by_sequence[start:stop]
            row = int(np.searchsorted(self.target_offsets, targets[-1], "right")) - 1
            begin = self.token_offsets[row]
            last = self.heads[self.head_offsets[row] + self.target_head[targets[-1]]]
            path = np.flatnonzero(self.ends[begin : begin + last + 1] > last)
            ids = np.append(self.tokens[begin + path], self.target_token[targets[-1]])
            found.append(Scored(ids, len(targets), truncated=False))
        return found


def lay_out(sequences: Sequence[Scored], first: int = 0, *, share: bool = True) -> TokenRows:
    """Rows of distinct sequences, numbered from `first`; share=False gives each a row of its own."""
    fed = [scored.ids[:-1] for scored in sequences]
    order = sorted(range(len(fed)), key=lambda i: fed[i].astype(">i4").tobytes())
    shared = _shared_with_previous([fed[i] for i in order]).tolist() if share else [0] * len(order)

    tokens, positions, ends = (np.empty(sum(map(len, fed)), np.int32) for _ in range(3))
    path = np.empty(max(map(len, fed)), np.int64)  # where the current sequence's token of each depth lies
    depth = total = row = 0  # tokens of the current sequence; laid out; laid out before this row
    row_starts: list[int] = []
    places: list[NDArray[np.int64]] = []
    for i, common in zip(order, shared, strict=True):
        length = len(fed[i])
        if not _joins(common, total - row, length - common):
            ends[path[:depth]] = total - row
            row_starts.append(row := total)
            depth = common = 0
        ends[path[common:depth]] = total - row
        stop = total + length - common
        path[common:length] = np.arange(total, stop)
        tokens[total:stop] = fed[i][common:]
        positions[total:stop] = np.arange(common, length)
        places.append(path[length - sequences[i].num_targets : length].copy())
        depth, total = length, stop
    ends[path[:depth]] = total - row

    token_offsets = np.array([*row_starts, total], np.int64)
    target_places = np.concatenate(places)
    heads, target_head = np.unique(target_places, return_inverse=True)
    head_offsets = np.searchsorted(heads, token_offsets)
    row_of_target = np.searchsorted(token_offsets, target_places, "right") - 1
    return TokenRows(
        token_offsets=token_offsets,
        tokens=tokens[:total].copy(),
        positions=positions[:total].copy(),
        ends=ends[:total].copy(),
        head_offsets=head_offsets,
        heads=(heads - np.repeat(token_offsets[:-1], np.diff(head_offsets))).astype(np.int32),
        target_offsets=np.searchsorted(row_of_target, np.arange(len(token_offsets))),
        target_token=np.concatenate([sequences[i].ids[-sequences[i].num_targets :] for i in order]).astype(np.int32),
        target_head=(target_head - head_offsets[row_of_target]).astype(np.int32),
        target_sequence=np.repeat(
            np.array(order, np.int32) + np.int32(first), [sequences[i].num_targets for i in order]
        ),
    )


def concatenate(parts: Sequence[TokenRows]) -> TokenRows:
    """The rows of all parts, part after part."""
    joined: dict[str, NDArray[Any]] = {}
    for field in dataclasses.fields(TokenRows):
        arrays = [getattr(part, field.name) for part in parts]
        if field.name.endswith("offsets"):
            counts = np.concatenate([np.diff(offsets) for offsets in arrays])
            joined[field.name] = np.concatenate([[0], np.cumsum(counts)])
        else:
            joined[field.name] = np.concatenate(arrays)
    return TokenRows(**joined)


def _joins(common: int, length: int, branch: int) -> bool:
    """Is a sequence cheaper as a branch of a row of `length` tokens than in a row of its own?

    It shares `common` tokens with the row and adds `branch`. With cost(n) = n + n^2 / BALANCE_TOKENS:
    cost(length + branch) - cost(length) <= cost(common + branch).
    """
    cheaper = 2 * length * branch <= common * (BALANCE_TOKENS + common + 2 * branch)
    return common > 0 and cheaper and (branch == 0 or length + branch <= max(ROW_TOKENS, 2 * common))


def _shared_with_previous(lists: Sequence[Ints]) -> Offsets:
    """Number of leading tokens that each list shares with the one before it; 0 for the first."""
    lengths = np.array([len(ids) for ids in lists])
    flat = np.concatenate(lists)
    starts = np.cumsum(lengths) - lengths
    compared = np.minimum(lengths[1:], lengths[:-1])
    begins = np.cumsum(compared) - compared
    within = np.arange(compared.sum()) - np.repeat(begins, compared)
    same = flat[np.repeat(starts[1:], compared) + within] == flat[np.repeat(starts[:-1], compared) + within]
    differing = np.where(same, np.iinfo(np.int64).max, within)
    first = np.minimum.reduceat(differing, begins) if len(compared) else compared
    return np.concatenate([[0], np.minimum(first, compared)])
